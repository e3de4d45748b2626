"""Well-formed frames in any order: a connection says what it must, sends no more than it may, and never raises."""

from dataclasses import dataclass, field
from typing import Any

import hpack
from hypothesis import given, settings
from hypothesis import strategies as st

from liftbridge_endpoint_grpc.http2.connection import Http2Connection
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
    PADDED,
    PREFACE,
    ErrorCode,
    FrameType,
    frame,
)

_REQUEST = [(":method", "POST"), (":scheme", "http"), (":path", "/a/b"), (":authority", "x"), ("te", "trailers")]
_TRAILER = [("x-trailer", "1")]
#: The longest frame that answers another: RST_STREAM, the ack of a ping, WINDOW_UPDATE; and a GOAWAY's text.
_ANSWER_BYTES, _GOAWAY_BYTES = 2 * (FRAME_HEADER_BYTES + 8), 300


def block(headers: list[tuple[str, str]]) -> bytes:
    """From a new encoder each time: it refers to nothing that came before."""
    return bytes(hpack.Encoder().encode(headers))


def word(number: int) -> bytes:
    return number.to_bytes(4, "big")


def setting(name: int, value: int) -> bytes:
    return name.to_bytes(2, "big") + word(value)


_STREAMS = st.sampled_from((1, 3, 5, 7, 9))
_SMALL = st.integers(1, 70_000)
_SETTING = st.one_of(
    st.builds(setting, st.just(1), st.integers(0, 8192)),
    st.builds(setting, st.just(4), st.integers(0, 200_000)),
    st.builds(setting, st.just(5), st.integers(16_384, 100_000)),
    st.builds(setting, st.just(99), st.integers(0, 100)),
)
#: Seldom, because after the end there is little left to say.
_END = st.sampled_from((0, 0, 0, 0, 0, END_STREAM))


def _headers(stream_id: int, end: int, is_trailer: bool, is_split: bool) -> bytes:
    encoded = block(_TRAILER if is_trailer else _REQUEST)
    if not is_split:
        return frame(FrameType.HEADERS, end | END_HEADERS, stream_id, encoded)
    half = len(encoded) // 2
    rest = frame(FrameType.CONTINUATION, END_HEADERS, stream_id, encoded[half:])
    return frame(FrameType.HEADERS, end, stream_id, encoded[:half]) + rest


def _data(stream_id: int, size: int, padding: int, end: int) -> bytes:
    flags = end | (PADDED if padding else 0)
    payload = (bytes((padding,)) if padding else b"") + b"d" * size + bytes(padding)
    return frame(FrameType.DATA, flags, stream_id, payload)


_FRAMES = st.one_of(
    st.builds(_headers, _STREAMS, st.just(END_STREAM), st.just(True), st.booleans()),
    st.builds(_data, _STREAMS, st.integers(0, 200), st.sampled_from((0, 0, 7)), _END),
    st.builds(_data, _STREAMS, st.integers(0, 200), st.sampled_from((0, 0, 7)), _END),
    st.builds(
        lambda stream_id, size: frame(FrameType.WINDOW_UPDATE, 0, stream_id, word(size)), _STREAMS | st.just(0), _SMALL
    ),
    st.builds(lambda stream_id: frame(FrameType.RST_STREAM, 0, stream_id, word(ErrorCode.CANCEL)), _STREAMS),
    st.builds(lambda flags: frame(FrameType.PING, flags, 0, b"12345678"), st.sampled_from((0, ACK))),
    st.builds(lambda pairs: frame(FrameType.SETTINGS, 0, 0, b"".join(pairs)), st.lists(_SETTING, max_size=3)),
    st.just(frame(FrameType.SETTINGS, ACK, 0)),
    st.builds(lambda stream_id: frame(FrameType.PRIORITY, 0, stream_id, word(0) + b"\x10"), _STREAMS),
    st.just(frame(FrameType.GOAWAY, 0, 0, word(0) + word(0))),
    st.just(FRAME_HEADER.pack(3 << 8 | 0x20, 0, 0) + b"new"),
)
#: What the owner of the connection does in between, with a stream and a size.
_OWNER = st.tuples(st.sampled_from(("answer", "send", "credit")), _STREAMS, _SMALL)
_REQUESTS = st.builds(_headers, _STREAMS, _END, st.just(False), st.booleans())
#: Mostly with all streams open from the start, because most frames on others end the connection.
_OPENING = st.sampled_from(([], [1], [1, 3, 5, 7, 9], [1, 3, 5, 7, 9], [1, 3, 5, 7, 9]))
_STEPS = st.builds(
    lambda opened, steps: [_headers(stream_id, 0, False, False) for stream_id in opened] + steps,
    _OPENING,
    st.lists(st.one_of(_FRAMES, _FRAMES, _FRAMES, _OWNER, _OWNER, _REQUESTS | _FRAMES), max_size=60),
)


