"""The client's own HTTP/2, against servers that do what real ones seldom do."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    Event,
    PingAckReceived,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    WindowUpdated,
)
from h2.settings import SettingCodes

from liftbridge.client import stream_call
from liftbridge.client.stream_call import StreamCall, host_and_port
from liftbridge.errors import (
    InternalError,
    InvalidRequest,
    PermissionDenied,
    RequestError,
    Unavailable,
    Unimplemented,
    UnknownError,
)

WINDOW = 2 << 20
HEADERS = [(":status", "200"), ("content-type", "application/grpc")]
Act = Callable[[H2Connection, int], object]


class Server(asyncio.Protocol):
    """Answers the request's headers by ``act``, with pieces of so many bytes, and keeps what it was sent."""

    def __init__(self, act: Act, *, window: int = 65535, piece: int = 65536) -> None:
        self._act = act
        self._piece = piece
        self.http = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self._window = window
        self.received = bytearray()
        self.has_everything = asyncio.Event()
        self.headers: dict[str, str] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.http.initiate_connection()
        self.http.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: self._window})
        self._send()

    def data_received(self, data: bytes) -> None:
        for event in self.http.receive_data(data):
            self.handle(event)
        self._send()

    def handle(self, event: Event) -> None:
        match event:
            case RequestReceived():
                self.headers = {str(name): str(value) for name, value in event.headers}
                self._act(self.http, event.stream_id)
            case DataReceived():
                self.received += event.data
                self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case StreamEnded():
                self.has_everything.set()

    def _send(self) -> None:
        data = self.http.data_to_send()
        for place in range(0, len(data), self._piece):
            self._transport.write(data[place : place + self._piece])


class Flood(Server):
    """Sends as much of ``data`` as it may. ``held_back`` is set when it may send no more, and the client has said whatever
    it says to what it has."""

    def __init__(self, data: bytes) -> None:
        super().__init__(self._begin)
        self._data = data
        self.sent = 0
        self.held_back = asyncio.Event()

    def _begin(self, http: H2Connection, stream: int) -> None:
        self._stream = stream
        http.send_headers(stream, HEADERS)
        self._pump()

    def handle(self, event: Event) -> None:
        super().handle(event)
        if isinstance(event, WindowUpdated) and event.stream_id:
            self._pump()
        elif isinstance(event, PingAckReceived):
            self.held_back.set()

    def _pump(self) -> None:
        while room := min(self.http.local_flow_control_window(self._stream), self.http.max_outbound_frame_size):
            piece = self._data[self.sent : self.sent + room]
            if not piece:
                return
            self.http.send_data(self._stream, piece)
            self.sent += len(piece)
        self.http.ping(b"held up!")


class Heard:
    """What a call told its owner."""

    def __init__(self) -> None:
        self.responses: list[bytes] = []
        self.ended = False
        self.error: RequestError | None = None
        self.changed = asyncio.Event()

    def take(self, responses: list[bytes]) -> None:
        assert not self.ended, "the end is told last"
        self.responses += responses
        self.changed.set()

    def end(self, error: RequestError | None) -> None:
        assert not self.ended, "an end is told once"
        self.ended, self.error = True, error
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


async def test_a_large_frame_may_come_together_with_the_word_that_it_may(listening: Callable) -> None:
    """The server's answer to our settings, and what they allow, in one read."""
    large = b"x" * 50_000

    def answer(http: H2Connection, stream: int) -> None:
        http.send_headers(stream, HEADERS)
        http.send_data(stream, framed(large))

    call, heard = await connected(await listening(Server(answer)))
    await heard.until(lambda: bool(heard.responses) or heard.ended)
    assert heard.responses == [large]
    call.close()


