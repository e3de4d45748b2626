"""One client's socket: HTTP/2 between it and the calls, and when what is queued is written."""

import asyncio
import logging
import socket
from typing import Any, cast

from liftbridge.broker.api import CallContext
from liftbridge.clock import Clock
from liftbridge.errors import Status
from liftbridge_endpoint_grpc.calls import Call, outcome_of
from liftbridge_endpoint_grpc.framing import MessageReader
from liftbridge_endpoint_grpc.http2.connection import Http2Connection
from liftbridge_endpoint_grpc.http2.events import (
    ConnectionEnded,
    DataReceived,
    Drained,
    RequestReceived,
    StreamEnded,
    StreamReset,
)
from liftbridge_endpoint_grpc.http2.headers import encode_headers
from liftbridge_endpoint_grpc.methods import CallFactory, Methods
from liftbridge_endpoint_grpc.server_settings import ServerSettings
from liftbridge_endpoint_grpc.status import CallHeaders, parse_call, trailers_only
from liftbridge_endpoint_grpc.tls import common_name

logger = logging.getLogger(__name__)

#: Time for the connection preface and the first SETTINGS.
_PREFACE_TIMEOUT_S = 10.0
_CLOSE_TIMEOUT_S = 5.0
#: A client whose machine is gone is noticed after this many seconds, probes apart and probes unanswered.
_KEEPALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
_WRITE_HIGH_WATER_BYTES = 1024 * 1024
#: How long what isn't urgent waits for an answer to travel with.
_ANSWER_WAIT_S = 0.002
#: How long a ping waits for its acknowledgement. A client that estimates by pings how much can be on its way counts the data
#: that comes until then, opens its window by it, and then pings anew: at once would be hundreds of times a second.
_PING_ACK_WAIT_S = 0.008
#: ``:status: 415``; the name by its number in the static table.
_UNSUPPORTED_MEDIA_TYPE = b"\x08\x03415" + encode_headers([("content-type", "text/plain")])
_NOT_GRPC = b"This port speaks gRPC (content-type application/grpc).\n"
_ENCODINGS = ("identity", "gzip")


class _Stream:
    """The sending half of one stream, as calls see it."""

    __slots__ = ("_connection", "_output", "_stream_id")

    def __init__(self, connection: "ClientConnection", stream_id: int) -> None:
        self._connection = connection
        self._output = connection.http2.output
        self._stream_id = stream_id

    def send_headers(self, block: bytes, *, end_stream: bool = False) -> None:
        self._output.send_headers(self._stream_id, block, end_stream=end_stream)
        self._connection.flush_unless_reading()
        if end_stream:
            self._connection.forget(self._stream_id)

    def send_data(self, data: bytes) -> None:
        self._output.send_data(self._stream_id, data)
        self._connection.flush_unless_reading()

    def send_response(self, headers: bytes, data: bytes, trailers: bytes) -> None:
        self._output.send_response(self._stream_id, headers, data, trailers)
        self._connection.flush_unless_reading()
        self._connection.forget(self._stream_id)

    def waiting_bytes(self) -> int:
        return self._output.waiting_bytes(self._stream_id) + self._connection.unsent_bytes()

    def give_credit(self, flow_bytes: int) -> None:
        self._connection.http2.give_credit(self._stream_id, flow_bytes)
        self._connection.flush_unless_reading()


