"""The publisher's own HTTP/2, against a server that does what real ones seldom do."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived
from h2.settings import SettingCodes

from liftbridge.client.stream_call import StreamCall, host_and_port
from liftbridge.errors import InvalidRequest, PermissionDenied, RequestError, Unavailable

HEADERS = [(":status", "200"), ("content-type", "application/grpc")]
Act = Callable[[H2Connection, int], None]


class Server(asyncio.Protocol):
    """Answers the request's headers by ``act``, with pieces of so many bytes, and keeps what it was sent."""

    def __init__(self, act: Act, *, window: int = 65535, piece: int = 65536) -> None:
        self._act = act
        self._piece = piece
        self._http = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self._window = window
        self.received = bytearray()
        self.headers: dict[str, str] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._http.initiate_connection()
        self._http.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: self._window})
        self._send()

    def data_received(self, data: bytes) -> None:
        for event in self._http.receive_data(data):
            if isinstance(event, RequestReceived):
                self.headers = {str(name): str(value) for name, value in event.headers}
                self._act(self._http, event.stream_id)
            elif isinstance(event, DataReceived):
                self.received += event.data
                self._http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        self._send()

    def _send(self) -> None:
        data = self._http.data_to_send()
        for place in range(0, len(data), self._piece):
            self._transport.write(data[place : place + self._piece])


class Heard:
    """What a call told its owner."""

    def __init__(self) -> None:
        self.responses: list[bytes] = []
        self.error: RequestError | None = None
        self.changed = asyncio.Event()

    def take(self, responses: list[bytes]) -> None:
        self.responses += responses
        self.changed.set()

    def end(self, error: RequestError | None) -> None:
        assert self.error is None, "an end is told once"
        self.error = error
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
async def listening() -> AsyncIterator[Callable[[Server], AsyncIterator[str]]]:
    servers = []

    async def listen(server: asyncio.Protocol) -> str:
        servers.append(await asyncio.get_running_loop().create_server(lambda: server, "127.0.0.1", 0))
        return f"127.0.0.1:{servers[-1].sockets[0].getsockname()[1]}"

    yield listen  # type: ignore[misc]
    for one in servers:
        one.close()


async def connected(address: str) -> tuple[StreamCall, Heard]:
    heard = Heard()
    call = StreamCall(
        address,
        "/proto.API/PublishAsync",
        [("authorization", "Bearer x")],
        tls=None,
        server_name="",
        on_responses=heard.take,
        on_end=heard.end,
    )
    await call.connect(5)
    return call, heard


def framed(*messages: bytes) -> bytes:
    return b"".join(b"\0" + len(message).to_bytes(4, "big") + message for message in messages)


@pytest.mark.parametrize("piece", [1, 7, 65536])
async def test_responses_come_whole_however_they_arrive(listening: Callable, piece: int) -> None:
    answers = [b"", b"first", b"x" * 3000]

    def answer(http: H2Connection, stream: int) -> None:
        http.send_headers(stream, HEADERS)
        http.send_data(stream, framed(*answers))

    server = Server(answer, piece=piece)
    call, heard = await connected(await listening(server))
    await heard.until(lambda: len(heard.responses) == 3)
    assert heard.responses == answers
    assert (server.headers[":path"], server.headers["authorization"]) == ("/proto.API/PublishAsync", "Bearer x")
    call.close()


async def test_a_small_window_holds_back_what_is_sent_and_loses_nothing(listening: Callable) -> None:
    server = Server(lambda http, stream: http.send_headers(stream, HEADERS), window=10)
    call, _ = await connected(await listening(server))
    sent, messages = asyncio.Event(), [bytes([number]) * 400 for number in range(20)]
    for message in messages:
        call.send(message, sent.set)
    await asyncio.wait_for(sent.wait(), 5)
    async with asyncio.timeout(5):
        while len(server.received) < 20 * 405:
            await asyncio.sleep(0.01)
    assert server.received == framed(*messages)
    call.close()


@pytest.mark.parametrize(
    ("act", "kind", "text"),
    [
        pytest.param(
            lambda http, stream: http.send_headers(
                stream, [*HEADERS, ("grpc-status", "16"), ("grpc-message", "who%20are you?")], end_stream=True
            ),
            PermissionDenied,
            "who are you",
            id="refused",
        ),
        pytest.param(
            lambda http, stream: http.send_headers(stream, [(":status", "503")], end_stream=True),
            Unavailable,
            "HTTP status 503",
            id="a proxy's answer",
        ),
        pytest.param(lambda http, stream: http.reset_stream(stream), Unavailable, "ended", id="reset"),
        pytest.param(lambda http, stream: http.close_connection(), Unavailable, "ended", id="goaway"),
    ],
)
async def test_however_a_call_ends_it_is_told_once_and_with_its_reason(
    listening: Callable, act: Act, kind: type[RequestError], text: str
) -> None:
    call, heard = await connected(await listening(Server(act)))
    await heard.until(lambda: heard.error is not None)
    assert isinstance(heard.error, kind)
    assert text in str(heard.error)
    call.send(b"into the void")
    await call.finish(1)


async def test_what_breaks_http2_is_an_error_that_says_so(listening: Callable) -> None:
    class Other(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            transport.write(b"\0\0\0\x04\0\0\0\0\x01")  # settings that belong to a stream

    _, heard = await connected(await listening(Other()))
    await heard.until(lambda: heard.error is not None)
    assert isinstance(heard.error, Unavailable)
    assert "HTTP/2" in str(heard.error)


async def test_nobody_there_is_unavailable() -> None:
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1 can't be reached"):
        await connected("127.0.0.1:1")


def test_addresses() -> None:
    assert host_and_port("localhost:9292") == ("localhost", 9292)
    assert host_and_port("[::1]:9292") == ("::1", 9292)
    for wrong in ("localhost", "localhost:", ":9292", "localhost:http"):
        with pytest.raises(InvalidRequest, match="host:port"):
            host_and_port(wrong)
