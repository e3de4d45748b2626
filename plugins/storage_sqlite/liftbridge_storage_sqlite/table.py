"""What is asked of a log's tables. Functions of a connection, for one thread at a time; nothing is remembered here."""

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from itertools import accumulate

from liftbridge.interfaces.log import EpochStart
from liftbridge.interfaces.records import RecordBatch
from liftbridge.protocol.record_batch import cut_batch, decode_batch
from liftbridge_storage_sqlite.database import transaction
from liftbridge_storage_sqlite.segments import Segment, Segments

#: How much one step of deleting old rows removes, while appends wait.
_DELETE_BYTES = 4 * 1024 * 1024

_INSERT = "INSERT INTO batches VALUES (?, ?, ?, ?, ?)"
_NOTE = "INSERT OR REPLACE INTO segments VALUES (?, ?, ?, ?, ?, ?)"
_READ = (
    "SELECT end_offset, data FROM batches WHERE base_offset >= "
    "ifnull((SELECT max(base_offset) FROM batches WHERE base_offset <= ?), 0) AND base_offset < ? ORDER BY base_offset"
)
_FIRST_FROM = "SELECT base_offset, timestamp_ns FROM batches WHERE base_offset >= ? ORDER BY base_offset LIMIT 1"
_LAST_BELOW = (
    "SELECT end_offset, timestamp_ns, data FROM batches WHERE base_offset >= ? AND base_offset < ? "
    "ORDER BY base_offset DESC LIMIT 1"
)
_OLDEST_BELOW = "SELECT base_offset, length(data) FROM batches WHERE base_offset < ? ORDER BY base_offset LIMIT 512"
_SUMS = (
    "SELECT ifnull(sum(record_count), 0), ifnull(sum(length(data)), 0) FROM batches "
    "WHERE base_offset >= ? AND base_offset < ?"
)
_REPLACE = "UPDATE batches SET end_offset = ?, record_count = ?, data = ? WHERE base_offset = ?"


def load(connection: sqlite3.Connection) -> tuple[Segments, tuple[EpochStart, ...], int]:
    """Segments as they were noted last, epochs, and how far compaction came."""
    segments = connection.execute("SELECT * FROM segments ORDER BY base_offset")
    epochs = connection.execute("SELECT * FROM epochs ORDER BY leader_epoch")
    (compacted_end,) = connection.execute("SELECT end_offset FROM compaction").fetchone()
    return (
        Segments.of([Segment._make(row) for row in segments]),
        tuple(EpochStart._make(row) for row in epochs),
        compacted_end,
    )


def batches_from(connection: sqlite3.Connection, offset: int) -> Iterable[bytes]:
    """Every batch that begins at ``offset`` or behind it."""
    rows = connection.execute("SELECT data FROM batches WHERE base_offset >= ? ORDER BY base_offset", (offset,))
    return (data for (data,) in rows)


def append(
    connection: sqlite3.Connection,
    batches: Sequence[RecordBatch],
    started: Sequence[EpochStart],
    noted: Sequence[Segment],
) -> None:
    """Adds batches, epochs that begin with one of them, and sums."""
    rows = [(one.base_offset, one.end_offset, one.record_count, one.timestamp_ns, one.data) for one in batches]
    if len(rows) == 1 and not started and not noted:
        connection.execute(_INSERT, rows[0])
        return
    with transaction(connection):
        connection.executemany(_INSERT, rows)
        connection.executemany("INSERT INTO epochs VALUES (?, ?)", started)
        connection.executemany(_NOTE, noted)


def note(connection: sqlite3.Connection, segments: Sequence[Segment]) -> None:
    """Stores the sums over segments."""
    with transaction(connection):
        connection.executemany(_NOTE, segments)


def read(connection: sqlite3.Connection, offset: int, stop: int, max_bytes: int) -> bytes:
    """See ``PartitionLog.read``; the bounds are checked already."""
    taken: list[bytes] = []
    size = 0
    # A cursor that isn't closed would keep the write-ahead log from ever beginning anew.
    with closing(connection.execute(_READ, (offset, stop))) as rows:
        for end_offset, data in rows:
            if end_offset <= offset:
                continue
            size += len(data)
            if taken and size > max_bytes:
                break
            taken.append(data)
            if size >= max_bytes:
                break
    return b"".join(taken)


