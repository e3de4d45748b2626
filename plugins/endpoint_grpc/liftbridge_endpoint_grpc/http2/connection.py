"""One HTTP/2 connection, seen from the server: what frames that come in do to it.

``receive`` takes what was read from the socket and returns events; ``output`` sends, and holds what is to be written. Cost
is per read, not per frame: equal DATA frames in a row are taken apart together (``data_runs``).

Defences: header blocks, frames without effect and control frames are bounded per read, resets per connection, and
output is bounded by the peer's windows; what the peer may have in flight by ours.
"""

from collections.abc import Callable
from dataclasses import dataclass

from liftbridge_endpoint_grpc.http2.control_frames import (
    check_goaway,
    check_ping,
    check_priority,
    check_reset,
    goaway_frame,
    read_header_fragment,
    read_settings,
    settings_frame,
    window_update_frame,
)
from liftbridge_endpoint_grpc.http2.data_runs import read_data_run
from liftbridge_endpoint_grpc.http2.events import (
    ConnectionEnded,
    DataReceived,
    Drained,
    Event,
    RequestReceived,
    StreamEnded,
    StreamReset,
)
from liftbridge_endpoint_grpc.http2.frames import (
    ACK,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    FRAME_HEADER,
    FRAME_HEADER_BYTES,
    MAX_FRAME_BYTES,
    MAX_STREAM_ID,
    MAX_WINDOW,
    PADDED,
    PREFACE,
    ConnectionFault,
    ErrorCode,
    FrameType,
    Setting,
    StreamFault,
    frame,
    unpad,
)
from liftbridge_endpoint_grpc.http2.headers import (
    Header,
    HeaderDecoder,
    content_length,
    request_problem,
    trailer_problem,
)
from liftbridge_endpoint_grpc.http2.limits import ConnectionLimits, FloodGuard
from liftbridge_endpoint_grpc.http2.output import Output
from liftbridge_endpoint_grpc.http2.streams import Stream, Streams

_DATA_WORD = FrameType.DATA
#: Settings may change every stream's window, so they count more than other frames that carry nothing.
_SETTINGS_WEIGHT = 10
_WINDOW_UPDATE_BYTES = 4


@dataclass(slots=True)
class _HeaderBlock:
    """A header block that goes on in CONTINUATION frames. Nothing else may come before its end."""

    stream_id: int
    flags: int
    data: bytearray
    continuations: int = 0


