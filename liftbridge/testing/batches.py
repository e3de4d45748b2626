"""Record batches for tests."""

from collections.abc import Sequence

from liftbridge.interfaces.records import RecordBatch
from liftbridge.protocol.record_batch import OFFSET_BYTES, RECORD_PREFIX, encode_batch, encode_offset

#: Tags of fields of Message.
_KEY_TAG = b"\x12"
_VALUE_TAG = b"\x1a"
_OFFSET_TAG = b"\x08"


def make_batch(
    base_offset: int,
    count: int = 1,
    *,
    value: bytes = b"",
    leader_epoch: int = 0,
    timestamp_ns: int = 0,
) -> RecordBatch:
    """A batch of ``count`` records whose values are ``value`` (shorter than 128 bytes) or, if that is empty, tell the
    offset."""
    records = [_record(offset, value or b"value %d" % offset) for offset in range(base_offset, base_offset + count)]
    return encode_batch(
        b"".join(records),
        base_offset=base_offset,
        end_offset=base_offset + count,
        record_count=count,
        leader_epoch=leader_epoch,
        timestamp_ns=timestamp_ns or 1_000_000_000 + base_offset,
    )


def make_keyed_batch(
    base_offset: int, records: Sequence[tuple[bytes, bytes]], *, leader_epoch: int = 0, timestamp_ns: int = 0
) -> RecordBatch:
    """A batch of records with these keys and values (shorter than 128 bytes); an empty key is none."""
    return encode_batch(
        b"".join(_record(offset, value, key) for offset, (key, value) in enumerate(records, base_offset)),
        base_offset=base_offset,
        end_offset=base_offset + len(records),
        record_count=len(records),
        leader_epoch=leader_epoch,
        timestamp_ns=timestamp_ns or 1_000_000_000 + base_offset,
    )


def _record(offset: int, value: bytes, key: bytes = b"") -> bytes:
    if max(len(value), len(key)) > 127:
        raise ValueError("a key or value of 128 bytes needs a longer length field than this helper writes")
    fields = [_field(_KEY_TAG, key)] if key else []
    message = b"".join((_OFFSET_TAG, encode_offset(offset), *fields, _field(_VALUE_TAG, value)))
    assert len(encode_offset(offset)) == OFFSET_BYTES
    return RECORD_PREFIX.pack(0, len(message)) + message


def _field(tag: bytes, content: bytes) -> bytes:
    return b"".join((tag, bytes((len(content),)), content))
