"""Every transport against its suite: the real one on a real nats-server, and the twin in memory."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from nats_process import NatsProcess
from registered import ProviderName, create

from liftbridge.interfaces.provider import Seam
from liftbridge.interfaces.transport import Transport
from liftbridge.testing.transport_suite import MakeTransport, TransportSuite


@pytest.fixture(scope="module")
def nats_url() -> Iterator[str]:
    server = NatsProcess()
    server.start()
    yield server.url
    server.stop()


class TestMemory(TransportSuite):
    provider: ClassVar[ProviderName] = (Seam.TRANSPORT, "memory")

    @pytest.fixture
    async def make_transport(self, tmp_path: Path) -> AsyncIterator[MakeTransport]:
        transports: list[Transport] = []

        async def make(server_id: str) -> Transport:
            transport: Transport = create(self.provider, tmp_path, namespace=str(tmp_path), server_id=server_id)
            transports.append(transport)
            await transport.start()
            return transport

        yield make
        for transport in transports:
            await transport.stop()


class TestNats(TransportSuite):
    provider: ClassVar[ProviderName] = (Seam.TRANSPORT, "nats")

    @pytest.fixture
    async def make_transport(self, nats_url: str, tmp_path: Path) -> AsyncIterator[MakeTransport]:
        transports: list[Transport] = []
        settings = {"transport.nats.servers": (nats_url,)}

        async def make(server_id: str) -> Transport:
            transport: Transport = create(self.provider, tmp_path, settings, server_id=server_id)
            transports.append(transport)
            await transport.start()
            return transport

        yield make
        for transport in transports:
            await transport.stop()