@dataclass
class Model:
    """What has to hold of the events."""

    requested: set[int] = field(default_factory=set)
    remote_ended: set[int] = field(default_factory=set)
    gone: set[int] = field(default_factory=set)
    last_requested: int = 0
    is_ended: bool = False

    def take(self, event: Event) -> None:
        assert not self.is_ended, "an event after the end"
        if isinstance(event, ConnectionEnded):
            self.is_ended = True
            assert event.reason
            return
        stream_id = event.stream_id
        if isinstance(event, RequestReceived):
            assert stream_id > self.last_requested, "streams must ascend"
            self.last_requested = stream_id
            self.requested.add(stream_id)
            assert (b":path", b"/a/b") in event.headers
            if event.end_stream:
                self.remote_ended.add(stream_id)
            return
        assert stream_id not in self.gone, "a stream that was reset says no more"
        if isinstance(event, StreamReset):  # of a request, or of what was too malformed to be one
            self.gone.add(stream_id)
            return
        assert stream_id in self.requested
        if isinstance(event, DataReceived):
            assert stream_id not in self.remote_ended
            assert set(event.data) <= set(b"d")
            assert event.credit_bytes >= len(event.data)
        elif isinstance(event, StreamEnded):
            assert stream_id not in self.remote_ended, "the end came twice"
            self.remote_ended.add(stream_id)
        else:
            assert isinstance(event, Drained)


def frames_of(output: bytes) -> list[tuple[int, int, int, bytes]]:
    """Type, flags, stream and payload of each; fails where the bytes are no frames."""
    found = []
    position = 0
    while position < len(output):
        length_and_type, flags, stream_id = FRAME_HEADER.unpack_from(output, position)
        start = position + FRAME_HEADER_BYTES
        position = start + (length_and_type >> 8)
        assert position <= len(output), "a frame is cut short"
        found.append((length_and_type & 0xFF, flags, stream_id, output[start:position]))
    return found


def own(connection: Http2Connection, step: tuple[str, int, int]) -> None:
    """What an owner may do to any stream at any time, gone ones included."""
    what, stream_id, size = step
    if what == "answer":
        connection.output.send_response(stream_id, block([(":status", "200")]), b"a" * size, block(_TRAILER))
    elif what == "send" and connection.output.waiting_bytes(stream_id) == 0:
        connection.output.send_data(stream_id, b"s" * size)
    elif what == "credit":
        connection.give_credit(stream_id, size)


@settings(deadline=None, max_examples=300)
@given(_STEPS)
def test_any_order_of_frames_gives_the_documented_events_and_bounded_output(steps: list[Any]) -> None:
    connection = Http2Connection()
    connection.receive(PREFACE + frame(FrameType.SETTINGS, 0, 0))
    connection.output.take()
    model, allowed, sent_data_bytes = Model(), DEFAULT_WINDOW, 0
    for step in steps:
        if isinstance(step, tuple):
            own(connection, step)
            limit_bytes = 1 << 30
        else:
            for event in connection.receive(step):
                model.take(event)
            kind, _, stream_id, payload = frames_of(step)[0]
            if kind == FrameType.WINDOW_UPDATE and stream_id == 0:
                allowed += int.from_bytes(payload, "big")
            limit_bytes = _ANSWER_BYTES + _GOAWAY_BYTES
        output = frames_of(connection.output.take())
        sent = sum(len(payload) for kind, _, _, payload in output if kind == FrameType.DATA)
        sent_data_bytes += sent
        other = sum(FRAME_HEADER_BYTES + len(payload) for kind, _, _, payload in output if kind != FrameType.DATA)
        assert sent_data_bytes <= allowed, "more data than the peer's window"
        assert other <= limit_bytes + 100 * len(model.requested)  # waiting answers may have trailers to send
        assert all(len(payload) <= 100_000 for _, _, _, payload in output)
        assert connection.closed == model.is_ended
        if model.is_ended:
            assert output[-1][0] == FrameType.GOAWAY
            assert connection.receive(step if isinstance(step, bytes) else b"") == []
            assert connection.output.take() == b""
            return
        assert len(connection.streams.open) <= len(model.requested)
