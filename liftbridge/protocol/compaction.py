"""Compaction by key: which records of a batch may go, and the batch without them.

For each key the last committed record stays; records without a key stay; an empty value is a value like any other, unless
the stream asks for tombstones: then a keyed record without a value, once it is old enough, goes as well.
"""

from collections.abc import Sequence
from hashlib import blake2b
from itertools import compress
from operator import gt
from struct import iter_unpack
from typing import NamedTuple

from liftbridge.errors import ProtocolError
from liftbridge.interfaces.records import RecordBatch
from liftbridge.protocol.record_batch import (
    ATTRIBUTE_CONTROL,
    ATTRIBUTES_POSITION,
    HEADER_BYTES,
    OFFSET_BYTES,
    RECORD_OFFSET_POSITION,
    RECORD_PREFIX,
    RECORD_PREFIX_BYTES,
    decode_offset,
    encode_batch,
)
from liftbridge.protocol.strides import count_repeats
from liftbridge.protocol.varint import decode_varint

_KEY_TAG, _VALUE_TAG, _HEADER_TAG = 0x12, 0x1A, 0x4A
_FIELDS_POSITION = RECORD_OFFSET_POSITION + OFFSET_BYTES
#: Longer keys are remembered by a digest of one byte more, so that no short key can be mistaken for one.
_LONGEST_REMEMBERED = 32


class KeyCompactor:
    """See :class:`liftbridge.interfaces.log.Compactor`.

    ``max_keys`` bounds its memory: 115 to 140 bytes each, and a batch more. ``drop_tombstones_before_ns`` is the time up
    to which tombstones go, 0 for never. The record just below ``upto`` stays even then, so that whoever asks for the
    latest message gets one, and a replica that loses its uncommitted tail still ends at its high watermark.
    """

    def __init__(self, upto: int, *, drop_tombstones_before_ns: int = 0, max_keys: int = 1 << 17) -> None:
        self.upto = upto
        self.learnt_end = 0
        #: Timestamp of the oldest tombstone that was met and may go later; None when there was none.
        self.oldest_tombstone_ns: int | None = None
        self._drop_tombstones_before_ns = drop_tombstones_before_ns
        self._max_keys = max_keys
        self._last: dict[bytes, int] = {}

    def learn(self, batch: RecordBatch) -> bool:
        if len(self._last) >= self._max_keys:
            return False
        records = _parse(batch)
        count = len(records.keys)
        if batch.end_offset > self.upto:
            count = sum(offset < self.upto for offset in records.offsets)
        self._last.update(zip(records.keys[:count], records.offsets, strict=False))
        self._last.pop(b"", None)
        self.learnt_end = min(batch.end_offset, self.upto)
        return True

    def rewrite(self, batch: RecordBatch) -> RecordBatch:
        records = _parse(batch)
        offsets = records.offsets
        superseded = list(map(gt, map(self._last.get, records.keys, offsets), offsets))
        for number in records.tombstones:
            if not superseded[number]:
                superseded[number] = self._is_over(offsets[number], batch.timestamp_ns)
        return _without(batch, records, superseded) if True in superseded else batch

    def forget(self) -> None:
        self._last.clear()
        self.learnt_end = 0

    def _is_over(self, offset: int, timestamp_ns: int) -> bool:
        """Whether a tombstone has been there long enough. What it deleted goes before it, in this pass or an earlier
        one."""
        if offset >= self.learnt_end:
            return False
        if timestamp_ns < self._drop_tombstones_before_ns and offset != self.upto - 1:
            return True
        self.oldest_tombstone_ns = min(timestamp_ns, self.oldest_tombstone_ns or timestamp_ns)
        return False


class _Records(NamedTuple):
    """A batch's records in columns. ``edges`` are their positions in the batch's data, and the end of the last one;
    ``keys`` are as they are remembered, empty for none; ``tombstones`` the numbers of those with a key and no value."""

    edges: Sequence[int]
    offsets: Sequence[int]
    keys: list[bytes]
    tombstones: Sequence[int]


class _Fields(NamedTuple):
    """What a record's publisher sent. ``key_at`` is where the key begins, ``marks`` are the positions of all tags and
    lengths up to the fields that the leader added."""

    key: bytes
    key_at: int
    empty: bool
    marks: list[int]


_NO_RECORDS = _Records((), (), [], ())


