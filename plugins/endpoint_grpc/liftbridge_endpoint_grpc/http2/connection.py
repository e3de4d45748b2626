"""One HTTP/2 connection, seen from the server.

``receive`` takes what was read from the socket and returns events; the ``send_`` methods queue bytes that
``take_output`` hands out. Cost is per read, not per frame: equal DATA frames in a row, which is how clients that stream small messages
fill a read, are taken apart together.

Defences: header blocks, frames without effect and control frames are bounded per read, resets per connection, and
output is bounded by the peer's windows; what the peer may have in flight by ours.
"""

import struct
from collections import OrderedDict
from dataclasses import dataclass

from liftbridge.protocol.strides import count_repeats
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
    MAX_WINDOW,
    PREFACE,
    PRIORITY,
    STREAM_ID_MASK,
    ConnectionFault,
    ErrorCode,
    FrameType,
    Setting,
    StreamFault,
    data_frames,
    frame,
    unpad,
)
from liftbridge_endpoint_grpc.http2.headers import Header, HeaderDecoder, request_problem, trailer_problem

_SETTING = struct.Struct(">HI")
_WORD = struct.Struct(">I")
_DATA_WORD = FrameType.DATA
_MAX_SETTINGS = 64
#: Settings may change every stream's window, so they count more than other frames that carry nothing.
_SETTINGS_WEIGHT = 10
_MAX_LENGTH_DIGITS = 18
#: Of the stream and of the connection, and some to spare.
_UPDATES_PER_FRAME = 4
_DEFAULT_TABLE_BYTES = 4096
#: The next header block begins so when the peer shrank the table for compression: we keep none.
_EMPTY_TABLE = b"\x20"


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What one peer may have of us."""

    max_concurrent_streams: int = 1000
    max_header_list_bytes: int = 64 * 1024
    stream_window_bytes: int = 1024 * 1024
    connection_window_bytes: int = 4 * 1024 * 1024
    #: Frames in one read that make work and carry nothing.
    max_idle_frames_per_read: int = 1000
    #: Streams that the peer reset before they had an answer, beyond those that ended well.
    max_resets: int = 500
    max_continuations: int = 32
    #: When a stream's waiting output falls to this, its owner is told.
    low_water_bytes: int = 64 * 1024


class _Stream:
    """One stream; it is closed, and forgotten, when both sides have ended."""

    __slots__ = (
        "answered",
        "content_length",
        "credit_bytes",
        "end_queued",
        "local_ended",
        "output",
        "output_bytes",
        "received_bytes",
        "remote_ended",
        "send_window",
        "stream_id",
        "trailers",
        "unread_window",
        "was_full",
    )

    def __init__(self, stream_id: int, send_window: int, receive_window: int, content_length: int | None) -> None:
        self.stream_id = stream_id
        self.answered = False
        self.send_window = send_window
        self.unread_window = receive_window
        self.credit_bytes = 0
        self.content_length = content_length
        self.received_bytes = 0
        self.remote_ended = False
        self.local_ended = False
        self.output: list[memoryview] = []
        self.output_bytes = 0
        self.end_queued = False
        self.trailers: bytes | None = None
        self.was_full = False


class Http2Connection:
    """See the module. ``ready`` means that the peer's preface and settings came, ``closed`` that it broke a rule: a
    GOAWAY says which, and nothing more is read."""

    def __init__(self, limits: ConnectionLimits | None = None) -> None:
        self._limits = limits or ConnectionLimits()
        self._decoder = HeaderDecoder(self._limits.max_header_list_bytes)
        self._rest = b""
        self._preface_seen = False
        self._streams: OrderedDict[int, _Stream] = OrderedDict()
        self._reset_by_us: OrderedDict[int, None] = OrderedDict()
        self._last_stream_id = 0
        self._goaway_stream_id: int | None = None
        self._block: tuple[int, int, bytearray, int] | None = None
        self._output: list[bytes | memoryview] = []
        self._ping_acks: list[bytes] = []
        self._has_answers = False
        self._events: list[Event] = []
        self._send_window = DEFAULT_WINDOW
        self._receive_window = DEFAULT_WINDOW
        self._credit_bytes = 0
        self._peer_initial_window = DEFAULT_WINDOW
        self._peer_max_frame_bytes = MAX_FRAME_BYTES
        self._resets = 0
        self._finished = 0
        self._idle_frames = 0
        #: WINDOW_UPDATEs that the peer may send because we sent data; some clients send one for each small frame.
        self._updates_earned = 0
        self._table_update = b""
        self.closed = False
        self.ready = False
        self._send_preface()

    # --- input --------------------------------------------------------------------------------------------------------

    def receive(self, data: bytes) -> list[Event]:
        """Takes what was read; after ConnectionEnded everything else is ignored."""
        if self.closed:
            return []
        self._events = []
        self._idle_frames = 0
        try:
            self._rest = self._receive(self._rest + data if self._rest else data)
        except ConnectionFault as fault:
            self._fail(fault)
        return self._events

    def _receive(self, data: bytes) -> bytes:
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
            if word & 0xFF == _DATA_WORD and not flags and length and self._block is None and self.ready:
                position = self._receive_data_run(data, position, length, stream_id & STREAM_ID_MASK)
                continue
            payload = data[position + FRAME_HEADER_BYTES : frame_end]
            try:
                self._receive_frame(word & 0xFF, flags, stream_id & STREAM_ID_MASK, payload)
            except StreamFault as fault:
                self._fail_stream(fault)
            position = frame_end
        return data[position:]

    def _receive_data_run(self, data: bytes, position: int, length: int, stream_id: int) -> int:
        """The plain DATA frames of one stream that stand together from ``position`` on; the position behind them."""
        pieces: list[bytes] = []
        total = 0
        header_tail = data[position + 3 : position + FRAME_HEADER_BYTES]
        if position + FRAME_HEADER_BYTES + length == len(data):
            pieces.append(data[position + FRAME_HEADER_BYTES :])
            total, position = length, len(data)
        while position < len(data):
            stride = FRAME_HEADER_BYTES + length
            complete = (len(data) - position) // stride
            if complete > 1:
                complete = count_repeats(data, position, stride, range(FRAME_HEADER_BYTES), complete)
            end = position + complete * stride
            if complete > 1:
                layout = struct.Struct(f"{FRAME_HEADER_BYTES}x{length}s")
                pieces += [piece for (piece,) in layout.iter_unpack(memoryview(data)[position:end])]
            else:
                pieces.append(data[position + FRAME_HEADER_BYTES : end])
            total += complete * length
            position = end
            if data[position + 3 : position + FRAME_HEADER_BYTES] != header_tail:
                break
            length = int.from_bytes(data[position : position + 3], "big")
            if not 0 < length <= MAX_FRAME_BYTES or position + FRAME_HEADER_BYTES + length > len(data):
                break
        try:
            self._take_data(stream_id, pieces[0] if len(pieces) == 1 else b"".join(pieces), total)
        except StreamFault as fault:
            self._fail_stream(fault)
        return position

    def _receive_frame(  # noqa: PLR0912  (one branch a frame type)
        self, kind: int, flags: int, stream_id: int, payload: bytes
    ) -> None:
        if not self.ready and kind != FrameType.SETTINGS:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "the first frame is not SETTINGS")
        if self._block is not None and (kind != FrameType.CONTINUATION or stream_id != self._block[0]):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "a header block was interrupted")
        match kind:
            case FrameType.DATA:
                self._receive_data(flags, stream_id, payload)
            case FrameType.HEADERS:
                self._receive_headers(flags, stream_id, payload)
            case FrameType.CONTINUATION:
                self._receive_continuation(flags, stream_id, payload)
            case FrameType.RST_STREAM:
                self._receive_reset(stream_id, payload)
            case FrameType.SETTINGS:
                self._receive_settings(flags, stream_id, payload)
            case FrameType.PING:
                self._receive_ping(flags, stream_id, payload)
            case FrameType.WINDOW_UPDATE:
                self._receive_window_update(stream_id, payload)
            case FrameType.PRIORITY:
                self._receive_priority(stream_id, payload)
            case FrameType.GOAWAY:
                self._receive_goaway(stream_id, payload)
            case FrameType.PUSH_PROMISE:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "clients don't push")
            case _:
                self._count_idle_frame()  # unknown types are ignored

    def _count_idle_frame(self, weight: int = 1) -> None:
        self._idle_frames += weight
        if self._idle_frames > self._limits.max_idle_frames_per_read:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "a flood of frames that carry nothing")

    # --- streams ------------------------------------------------------------------------------------------------------

    def _receive_data(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "DATA on stream 0")
        data = unpad(payload, flags)
        if not data and not flags & END_STREAM:
            self._count_idle_frame()
        self._take_data(stream_id, data, len(payload))
        stream = self._streams.get(stream_id)
        if stream is not None and flags & END_STREAM:
            self._end_remote(stream)

    def _take_data(self, stream_id: int, data: bytes, flow_bytes: int) -> None:
        self._receive_window -= flow_bytes
        if self._receive_window < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "more data than the connection's window")
        # At once, so that a stream whose owner is slow doesn't hold up the others: its own window bounds it.
        self._give_connection_credit(flow_bytes)
        stream = self._open_stream(stream_id)
        if stream is None:
            return
        stream.unread_window -= flow_bytes
        if stream.unread_window < 0:
            raise StreamFault(stream_id, ErrorCode.FLOW_CONTROL_ERROR, "more data than the stream's window")
        stream.received_bytes += len(data)
        if stream.content_length is not None and stream.received_bytes > stream.content_length:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, "more data than content-length says")
        if data:
            self._events.append(DataReceived(stream_id, data, flow_bytes))
        elif flow_bytes:
            self.give_credit(stream_id, flow_bytes)

    def _open_stream(self, stream_id: int) -> _Stream | None:
        """The stream that may receive more; None for one that we reset, whose late frames are ignored."""
        stream = self._streams.get(stream_id)
        if stream is None:
            if stream_id in self._reset_by_us:
                return None
            if stream_id > self._last_stream_id or stream_id % 2 == 0:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"stream {stream_id} was never opened")
            raise ConnectionFault(ErrorCode.STREAM_CLOSED, f"stream {stream_id} is closed")
        if stream.remote_ended:
            raise StreamFault(stream_id, ErrorCode.STREAM_CLOSED, "data after the end of the stream")
        return stream

    def _receive_headers(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "HEADERS on stream 0")
        block = unpad(payload, flags)
        depends_on_itself = False
        if flags & PRIORITY:
            if len(block) < 5:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "HEADERS without its priority")
            depends_on_itself = _WORD.unpack_from(block)[0] & STREAM_ID_MASK == stream_id
            block = block[5:]
        if flags & END_HEADERS:
            self._take_headers(stream_id, flags, block)
        else:
            self._block = (stream_id, flags, bytearray(block), 0)
        if depends_on_itself:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, "a stream depends on itself")

    def _receive_continuation(self, flags: int, stream_id: int, payload: bytes) -> None:
        if self._block is None:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without HEADERS")
        _, first_flags, block, count = self._block
        block += payload
        if len(block) > self._limits.max_header_list_bytes or count >= self._limits.max_continuations:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "a header block without end")
        if flags & END_HEADERS:
            self._block = None
            self._take_headers(stream_id, first_flags, bytes(block))
        else:
            self._block = (stream_id, first_flags, block, count + 1)

    def _take_headers(self, stream_id: int, flags: int, block: bytes) -> None:
        headers = self._decoder.decode(block)
        stream = self._streams.get(stream_id)
        if stream is not None:
            self._take_trailers(stream, flags, headers)
            return
        if stream_id % 2 == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "clients open odd streams")
        if stream_id in self._reset_by_us:
            return
        if stream_id <= self._last_stream_id:
            raise ConnectionFault(ErrorCode.STREAM_CLOSED, f"stream {stream_id} can't be opened again")
        self._last_stream_id = stream_id
        if self._goaway_stream_id is not None and stream_id > self._goaway_stream_id:
            self._reset(stream_id, ErrorCode.REFUSED_STREAM)
            return
        if len(self._streams) >= self._limits.max_concurrent_streams:
            self._reset(stream_id, ErrorCode.REFUSED_STREAM)
            self._count_reset()
            return
        problem = request_problem(headers)
        if problem is not None:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, problem)
        self._open(stream_id, headers, end_stream=bool(flags & END_STREAM))

    def _open(self, stream_id: int, headers: list[Header], *, end_stream: bool) -> None:
        stream = self._streams[stream_id] = _Stream(
            stream_id, self._peer_initial_window, self._limits.stream_window_bytes, _content_length(stream_id, headers)
        )
        stream.remote_ended = end_stream
        if end_stream and stream.content_length:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, "content-length without content")
        self._events.append(RequestReceived(stream_id, headers, end_stream))

    def _take_trailers(self, stream: _Stream, flags: int, headers: list[Header]) -> None:
        if stream.remote_ended:
            raise StreamFault(stream.stream_id, ErrorCode.STREAM_CLOSED, "headers after the end of the stream")
        if not flags & END_STREAM:
            raise StreamFault(stream.stream_id, ErrorCode.PROTOCOL_ERROR, "trailers that don't end the stream")
        problem = trailer_problem(headers)
        if problem is not None:
            raise StreamFault(stream.stream_id, ErrorCode.PROTOCOL_ERROR, problem)
        self._end_remote(stream)

    def _end_remote(self, stream: _Stream) -> None:
        if stream.content_length is not None and stream.received_bytes != stream.content_length:
            raise StreamFault(stream.stream_id, ErrorCode.PROTOCOL_ERROR, "less data than content-length says")
        stream.remote_ended = True
        self._events.append(StreamEnded(stream.stream_id))
        self._forget_if_done(stream)

    def _receive_reset(self, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM of a wrong size")
        if stream_id == 0 or stream_id > self._last_stream_id or stream_id % 2 == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"RST_STREAM for stream {stream_id}, never opened")
        stream = self._streams.pop(stream_id, None)
        if stream is None:
            self._count_idle_frame()
            return
        self._events.append(StreamReset(stream_id))
        if not stream.answered:
            self._count_reset()

    def _count_reset(self) -> None:
        """Opening streams only to reset them costs the peer nothing and us much (CVE-2023-44487). Those that had an
        answer are no such attempt."""
        self._resets += 1
        if self._resets - self._finished > self._limits.max_resets:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many streams were reset")

    def _fail_stream(self, fault: StreamFault) -> None:
        """Counts as a reset by the peer, which could make us reset streams instead (CVE-2025-8671)."""
        self._reset(fault.stream_id, fault.code)
        self._events.append(StreamReset(fault.stream_id))
        self._count_reset()

    def _receive_priority(self, stream_id: int, payload: bytes) -> None:
        if stream_id == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PRIORITY on stream 0")
        if len(payload) != 5:
            raise StreamFault(stream_id, ErrorCode.FRAME_SIZE_ERROR, "PRIORITY of a wrong size")
        if _WORD.unpack_from(payload)[0] & STREAM_ID_MASK == stream_id:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, "a stream depends on itself")
        self._count_idle_frame()

    # --- the connection -----------------------------------------------------------------------------------------------

    def _receive_settings(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id != 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "SETTINGS on a stream")
        self._count_idle_frame(_SETTINGS_WEIGHT)
        if flags & ACK:
            if payload:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a SETTINGS ack with a payload")
            return
        if len(payload) % _SETTING.size:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS of a wrong size")
        if len(payload) > _MAX_SETTINGS * _SETTING.size:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, f"more than {_MAX_SETTINGS} settings in a frame")
        self.ready = True
        for name, value in dict(_SETTING.iter_unpack(payload)).items():
            self._apply_setting(name, value)
        self._output.append(frame(FrameType.SETTINGS, ACK, 0))
        for stream in list(self._streams.values()):
            self._send_waiting(stream)  # behind the ack: until the peer has it, the old window counts

    def _apply_setting(self, name: int, value: int) -> None:
        match name:
            case Setting.HEADER_TABLE_SIZE if value < _DEFAULT_TABLE_BYTES:
                self._table_update = _EMPTY_TABLE
            case Setting.ENABLE_PUSH if value > 1:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"ENABLE_PUSH of {value}")
            case Setting.INITIAL_WINDOW_SIZE:
                if value > MAX_WINDOW:
                    raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE of {value}")
                change, self._peer_initial_window = value - self._peer_initial_window, value
                for stream in list(self._streams.values()):
                    stream.send_window += change
                    if stream.send_window > MAX_WINDOW:
                        raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a window beyond 2**31 - 1")
            case Setting.MAX_FRAME_SIZE:
                if not MAX_FRAME_BYTES <= value < 1 << 24:
                    raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"MAX_FRAME_SIZE of {value}")
                self._peer_max_frame_bytes = value

    def _receive_ping(self, flags: int, stream_id: int, payload: bytes) -> None:
        if stream_id != 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PING on a stream")
        if len(payload) != 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "PING of a wrong size")
        self._count_idle_frame()
        if not flags & ACK:
            self._ping_acks.append(frame(FrameType.PING, ACK, 0, payload))

    def _receive_goaway(self, stream_id: int, payload: bytes) -> None:
        if stream_id != 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "GOAWAY on a stream")
        if len(payload) < 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY of a wrong size")

    def _receive_window_update(self, stream_id: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE of a wrong size")
        if self._updates_earned:
            self._updates_earned -= 1
        else:
            self._count_idle_frame()
        increment = _WORD.unpack(payload)[0] & MAX_WINDOW
        if stream_id == 0:
            self._grow_connection_window(increment)
            return
        stream = self._streams.get(stream_id)
        if stream is None:
            if stream_id > self._last_stream_id or stream_id % 2 == 0:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"WINDOW_UPDATE for stream {stream_id}, never opened")
            return
        if increment == 0:
            raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
        stream.send_window += increment
        if stream.send_window > MAX_WINDOW:
            raise StreamFault(stream_id, ErrorCode.FLOW_CONTROL_ERROR, "a window beyond 2**31 - 1")
        self._send_waiting(stream)

    def _grow_connection_window(self, increment: int) -> None:
        if increment == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
        self._send_window += increment
        if self._send_window > MAX_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a window beyond 2**31 - 1")
        for stream in list(self._streams.values()):
            if self._send_window <= 0:
                break
            if stream.output_bytes:
                self._streams.move_to_end(stream.stream_id)  # so that each has its turn
                self._send_waiting(stream)

    def _fail(self, fault: ConnectionFault) -> None:
        self.closed = True
        payload = _WORD.pack(self._last_stream_id) + _WORD.pack(fault.code) + str(fault).encode()[:200]
        self._output.append(frame(FrameType.GOAWAY, 0, 0, payload))
        self._events.append(ConnectionEnded(str(fault)))

    # --- output -------------------------------------------------------------------------------------------------------

    @property
    def has_output(self) -> bool:
        """Whether there is something to write."""
        return bool(self._output or self._ping_acks)

    @property
    def has_answers(self) -> bool:
        """Whether something of it is for a call. The rest are acknowledgements and credit, which nobody waits for."""
        return self._has_answers

    def take_output(self) -> bytes:
        """What has to be written to the socket now. Acknowledged pings are last: a client that measures by them how much
        can be on its way (grpc's estimate of bandwidth and delay) counts the data before them, and opens its window."""
        output = self._output + self._ping_acks
        self._output, self._ping_acks = [], []
        self._has_answers = False
        return b"".join(output)

    def send_headers(self, stream_id: int, block: bytes, *, end_stream: bool = False) -> None:
        """Response headers, or trailers with ``end_stream``: those go out behind all data."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.local_ended or stream.end_queued:
            return
        if end_stream and stream.output_bytes:
            stream.trailers, stream.end_queued = block, True
            return
        self._write_headers(stream, block, end_stream=end_stream)

    def send_data(self, stream_id: int, data: bytes, *, end_stream: bool = False) -> None:
        """Sends what the windows allow and keeps the rest."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.local_ended or stream.end_queued:
            return
        size = len(data)
        if not stream.output_bytes and 0 < size <= self._room_for_frame(stream) and not end_stream:
            stream.send_window -= size
            self._send_window -= size
            self._updates_earned += _UPDATES_PER_FRAME
            self._has_answers = True
            self._output += (FRAME_HEADER.pack(size << 8 | _DATA_WORD, 0, stream_id), data)
            return
        stream.end_queued = end_stream
        if data:
            stream.output.append(memoryview(data))
            stream.output_bytes += size
        self._send_waiting(stream)

    def _room_for_frame(self, stream: _Stream) -> int:
        """The largest data that can go out at once, in one frame."""
        return min(stream.send_window, self._send_window, self._peer_max_frame_bytes)

    def send_response(self, stream_id: int, headers: bytes, data: bytes, trailers: bytes) -> None:
        """A whole answer: the same as headers, data and trailers one after the other."""
        stream = self._streams.get(stream_id)
        small = len(headers) <= MAX_FRAME_BYTES and len(trailers) <= MAX_FRAME_BYTES
        if (
            stream is None
            or stream.answered
            or not stream.remote_ended
            or self._table_update
            or not small
            or not 0 < len(data) <= self._room_for_frame(stream)
        ):
            self.send_headers(stream_id, headers)
            self.send_data(stream_id, data)
            self.send_headers(stream_id, trailers, end_stream=True)
            return
        self._send_window -= len(data)
        self._updates_earned += _UPDATES_PER_FRAME
        self._has_answers = True
        self._output += (
            FRAME_HEADER.pack(len(headers) << 8 | FrameType.HEADERS, END_HEADERS, stream_id),
            headers,
            FRAME_HEADER.pack(len(data) << 8 | _DATA_WORD, 0, stream_id),
            data,
            FRAME_HEADER.pack(len(trailers) << 8 | FrameType.HEADERS, END_HEADERS | END_STREAM, stream_id),
            trailers,
        )
        del self._streams[stream_id]
        self._finished += 1

    def waiting_bytes(self, stream_id: int) -> int:
        """Bytes of the stream that wait for its windows. Its owner is told (Drained) when they become few."""
        stream = self._streams.get(stream_id)
        if stream is None:
            return 0
        if stream.output_bytes > self._limits.low_water_bytes:
            stream.was_full = True
        return stream.output_bytes

    def give_credit(self, stream_id: int, flow_bytes: int) -> None:
        """The owner is done with so many bytes of the stream: the peer may send more."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.remote_ended:
            return
        stream.credit_bytes += flow_bytes
        if stream.credit_bytes * 2 >= self._limits.stream_window_bytes:
            stream.unread_window += stream.credit_bytes
            self._output.append(frame(FrameType.WINDOW_UPDATE, 0, stream_id, _WORD.pack(stream.credit_bytes)))
            stream.credit_bytes = 0

    def reset(self, stream_id: int, code: ErrorCode) -> None:
        """Ends a stream at once."""
        if stream_id in self._streams:
            self._reset(stream_id, code)

    def begin_shutdown(self) -> None:
        """Asks the peer to open no more streams; those that are on their way are still served."""
        self._output.append(frame(FrameType.GOAWAY, 0, 0, _WORD.pack(MAX_WINDOW) + _WORD.pack(ErrorCode.NO_ERROR)))

    def finish_shutdown(self) -> None:
        """Refuses streams from now on."""
        self._goaway_stream_id = self._last_stream_id
        payload = _WORD.pack(self._last_stream_id) + _WORD.pack(ErrorCode.NO_ERROR)
        self._output.append(frame(FrameType.GOAWAY, 0, 0, payload))

    @property
    def open_streams(self) -> int:
        return len(self._streams)

    def _send_preface(self) -> None:
        settings = {
            Setting.MAX_CONCURRENT_STREAMS: self._limits.max_concurrent_streams,
            Setting.INITIAL_WINDOW_SIZE: self._limits.stream_window_bytes,
            Setting.MAX_HEADER_LIST_SIZE: self._limits.max_header_list_bytes,
        }
        payload = b"".join(_SETTING.pack(name, value) for name, value in settings.items())
        self._output.append(frame(FrameType.SETTINGS, 0, 0, payload))
        self._give_connection_credit(self._limits.connection_window_bytes - DEFAULT_WINDOW)

    def _give_connection_credit(self, flow_bytes: int) -> None:
        self._credit_bytes += flow_bytes
        if self._credit_bytes * 2 >= self._limits.connection_window_bytes:
            self._receive_window += self._credit_bytes
            self._output.append(frame(FrameType.WINDOW_UPDATE, 0, 0, _WORD.pack(self._credit_bytes)))
            self._credit_bytes = 0

    def _send_waiting(self, stream: _Stream) -> None:
        if stream.output_bytes:
            room = min(stream.send_window, self._send_window, stream.output_bytes)
            if room <= 0:
                return
            data = _take(stream.output, room)
            stream.output_bytes -= room
            stream.send_window -= room
            self._send_window -= room
            last = stream.end_queued and not stream.output_bytes and stream.trailers is None
            frames = data_frames(stream.stream_id, data, self._peer_max_frame_bytes, end=last)
            self._updates_earned += _UPDATES_PER_FRAME * len(frames) // 2
            self._has_answers = True
            self._output += frames
        elif stream.end_queued and stream.trailers is None:
            self._has_answers = True
            self._output += data_frames(stream.stream_id, memoryview(b""), self._peer_max_frame_bytes, end=True)
        if stream.end_queued and not stream.output_bytes:
            if stream.trailers is not None:
                self._write_headers(stream, stream.trailers, end_stream=True)
            else:
                self._end_local(stream)
        elif stream.was_full and stream.output_bytes <= self._limits.low_water_bytes:
            stream.was_full = False
            self._events.append(Drained(stream.stream_id))

    def _write_headers(self, stream: _Stream, block: bytes, *, end_stream: bool) -> None:
        stream.answered = self._has_answers = True
        block, self._table_update = self._table_update + block, b""
        flags = END_STREAM if end_stream else 0
        size = self._peer_max_frame_bytes
        pieces = [block[start : start + size] for start in range(0, len(block), size)] or [b""]
        for number, piece in enumerate(pieces):
            kind = FrameType.CONTINUATION if number else FrameType.HEADERS
            last = END_HEADERS if number == len(pieces) - 1 else 0
            self._output.append(frame(kind, last | (0 if number else flags), stream.stream_id, piece))
        if end_stream:
            self._end_local(stream)

    def _end_local(self, stream: _Stream) -> None:
        """A peer that hasn't ended its side by then need not send the rest."""
        stream.local_ended = True
        if stream.remote_ended:
            self._forget_if_done(stream)
        else:
            self._reset(stream.stream_id, ErrorCode.NO_ERROR)
            self._finished += 1

    def _forget_if_done(self, stream: _Stream) -> None:
        if stream.local_ended and stream.remote_ended and stream.stream_id in self._streams:
            del self._streams[stream.stream_id]
            self._finished += 1

    def _reset(self, stream_id: int, code: ErrorCode) -> None:
        self._streams.pop(stream_id, None)
        self._reset_by_us[stream_id] = None
        if len(self._reset_by_us) > self._limits.max_concurrent_streams:
            self._reset_by_us.popitem(last=False)
        self._has_answers = True
        self._output.append(frame(FrameType.RST_STREAM, 0, stream_id, _WORD.pack(code)))


def _take(output: list[memoryview], size: int) -> memoryview:
    """The first ``size`` bytes of a queue, removed from it."""
    if len(output[0]) > size:
        taken, output[0] = output[0][:size], output[0][size:]
        return taken
    pieces = []
    while size:
        piece = output[0]
        if len(piece) <= size:
            output.pop(0)
        else:
            piece, output[0] = piece[:size], piece[size:]
        pieces.append(piece)
        size -= len(piece)
    return pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces))


def _content_length(stream_id: int, headers: list[Header]) -> int | None:
    for name, value in headers:
        if name == b"content-length":
            if not value.isdigit() or len(value) > _MAX_LENGTH_DIGITS:
                raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, "content-length is no number")
            return int(value)
    return None
