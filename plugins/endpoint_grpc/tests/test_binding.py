"""An address is taken before it is served."""

import asyncio

import pytest
import uvloop

from liftbridge.clock import SystemClock
from liftbridge.errors import ConfigError
from liftbridge.testing.scripted_broker import ScriptedBroker
from liftbridge_endpoint_grpc.server import GrpcEndpoint, ServerSettings


def make_endpoint(port: int = 0) -> GrpcEndpoint:
    return GrpcEndpoint(ScriptedBroker(), ServerSettings(host="127.0.0.1", port=port), SystemClock())


async def connects(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return False
    writer.close()
    return True


async def check_that_nobody_waits_before_the_start() -> None:
    endpoint = make_endpoint()
    await endpoint.bind()
    port = endpoint.port
    assert port
    assert not await connects(port)
    await endpoint.start()
    assert endpoint.port == port
    assert await connects(port)
    await endpoint.stop(grace_s=0)


async def check_that_an_address_in_use_is_found_at_once() -> None:
    first = make_endpoint()
    await first.start()
    second = make_endpoint(first.port)
    with pytest.raises(ConfigError, match=f"can't listen on 127.0.0.1:{first.port}: Address already in use"):
        await second.bind()
    port = first.port
    await first.stop(grace_s=0)
    await second.bind()
    assert second.port == port
    third = make_endpoint(port)
    await second.stop(grace_s=0)
    await third.start()
    await third.stop(grace_s=0)


@pytest.mark.parametrize(
    "check", [check_that_nobody_waits_before_the_start, check_that_an_address_in_use_is_found_at_once]
)
@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_on_either_event_loop(check: object, run: object) -> None:
    run(check())  # type: ignore[operator]
