"""Which records compaction lets go: any layout of messages that a publisher can send, against a plain model."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liftbridge.errors import ProtocolError
from liftbridge.interfaces.records import RecordBatch
from liftbridge.protocol.compaction import KeyCompactor
from liftbridge.protocol.generated import api_pb2 as api
from liftbridge.protocol.record_batch import (
    ATTRIBUTE_CONTROL,
    HEADER_BYTES,
    RECORD_PREFIX_BYTES,
    decode_batch,
    encode_batch,
    iter_records,
)
from liftbridge.protocol.record_encoding import encode_header, encode_record, encode_records, encode_trailer
from liftbridge.protocol.varint import encode_text
from liftbridge.testing.batches import make_batch, make_keyed_batch

_TRAILER = encode_trailer(timestamp_ns=1 << 60, stream="s", partition=0, subject="subject", reply="")
_KEYS = st.sampled_from([b"", b"a", b"b", b"\x12\x01a", b"k" * 32, b"k" * 33, b"k" * 200])
_VALUES = st.sampled_from([b"", b"v", b"\x12\x01a", b"v" * 127, b"v" * 128, b"v" * 20_000])


@st.composite
def _fields(draw: st.DrawFn) -> tuple[bytes, bytes, bytes]:
    """Key, value, and the two with headers as fields of a message, in any order."""
    key, value = draw(_KEYS), draw(_VALUES)
    parts = [encode_text(0x12, key), encode_text(0x1A, value)]
    parts += [encode_header(f"h{number}", b"\x12\x01b" * number) for number in range(draw(st.integers(0, 2)))]
    return key, value, b"".join(draw(st.permutations(parts)))


def _batch(items: list[bytes], base_offset: int) -> RecordBatch:
    body = b"".join(encode_record(item, base_offset + i, trailer=_TRAILER) for i, item in enumerate(items))
    end_offset = base_offset + len(items)
    return encode_batch(
        body,
        base_offset=base_offset,
        end_offset=end_offset,
        record_count=len(items),
        leader_epoch=3,
        timestamp_ns=100 + base_offset,
    )


def _left(batches: list[RecordBatch]) -> list[tuple[int, bytes, bytes]]:
    found = []
    for batch in batches:
        body = decode_batch(batch.data).data[HEADER_BYTES:]
        records = list(iter_records(body))
        assert batch.record_count == len(records)
        for record in records:
            message = api.Message.FromString(body[record.start + RECORD_PREFIX_BYTES : record.end])
            assert message.offset == record.offset
            found.append((record.offset, message.key, message.value))
    return found


@given(
    contents=st.lists(st.lists(_fields(), min_size=1, max_size=6), min_size=1, max_size=5),
    ahead=st.integers(0, 6),
    tombstones=st.booleans(),
)
def test_the_last_record_of_each_key_stays_however_messages_are_laid_out(
    contents: list[list[tuple[bytes, bytes, bytes]]], ahead: int, tombstones: bool
) -> None:
    batches, records = [], []
    for content in contents:
        base_offset = len(records)
        batches.append(_batch([item for _, _, item in content], base_offset))
        records += [(base_offset + i, key, value) for i, (key, value, _) in enumerate(content)]
    upto = max(0, len(records) - ahead)
    compactor = KeyCompactor(upto, drop_tombstones_before_ns=1000 if tombstones else 0)
    for _ in range(2):  # a second pass finds batches with gaps, and nothing to do
        assert all(compactor.learn(batch) for batch in batches)
        rewritten = [compactor.rewrite(batch) for batch in batches]
        last = {key: offset for offset, key, _ in records if key and offset < upto}
        expected = [
            (offset, key, value)
            for offset, key, value in records
            if not key
            or offset >= upto
            or (last[key] == offset and not (tombstones and not value and offset != upto - 1))
        ]
        assert _left(rewritten) == expected
        for before, after in zip(batches, rewritten, strict=True):
            same = ("base_offset", "end_offset", "leader_epoch", "timestamp_ns")
            assert [getattr(before, name) for name in same] == [getattr(after, name) for name in same]
            assert (after is before) == (after.record_count == before.record_count)
        batches = rewritten
        compactor.forget()


@given(st.lists(st.sampled_from([b"aa", b"bb", b"cc"]), min_size=1, max_size=40), st.integers(0, 40))
def test_batches_of_one_layout_come_to_the_same(keys: list[bytes], upto: int) -> None:
    """Those are taken apart all at once."""
    items = [encode_text(0x12, key) + encode_text(0x1A, b"%04d" % number) for number, key in enumerate(keys)]
    batch = encode_batch(
        encode_records(items, len(items[0]), base_offset=7, trailer=_TRAILER),
        base_offset=7,
        end_offset=7 + len(items),
        record_count=len(items),
        leader_epoch=1,
        timestamp_ns=1,
    )
    compactor = KeyCompactor(min(upto, len(keys)) + 7)
    compactor.learn(batch)
    last = {key: number for number, key in enumerate(keys) if number < upto}
    kept = [7 + number for number, key in enumerate(keys) if number >= upto or last[key] == number]
    assert [offset for offset, _, _ in _left([compactor.rewrite(batch)])] == kept


def test_control_batches_stay_as_they_are() -> None:
    plain = make_keyed_batch(0, [(b"a", b"1"), (b"a", b"2")])
    control = encode_batch(
        plain.data[HEADER_BYTES:],
        base_offset=0,
        end_offset=2,
        record_count=2,
        leader_epoch=0,
        timestamp_ns=1,
        attributes=ATTRIBUTE_CONTROL,
    )
    compactor = KeyCompactor(10)
    assert compactor.learn(control)
    assert compactor.learn(make_keyed_batch(2, [(b"a", b"3")]))
    assert compactor.rewrite(control) is control
    assert compactor.rewrite(plain).record_count == 0


def test_memory_is_bounded_and_a_new_round_has_room() -> None:
    compactor = KeyCompactor(1000, max_keys=5)
    assert compactor.learn(make_keyed_batch(0, [(b"%d" % number, b"v") for number in range(8)]))
    assert not compactor.learn(make_keyed_batch(8, [(b"a", b"v")]))
    assert compactor.learnt_end == 8
    compactor.forget()
    assert compactor.learn(make_keyed_batch(8, [(b"a", b"v")]))
    assert compactor.learnt_end == 9


def test_the_oldest_tombstone_that_stays_is_known() -> None:
    compactor = KeyCompactor(1000, drop_tombstones_before_ns=15)
    batches = [make_keyed_batch(i, [(b"%d" % i, b"")], timestamp_ns=10 * (i + 1)) for i in range(4)]
    assert all(compactor.learn(batch) for batch in batches)
    assert [compactor.rewrite(batch).record_count for batch in batches] == [0, 1, 1, 1]
    assert compactor.oldest_tombstone_ns == 20


def test_records_that_do_not_add_up_are_an_error() -> None:
    good = make_batch(0, 2)
    body = bytearray(good.data[HEADER_BYTES:])
    body[4] += 1
    bad = encode_batch(body, base_offset=0, end_offset=2, record_count=2, leader_epoch=0, timestamp_ns=1)
    with pytest.raises(ProtocolError):
        KeyCompactor(10).learn(bad)
