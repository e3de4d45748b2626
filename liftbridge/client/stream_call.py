"""A streaming gRPC call on a connection of its own, through which messages pass by the hundred.

grpcio wakes a thread and the event loop for each message. Here one write carries all requests of a turn of the event loop, and one
read brings all responses that came meanwhile (decision 29). Calls with one request and one response are grpcio's.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from ssl import SSLContext
from struct import Struct
from typing import cast
from urllib.parse import unquote

import grpc
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes

from liftbridge.client.failures import status_error
from liftbridge.errors import InternalError, InvalidRequest, RequestError, Unavailable

#: How many bytes the server may send before it hears that they were taken.
_WINDOW = 2 << 20
#: Of one DATA frame; each costs as much as several messages.
_FRAME = 256 << 10
#: A connection is dead when what was sent has not even arrived after this time.
_DEAD_S = 20.0
#: A server that sends nothing for so long is asked for a sign, and has as long again to give it.
_SILENT_S = 10.0
#: Before each message: whether it is compressed, and its length.
_PREFIX = Struct(">?I")
_CODES = {str(code.value[0]): code for code in grpc.StatusCode}
#: What gRPC takes other HTTP statuses than 200 for, where no status of its own comes.
_HTTP_CODES = {
    "400": grpc.StatusCode.INTERNAL,
    "401": grpc.StatusCode.UNAUTHENTICATED,
    "403": grpc.StatusCode.PERMISSION_DENIED,
    "404": grpc.StatusCode.UNIMPLEMENTED,
}


class StreamCall(asyncio.Protocol):
    """Hands responses to ``on_responses``, all that arrived together, in order and each once, and then, once, what ended the
    call to ``on_end``: None when the server says that all is well.

    The server sends no more than a window of 2 MiB, and what is missing of one response, beyond what the owner said to have
    taken by ``acknowledge``. A server that is silent for 10 s is asked whether it is there, and 10 s later the call ends with
    Unavailable."""

    def __init__(
        self,
        address: str,
        path: str,
        metadata: Sequence[tuple[str, str]],
        *,
        tls: SSLContext | None,
        server_name: str,
        on_responses: Callable[[list[bytes]], None],
        on_end: Callable[[RequestError | None], None],
    ) -> None:
        self._address = address
        self._path = path
        self._metadata = metadata
        self._tls = tls
        self._server_name = server_name
        self._on_responses = on_responses
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._http = H2Connection(H2Configuration(client_side=True, header_encoding=None))
        self._stream = 0
        self._transport: asyncio.Transport | None = None
        self._unsent = bytearray()
        self._on_sent: list[Callable[[], None]] = []
        self._sends_no_more = False
        self._has_ended_stream = False
        self._is_flushing = False
        self._is_paused = False
        #: The beginning of a response, until the rest of it comes.
        self._received = bytearray()
        #: Bytes that the owner has and didn't acknowledge; bytes that the server wasn't given credit for again.
        self._handed_over = 0
        self._owed = 0
        self._heard = False
        self._asked = False
        self._watch: asyncio.TimerHandle | None = None
        #: How the call ended, which is told when everything that came before was handed over.
        self._outcome: tuple[RequestError | None] | None = None
        self._over = asyncio.Event()

    async def connect(self, timeout_s: float) -> None:
        """Raises Unavailable."""
        host, port = host_and_port(self._address)
        name = (self._server_name or host) if self._tls is not None else None
        try:
            async with asyncio.timeout(timeout_s):
                await self._loop.create_connection(lambda: self, host, port, ssl=self._tls, server_hostname=name)
        except (OSError, TimeoutError) as error:
            cause = str(error) or "it doesn't answer"
            raise Unavailable(f"{self._address} can't be reached: {cause}") from None

    def send(self, request: bytes, on_sent: Callable[[], None] | None = None) -> None:
        """Never blocks. It leaves with all others of this turn of the event loop; ``on_sent`` is called when it left."""
        self._unsent += _PREFIX.pack(False, len(request))
        self._unsent += request
        if on_sent is not None:
            self._on_sent.append(on_sent)
        self._flush_soon()

    def send_no_more(self) -> None:
        """Tells the server that nothing follows. Idempotent."""
        self._sends_no_more = True
        self._flush_soon()

    async def finish(self, timeout_s: float) -> None:
        """Says that nothing follows, and waits until the server has read all that was sent, and ended the call."""
        self.send_no_more()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._over.wait()

    def acknowledge(self, responses: Sequence[bytes]) -> None:
        """The owner took these: the server may send as much again."""
        self._handed_over -= _framed_bytes(responses)
        self._give_credit()
        self._flush()

    def end(self, error: RequestError) -> None:
        """At once; the owner hears of it, if the call wasn't over before."""
        self._conclude(error)
        self._tell_end()

    def close(self) -> None:
        """Nobody hears of it. Idempotent."""
        self._over.set()
        if self._watch is not None:
            self._watch.cancel()
        if self._transport is not None:
            self._transport.abort()

    # --- what asyncio calls -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._over.is_set():  # closed while it connected
            self._transport.abort()
            return
        _notice_dead_hosts(transport.get_extra_info("socket"))
        self._http.initiate_connection()
        self._http.max_inbound_frame_size = _FRAME  # h2 would learn it with the read after the one that allows it
        self._http.update_settings(
            {
                SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW,
                SettingCodes.MAX_FRAME_SIZE: _FRAME,
                SettingCodes.ENABLE_PUSH: 0,
            }
        )
        self._http.increment_flow_control_window(_WINDOW)
        self._stream = self._http.get_next_available_stream_id()
        scheme = "https" if self._tls is not None else "http"
        headers = [(":method", "POST"), (":scheme", scheme), (":path", self._path), (":authority", self._address)]
        headers += [("content-type", "application/grpc"), ("te", "trailers"), *self._metadata]
        self._http.send_headers(self._stream, headers)
        self._flush()
        self._watch = self._loop.call_later(_SILENT_S, self._look_for_silence)

    def connection_lost(self, error: Exception | None) -> None:
        self.end(Unavailable(f"{self._address}: {error or 'the connection was closed'}"))

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        self._flush()

    def data_received(self, data: bytes) -> None:
        self._heard = True
        try:
            for event in self._http.receive_data(data):
                self._handle(event)
        except ProtocolError as error:
            self._conclude(Unavailable(f"{self._address} doesn't speak HTTP/2 as it should: {error}"))
        self._hand_over()
        self._tell_end()
        self._flush()

    # --- what comes ---------------------------------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        match event:
            case DataReceived():
                self._received += event.data
                self._owed += event.flow_controlled_length
            case ResponseReceived() | TrailersReceived():
                self._take_status({_text(name): _text(value) for name, value in event.headers})
            case StreamReset() | ConnectionTerminated():
                self._conclude(Unavailable(f"{self._address} ended the connection"))
            case StreamEnded():
                self._conclude(Unavailable(f"{self._address} ended the call"))

    def _take_status(self, headers: dict[str, str]) -> None:
        http_status = headers.get(":status", "200")
        if "grpc-status" in headers:
            code = _CODES.get(headers["grpc-status"], grpc.StatusCode.UNKNOWN)
            text = unquote(headers.get("grpc-message", ""))
            self._conclude(None if code is grpc.StatusCode.OK else status_error(code, text, self._address))
        elif http_status != "200":
            code = _HTTP_CODES.get(http_status, grpc.StatusCode.UNAVAILABLE)
            self._conclude(status_error(code, f"{self._address} answers with HTTP status {http_status}", self._address))

    def _hand_over(self) -> None:
        responses = self._whole_responses()
        if responses and not self._over.is_set():
            self._handed_over += _framed_bytes(responses)
            self._on_responses(responses)
        self._give_credit()

    def _whole_responses(self) -> list[bytes]:
        responses, place, size = [], 0, len(self._received)
        with memoryview(self._received) as received:
            while size >= place + _PREFIX.size:
                is_compressed, length = _PREFIX.unpack_from(received, place)
                if is_compressed:
                    self._conclude(InternalError(f"{self._address} sends what is compressed or no response at all"))
                    break
                begin = place + _PREFIX.size
                if size < begin + length:
                    break
                place = begin + length
                responses.append(bytes(received[begin:place]))
        del self._received[:place]
        return responses

    def _give_credit(self) -> None:
        """For what the owner took. A response that isn't whole is let in while nothing else waits: it may be larger than the
        window."""
        held = self._handed_over + len(self._received) if self._handed_over else 0
        if self._owed > held and not self._over.is_set():
            self._http.acknowledge_received_data(self._owed - held, self._stream)
            self._owed = held

    # --- what goes ----------------------------------------------------------------------------------------------------

    def _flush_soon(self) -> None:
        if not self._is_flushing:
            self._is_flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Writes as much as the server's window allows."""
        self._is_flushing = False
        if self._over.is_set() or self._transport is None:
            return
        while self._unsent and not self._is_paused:
            room = min(self._http.local_flow_control_window(self._stream), self._http.max_outbound_frame_size)
            if room <= 0:
                break
            self._http.send_data(self._stream, bytes(self._unsent[:room]))
            del self._unsent[:room]
        if self._sends_no_more and not self._unsent and not self._has_ended_stream:
            self._has_ended_stream = True
            self._http.end_stream(self._stream)
        self._transport.write(self._http.data_to_send())
        if not self._unsent and self._on_sent:
            sent, self._on_sent = self._on_sent, []
            for on_sent in sent:
                on_sent()

    # --- the end ------------------------------------------------------------------------------------------------------

    def _look_for_silence(self) -> None:
        """By SETTINGS, which a server has to acknowledge as it has a PING; but servers in Go hang up on who pings more often
        than every five minutes."""
        if self._asked and not self._heard:
            self.end(Unavailable(f"{self._address} is silent"))
            return
        self._asked = not self._heard
        if self._asked:
            self._http.update_settings({})
            self._flush()
        self._heard = False
        self._watch = self._loop.call_later(_SILENT_S, self._look_for_silence)

    def _conclude(self, error: RequestError | None) -> None:
        """The first one counts."""
        if self._outcome is None:
            self._outcome = (error,)

    def _tell_end(self) -> None:
        if self._outcome is not None and not self._over.is_set():
            self.close()
            self._on_end(*self._outcome)


def _framed_bytes(messages: Sequence[bytes]) -> int:
    return _PREFIX.size * len(messages) + sum(map(len, messages))


def _text(header: bytes | str) -> str:
    return header if isinstance(header, str) else header.decode(errors="replace")


def _notice_dead_hosts(connection: socket.socket | None) -> None:
    """As grpcio does where the system can."""
    if connection is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(_DEAD_S * 1000))


def host_and_port(address: str) -> tuple[str, int]:
    """Of ``host:port`` or ``[::1]:port``. Raises InvalidRequest."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise InvalidRequest(f"an address is host:port, not {address}")
    return host.removeprefix("[").removesuffix("]"), int(port)