def first_at_or_after(connection: sqlite3.Connection, timestamp_ns: int, low: int, high: int) -> int:
    """The first batch in ``[low, high)`` that isn't earlier; there must be one. By halving, because times only grow."""
    found = low
    while low < high:
        middle = (low + high) // 2
        row = connection.execute(_FIRST_FROM, (middle,)).fetchone()
        if row is None:
            high = middle
        elif row[1] >= timestamp_ns:
            found, high = row[0], middle
        else:
            low = max(middle, row[0]) + 1
    return found


def truncate(connection: sqlite3.Connection, segments: Segments, end_offset: int) -> Segments:
    """Deletes what is at ``end_offset`` and above, and returns the segments that are left."""
    with transaction(connection):
        start_offset = segments.first.base_offset
        kept = [one for one in segments if one.base_offset < end_offset] or [segments.first]
        last = kept[-1]
        cut = connection.execute(_LAST_BELOW, (start_offset, end_offset)).fetchone()
        count, size_bytes = connection.execute(_SUMS, (max(end_offset, last.base_offset), last.end_offset)).fetchone()
        connection.execute("DELETE FROM batches WHERE base_offset >= ?", (end_offset,))
        connection.execute("DELETE FROM segments WHERE base_offset > ?", (last.base_offset,))
        connection.execute("DELETE FROM epochs WHERE start_offset >= ?", (end_offset,))
        connection.execute("UPDATE compaction SET end_offset = min(end_offset, ?)", (end_offset,))
        last_end, last_timestamp_ns = last.base_offset, 0
        if cut is not None:
            last_end, last_timestamp_ns = max(cut[0], last.base_offset), cut[1]
        if last_end > end_offset:
            whole = decode_batch(cut[2])
            part = cut_batch(whole, end_offset)
            _replace(connection, [part])
            count += whole.record_count - part.record_count
            size_bytes += len(whole.data) - len(part.data)
            last_end = end_offset
        last = last._replace(
            end_offset=last_end,
            record_count=last.record_count - count,
            size_bytes=last.size_bytes - size_bytes,
            last_timestamp_ns=last_timestamp_ns,
        )
        connection.execute(_NOTE, last)
    return Segments.of([*kept[:-1], last])


def drop_before(connection: sqlite3.Connection, start_offset: int, ended: Sequence[EpochStart]) -> None:
    """Moves the start of the log; the rows below it are deleted later."""
    with transaction(connection):
        connection.execute("DELETE FROM segments WHERE base_offset < ?", (start_offset,))
        connection.executemany("DELETE FROM epochs WHERE leader_epoch = ?", [(one.leader_epoch,) for one in ended])


def delete_oldest_below(connection: sqlite3.Connection, start_offset: int) -> bool:
    """Deletes some rows below the start. False when there was none."""
    doomed = connection.execute(_OLDEST_BELOW, (start_offset,)).fetchall()
    if not doomed:
        return False
    sizes = accumulate(size_bytes for _, size_bytes in doomed)
    count = max(1, sum(size_bytes <= _DELETE_BYTES for size_bytes in sizes))
    connection.execute("DELETE FROM batches WHERE base_offset <= ?", (doomed[count - 1][0],))
    return True


def replace(
    connection: sqlite3.Connection, segment: Segment, before: Sequence[RecordBatch], after: Sequence[RecordBatch]
) -> Segment:
    """Puts ``after``, some of the batches of ``before`` and maybe shorter ones, in their place, and returns the segment
    as it is then."""
    base_offsets = {batch.base_offset for batch in after}
    gone = [(batch.base_offset,) for batch in before if batch.base_offset not in base_offsets]
    changed = segment._replace(
        record_count=segment.record_count + _record_count(after) - _record_count(before),
        size_bytes=segment.size_bytes + _size_bytes(after) - _size_bytes(before),
    )
    with transaction(connection):
        connection.executemany("DELETE FROM batches WHERE base_offset = ?", gone)
        _replace(connection, [batch for batch in after if batch not in before])
        connection.execute(_NOTE, changed)
    return changed


def mark_compacted(connection: sqlite3.Connection, end_offset: int) -> None:
    connection.execute("UPDATE compaction SET end_offset = ?", (end_offset,))


def _replace(connection: sqlite3.Connection, batches: Iterable[RecordBatch]) -> None:
    """Batches that begin where others began."""
    rows = [(one.end_offset, one.record_count, one.data, one.base_offset) for one in batches]
    connection.executemany(_REPLACE, rows)


def _record_count(batches: Sequence[RecordBatch]) -> int:
    return sum(batch.record_count for batch in batches)


def _size_bytes(batches: Sequence[RecordBatch]) -> int:
    return sum(len(batch.data) for batch in batches)
