"""When what is queued for a client is written: answers in the turn of the event loop that has them, acks and credit with them."""

import asyncio
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, Event, PingAckReceived, SettingsAcknowledged, StreamEnded
from h2.settings import SettingCodes, Settings

from liftbridge.clock import SystemClock
from liftbridge.protocol.generated import api_pb2 as api
from liftbridge.testing.scripted_broker import ScriptedBroker, frame
from liftbridge_endpoint_grpc import client_connection
from liftbridge_endpoint_grpc.server import GrpcEndpoint
from liftbridge_endpoint_grpc.server_settings import ServerSettings

#: A window, and what a client reads of it before it gives more.
_SMALL, _STEP = 1000, 200


class Pipe(asyncio.Transport):
    """A socket without the socket."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "socket": _NoSocket()})
        self.written = bytearray()
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += data

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close


class _NoSocket:
    def setsockopt(self, *_: int) -> None:
        pass


class Client:
    """The other end of the pipe; ``soon`` is what is there when this turn of the event loop has done all it wants to."""

    def __init__(self, broker: ScriptedBroker, window_bytes: int = 65_535) -> None:
        self.pipe = Pipe()
        self.connection = GrpcEndpoint(broker, ServerSettings("127.0.0.1", 0), SystemClock()).new_connection()
        self.connection.connection_made(self.pipe)
        self.h2 = H2Connection(H2Configuration(header_encoding="utf-8"))
        self.h2.local_settings = Settings(initial_values={SettingCodes.INITIAL_WINDOW_SIZE: window_bytes})
        self.h2.initiate_connection()

    def call(self, stream_id: int, path: str, request: Any) -> None:
        headers = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "localhost"}
        self.h2.send_headers(stream_id, [*headers.items(), ("content-type", "application/grpc"), ("te", "trailers")])
        self.h2.send_data(stream_id, frame(request), end_stream=True)

    def send(self) -> None:
        """In one read of the server's."""
        self.connection.data_received(self.h2.data_to_send())

    def read(self) -> list[Event]:
        written = bytes(self.pipe.written)
        self.pipe.written.clear()
        return self.h2.receive_data(written)

    async def soon(self) -> list[Event]:
        await asyncio.sleep(0)
        return self.read()

    async def until(self, kind: type[Event]) -> list[Event]:
        async with asyncio.timeout(5):
            events: list[Event] = []
            while not any(isinstance(event, kind) for event in events):
                await asyncio.sleep(0.001)
                events += self.read()
        return events


@pytest.fixture(autouse=True)
def _without_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_connection, "_ANSWER_WAIT_S", 3600.0)
    monkeypatch.setattr(client_connection, "_PING_ACK_WAIT_S", 3600.0)


@pytest.fixture
def broker() -> ScriptedBroker:
    return ScriptedBroker()


async def subscriber(broker: ScriptedBroker) -> Client:
    """Who has a message larger than its window, and has read nothing of it yet."""
    left = [frame(api.Message(value=b"x" * 5 * _SMALL))]

    async def source() -> bytes:
        return left.pop() if left else b""

    broker.source = source
    client = Client(broker, _SMALL)
    client.call(1, "/proto.API/Subscribe", api.SubscribeRequest(stream="s"))
    client.send()
    events = await client.until(DataReceived)
    while sum(_sizes(events)) < _SMALL:
        events += await client.until(DataReceived)
    return client


def _sizes(events: list[Event]) -> list[int]:
    return [len(event.data) for event in events if isinstance(event, DataReceived)]


async def test_what_waited_for_a_window_leaves_in_the_turn_that_opens_it(broker: ScriptedBroker) -> None:
    client = await subscriber(broker)
    for _ in range(5):
        client.h2.increment_flow_control_window(_STEP, stream_id=1)
        client.send()
        assert _sizes(await client.soon()) == [_STEP]


async def test_what_waited_for_larger_windows_leaves_in_the_turn_that_sets_them(broker: ScriptedBroker) -> None:
    client = await subscriber(broker)
    client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 100 * _SMALL})
    client.send()
    events = await client.soon()
    assert sum(_sizes(events)) > 4 * _SMALL
    assert any(isinstance(event, StreamEnded) for event in events), "the trailers are behind it"


async def test_what_waited_for_the_window_of_the_connection_leaves_in_the_turn_that_opens_it(
    broker: ScriptedBroker,
) -> None:
    left = [frame(api.Message(value=b"x" * 65_000)), frame(api.Message(value=b"x" * 1000))]

    async def source() -> bytes:
        return left.pop(0) if left else b""

    broker.source = source
    client = Client(broker, 1 << 20)
    client.call(1, "/proto.API/Subscribe", api.SubscribeRequest(stream="s"))
    client.send()
    events = await client.until(DataReceived)
    while sum(_sizes(events)) < 65_535:
        events += await client.until(DataReceived)
    client.h2.increment_flow_control_window(_STEP)
    client.send()
    assert _sizes(await client.soon()) == [_STEP]


async def test_a_rejected_call_is_answered_in_the_same_turn(broker: ScriptedBroker) -> None:
    client = Client(broker)
    client.call(1, "/proto.API/NoSuchMethod", api.CreateStreamRequest())
    client.send()
    assert any(isinstance(event, StreamEnded) for event in await client.soon())


async def test_who_breaks_a_rule_hears_so_at_once(broker: ScriptedBroker) -> None:
    client = Client(broker)
    client.connection.data_received(b"GET / HTTP/1.1\r\n\r\n")
    assert any(isinstance(event, ConnectionTerminated) for event in client.read())
    assert client.pipe.closed


async def test_acks_of_settings_wait_for_an_answer_to_travel_with(broker: ScriptedBroker) -> None:
    client = Client(broker)
    client.call(1, "/proto.API/CreateStream", api.CreateStreamRequest(name="s"))
    client.send()
    client.read()
    events = await client.until(StreamEnded)
    assert SettingsAcknowledged in {type(event) for event in events}


async def test_a_ping_is_acknowledged_behind_the_data_of_the_next_moment(
    broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that estimates its window by pings counts the data that comes before the ack."""
    monkeypatch.setattr(client_connection, "_PING_ACK_WAIT_S", 0.05)
    client = await subscriber(broker)
    client.h2.ping(b"12345678")
    events: list[Event] = []
    for _ in range(3):
        client.h2.increment_flow_control_window(_STEP, stream_id=1)
        client.send()
        events += await client.soon()
    assert [type(event) for event in events] == [DataReceived] * 3
    async with asyncio.timeout(5):
        while not client.connection.http2.output:  # it has waited long enough, and travels with the next answer
            await asyncio.sleep(0.001)
    client.h2.increment_flow_control_window(_STEP, stream_id=1)
    client.send()
    assert {type(event) for event in await client.soon()} == {DataReceived, PingAckReceived}


async def test_they_do_not_wait_for_ever(broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_connection, "_ANSWER_WAIT_S", 0.002)
    monkeypatch.setattr(client_connection, "_PING_ACK_WAIT_S", 0.008)
    client = Client(broker)
    client.h2.ping(b"12345678")
    client.send()
    assert not any(isinstance(event, PingAckReceived) for event in await client.soon())
    await client.until(PingAckReceived)
