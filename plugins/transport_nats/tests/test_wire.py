"""The protocol's bytes: any split of a valid stream gives the same deliveries, and garbage gives a clean error."""

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liftbridge.errors import ProtocolError
from liftbridge.interfaces.transport import Delivery
from liftbridge_transport_nats.subjects import check_literal, check_pattern, publish_command
from liftbridge_transport_nats.wire import MAX_LINE_BYTES, Splitter, publish_commands

BULK_SIDS = (1, 2, 30)

subjects = st.sampled_from(["a", "foo.bar", "ü.x", "a.b.c.d.e.f.g"])
replies = st.sampled_from(["", "", "", "_INBOX.1", "r"])
payloads = st.binary(max_size=40) | st.sampled_from([b"", b"\r\n", b"MSG a 1 5\r\nhello\r\n", b"x" * 5000])


def message(sid: int, subject: str, reply: str, payload: bytes, headers: bytes = b"") -> bytes:
    words = [subject, str(sid)] + ([reply] if reply else [])
    words += [str(len(headers)), str(len(headers) + len(payload))] if headers else [str(len(payload))]
    verb = "HMSG" if headers else "MSG"
    return f"{verb} {' '.join(words)}\r\n".encode() + headers + payload + b"\r\n"


@st.composite
def units(draw: st.DrawFn) -> list[tuple[bytes, tuple[int, str, str, bytes] | None]]:
    """Protocol units; with those for bulk subscriptions, what must be delivered."""
    result: list[tuple[bytes, tuple[int, str, str, bytes] | None]] = []
    for _ in range(draw(st.integers(0, 12))):
        if draw(st.booleans()):
            result.append((draw(st.sampled_from([b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b'INFO {"a":1}\r\n'])), None))
            continue
        sid = draw(st.sampled_from((*BULK_SIDS, 7)))
        subject, reply, payload = draw(subjects), draw(replies), draw(payloads)
        headers = draw(st.sampled_from([b"", b"", b"NATS/1.0\r\nA: b\r\n\r\n"]))
        data = message(sid, subject, reply, payload, headers)
        expected = (sid, subject, reply, payload) if sid in BULK_SIDS else None
        result += [(data, expected)] * draw(st.sampled_from([1, 1, 2, 7, 8, 9, 50]))
    return result


def splitter() -> Splitter:
    made = Splitter()
    made.bulk_sids = {b"%d" % sid for sid in BULK_SIDS}
    return made


def feed_all(chunks: list[bytes]) -> tuple[dict[int, list[tuple[str, str, bytes]]], bytes, list[str]]:
    subject = splitter()
    got: dict[int, list[tuple[str, str, bytes]]] = defaultdict(list)
    others, errors = b"", []
    for chunk in chunks:
        received = subject.feed(chunk)
        others += received.others
        errors += received.errors
        for sid, deliveries in received.deliveries.items():
            got[int(sid)] += [(d.subject, d.reply, payload) for d in deliveries for payload in d.payloads]
    return got, others, errors


