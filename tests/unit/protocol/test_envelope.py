"""Envelopes, and the marks of mirrored messages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liftbridge.errors import ProtocolError
from liftbridge.protocol.envelope import MessageType, envelope_header, has_mark, mirror_mark, open_envelope
from liftbridge.protocol.generated import api_pb2 as api

partitions = st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1))


@given(st.binary(max_size=20), st.lists(partitions, max_size=3), partitions)
def test_message_has_the_marks_that_were_put_behind_it(
    value: bytes, marked: list[tuple[int, int]], other: tuple[int, int]
) -> None:
    message = api.Message(value=value, ackInbox="inbox")
    payload = message.SerializeToString() + b"".join(mirror_mark(*one) for one in marked)
    assert all(has_mark(payload, mirror_mark(*one)) for one in marked)
    assert has_mark(payload, mirror_mark(*other)) == (other in marked)
    parsed = api.Message.FromString(payload)
    assert (parsed.value, parsed.ackInbox) == (value, "inbox"), "who doesn't know marks reads the message all the same"


@given(st.binary(max_size=40))
def test_whatever_comes_is_opened_or_refused(data: bytes) -> None:
    has_mark(data, mirror_mark(1, 2))
    for kind in MessageType:
        assert open_envelope(envelope_header(kind) + data, kind) == data
    with pytest.raises(ProtocolError):
        open_envelope(data[:7], MessageType.PUBLISH)