class Http2Connection:
    """See the module. ``ready`` means that the peer's preface and settings came, ``closed`` that it broke a rule: a
    GOAWAY says which, and nothing more is read. Not thread-safe: everything is called by one thread."""

    def __init__(self, limits: ConnectionLimits | None = None) -> None:
        self._limits = limits = limits or ConnectionLimits()
        self._decoder = HeaderDecoder(limits.max_header_list_bytes)
        self.streams = Streams(limits.max_concurrent_streams)
        self._floods = FloodGuard(limits)
        self.output = Output(self.streams, self._floods, limits.low_water_bytes)
        self._rest = b""
        self._preface_seen = False
        self._block: _HeaderBlock | None = None
        self._events: list[Event] = []
        self._receive_window = DEFAULT_WINDOW
        self._credit_bytes = 0
        self._last_served_id = MAX_STREAM_ID
        self.closed = False
        self.ready = False
        self._send_preface()

    def _send_preface(self) -> None:
        settings: dict[int, int] = {
            Setting.MAX_CONCURRENT_STREAMS: self._limits.max_concurrent_streams,
            Setting.INITIAL_WINDOW_SIZE: self._limits.stream_window_bytes,
            Setting.MAX_HEADER_LIST_SIZE: self._limits.max_header_list_bytes,
        }
        self.output.queue(settings_frame(settings))
        self._give_connection_credit(self._limits.connection_window_bytes - DEFAULT_WINDOW)

    # --- what its owner calls -----------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> list[Event]:
        """Takes what was read; after ConnectionEnded everything else is ignored."""
        if self.closed:
            return []
        self._events = []
        self._floods.idle_frames = 0
        try:
            self._rest = self._receive(self._rest + data if self._rest else data)
        except ConnectionFault as fault:
            self._fail(fault)
        return self._events

    def give_credit(self, stream_id: int, flow_bytes: int) -> None:
        """The owner is done with so many bytes of the stream: the peer may send more."""
        stream = self.streams.open.get(stream_id)
        if stream is None or stream.remote_ended:
            return
        stream.credit_bytes += flow_bytes
        if stream.credit_bytes * 2 >= self._limits.stream_window_bytes:
            stream.receive_window += stream.credit_bytes
            self.output.queue(window_update_frame(stream_id, stream.credit_bytes))
            stream.credit_bytes = 0

    def begin_shutdown(self) -> None:
        """Asks the peer to open no more streams; those that are on their way are still served."""
        self.output.queue(goaway_frame(MAX_STREAM_ID, ErrorCode.NO_ERROR))

    def finish_shutdown(self) -> None:
        """Refuses streams from now on."""
        self._last_served_id = self.streams.last_id
        self.output.queue(goaway_frame(self._last_served_id, ErrorCode.NO_ERROR))

    # --- frames -------------------------------------------------------------------------------------------------------

    def _receive(self, data: bytes) -> bytes:
        """Handles what is complete and returns the rest."""
        position = 0
        if not self._preface_seen:
            if not PREFACE.startswith(data[: len(PREFACE)]):
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "not HTTP/2: wrong connection preface")
            if len(data) < len(PREFACE):
                return data
            self._preface_seen, position = True, len(PREFACE)
        end = len(data)
        while end - position >= FRAME_HEADER_BYTES:
            word, flags, stream_id = FRAME_HEADER.unpack_from(data, position)
            length = word >> 8
            if length > MAX_FRAME_BYTES:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"a frame of {length} bytes")
            frame_end = position + FRAME_HEADER_BYTES + length
            if frame_end > end:
                break
            try:
                if word & 0xFF == _DATA_WORD and not flags and length and self._block is None and self.ready:
                    payload, position = read_data_run(data, position, length)
                    self._take_data(stream_id & MAX_STREAM_ID, payload, len(payload))
                else:
                    payload, position = data[position + FRAME_HEADER_BYTES : frame_end], frame_end
                    self._receive_frame(word & 0xFF, flags, stream_id & MAX_STREAM_ID, payload)
            except StreamFault as fault:
                self._fail_stream(fault)
        return data[position:]

    def _receive_frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        if not self.ready and kind != FrameType.SETTINGS:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        if self._block is not None and (kind != FrameType.CONTINUATION or stream_id != self._block.stream_id):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a header block was interrupted")
        if kind in _HANDLERS:
            _HANDLERS[kind](self, flags, stream_id, payload)
        else:
            self._floods.count_idle_frame()  # unknown types are ignored

    def _fail(self, fault: ConnectionFault) -> None:
        self.closed = True
        self.output.queue(goaway_frame(self.streams.last_id, fault.code, str(fault)))
        self._events.append(ConnectionEnded(str(fault)))

    def _fail_stream(self, fault: StreamFault) -> None:
        self.output.reset(fault.stream_id, fault.code)
        self._events.append(StreamReset(fault.stream_id))
        self._floods.count_reset(self.streams.finished)

    # --- data ---------------------------------------------------------------------------------------------------------

    def _receive_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "DATA on stream 0")
        data = unpad(payload) if flags & PADDED else payload
        if not data and not flags & END_STREAM:
            self._floods.count_idle_frame()
        self._take_data(stream_id, data, len(payload))
        stream = self.streams.open.get(stream_id)
        if stream is not None and flags & END_STREAM:
            self._end_remote(stream)

    def _take_data(self, stream_id: int, data: bytes, flow_bytes: int) -> None:
        self._receive_window -= flow_bytes
        if self._receive_window < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more data than the connection's window")
        # At once, so that a stream whose owner is slow doesn't hold up the others: its own window bounds it.
        self._give_connection_credit(flow_bytes)
        stream = self.streams.open.get(stream_id)
        if stream is None:
            self.streams.check_late_data(stream_id)
            return
        stream.take_data(len(data), flow_bytes)
        if data:
            self._events.append(DataReceived(stream_id, data, flow_bytes))
        elif flow_bytes:
            self.give_credit(stream_id, flow_bytes)

    def _give_connection_credit(self, flow_bytes: int) -> None:
        self._credit_bytes += flow_bytes
        if self._credit_bytes * 2 >= self._limits.connection_window_bytes:
            self._receive_window += self._credit_bytes
            self.output.queue(window_update_frame(0, self._credit_bytes))
            self._credit_bytes = 0

    def _end_remote(self, stream: Stream) -> None:
        stream.end_remote()
        self._events.append(StreamEnded(stream.stream_id))

    # --- header blocks ------------------------------------------------------------------------------------------------

    def _receive_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        fragment, depends_on_itself = read_header_fragment(flags, stream_id, payload)
        if flags & END_HEADERS:
            self._take_headers(stream_id, flags, fragment)
        else:
            self._block = _HeaderBlock(stream_id, flags, bytearray(fragment))
        if depends_on_itself:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, "a stream depends on itself")

    def _receive_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        block = self._block
        if block is None:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        block.data += payload
        block.continuations += 1
        if len(block.data) > self._limits.max_header_list_bytes or block.continuations > self._limits.max_continuations:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "a header block without end")
        if flags & END_HEADERS:
            self._block = None
            self._take_headers(stream_id, block.flags, bytes(block.data))

    def _take_headers(self, stream_id: int, flags: int, block: bytes) -> None:
        headers = self._decoder.decode(block)
        stream = self.streams.open.get(stream_id)
        if stream is None:
            self._take_request(stream_id, flags, headers)
        else:
            self._take_trailers(stream, flags, headers)

    def _take_request(self, stream_id: int, flags: int, headers: list[Header]) -> None:
        streams = self.streams
        if stream_id % 2 == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "clients open odd streams")
        if stream_id in streams.reset_by_us:
            return
        if stream_id <= streams.last_id:
            raise ConnectionFault(ErrorCode.STREAM_CLOSED, f"stream {stream_id} can't be opened again")
        streams.last_id = stream_id
        if stream_id > self._last_served_id:
            self.output.reset(stream_id, ErrorCode.REFUSED_STREAM)
            return
        if len(streams.open) >= self._limits.max_concurrent_streams:
            self.output.reset(stream_id, ErrorCode.REFUSED_STREAM)
            self._floods.count_reset(streams.finished)
            return
        problem = request_problem(headers)
        if problem is not None:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, problem)
        self._open(stream_id, headers, end_stream=bool(flags & END_STREAM))

    def _open(self, stream_id: int, headers: list[Header], *, end_stream: bool) -> None:
        try:
            length = content_length(headers)
        except ValueError as error:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, str(error)) from None
        if end_stream and length:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, "content-length without content")
        stream = Stream(stream_id, self.output.initial_window, self._limits.stream_window_bytes, length)
        stream.remote_ended = end_stream
        self.streams.open[stream_id] = stream
        self._events.append(RequestReceived(stream_id, headers, end_stream))

    def _take_trailers(self, stream: Stream, flags: int, headers: list[Header]) -> None:
        if stream.remote_ended:
            raise StreamFault(stream.stream_id, ErrorCode.STREAM_CLOSED, "headers after the end of the stream")
        if not flags & END_STREAM:
            raise StreamFault(stream.stream_id, ErrorCode.PROTOCOL_ERROR, "trailers that don't end the stream")
        problem = trailer_problem(headers)
        if problem is not None:
            raise StreamFault(stream.stream_id, ErrorCode.PROTOCOL_ERROR, problem)
        self._end_remote(stream)

    # --- control frames -----------------------------------------------------------------------------------------------

    def _receive_reset(self, flags: int, stream_id: int, payload: bytes) -> None:
        del flags
        check_reset(payload)
        if not self.streams.was_opened(stream_id):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"RST_STREAM for stream {stream_id}, never opened")
        stream = self.streams.open.pop(stream_id, None)
        if stream is None:
            self._floods.count_idle_frame()
            return
        self._events.append(StreamReset(stream_id))
        if not stream.answered:
            self._floods.count_reset(self.streams.finished)

    def _receive_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        settings = read_settings(flags, stream_id, payload)
        self._floods.count_idle_frame(_SETTINGS_WEIGHT)
        if settings is None:
            return
        self.ready = True
        for name, value in settings.items():
            self.output.apply_setting(name, value)
        self.output.queue(frame(FrameType.SETTINGS, ACK, 0))
        self._events += self.output.send_waiting()  # behind the ack: until the peer has it, the old window counts

    def _receive_window_update(self, flags: int, stream_id: int, payload: bytes) -> None:
        del flags
        if len(payload) != _WINDOW_UPDATE_BYTES:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE of a wrong size")
        if self._floods.earned_updates:
            self._floods.earned_updates -= 1
        else:
            self._floods.count_idle_frame()
        increment = int.from_bytes(payload, "big") & MAX_WINDOW
        stream = self.streams.open.get(stream_id)
        if stream is not None:
            if self.output.grow_window(stream, increment):
                self._events.append(Drained(stream_id))
        elif stream_id == 0:
            self.output.grow_connection_window(increment)
            self._events += self.output.send_waiting()
        elif not self.streams.was_opened(stream_id):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"WINDOW_UPDATE for stream {stream_id}, never opened")

    def _receive_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        check_ping(stream_id, payload)
        self._floods.count_idle_frame()
        if not flags & ACK:
            self.output.acknowledge_ping(payload)

    def _receive_priority(self, flags: int, stream_id: int, payload: bytes) -> None:
        del flags
        check_priority(stream_id, payload)
        self._floods.count_idle_frame()

    def _receive_goaway(self, flags: int, stream_id: int, payload: bytes) -> None:
        del flags
        check_goaway(stream_id, payload)

    def _receive_push(self, flags: int, stream_id: int, payload: bytes) -> None:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "clients don't push")


#: By frame type; the arguments are the connection, flags, stream ID and payload.
_HANDLERS: dict[int, Callable[[Http2Connection, int, int, bytes], None]] = {
    FrameType.DATA: Http2Connection._receive_data,
    FrameType.HEADERS: Http2Connection._receive_headers,
    FrameType.PRIORITY: Http2Connection._receive_priority,
    FrameType.RST_STREAM: Http2Connection._receive_reset,
    FrameType.SETTINGS: Http2Connection._receive_settings,
    FrameType.PUSH_PROMISE: Http2Connection._receive_push,
    FrameType.PING: Http2Connection._receive_ping,
    FrameType.GOAWAY: Http2Connection._receive_goaway,
    FrameType.WINDOW_UPDATE: Http2Connection._receive_window_update,
    FrameType.CONTINUATION: Http2Connection._receive_continuation,
}
