"""The sending half of a connection: what is to be written, what waits for the peer's windows, and those windows.

Frames leave in the order in which they were queued. Nothing here reads frames or decides about requests.
"""

from liftbridge_endpoint_grpc.http2.control_frames import reset_frame
from liftbridge_endpoint_grpc.http2.events import Drained
from liftbridge_endpoint_grpc.http2.frames import (
    ACK,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    FRAME_HEADER,
    MAX_FRAME_BYTES,
    MAX_WINDOW,
    ConnectionFault,
    ErrorCode,
    FrameType,
    Setting,
    StreamFault,
    data_frames,
    frame,
)
from liftbridge_endpoint_grpc.http2.limits import FloodGuard
from liftbridge_endpoint_grpc.http2.streams import Stream, Streams

_DATA_WORD = FrameType.DATA
#: Of the stream and of the connection, and some to spare.
_UPDATES_PER_FRAME = 4
_DEFAULT_TABLE_BYTES = 4096
#: The next header block begins so when the peer shrank the table for compression: we keep none.
_EMPTY_TABLE = b"\x20"


class Output:
    """Owners of streams send by ``send_headers``, ``send_data`` and ``send_response``. A stream that is gone, or whose end
    is queued, takes no more: what is sent on it is dropped, because its owner may not have heard yet."""

    def __init__(self, streams: Streams, floods: FloodGuard, low_water_bytes: int) -> None:
        self._streams = streams
        self._floods = floods
        self._low_water_bytes = low_water_bytes
        self._queue: list[bytes | memoryview] = []
        self._ping_acks: list[bytes] = []
        self._send_window = DEFAULT_WINDOW
        self._max_frame_bytes = MAX_FRAME_BYTES
        self._table_update = b""
        #: What we may send on a stream before the peer says more.
        self.initial_window = DEFAULT_WINDOW
        #: Whether something of it is for a call. The rest are acknowledgements and credit, which nobody waits for.
        self.has_answers = False

    # --- what is to be written ----------------------------------------------------------------------------------------

    def __bool__(self) -> bool:
        """Whether there is something to write."""
        return bool(self._queue)

    def take(self) -> bytes:
        """What has to be written to the socket now."""
        queue, self._queue = self._queue, []
        self.has_answers = False
        return b"".join(queue)

    def queue(self, control_frame: bytes) -> None:
        """Queues a frame that no call waits for."""
        self._queue.append(control_frame)

    def acknowledge_ping(self, payload: bytes) -> None:
        """Once ``release_ping_acks`` is called."""
        self._ping_acks.append(frame(FrameType.PING, ACK, 0, payload))

    @property
    def has_ping_acks(self) -> bool:
        return bool(self._ping_acks)

    def release_ping_acks(self) -> None:
        """Queues what acknowledges pings, behind all data."""
        self._queue += self._ping_acks
        self._ping_acks.clear()

    # --- what owners of streams send ----------------------------------------------------------------------------------

    def send_headers(self, stream_id: int, block: bytes, *, end_stream: bool = False) -> None:
        """Response headers, or trailers with ``end_stream``: those go out behind all data."""
        stream = self._streams.open.get(stream_id)
        if stream is None or stream.end_queued:
            return
        if end_stream and stream.output_bytes:
            stream.trailers, stream.end_queued = block, True
            return
        self._write_headers(stream, block, end_stream=end_stream)

    def send_data(self, stream_id: int, data: bytes, *, end_stream: bool = False) -> None:
        """Sends what the windows allow and keeps the rest."""
        stream = self._streams.open.get(stream_id)
        if stream is None or stream.end_queued:
            return
        size = len(data)
        if not stream.output_bytes and 0 < size <= self._room_for_frame(stream) and not end_stream:
            stream.send_window -= size
            self._send_window -= size
            self._floods.earned_updates += _UPDATES_PER_FRAME
            self.has_answers = True
            self._queue += (FRAME_HEADER.pack(size << 8 | _DATA_WORD, 0, stream_id), data)
            return
        stream.end_queued = end_stream
        if data:
            stream.waiting.append(memoryview(data))
            stream.output_bytes += size
        self._send_waiting(stream)

    def send_response(self, stream_id: int, headers: bytes, data: bytes, trailers: bytes) -> None:
        """A whole answer: the same as headers, data and trailers one after the other."""
        stream = self._streams.open.get(stream_id)
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
        self._floods.earned_updates += _UPDATES_PER_FRAME
        self.has_answers = True
        self._queue += (
            FRAME_HEADER.pack(len(headers) << 8 | FrameType.HEADERS, END_HEADERS, stream_id),
            headers,
            FRAME_HEADER.pack(len(data) << 8 | _DATA_WORD, 0, stream_id),
            data,
            FRAME_HEADER.pack(len(trailers) << 8 | FrameType.HEADERS, END_HEADERS | END_STREAM, stream_id),
            trailers,
        )
        del self._streams.open[stream_id]
        self._streams.finished += 1

    def waiting_bytes(self, stream_id: int) -> int:
        """Bytes of the stream that wait for its windows. Its owner is told (Drained) when they become few."""
        stream = self._streams.open.get(stream_id)
        if stream is None:
            return 0
        if stream.output_bytes > self._low_water_bytes:
            stream.was_full = True
        return stream.output_bytes

    def reset(self, stream_id: int, code: ErrorCode) -> None:
        """Ends a stream at once; what waits for it is dropped."""
        self._streams.forget_reset(stream_id)
        self.has_answers = True
        self._queue.append(reset_frame(stream_id, code))

    # --- what the peer allows -----------------------------------------------------------------------------------------

    def apply_setting(self, name: int, value: int) -> None:
        """One of the peer's settings. Raises ConnectionFault for a value out of bounds; unknown names are ignored."""
        match name:
            case Setting.HEADER_TABLE_SIZE if value < _DEFAULT_TABLE_BYTES:
                self._table_update = _EMPTY_TABLE
            case Setting.ENABLE_PUSH if value > 1:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"ENABLE_PUSH of {value}")
            case Setting.INITIAL_WINDOW_SIZE:
                self._change_initial_window(value)
            case Setting.MAX_FRAME_SIZE:
                if not MAX_FRAME_BYTES <= value < 1 << 24:
                    raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"MAX_FRAME_SIZE of {value}")
                self._max_frame_bytes = value

    def _change_initial_window(self, value: int) -> None:
        """The windows of open streams change by as much as it does, and may become negative."""
        if value > MAX_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE of {value}")
        change, self.initial_window = value - self.initial_window, value
        for stream in self._streams.open.values():
            stream.send_window += change
            if stream.send_window > MAX_WINDOW:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a window beyond 2**31 - 1")

    def grow_window(self, stream: Stream, increment: int) -> bool:
        """The peer takes more of one stream, which sends what waits. Whether its owner, who was told that it is full, has
        room again. Raises StreamFault."""
        if increment == 0:
            raise StreamFault(stream.stream_id, ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
        stream.send_window += increment
        if stream.send_window > MAX_WINDOW:
            raise StreamFault(stream.stream_id, ErrorCode.FLOW_CONTROL_ERROR, "a window beyond 2**31 - 1")
        return stream.output_bytes > 0 and self._send_waiting(stream)

    def grow_connection_window(self, increment: int) -> None:
        """The peer takes more of all streams together; ``send_waiting`` sends it. Raises ConnectionFault."""
        if increment == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
        self._send_window += increment
        if self._send_window > MAX_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "a window beyond 2**31 - 1")

    def send_waiting(self) -> list[Drained]:
        """Sends what the windows allow of all streams, each in its turn. Tells which of them have room again."""
        drained: list[Drained] = []
        for stream in list(self._streams.open.values()):
            if self._send_window <= 0:
                break
            if not stream.output_bytes:
                continue
            self._streams.open.move_to_end(stream.stream_id)
            if self._send_waiting(stream):
                drained.append(Drained(stream.stream_id))
        return drained

    # --- frames of streams --------------------------------------------------------------------------------------------

    def _room_for_frame(self, stream: Stream) -> int:
        """The largest data that can go out at once, in one frame."""
        return min(stream.send_window, self._send_window, self._max_frame_bytes)

    def _send_waiting(self, stream: Stream) -> bool:
        """Sends what the windows allow, and the end of the stream if it is queued and nothing waits before it. Whether
        the owner, who was told that it is full, has room again."""
        if stream.output_bytes:
            room = min(stream.send_window, self._send_window, stream.output_bytes)
            if room <= 0:
                return False
            self._write_waiting(stream, room)
        elif stream.end_queued:
            self.has_answers = True
            self._queue += data_frames(stream.stream_id, memoryview(b""), self._max_frame_bytes, end=True)
        if stream.end_queued and not stream.output_bytes:
            self._write_end(stream)
            return False
        if not stream.was_full or stream.output_bytes > self._low_water_bytes:
            return False
        stream.was_full = False
        return True

    def _write_waiting(self, stream: Stream, size: int) -> None:
        data = stream.take_waiting(size)
        stream.send_window -= size
        self._send_window -= size
        last = stream.end_queued and not stream.output_bytes and stream.trailers is None
        frames = data_frames(stream.stream_id, data, self._max_frame_bytes, end=last)
        self._floods.earned_updates += _UPDATES_PER_FRAME * len(frames) // 2
        self.has_answers = True
        self._queue += frames

    def _write_end(self, stream: Stream) -> None:
        """Trailers end a stream; without them, its last DATA frame did."""
        if stream.trailers is None:
            self._end_local(stream)
        else:
            self._write_headers(stream, stream.trailers, end_stream=True)

    def _write_headers(self, stream: Stream, block: bytes, *, end_stream: bool) -> None:
        stream.answered = self.has_answers = True
        block, self._table_update = self._table_update + block, b""
        flags = END_STREAM if end_stream else 0
        size = self._max_frame_bytes
        pieces = [block[start : start + size] for start in range(0, len(block), size)] or [b""]
        for number, piece in enumerate(pieces):
            kind = FrameType.CONTINUATION if number else FrameType.HEADERS
            last = END_HEADERS if number == len(pieces) - 1 else 0
            self._queue.append(frame(kind, last | (0 if number else flags), stream.stream_id, piece))
        if end_stream:
            self._end_local(stream)

    def _end_local(self, stream: Stream) -> None:
        """Our last byte is queued. A peer that hasn't ended its side by then need not send the rest."""
        if stream.remote_ended:
            del self._streams.open[stream.stream_id]
        else:
            self.reset(stream.stream_id, ErrorCode.NO_ERROR)
        self._streams.finished += 1