class ClientConnection(asyncio.Protocol):
    """One client's connection, which is in ``connections`` while it is open. While the client doesn't read, it isn't read
    either."""

    def __init__(
        self, methods: Methods, settings: ServerSettings, clock: Clock, connections: "set[ClientConnection]"
    ) -> None:
        self._methods = methods
        self._settings = settings
        self._clock = clock
        self._connections = connections
        self.http2 = Http2Connection(settings.limits)
        self._calls: dict[int, Call] = {}
        self._rejected: dict[int, tuple[bytes, bytes]] = {}
        self._transport: asyncio.Transport | None = None
        self._peer = self._identity = ""
        self._loop = asyncio.get_running_loop()
        self._reading = False
        self._flush_scheduled = False
        self._flush_timer: asyncio.TimerHandle | None = None
        self._ping_ack_timer: asyncio.TimerHandle | None = None
        self._paused = False
        self._idle: asyncio.Future[None] | None = None
        self._preface_timer: asyncio.TimerHandle | None = None

    # --- what asyncio calls -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH_WATER_BYTES)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            self._transport.abort()
            return
        if len(self._connections) >= self._settings.max_connections:
            logger.warning("refused a connection: there are %d already", self._settings.max_connections)
            self._transport.abort()
            return
        host, port, *_ = transport.get_extra_info("peername")
        self._peer = f"{host}:{port}"
        self._identity = common_name(tls.getpeercert()) if tls is not None else ""
        _keep_alive(transport.get_extra_info("socket"))
        self._connections.add(self)
        self._preface_timer = self._loop.call_later(_PREFACE_TIMEOUT_S, self._transport.abort)
        self.flush()

    def data_received(self, data: bytes) -> None:
        self._reading = True
        for event in self.http2.receive(data):
            self._handle(event)
        self._reading = False
        if self._preface_timer is not None and self.http2.ready:
            self._preface_timer.cancel()
            self._preface_timer = None
        output = self.http2.output
        if output.has_answers:
            self._flush_this_turn()
        elif output:
            self._flush_with_answers()
        if output.has_ping_acks and self._ping_ack_timer is None:
            self._ping_ack_timer = self._loop.call_later(_PING_ACK_WAIT_S, self._acknowledge_pings)

    def connection_lost(self, error: Exception | None) -> None:
        del error
        if self._preface_timer is not None:
            self._preface_timer.cancel()
        self._connections.discard(self)
        calls, self._calls = self._calls, {}
        for call in calls.values():
            call.on_reset()
        self._note_idle()

    def pause_writing(self) -> None:
        self._paused = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._paused = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
        for call in list(self._calls.values()):
            call.on_drained()

    # --- streams ------------------------------------------------------------------------------------------------------

    def _handle(self, event: Any) -> None:
        match event:
            case DataReceived():
                call = self._calls.get(event.stream_id)
                if call is None:
                    self.http2.give_credit(event.stream_id, event.credit_bytes)
                else:
                    call.on_data(event.data, event.credit_bytes)
            case RequestReceived():
                self._open(event)
            case StreamEnded():
                self._end_request(event.stream_id)
            case StreamReset():
                self._rejected.pop(event.stream_id, None)
                call = self._calls.pop(event.stream_id, None)
                if call is not None:
                    call.on_reset()
                self._note_idle()
            case Drained():
                call = self._calls.get(event.stream_id)
                if call is not None:
                    call.on_drained()
            case ConnectionEnded():
                logger.info("connection from %s ended: %s", self._peer, event.reason)
                self.flush()
                self.close()

    def _open(self, event: RequestReceived) -> None:
        try:
            headers = parse_call(event.headers)
        except ValueError as error:
            self._reject(event, trailers_only(Status.INTERNAL, str(error)))
            return
        if headers is None:
            self._reject(event, _UNSUPPORTED_MEDIA_TYPE, _NOT_GRPC)
            return
        factory = self._methods.find(headers.path)
        if isinstance(factory, str):
            self._reject(event, trailers_only(Status.UNIMPLEMENTED, factory))
        elif headers.encoding not in _ENCODINGS:
            text = f'grpc: Decompressor is not installed for grpc-encoding "{headers.encoding}"'
            accepted = ("grpc-accept-encoding", ",".join(_ENCODINGS))
            self._reject(event, trailers_only(Status.UNIMPLEMENTED, text, accepted))
        else:
            self._start_call(event, headers, factory)

    def _start_call(self, event: RequestReceived, headers: CallHeaders, factory: CallFactory) -> None:
        reader = MessageReader(self._settings.max_message_bytes, gzip=headers.encoding == "gzip")
        deadline_ns = None
        if headers.timeout_ns is not None:
            deadline_ns = self._clock.monotonic_ns() + headers.timeout_ns
        context = CallContext(self._peer, self._identity, deadline_ns, headers.metadata)
        try:
            call = factory(_Stream(self, event.stream_id), context, reader)
        except Exception as error:  # noqa: BLE001  (the boundary: whatever it is, the client gets an answer)
            self._reject(event, trailers_only(*outcome_of(error)))
            return
        self._calls[event.stream_id] = call
        if event.end_stream:
            call.on_end()

    def _reject(self, event: RequestReceived, block: bytes, body: bytes = b"") -> None:
        """Answers once the client has said everything, so that it is listening."""
        self._rejected[event.stream_id] = (block, body)
        if event.end_stream:
            self._end_request(event.stream_id)

    def _end_request(self, stream_id: int) -> None:
        if stream_id in self._rejected:
            block, body = self._rejected.pop(stream_id)
            self.http2.output.send_headers(stream_id, block, end_stream=not body)
            if body:
                self.http2.output.send_data(stream_id, body, end_stream=True)
        elif stream_id in self._calls:
            self._calls[stream_id].on_end()

    def forget(self, stream_id: int) -> None:
        """The call on this stream is over."""
        self._calls.pop(stream_id, None)
        self._note_idle()

    # --- output -------------------------------------------------------------------------------------------------------

    def flush_unless_reading(self) -> None:
        """Something is queued for a call: it takes along what waited for it. What was read may call for more."""
        if not self._reading:
            self.flush()

    def _flush_this_turn(self) -> None:
        """Writes answers to what was just read, together with those that the rest of this turn of the event loop gives."""
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush_turn)

    def _acknowledge_pings(self) -> None:
        self._ping_ack_timer = None
        self.http2.output.release_ping_acks()
        self._flush_with_answers()

    def _flush_with_answers(self) -> None:
        """Writes what nobody waits for: credit, acknowledged pings. It waits for an answer, because each write wakes the
        client."""
        if self._flush_timer is None:
            self._flush_timer = self._loop.call_later(_ANSWER_WAIT_S, self._flush_late)

    def _flush_late(self) -> None:
        self._flush_timer = None
        self.flush()

    def _flush_turn(self) -> None:
        self._flush_scheduled = False
        self.flush()

    def flush(self) -> None:
        """Writes what is queued."""
        if self._transport is None or self._transport.is_closing():
            return
        output = self.http2.output.take()
        if output:
            self._transport.write(output)

    def unsent_bytes(self) -> int:
        """Bytes that the operating system doesn't take, while it doesn't."""
        return self._transport.get_write_buffer_size() if self._paused and self._transport else 0

    def close(self) -> None:
        """Closes once what was written has left, which a client that doesn't read can't put off for ever."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.close()
            self._loop.call_later(_CLOSE_TIMEOUT_S, self._transport.abort)

    # --- stopping -----------------------------------------------------------------------------------------------------

    def begin_shutdown(self) -> None:
        self.http2.begin_shutdown()
        self.flush()

    async def finish_shutdown(self) -> None:
        """Returns when the last call ended."""
        self.http2.finish_shutdown()
        self.flush()
        for call in list(self._calls.values()):
            call.shut_down()
        if self._calls:
            self._idle = self._loop.create_future()
            await self._idle

    def _note_idle(self) -> None:
        if self._idle is not None and not self._calls and not self._idle.done():
            self._idle.set_result(None)


def _keep_alive(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
