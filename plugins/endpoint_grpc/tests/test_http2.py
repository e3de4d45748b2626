"""HTTP/2 without IO: however the bytes are split, whatever they are."""

import h2.config
import h2.connection
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liftbridge.errors import InternalError, ResourceExhausted, Status
from liftbridge_endpoint_grpc.framing import MessageReader, frame_message
from liftbridge_endpoint_grpc.http2.connection import Http2Connection
from liftbridge_endpoint_grpc.http2.events import ConnectionEnded, DataReceived, RequestReceived, StreamEnded
from liftbridge_endpoint_grpc.status import parse_timeout, trailers

HEADERS = [(":method", "POST"), (":scheme", "http"), (":path", "/a/b"), (":authority", "x"), ("te", "trailers")]


def conversation(messages: list[bytes]) -> bytes:
    """What a client sends: one stream, one DATA frame a message."""
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
    client.initiate_connection()
    client.send_headers(1, HEADERS)
    for message in messages:
        client.send_data(1, message)
    client.end_stream(1)
    return client.data_to_send()


def summary(events) -> tuple[bytes, list[type]]:
    data = b"".join(event.data for event in events if isinstance(event, DataReceived))
    return data, [type(event) for event in events if not isinstance(event, DataReceived)]


@settings(deadline=None)
@given(st.lists(st.sampled_from([b"a" * 40, b"b" * 41, b"c"]), max_size=60), st.data())
def test_however_the_bytes_are_split_the_events_are_the_same(messages: list[bytes], data) -> None:
    sent = conversation(messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=6)))
    connection = Http2Connection()
    events = []
    for start, stop in zip([0, *cuts], [*cuts, len(sent)], strict=True):
        events += connection.receive(sent[start:stop])
    assert summary(events) == (b"".join(messages), [RequestReceived, StreamEnded])


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=60), st.integers(0, 200), st.integers(0, 255))
def test_mutated_traffic_ends_the_connection_or_is_read_and_never_raises(noise: bytes, place: int, value: int) -> None:
    sent = bytearray(conversation([b"x" * 10] * 5))
    sent[place % len(sent)] = value
    connection = Http2Connection()
    connection.receive(bytes(sent) + noise)
    connection.output.take()
    Http2Connection().receive(noise)


def test_other_protocols_are_refused_at_the_first_bytes() -> None:
    connection = Http2Connection()
    (event,) = connection.receive(b"GET / HTTP/1.1\r\n\r\n")
    assert isinstance(event, ConnectionEnded)
    assert connection.closed


@pytest.mark.parametrize("size", [1, 4, 5, 6, 100])
def test_whole_messages_are_found_in_any_chunks(size: int) -> None:
    stream = b"".join(frame_message(b"m" * (i % 3 + 20)) for i in range(50))
    reader = MessageReader(1000, gzip=False)
    whole = [reader.feed(stream[i : i + size]) for i in range(0, len(stream), size)]
    assert b"".join(whole) == stream
    assert not reader.unfinished


def test_messages_beyond_the_limit_are_refused_before_they_arrive() -> None:
    with pytest.raises(ResourceExhausted, match=r"\(1001 vs. 1000\)"):
        MessageReader(1000, gzip=False).feed(b"\0" + (1001).to_bytes(4, "big"))
    with pytest.raises(InternalError, match="compressed flag"):
        MessageReader(1000, gzip=False).feed(b"\1\0\0\0\1x")


def test_a_gzip_bomb_is_stopped_at_the_limit() -> None:
    import gzip

    bomb = gzip.compress(bytes(10_000_000))
    with pytest.raises(ResourceExhausted):
        MessageReader(100_000, gzip=True).feed(b"\1" + len(bomb).to_bytes(4, "big") + bomb)
    fine = gzip.compress(b"hello")
    assert MessageReader(100, gzip=True).feed(b"\1" + len(fine).to_bytes(4, "big") + fine) == frame_message(b"hello")


def test_time_outs_and_texts() -> None:
    assert [parse_timeout(text) for text in ("1H", "2M", "3S", "4m", "5u", "6n")] == [
        3_600_000_000_000, 120_000_000_000, 3_000_000_000, 4_000_000, 5_000, 6,
    ]  # fmt: skip
    for bad in ("", "1", "S", "-1S", "1x", "123456789S", "1.5S"):
        with pytest.raises(ValueError):
            parse_timeout(bad)
    assert b"50%25 d\xc3" not in trailers(Status.UNKNOWN, "50% då")
    assert b"50%25 d%C3%A5" in trailers(Status.UNKNOWN, "50% då")


def window_updates(count: int) -> bytes:
    """As many as that, of the stream and of the connection in turn."""
    return b"".join(b"\0\0\4\x08\0" + (number % 2).to_bytes(4, "big") + b"\0\0\0\1" for number in range(count))


def test_updates_of_windows_are_no_flood_when_there_was_data_for_each() -> None:
    """grpcio sends two for every small answer; a busy server finds thousands of them in one read."""
    connection = Http2Connection()
    connection.receive(conversation([b"x"])[: -len(b"\0\0\0\0\1\0\0\0\1")])
    for _ in range(3000):
        connection.output.send_data(1, b"answer")
    assert connection.receive(window_updates(6000)) == []
    assert not connection.closed


def test_updates_of_windows_without_data_are_a_flood() -> None:
    connection = Http2Connection()
    connection.receive(conversation([b"x"])[: -len(b"\0\0\0\0\1\0\0\0\1")])
    (event,) = connection.receive(window_updates(6000))
    assert isinstance(event, ConnectionEnded)
    assert "flood" in event.reason
