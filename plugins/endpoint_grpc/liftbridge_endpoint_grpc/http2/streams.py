"""The streams of one connection: which are open, and where each stands."""

from collections import OrderedDict

from liftbridge_endpoint_grpc.http2.frames import ConnectionFault, ErrorCode, StreamFault


class Stream:
    """One open stream: what may still come, and what waits to go out."""

    __slots__ = (
        "answered",
        "content_length",
        "credit_bytes",
        "end_queued",
        "output_bytes",
        "receive_window",
        "received_bytes",
        "remote_ended",
        "send_window",
        "stream_id",
        "trailers",
        "waiting",
        "was_full",
    )

    def __init__(self, stream_id: int, send_window: int, receive_window: int, content_length: int | None) -> None:
        self.stream_id = stream_id
        self.content_length = content_length
        #: Bytes that the peer may still send, and those that its data gave back but we haven't told it yet.
        self.receive_window = receive_window
        self.credit_bytes = 0
        self.received_bytes = 0
        self.remote_ended = False
        #: Response headers were sent.
        self.answered = False
        #: Bytes that we may still send.
        self.send_window = send_window
        #: Data that the windows don't allow yet; then trailers, if any; then the end, if that is queued.
        self.waiting: list[memoryview] = []
        self.output_bytes = 0
        self.trailers: bytes | None = None
        self.end_queued = False
        #: Its owner was told of more waiting output than the low water.
        self.was_full = False

    def take_data(self, data_bytes: int, flow_bytes: int) -> None:
        """Counts data that came; ``flow_bytes`` are with padding. Raises StreamFault if it shouldn't have come."""
        if self.remote_ended:
            raise StreamFault(self.stream_id, ErrorCode.STREAM_CLOSED, "data after the end of the stream")
        self.receive_window -= flow_bytes
        if self.receive_window < 0:
            raise StreamFault(self.stream_id, ErrorCode.FLOW_CONTROL_ERROR, "more data than the stream's window")
        self.received_bytes += data_bytes
        if self.content_length is not None and self.received_bytes > self.content_length:
            raise StreamFault(self.stream_id, ErrorCode.PROTOCOL_ERROR, "more data than content-length says")

    def end_remote(self) -> None:
        """The peer's last byte came. Raises StreamFault if its headers spoke of more."""
        if self.content_length is not None and self.received_bytes != self.content_length:
            raise StreamFault(self.stream_id, ErrorCode.PROTOCOL_ERROR, "less data than content-length says")
        self.remote_ended = True

    def take_waiting(self, size: int) -> memoryview:
        """The first ``size`` bytes of what waits, removed from it. There must be as many."""
        self.output_bytes -= size
        waiting = self.waiting
        if len(waiting[0]) > size:
            taken, waiting[0] = waiting[0][:size], waiting[0][size:]
            return taken
        pieces = []
        while size:
            piece = waiting[0]
            if len(piece) <= size:
                waiting.pop(0)
            else:
                piece, waiting[0] = piece[:size], piece[size:]
            pieces.append(piece)
            size -= len(piece)
        return pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces))


class Streams:
    """All streams of a connection. One leaves ``open`` when both sides have ended, or either reset it."""

    def __init__(self, max_remembered: int) -> None:
        self._max_remembered = max_remembered
        #: IDs, as far as they are remembered: late frames of these are no fault of the peer.
        self.reset_by_us: OrderedDict[int, None] = OrderedDict()
        #: By stream ID. When the connection's window grows, they are served in this order.
        self.open: OrderedDict[int, Stream] = OrderedDict()
        #: The highest ID that the peer has used.
        self.last_id = 0
        #: How many had their answer.
        self.finished = 0

    def forget_reset(self, stream_id: int) -> None:
        """We are resetting this stream."""
        self.open.pop(stream_id, None)
        self.reset_by_us[stream_id] = None
        if len(self.reset_by_us) > self._max_remembered:
            self.reset_by_us.popitem(last=False)

    def was_opened(self, stream_id: int) -> bool:
        """Whether the peer ever opened this stream. Clients' streams have odd IDs that ascend."""
        return stream_id <= self.last_id and stream_id % 2 == 1

    def check_late_data(self, stream_id: int) -> None:
        """Data came for a stream that isn't open. Raises ConnectionFault unless we reset it a moment ago."""
        if stream_id in self.reset_by_us:
            return
        if not self.was_opened(stream_id):
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"stream {stream_id} was never opened")
        raise ConnectionFault(ErrorCode.STREAM_CLOSED, f"stream {stream_id} is closed")