@given(units(), st.data())
def test_any_split_of_a_stream_gives_the_same_deliveries(
    stream: list[tuple[bytes, tuple[int, str, str, bytes] | None]], data: st.DataObject
) -> None:
    whole = b"".join(unit for unit, _ in stream)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=30)))
    chunks = [whole[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    expected: dict[int, list[tuple[str, str, bytes]]] = defaultdict(list)
    for _, delivered in stream:
        if delivered is not None:
            expected[delivered[0]].append(delivered[1:])
    got, others, errors = feed_all(chunks)
    assert got == expected
    assert others == b"".join(unit for unit, delivered in stream if delivered is None)
    assert errors == []


def test_one_byte_at_a_time_gives_the_same_deliveries() -> None:
    stream = message(1, "a", "r", b"x\r\n") + b"PING\r\n" + message(2, "b", "", b"", b"NATS/1.0\r\n\r\n") * 3
    got, others, _ = feed_all([stream[i : i + 1] for i in range(len(stream))])
    assert got == {1: [("a", "r", b"x\r\n")], 2: [("b", "", b"")] * 3}
    assert others == b"PING\r\n"


@given(units(), st.binary(min_size=1, max_size=60), st.data())
def test_garbage_is_a_protocol_error_or_incomplete_and_never_another_error(
    stream: list[tuple[bytes, tuple[int, str, str, bytes] | None]], garbage: bytes, data: st.DataObject
) -> None:
    whole = b"".join(unit for unit, _ in stream)
    place = data.draw(st.integers(0, len(whole)))
    subject = splitter()
    try:
        subject.feed(whole[:place] + garbage + whole[place:])
    except ProtocolError as error:
        assert "NATS" in str(error)
    subject.reset()
    assert subject.feed(message(1, "a", "", b"x")).deliveries == {b"1": [Delivery("a", "", [b"x"])]}


@pytest.mark.parametrize(
    "line",
    [
        b"\r\n",
        b"HELLO\r\n",
        b"MSG\r\n",
        b"MSG a 1\r\n",
        b"MSG a 1 x\r\n",
        b"MSG a 1 -5\r\n",
        b"MSG a 1 99999999999\r\n",
        b"HMSG a 1 10 5\r\n",
        b"HMSG a 1 -1 5\r\n",
        b"GET / HTTP/1.1\r\n",
        b"x" * (MAX_LINE_BYTES + 1),
    ],
)
def test_a_line_that_no_server_sends_is_a_protocol_error(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        splitter().feed(message(1, "a", "", b"x") + line)


def test_consecutive_messages_of_one_subject_are_one_delivery_for_each_subscription() -> None:
    alternating = (message(1, "a", "", b"x") + message(2, "a", "", b"x")) * 3
    received = splitter().feed(alternating + message(1, "a", "r", b"y") + message(1, "a", "r", b"zz"))
    assert received.deliveries == {
        b"1": [Delivery("a", "", [b"x"] * 3), Delivery("a", "r", [b"y", b"zz"])],
        b"2": [Delivery("a", "", [b"x"] * 3)],
    }


def test_errors_of_the_server_are_told_apart() -> None:
    received = splitter().feed(b"-ERR 'Slow Consumer'\r\nPING\r\n-ERR\r\n")
    assert received.errors == ["Slow Consumer", ""]
    assert received.others == b"PING\r\n"


def test_a_no_responders_status_is_not_a_message() -> None:
    status = b"NATS/1.0 503\r\n\r\n"
    assert splitter().feed(message(1, "inbox", "", b"", status)).deliveries == {}
    assert splitter().feed(message(1, "inbox", "", b"x", status)).deliveries == {b"1": [Delivery("inbox", "", [b"x"])]}


def test_a_subject_that_is_not_utf8_arrives_marked() -> None:
    received = splitter().feed(b"MSG a.\xff 1 1\r\nx\r\n")
    assert received.deliveries == {b"1": [Delivery("a.\ufffd", "", [b"x"])]}


@given(st.lists(payloads, min_size=1, max_size=20))
def test_publish_commands_are_one_command_for_each_payload(items: list[bytes]) -> None:
    expected = b"".join(b"PUB a.b r %d\r\n%b\r\n" % (len(item), item) for item in items)
    assert publish_commands(publish_command("a.b", "r"), items) == expected


@given(st.text(alphabet="ab.*> \r\n\t\0ü", max_size=8))
def test_no_subject_smuggles_anything_into_a_command(subject: str) -> None:
    tokens = subject.split(".")
    words_only = bool(subject) and "" not in tokens and not any(character in " \r\n\t\0" for character in subject)
    assert _accepts(check_literal, subject) is (words_only and "*" not in tokens and ">" not in tokens)
    assert _accepts(lambda s: check_pattern(s, ""), subject) is (words_only and ">" not in tokens[:-1])


def _accepts(check: object, subject: str) -> bool:
    assert callable(check)
    try:
        check(subject)
    except ValueError:
        return False
    return True
