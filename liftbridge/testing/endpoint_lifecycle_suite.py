"""What every endpoint must do, whoever it is for: be bound, be alone on its port, end. For an endpoint that clients use, run
:class:`~liftbridge.testing.endpoint_suite.EndpointSuite`, which holds this; for one with the capability ``FOR_OPERATORS``
subclass this, give it ``endpoint``, and run pytest with pytest-asyncio in auto mode."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from liftbridge.interfaces.endpoint import Endpoint
from liftbridge.testing.scripted_broker import ScriptedBroker

_TIMEOUT_S = 10.0


class EndpointLifecycleSuite:
    """The tests. ``endpoint`` must be overridden."""

    @pytest.fixture
    def broker(self) -> ScriptedBroker:
        return ScriptedBroker()

    @pytest.fixture
    def endpoint(self, broker: ScriptedBroker) -> Endpoint:
        raise NotImplementedError("override the fixture endpoint: not started, on any free port, serving this broker")

    @pytest.fixture
    async def started(self, endpoint: Endpoint) -> AsyncIterator[Endpoint]:
        await endpoint.start()
        endpoint.set_serving(True)
        yield endpoint
        await endpoint.stop(grace_s=0.1)

    async def test_the_port_is_known_after_start(self, started: Endpoint) -> None:
        assert 0 < started.port < 65_536
        assert started.advertised_host

    async def test_an_address_may_be_taken_before_it_is_served(self, endpoint: Endpoint) -> None:
        await endpoint.bind()
        await endpoint.start()
        assert 0 < endpoint.port < 65_536
        await endpoint.stop(grace_s=0.1)

    async def test_an_address_that_is_never_served_is_given_back(self, endpoint: Endpoint) -> None:
        await endpoint.bind()
        await endpoint.stop(grace_s=0.1)
        await endpoint.stop(grace_s=0.1)

    async def test_it_can_be_connected_to(self, started: Endpoint) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", started.port)
        writer.close()

    async def test_nobody_can_connect_after_stopping_which_is_idempotent(self, started: Endpoint) -> None:
        await started.stop(grace_s=0.1)
        await started.stop(grace_s=0.1)
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", started.port)

    async def test_connections_without_a_request_do_not_hold_up_stopping(self, started: Endpoint) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", started.port)
        async with asyncio.timeout(_TIMEOUT_S / 2):
            await started.stop(grace_s=_TIMEOUT_S)
            try:
                while await reader.read(1024):
                    pass
            except ConnectionError:
                pass
        writer.close()
