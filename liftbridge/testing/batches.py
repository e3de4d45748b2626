"""Record batches for tests."""

from liftbridge.interfaces.records import RecordBatch
from liftbridge.protocol.record_batch import OFFSET_BYTES, RECORD_PREFIX, encode_batch, encode_offset

#: The field tag and length of a Message's value.
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


def _record(offset: int, value: bytes) -> bytes:
    if len(value) > 127:
        raise ValueError(f"a value of {len(value)} bytes needs a longer length field than this helper writes")
    message = b"".join((_OFFSET_TAG, encode_offset(offset), _VALUE_TAG, bytes((len(value),)), value))
    assert len(encode_offset(offset)) == OFFSET_BYTES
    return RECORD_PREFIX.pack(0, len(message)) + message
