"""What stands on a direct link: any cut into reads gives the same messages, and nonsense is an error."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liftbridge.errors import ProtocolError
from liftbridge_transport_nats.frames import (
    MAX_FRAME_BYTES,
    Announcement,
    FrameReader,
    decode_announcement,
    encode_announcement,
    encode_frames,
)

_NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=20)
_SENT = st.tuples(st.integers(0, 2**32 - 1), _NAMES, _NAMES, st.lists(st.binary(max_size=50), min_size=1, max_size=5))
_ANNOUNCED = Announcement("a", "127.0.0.1", 4711, b"0123456789abcdef", {1: "x.fetch.a", 7: "x.answer.a.>"}, asks=True)


def _messages(found: list[tuple[int, object]]) -> list[tuple[int, str, str, bytes]]:
    return [(number, one.subject, one.reply, payload) for number, one in found for payload in one.payloads]  # type: ignore[attr-defined]


@given(st.lists(_SENT, max_size=8), st.data())
def test_messages_come_out_as_they_went_in_however_the_bytes_are_cut(
    sent: list[tuple[int, str, str, list[bytes]]], data: st.DataObject
) -> None:
    stream = b"".join(encode_frames(*one) for one in sent)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=10)))
    reader = FrameReader()
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += reader.feed(stream[start:end])
    assert _messages(found) == [(n, subject, reply, payload) for n, subject, reply, some in sent for payload in some]


def test_consecutive_messages_of_one_subject_are_one_delivery() -> None:
    stream = (
        encode_frames(1, "a", "r", [b"1", b"2"]) + encode_frames(1, "a", "r", [b"3"]) + encode_frames(1, "b", "", [b""])
    )
    assert [delivery for _, delivery in FrameReader().feed(stream)] == [
        ("a", "r", [b"1", b"2", b"3"]),
        ("b", "", [b""]),
    ]


def test_names_of_another_length_are_not_taken_for_the_same() -> None:
    stream = encode_frames(1, "ab", "c", [b"1"]) + encode_frames(1, "a", "bc", [b"2"])
    assert _messages(FrameReader().feed(stream)) == [(1, "ab", "c", b"1"), (1, "a", "bc", b"2")]


@pytest.mark.parametrize("head", [(MAX_FRAME_BYTES + 1, 1, 1, 0), (1, 1, 1, 1), (0, 1, 0, 1)])
def test_what_is_no_frame_is_an_error(head: tuple[int, int, int, int]) -> None:
    with pytest.raises(ProtocolError, match="frame"):
        FrameReader().feed(struct.pack(">IIHH", *head))


def test_an_announcement_comes_back() -> None:
    assert decode_announcement(encode_announcement(_ANNOUNCED)) == _ANNOUNCED


@given(st.binary())
def test_garbage_is_no_announcement(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_announcement(data)


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ('"version": 1', '"version": 2'),
        ("127.0.0.1", "example.org"),
        ("4711", "0"),
        ("4711", "65536"),
        ("4711", '"x"'),
        ("3031", "zz"),
        ("3031", ""),
        ('{"1"', '{"one"'),
        ('"server": "a", ', ""),
    ],
)
def test_an_announcement_that_makes_no_sense_is_an_error(text: str, other: str) -> None:
    data = encode_announcement(_ANNOUNCED).decode()
    assert text in data
    with pytest.raises(ProtocolError, match="announcement"):
        decode_announcement(data.replace(text, other).encode())
