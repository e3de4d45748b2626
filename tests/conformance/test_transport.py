"""Every transport against its suite: the real one on a real nats-server, and the twin in memory."""

from collections.abc import AsyncIterator, Iterator

import pytest
from nats_process import NatsProcess

from liftbridge.interfaces.transport import Transport
from liftbridge.testing.memory_transport import MemoryNetwork, MemoryTransport
from liftbridge.testing.transport_suite import MakeTransport, TransportSuite
from liftbridge_transport_nats.plugin import liftbridge_add_settings
from liftbridge_transport_nats.transport import NatsTransport


@pytest.fixture(scope="module")
def nats_url() -> Iterator[str]:
    server = NatsProcess()
    server.start()
    yield server.url
    server.stop()


class TestMemory(TransportSuite):
    @pytest.fixture
    async def make_transport(self) -> AsyncIterator[MakeTransport]:
        network = MemoryNetwork()
        transports: list[Transport] = []

        async def make(server_id: str) -> Transport:
            transport = MemoryTransport(network, server_id)
            transports.append(transport)
            await transport.start()
            return transport

        yield make
        for transport in transports:
            await transport.stop()


class TestNats(TransportSuite):
    @pytest.fixture
    async def make_transport(self, nats_url: str) -> AsyncIterator[MakeTransport]:
        transports: list[Transport] = []
        settings = {setting.name: setting.default for setting in liftbridge_add_settings()}
        settings["transport.nats.servers"] = (nats_url,)

        async def make(server_id: str) -> Transport:
            transport = NatsTransport(settings, namespace="suite", server_id=server_id)
            transports.append(transport)
            await transport.start()
            return transport

        yield make
        for transport in transports:
            await transport.stop()