def _parse(batch: RecordBatch) -> _Records:
    """No records for a control batch: those have no keys."""
    if batch.data[ATTRIBUTES_POSITION] & ATTRIBUTE_CONTROL or len(batch.data) == HEADER_BYTES:
        return _NO_RECORDS
    return _parse_uniform(batch) or _parse_each(batch)


def _parse_uniform(batch: RecordBatch) -> _Records | None:
    """All records at once, if they follow each other in their offsets and are laid out alike; else None."""
    data, count = batch.data, batch.record_count
    stride, rest = divmod(len(data) - HEADER_BYTES, count)
    if (
        rest
        or count != batch.end_offset - batch.base_offset
        or _record_end(data, HEADER_BYTES) != HEADER_BYTES + stride
    ):
        return None
    fields = _fields(data, HEADER_BYTES + _FIELDS_POSITION, HEADER_BYTES + stride)
    if fields is None or len(fields.key) > _LONGEST_REMEMBERED:
        return None
    fixed = [*range(RECORD_OFFSET_POSITION), *(mark - HEADER_BYTES for mark in fields.marks)]
    if count_repeats(data, HEADER_BYTES, stride, fixed, count) < count:
        return None
    skipped, key_bytes = fields.key_at - HEADER_BYTES, len(fields.key)
    layout = f"{skipped}x{key_bytes}s{stride - skipped - key_bytes}x"
    return _Records(
        edges=range(HEADER_BYTES, len(data) + 1, stride),
        offsets=range(batch.base_offset, batch.end_offset),
        keys=[key for (key,) in iter_unpack(layout, memoryview(data)[HEADER_BYTES:])],
        tombstones=range(count if fields.key and fields.empty else 0),
    )


def _parse_each(batch: RecordBatch) -> _Records:
    data = batch.data
    dense = batch.record_count == batch.end_offset - batch.base_offset
    edges, offsets, tombstones = [HEADER_BYTES], list[int](), list[int]()
    keys: list[bytes] = []
    while (start := edges[-1]) < len(data):
        end = _record_end(data, start)
        fields = _fields(data, start + _FIELDS_POSITION, end)
        offsets.append(batch.base_offset + len(keys) if dense else decode_offset(data, start + RECORD_OFFSET_POSITION))
        if fields is not None and fields.key and fields.empty:
            tombstones.append(len(keys))
        keys.append(_remembered(fields.key) if fields is not None else b"")
        edges.append(end)
    return _Records(edges, offsets, keys, tombstones)


def _record_end(data: bytes, start: int) -> int:
    end = start + RECORD_PREFIX_BYTES + int(RECORD_PREFIX.unpack_from(data, start)[1])
    if not start + _FIELDS_POSITION <= end <= len(data):
        raise ProtocolError(f"record at byte {start} of a batch has a wrong length")
    return end


def _fields(data: bytes, position: int, end: int) -> _Fields | None:
    """Key, value and headers come first, in any order; the fields that the leader added follow. None when they make no
    sense: such a record stays."""
    key, key_at, empty, marks = b"", position, True, []
    while position < end:
        tag = data[position]
        if tag not in (_KEY_TAG, _VALUE_TAG, _HEADER_TAG):
            marks.append(position)
            break
        try:
            size, content = data[position + 1], position + 2
            if size >= 128:
                size, content = decode_varint(data, position + 1, end)
        except (IndexError, ProtocolError):
            return None
        if content + size > end:
            return None
        marks += range(position, content)
        if tag == _KEY_TAG:
            key, key_at = data[content : content + size], content
        elif tag == _VALUE_TAG:
            empty = not size
        position = content + size
    return _Fields(key, key_at, empty, marks)


def _remembered(key: bytes) -> bytes:
    return key if len(key) <= _LONGEST_REMEMBERED else blake2b(key, digest_size=_LONGEST_REMEMBERED + 1).digest()


def _without(batch: RecordBatch, records: _Records, dead: list[bool]) -> RecordBatch:
    """The batch without its dead records."""
    edges = records.edges
    parts = []
    kept_from = HEADER_BYTES
    for number in compress(range(len(dead)), dead):
        parts.append(batch.data[kept_from : edges[number]])
        kept_from = edges[number + 1]
    parts.append(batch.data[kept_from:])
    return encode_batch(
        b"".join(parts),
        base_offset=batch.base_offset,
        end_offset=batch.end_offset,
        record_count=dead.count(False),
        leader_epoch=batch.leader_epoch,
        timestamp_ns=batch.timestamp_ns,
        attributes=batch.data[ATTRIBUTES_POSITION],
    )
