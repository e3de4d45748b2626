"""Stopping while clients are busy, as grpcio sees it and as it is on the wire; and clients that ping to see who is there."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, Event, PingAckReceived, StreamEnded, StreamReset

from liftbridge.clock import SystemClock
from liftbridge.protocol.generated import api_pb2 as api
from liftbridge.testing.scripted_broker import ScriptedBroker, frame
from liftbridge_endpoint_grpc.http2.limits import ConnectionLimits
from liftbridge_endpoint_grpc.server import GrpcEndpoint
from liftbridge_endpoint_grpc.server_settings import ServerSettings

Connectivity = grpc.ChannelConnectivity


@pytest.fixture
def broker() -> ScriptedBroker:
    return ScriptedBroker()


@pytest.fixture
async def endpoint(broker: ScriptedBroker) -> AsyncIterator[GrpcEndpoint]:
    settings = ServerSettings(
        host="127.0.0.1",
        port=0,
        advertised_host="127.0.0.1",
        max_message_bytes=1 << 20,
        max_connections=100,
        tls=None,
        limits=ConnectionLimits(),
    )
    endpoint = GrpcEndpoint(broker, settings, SystemClock())
    await endpoint.start()
    yield endpoint
    await endpoint.stop(grace_s=0.1)


class Gate:
    """A handler that says when it was reached, and goes on when it is told."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.open = asyncio.Event()

    async def __call__(self, request: Any, call: Any) -> Any:
        self.reached.set()
        await self.open.wait()
        return api.CreateStreamResponse()


@pytest.fixture
def gate(broker: ScriptedBroker) -> Gate:
    broker.answers["CreateStream"] = gate = Gate()
    return gate


def create_stream(channel: grpc.aio.Channel) -> Any:
    return channel.unary_unary(
        "/proto.API/CreateStream",
        request_serializer=api.CreateStreamRequest.SerializeToString,
        response_deserializer=api.CreateStreamResponse.FromString,
    )(api.CreateStreamRequest(name="s"), timeout=10)


def subscribe(channel: grpc.aio.Channel) -> Any:
    return channel.unary_stream(
        "/proto.API/Subscribe",
        request_serializer=api.SubscribeRequest.SerializeToString,
        response_deserializer=api.Message.FromString,
    )(api.SubscribeRequest(stream="s"))


# --- grpcio -----------------------------------------------------------------------------------------------------------


async def test_a_channel_leaves_a_draining_server_while_its_running_call_ends_well(
    endpoint: GrpcEndpoint, gate: Gate
) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{endpoint.port}") as channel:
        running = create_stream(channel)
        await gate.reached.wait()
        assert channel.get_state() is Connectivity.READY
        stopping = asyncio.ensure_future(endpoint.stop(grace_s=10))
        async with asyncio.timeout(5):
            await channel.wait_for_state_change(Connectivity.READY)  # it was told to go
        assert not running.done()
        gate.open.set()
        assert await running == api.CreateStreamResponse()
        async with asyncio.timeout(5):
            await stopping


async def test_subscriptions_end_unavailable_once_the_grace_is_over(
    endpoint: GrpcEndpoint, broker: ScriptedBroker
) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{endpoint.port}") as channel:
        calls = [subscribe(channel) for _ in range(20)]
        for call in calls:
            assert await call.read() == api.Message()
        await endpoint.stop(grace_s=0.1)
        for call in calls:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert all(one.closed.is_set() for one in broker.subscriptions)


async def test_a_new_call_finds_nobody_while_the_server_drains(endpoint: GrpcEndpoint, gate: Gate) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{endpoint.port}") as channel:
        running = create_stream(channel)
        await gate.reached.wait()
        stopping = asyncio.ensure_future(endpoint.stop(grace_s=10))
        async with asyncio.timeout(5):
            await channel.wait_for_state_change(Connectivity.READY)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await create_stream(channel)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        gate.open.set()
        await running
        await stopping


async def test_keepalive_pings_of_grpcio_keep_an_idle_subscription(
    endpoint: GrpcEndpoint, broker: ScriptedBroker
) -> None:
    """A server that takes pings for a flood ends the connection with "too_many_pings"."""
    more = asyncio.Event()

    async def source() -> bytes:
        await more.wait()
        more.clear()
        return frame(api.Message(offset=7))

    broker.source = source
    options = [
        ("grpc.keepalive_time_ms", 50),
        ("grpc.keepalive_timeout_ms", 1000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{endpoint.port}", options=options) as channel:
        call = subscribe(channel)
        assert await call.read() == api.Message()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await channel.wait_for_state_change(Connectivity.READY)
        more.set()
        assert (await call.read()).offset == 7
        call.cancel()


# --- on the wire ------------------------------------------------------------------------------------------------------


class WireClient:
    """An HTTP/2 client that keeps every event."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.h2 = H2Connection(H2Configuration(header_encoding="utf-8"))
        self.events: list[Event] = []

    @classmethod
    async def connect(cls, port: int) -> "WireClient":
        client = cls(*await asyncio.open_connection("127.0.0.1", port))
        client.h2.initiate_connection()
        return client

    def call(self, stream_id: int, method: str, request: Any) -> None:
        headers = {":method": "POST", ":scheme": "http", ":path": f"/proto.API/{method}", ":authority": "localhost"}
        self.h2.send_headers(stream_id, [*headers.items(), ("content-type", "application/grpc"), ("te", "trailers")])
        self.h2.send_data(stream_id, frame(request), end_stream=True)

    async def until(self, kind: type[Event]) -> Any:
        """The next event of that kind."""
        async with asyncio.timeout(5):
            while True:
                for event in self.events:
                    if isinstance(event, kind):
                        self.events.remove(event)
                        return event
                await self._exchange()

    async def _exchange(self) -> None:
        self._writer.write(self.h2.data_to_send())
        data = await self._reader.read(65_536)
        if not data:
            raise ConnectionError("the server hung up")
        self.events += self.h2.receive_data(data)

    async def closed(self) -> None:
        """Returns when the server hangs up."""
        async with asyncio.timeout(5):
            while await self._reader.read(65_536):
                pass
        self._writer.close()


async def test_goaway_comes_before_the_running_call_ends_and_the_connection_after_it(
    endpoint: GrpcEndpoint, gate: Gate
) -> None:
    client = await WireClient.connect(endpoint.port)
    client.call(1, "CreateStream", api.CreateStreamRequest(name="s"))
    client._writer.write(client.h2.data_to_send())
    await gate.reached.wait()
    stopping = asyncio.ensure_future(endpoint.stop(grace_s=10))
    goaway = await client.until(ConnectionTerminated)
    assert (goaway.error_code, goaway.last_stream_id >= 1) == (0, True)
    assert not any(isinstance(event, StreamEnded | StreamReset) for event in client.events)
    gate.open.set()
    await client.closed()
    async with asyncio.timeout(5):
        await stopping


async def test_each_ping_is_answered_with_its_own_bytes(endpoint: GrpcEndpoint) -> None:
    client = await WireClient.connect(endpoint.port)
    for number in range(50):
        client.h2.ping(number.to_bytes(8, "big"))
        answer = await client.until(PingAckReceived)
        assert answer.ping_data == number.to_bytes(8, "big")
    client._writer.close()
