"""From stored batches to what a subscriber receives: checksums verified, headers off, cut at record edges."""

from collections.abc import Iterator

from liftbridge.errors import LogDamaged, ProtocolError
from liftbridge.partition.partition import Partition
from liftbridge.protocol.record_batch import ATTRIBUTE_CONTROL, BatchBody, iter_bodies, iter_records

#: How much one pass of a reverse reader may hold in memory.
_REVERSE_WINDOW_BYTES = 4 * 1024 * 1024


def read_forward(partition: Partition, offset: int, stop: int, max_bytes: int) -> tuple[bytes, int]:
    """Framed messages from ``offset`` on, below ``stop`` (exclusive), about ``max_bytes``, and where to go on.

    No bytes and an offset of ``stop`` mean that there is nothing in ``[offset, stop)``. Raises LogDamaged where a
    checksum fails; nothing behind the damage is returned by that call.
    """
    base, data = partition.last_body
    if base != offset or partition.log.end_offset > stop:
        data = partition.log.read(offset, stop=stop, max_bytes=max_bytes)
    parts = []
    next_offset = stop
    for base_offset, end_offset, attributes, whole in _verified(partition, data):
        body = cut_records(whole, offset, stop) if base_offset < offset or end_offset > stop else whole
        if not attributes & ATTRIBUTE_CONTROL:
            parts.append(body)
        next_offset = end_offset
    return b"".join(parts), min(next_offset, stop)


def read_backward(partition: Partition, upper: int, lower: int, max_bytes: int) -> tuple[bytes, int]:
    """Framed messages below ``upper`` in descending order, none below ``lower``, and the offset below which to go on.

    At least one message, unless there is none in ``[lower, upper)``; then the returned offset is ``lower``.
    """
    log = partition.log
    count = max(1, log.end_offset - log.start_offset)
    window = max(1, max_bytes * count // max(1, log.size_bytes))
    while True:
        start = max(lower, upper - window)
        parts = _window(partition, start, upper)
        if parts is None:
            window = max(1, window // 4)
        elif parts or start == lower:
            return b"".join(reversed(parts)), start
        else:  # compaction left little here
            upper = start
            window *= 2


def _window(partition: Partition, start: int, stop: int) -> list[memoryview] | None:
    """Every record in ``[start, stop)``, ascending; None when they are too many bytes and can be fewer."""
    parts: list[memoryview] = []
    total = 0
    offset = start
    while offset < stop:
        data = partition.log.read(offset, stop=stop, max_bytes=_REVERSE_WINDOW_BYTES)
        if not data:
            break
        for _, end_offset, attributes, body in _verified(partition, data):
            if not attributes & ATTRIBUTE_CONTROL:
                parts += (
                    body[record.start : record.end] for record in iter_records(body) if start <= record.offset < stop
                )
            offset = end_offset
        total += len(data)
        if total > _REVERSE_WINDOW_BYTES and stop - start > 1 and len(parts) > 1:
            return None
    return parts


def cut_records(body: memoryview, start: int, stop: int) -> memoryview:
    """The records of a body whose offsets are in ``[start, stop)``."""
    begin = end = 0
    for record in iter_records(body):
        if record.offset >= stop:
            break
        if record.offset < start:
            begin = record.end
        end = record.end
    return body[begin:end]


def _verified(partition: Partition, data: bytes) -> Iterator[BatchBody]:
    try:
        yield from iter_bodies(data)
    except ProtocolError as error:
        raise LogDamaged(f"{partition.key} is damaged: {error}") from error
