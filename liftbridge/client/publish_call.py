"""The PublishAsync call on a connection of its own, through which messages pass by the hundred.

grpcio wakes a thread and the event loop for each message and each ack. Here one write carries what was published in a turn of the
event loop, and one read all acks that came meanwhile (decision 29). Every other call is grpcio's.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence
from ssl import SSLContext
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
from liftbridge.errors import InvalidRequest, RequestError, Unavailable

_PATH = "/proto.API/PublishAsync"
#: How much the server may send before it hears that it was read: acks are small, and read at once.
_WINDOW = 1 << 20
#: A connection is dead when what was sent has not even arrived after this time.
_DEAD_S = 20.0
#: Before each message: not compressed, and its length.
_PREFIX = 5
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class PublishCall(asyncio.Protocol):
    """Hands the bytes of responses to ``on_responses``, all that arrived together, and, once, what ended the call to
    ``on_end``."""

    def __init__(
        self,
        address: str,
        metadata: Sequence[tuple[str, str]],
        *,
        on_responses: Callable[[list[bytes]], None],
        on_end: Callable[[RequestError], None],
    ) -> None:
        self._address = address
        self._metadata = metadata
        self._on_responses = on_responses
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._http = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self._stream = 0
        self._transport: asyncio.Transport | None = None
        self._unsent = bytearray()
        self._on_sent: list[Callable[[], None]] = []
        self._received = bytearray()
        self._is_flushing = False
        self._is_paused = False
        self._over = asyncio.Event()

    async def connect(self, tls: SSLContext | None, server_name: str, timeout_s: float) -> None:
        """Raises Unavailable."""
        host, port = host_and_port(self._address)
        try:
            async with asyncio.timeout(timeout_s):
                await self._loop.create_connection(
                    lambda: self, host, port, ssl=tls, server_hostname=(server_name or host) if tls else None
                )
        except (OSError, TimeoutError) as error:
            cause = str(error) or "it doesn't answer"
            raise Unavailable(f"{self._address} can't be reached: {cause}") from None

    def send(self, request: bytes, on_sent: Callable[[], None] | None = None) -> None:
        """Never blocks. It leaves with all others of this turn of the event loop; ``on_sent`` is called when it left."""
        self._unsent += b"\0" + len(request).to_bytes(4, "big")
        self._unsent += request
        if on_sent is not None:
            self._on_sent.append(on_sent)
        if not self._is_flushing:
            self._is_flushing = True
            self._loop.call_soon(self._flush)

    async def finish(self, timeout_s: float) -> None:
        """Says that nothing follows, and waits until the server has read all that was sent, and ended the call."""
        if self._over.is_set():
            return
        self._http.end_stream(self._stream)
        self._flush()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._over.wait()

    def close(self) -> None:
        """Nobody hears of it. Idempotent."""
        self._over.set()
        if self._transport is not None:
            self._transport.abort()

    # --- what asyncio calls -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        _notice_dead_hosts(transport.get_extra_info("socket"))
        self._http.initiate_connection()
        self._http.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW, SettingCodes.ENABLE_PUSH: 0})
        self._http.increment_flow_control_window(_WINDOW)
        self._stream = self._http.get_next_available_stream_id()
        scheme = "https" if transport.get_extra_info("ssl_object") is not None else "http"
        headers = [(":method", "POST"), (":scheme", scheme), (":path", _PATH), (":authority", self._address)]
        headers += [("content-type", "application/grpc"), ("te", "trailers"), *self._metadata]
        self._http.send_headers(self._stream, headers)
        self._flush()

    def connection_lost(self, error: Exception | None) -> None:
        self._end(Unavailable(f"{self._address}: {error or 'the connection was closed'}"))

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        self._flush()

    def data_received(self, data: bytes) -> None:
        try:
            events = self._http.receive_data(data)
        except ProtocolError as error:
            self._end(Unavailable(f"{self._address} doesn't speak HTTP/2 as it should: {error}"))
            return
        for event in events:
            self._handle(event)
        if self._received:
            responses = list(self._whole_messages())
            if responses:
                self._on_responses(responses)
        self._flush()

    # ------------------------------------------------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        match event:
            case DataReceived():
                self._received += event.data
                self._http.acknowledge_received_data(event.flow_controlled_length, self._stream)
            case ResponseReceived() | TrailersReceived():
                self._take_status({str(name): str(value) for name, value in event.headers})
            case StreamReset() | ConnectionTerminated():
                self._end(Unavailable(f"{self._address} ended the connection"))
            case StreamEnded():
                self._end(Unavailable(f"{self._address} ended the call"))

    def _take_status(self, headers: dict[str, str]) -> None:
        if "grpc-status" in headers:
            code = _CODES.get(int(headers["grpc-status"]), grpc.StatusCode.UNKNOWN)
            if code is not grpc.StatusCode.OK:
                self._end(status_error(code, unquote(headers.get("grpc-message", "")), self._address))
        elif headers.get(":status", "200") != "200":
            self._end(Unavailable(f"{self._address} answers with HTTP status {headers[':status']}"))

    def _whole_messages(self) -> Iterator[bytes]:
        place, received = 0, self._received
        while len(received) >= place + _PREFIX:
            end = place + _PREFIX + int.from_bytes(received[place + 1 : place + _PREFIX], "big")
            if end > len(received):
                break
            yield bytes(received[place + _PREFIX : end])
            place = end
        del received[:place]

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
        self._transport.write(self._http.data_to_send())
        if not self._unsent and self._on_sent:
            sent, self._on_sent = self._on_sent, []
            for on_sent in sent:
                on_sent()

    def _end(self, error: RequestError) -> None:
        if not self._over.is_set():
            self.close()
            self._on_end(error)


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