async def test_a_small_window_holds_back_what_is_sent_and_loses_nothing(listening: Callable) -> None:
    server = Server(lambda http, stream: http.send_headers(stream, HEADERS), window=10)
    call, _ = await connected(await listening(server))
    sent, messages = asyncio.Event(), [bytes([number]) * 400 for number in range(20)]
    for message in messages:
        call.send(message, sent.set)
    call.send_no_more()
    await asyncio.wait_for(server.has_everything.wait(), 5)
    assert sent.is_set()
    call.send_no_more()
    assert server.received == framed(*messages)
    call.close()


async def test_the_server_sends_no_more_than_a_window_beyond_what_was_taken(listening: Callable) -> None:
    server = Flood(framed(*[bytes(1000)] * 10_000))
    call, heard = await connected(await listening(server))
    for taken in range(4):
        await asyncio.wait_for(server.held_back.wait(), 5)
        assert server.sent == WINDOW * (taken + 1)
        server.held_back.clear()
        responses, heard.responses = heard.responses, []
        call.acknowledge(responses)
    call.close()


async def test_a_response_may_be_larger_than_the_window(listening: Callable) -> None:
    large = bytes(3 * WINDOW)
    call, heard = await connected(await listening(Flood(framed(b"first", large, b"last"))))
    await heard.until(lambda: bool(heard.responses))
    assert heard.responses[0] == b"first"
    call.acknowledge([b"first"])
    await heard.until(lambda: len(heard.responses) > 1)
    call.acknowledge([large])
    await heard.until(lambda: len(heard.responses) > 2)
    assert heard.responses == [b"first", large, b"last"]
    call.close()


async def test_what_came_with_the_end_is_handed_over_before_it(listening: Callable) -> None:
    def answer(http: H2Connection, stream: int) -> None:
        http.send_headers(stream, HEADERS)
        http.send_data(stream, framed(b"last"))
        http.send_headers(stream, [("grpc-status", "0")], end_stream=True)

    _, heard = await connected(await listening(Server(answer)))
    await heard.until(lambda: heard.ended)
    assert (heard.responses, heard.error) == ([b"last"], None)


async def test_a_server_that_falls_silent_is_noticed(listening: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_call, "_SILENT_S", 0.05)
    _, heard = await connected(await listening(asyncio.Protocol()))
    await heard.until(lambda: heard.ended)
    assert isinstance(heard.error, Unavailable)
    assert "silent" in str(heard.error)


async def test_a_server_that_has_nothing_to_say_but_answers_is_kept(
    listening: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_call, "_SILENT_S", 0.05)
    asked = asyncio.Semaphore(0)

    class Quiet(Server):
        def handle(self, event: Event) -> None:
            super().handle(event)
            if isinstance(event, RemoteSettingsChanged):
                asked.release()

    call, heard = await connected(await listening(Quiet(lambda http, stream: http.send_headers(stream, HEADERS))))
    for _ in range(6):
        await asyncio.wait_for(asked.acquire(), 5)
    assert not heard.ended
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
        pytest.param(
            lambda http, stream: http.send_headers(stream, [(":status", "401")], end_stream=True),
            PermissionDenied,
            "HTTP status 401",
            id="a proxy that wants credentials",
        ),
        pytest.param(
            lambda http, stream: http.send_headers(stream, [(":status", "404")], end_stream=True),
            Unimplemented,
            "HTTP status 404",
            id="a web server",
        ),
        pytest.param(
            lambda http, stream: http.send_headers(
                stream, [*HEADERS, ("grpc-status", "many"), ("grpc-message", b"%FF\xff")], end_stream=True
            ),
            UnknownError,
            "\ufffd",
            id="a status that is none",
        ),
        pytest.param(
            lambda http, stream: (
                http.send_headers(stream, HEADERS),
                http.send_data(stream, framed(b"a") + b"<html>"),
            ),
            InternalError,
            "no response",
            id="no response",
        ),
        pytest.param(
            lambda http, stream: (http.send_headers(stream, HEADERS), http.end_stream(stream)),
            Unavailable,
            "ended the call",
            id="no status",
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
