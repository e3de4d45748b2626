"""Where a cursor is kept (reference: the original's partitioning of ``__cursors``)."""

import zlib


def cursor_partition(cursor_id: str, stream: str, partition: int, partitions: int) -> int:
    """The partition, of so many, of the stream of cursors."""
    return zlib.crc32(f"{cursor_id},{stream},{partition}".encode()) % partitions
