"""What opening does with a segment's bytes: verify them, and tell a torn tail from damage.

A crash can tear only what was being written, so a tear is at the end of the last file, with nothing valid behind it.
Anything else that doesn't verify is damage: it is reported and nothing is changed, because cutting there would drop
records that were acknowledged.
"""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from liftbridge.errors import LogDamaged, ProtocolError
from liftbridge.interfaces.records import RecordBatch
from liftbridge.protocol.record_batch import (
    FORMAT_VERSION,
    HEADER,
    HEADER_BYTES,
    BatchHeader,
    decode_batch,
    decode_header,
    iter_batches,
)
from liftbridge_storage_segments.segment import Segment

_SCAN_BYTES = 256 * 1024
_CHUNK_BYTES = 4 * 1024 * 1024
#: The fields of every header that never change: version, attributes (any), header length.
_LENGTH_MARK = HEADER_BYTES.to_bytes(2, "big")


@dataclass(frozen=True, slots=True)
class Tear:
    """The segment's valid bytes end at ``position``; what follows is no batch, for this ``reason``."""

    position: int
    reason: str


def scan(segment: Segment) -> Tear | None:
    """Verifies what the segment's summary doesn't vouch for and adds it to the summary. Returns where the valid bytes
    end, if that is before the file does."""
    try:
        for batch in _unknown_batches(segment):
            if batch.base_offset < segment.end_offset or batch.end_offset <= batch.base_offset:
                reason = f"batch says offset {batch.base_offset} where {segment.end_offset} is next"
                return Tear(segment.size_bytes, reason)
            segment.note(batch)
    except ProtocolError as error:
        return Tear(segment.size_bytes, str(error))
    return None


def _unknown_batches(segment: Segment) -> Iterator[RecordBatch]:
    """The batches behind what the summary knows, each verified. Raises ProtocolError at the first thing that is none."""
    position, size = segment.size_bytes, segment.file_size()
    while position < size:
        start = position
        with suppress(ProtocolError):  # the chunk ends in the middle of a batch, or it is bad: the next turn tells
            for batch in iter_batches(segment.read_bytes(_SCAN_BYTES, position)):
                position += len(batch.data)
                yield batch
        if position == start:
            batch = _read_batch(segment, position, size)
            position += len(batch.data)
            yield batch


def verify_sealed(segment: Segment, following: Segment) -> None:
    """Raises LogDamaged unless the segment is whole and ends where the next one begins."""
    _raise_if_short(segment)
    tear = scan(segment)
    if tear is not None and segment.end_offset != following.base_offset:
        raise LogDamaged(f"{segment.path}: damaged at byte {tear.position}: {tear.reason}")
    if segment.end_offset > following.base_offset:
        _finish_truncation(segment, following)
    elif segment.end_offset < following.base_offset:
        raise LogDamaged(
            f"{segment.path} ends at offset {segment.end_offset}, and {following.path.name} is next: records are "
            "missing between them"
        )


def verify_last(segment: Segment) -> None:
    """Cuts what a crash tore off. Raises LogDamaged if it isn't that."""
    _raise_if_short(segment)
    tear = scan(segment)
    if tear is not None:
        raise_if_damage(segment, tear)
        segment.cut(tear.position)


def _raise_if_short(segment: Segment) -> None:
    size = segment.file_size()
    if size < segment.vouched_bytes:
        raise LogDamaged(f"{segment.path}: {segment.vouched_bytes - size} bytes are missing at its end")


def _finish_truncation(segment: Segment, following: Segment) -> None:
    """A crash interrupted a truncation inside a batch after its first half was saved in a segment of its own."""
    segment.cut(segment.find(following.base_offset))
    scan(segment)


def raise_if_damage(segment: Segment, tear: Tear) -> None:
    """Raises LogDamaged if a valid batch stands behind the tear: then it is none."""
    size = segment.file_size()
    position = tear.position + 1
    while position < size:
        chunk = segment.read_bytes(_CHUNK_BYTES + HEADER_BYTES, position)
        found = _find_batch(segment, chunk, position, size)
        if found is not None:
            raise LogDamaged(
                f"{segment.path}: damaged at byte {tear.position} ({tear.reason}), while valid records follow at byte "
                f"{found}; nothing was changed. Restore the file from a copy or a replica, or move it away to start "
                "the partition without it"
            )
        position += _CHUNK_BYTES


def _find_batch(segment: Segment, chunk: bytes, position: int, size: int) -> int | None:
    """The first place in the chunk where a batch verifies."""
    mark = chunk.find(_LENGTH_MARK, 6)
    while mark != -1:
        start = mark - 6
        if chunk[start + 4] == FORMAT_VERSION and start + HEADER_BYTES <= len(chunk):
            header = BatchHeader._make(HEADER.unpack_from(chunk, start))
            if header.base_offset >= segment.end_offset and position + start + header.body_bytes <= size:
                try:
                    _read_batch(segment, position + start, size)
                except ProtocolError:
                    pass
                else:
                    return position + start
        mark = chunk.find(_LENGTH_MARK, mark + 1)
    return None


def _read_batch(segment: Segment, position: int, size: int) -> RecordBatch:
    header = decode_header(segment.read_bytes(HEADER_BYTES, position))
    length = HEADER_BYTES + header.body_bytes
    if position + length > size:
        raise ProtocolError(f"batch at offset {header.base_offset} is cut short by {position + length - size} bytes")
    return decode_batch(segment.read_bytes(length, position))
