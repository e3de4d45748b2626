"""Publish requests become records and acks: the quick way and the thorough way agree."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liftbridge.errors import ProtocolError
from liftbridge.protocol.acks import AckTemplate, encode_ack_texts, encode_ack_times, encode_publish_responses
from liftbridge.protocol.generated import api_pb2 as api
from liftbridge.protocol.publish_requests import PublishRun, RequestParser
from liftbridge.protocol.record_batch import decode_batch, encode_batch, iter_bodies, iter_records
from liftbridge.protocol.record_encoding import encode_records, encode_trailer

requests = st.builds(
    api.PublishRequest,
    key=st.binary(max_size=4),
    value=st.one_of(st.binary(max_size=4), st.binary(min_size=126, max_size=131)),
    stream=st.sampled_from(["a", "bb", "ü"]),
    partition=st.sampled_from([0, 0, 3, -1]),
    headers=st.dictionaries(st.sampled_from(["h", "subject", "é"]), st.binary(max_size=3), max_size=2),
    ackInbox=st.sampled_from(["", "inbox"]),
    correlationId=st.sampled_from(["", "1", "22", "ø"]),
    ackPolicy=st.sampled_from([0, 0, 1, 2]),
    expectedOffset=st.sampled_from([0, -1, 5]),
)


def framed(messages) -> bytes:
    encoded = [message.SerializeToString() for message in messages]
    return b"".join(struct.pack(">BI", 0, len(data)) + data for data in encoded)


def messages_in(data: bytes) -> list[bytes]:
    found = []
    while data:
        _, length = struct.unpack_from(">BI", data)
        found.append(data[5 : 5 + length])
        data = data[5 + length :]
    return found


def assert_same(sent: list[api.PublishRequest], runs: list[PublishRun]) -> None:
    """The runs hold just what was sent, in order."""
    received = []
    for run in runs:
        for fields, message, id_ in zip(run.fields, run.messages, run.correlation_ids, strict=True):
            stored, mirrored = api.Message.FromString(fields), api.Message.FromString(message)
            assert run.field_bytes in (None, len(fields))
            assert run.correlation_id_bytes in (None, len(id_))
            assert run.longest_message_bytes >= len(fields)
            received.append((run, stored, mirrored, id_.decode()))
    assert len(received) == len(sent)
    for request, (run, stored, mirrored, id_) in zip(sent, received, strict=True):
        assert (run.stream, run.partition, run.ack_policy) == (request.stream, request.partition, request.ackPolicy)
        assert (run.expected_offset, id_) == (request.expectedOffset, request.correlationId)
        assert (stored.key, stored.value) == (request.key, request.value)
        wanted = {name: value for name, value in request.headers.items() if name != "subject"}
        assert dict(stored.headers) == wanted
        assert (stored.stream, stored.correlationId, stored.ackPolicy) == ("", "", 0)
        assert (mirrored.value, mirrored.correlationId) == (request.value, request.correlationId)
        assert mirrored.ackPolicy == request.ackPolicy


@given(st.lists(st.tuples(requests, st.integers(1, 9)), max_size=6))
def test_every_request_is_in_a_run_with_its_fields(shapes: list[tuple[api.PublishRequest, int]]) -> None:
    sent = [request for request, count in shapes for _ in range(count)]
    assert_same(sent, RequestParser().parse(framed(sent)))


@given(st.lists(requests, min_size=1, max_size=4), st.lists(st.integers(0, 3), max_size=12))
def test_remembered_layout_is_never_taken_for_another(some: list[api.PublishRequest], order: list[int]) -> None:
    parser = RequestParser()
    for number in order:
        request = some[number % len(some)]
        assert_same([request], parser.parse(framed([request])))


@given(st.binary(max_size=60))
def test_garbage_is_a_protocol_error_or_a_request(data: bytes) -> None:
    try:
        RequestParser().parse(data)
    except ProtocolError:
        return
    assert framed([api.PublishRequest.FromString(message) for message in messages_in(data)]) is not None


@pytest.mark.parametrize("items", [[b"\x1a\x01x"] * 40, [b"\x1a\x01x", b"\x1a\x02yy"] * 20, [b""] * 3])
@pytest.mark.parametrize("base", [0, 127, (1 << 14) - 7, (1 << 28) - 20, (1 << 40) - 3])
def test_records_and_acks_have_consecutive_offsets_across_every_border(items: list[bytes], base: int) -> None:
    length = len(items[0]) if len(set(map(len, items))) == 1 else None
    trailer = encode_trailer(timestamp_ns=5, stream="s", partition=2, subject="subj", reply="r")
    body = encode_records(items, length, base_offset=base, trailer=trailer)
    for offset, record in enumerate(iter_records(body), base):
        message = api.Message.FromString(body[record.start + 5 : record.end])
        assert message.offset == record.offset == offset
        assert (message.timestamp, message.stream, message.partition) == (5, "s", 2)
        assert (message.subject, message.replySubject) == ("subj", "r")
        assert dict(message.headers) == {"subject": b"subj", "reply": b"r"}
    ids = [b"%03d" % i if length is not None else b"i" * i for i in range(len(items))]
    template = AckTemplate("s", "subj", "subj.2", "inbox", 1, 5, 6)
    constant = encode_ack_texts("s", "subj", "subj.2", "inbox") + encode_ack_times(1, 5, 6)
    answers = encode_publish_responses(constant, ids, 3 if length is not None else None, base)
    for offset, (id_, data) in enumerate(zip(ids, messages_in(answers), strict=True), base):
        answer = api.PublishResponse.FromString(data)
        assert answer.ack == template.ack(offset, id_)
        assert answer.correlationId == id_.decode()


@given(st.binary(min_size=1, max_size=200), st.integers(0, 250), st.integers(0, 7))
def test_a_batch_with_any_flipped_bit_is_refused(body: bytes, place: int, bit: int) -> None:
    batch = encode_batch(body, base_offset=3, end_offset=4, record_count=1, leader_epoch=2, timestamp_ns=9)
    assert decode_batch(batch.data) == batch
    assert [bytes(one) for _, _, _, one in iter_bodies(batch.data * 2)] == [body, body]
    damaged = bytearray(batch.data)
    damaged[place % len(damaged)] ^= 1 << bit
    with pytest.raises(ProtocolError):
        decode_batch(bytes(damaged))
