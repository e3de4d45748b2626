"""One partition's log: a table of record batches."""

import logging
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import pairwise
from pathlib import Path

from liftbridge.errors import LogClosed, LogDamaged, LogDeleted, OffsetOutOfRange, ProtocolError, StorageError
from liftbridge.held_directory import sync_directory
from liftbridge.interfaces.log import (
    CompactionReport,
    Compactor,
    EpochStart,
    LogSettings,
    PartitionLog,
    RetentionLimits,
)
from liftbridge.interfaces.records import RecordBatch
from liftbridge.protocol.record_batch import decode_batch
from liftbridge_storage_sqlite import table
from liftbridge_storage_sqlite.compaction import CompactionPass, Overtaken
from liftbridge_storage_sqlite.database import (
    checkpoint,
    open_database,
    open_for_checkpoint,
    remove_database,
    storage_errors,
    sync_file,
    wal_path,
)
from liftbridge_storage_sqlite.segments import Segment, Segments

logger = logging.getLogger(__name__)

#: How much is appended before the active segment's sums are stored again; an opening reads no more than that.
_NOTE_EVERY_BYTES = 1024 * 1024
#: About how large the write-ahead log gets before it is copied into the database.
_CHECKPOINT_BYTES = 4 * 1024 * 1024
#: From this size on (16 MiB), the write-ahead log has to begin anew.
_MAX_WAL_PAGES = 4096
#: What a commit writes beside the data: about two pages.
_COMMIT_BYTES = 8 * 1024


class SqliteLog(PartitionLog):
    """See :class:`liftbridge.interfaces.log.PartitionLog`.

    ``_lock`` is held while the connection is used; what is known in memory is replaced as a whole and read without it.
    ``run_in_background`` runs a function in another thread; ``ended`` is called with the log when it is closed or deleted.
    """

    def __init__(
        self,
        path: Path,
        settings: LogSettings,
        *,
        cache_bytes: int,
        run_in_background: Callable[[Callable[[], None]], object],
        ended: Callable[["SqliteLog"], object],
    ) -> None:
        self._path = path
        self._settings = settings
        self._run_in_background = run_in_background
        self._ended = ended
        self._lock = threading.Lock()
        self._checkpoint_lock = threading.Lock()
        self._unusable: StorageError | None = None
        self._names_are_durable = False
        self._unchecked_bytes = 0
        self._truncations = 0
        with storage_errors(path, "open"):
            self._connection = open_database(path, cache_bytes=cache_bytes)
        try:
            with storage_errors(path, "open"):
                self._load()
        except BaseException:
            self._connection.close()
            raise

    # --- opening ------------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        self._segments, self._epochs, self._compacted_end = table.load(self._connection)
        self._noted_bytes = self._segments.active.size_bytes
        self._add_what_is_not_noted()
        self._remove_rows_below(self.start_offset)

    def _add_what_is_not_noted(self) -> None:
        """What was appended after the sums were stored, for the last time before a kill."""
        for data in table.batches_from(self._connection, self.end_offset):
            try:
                batch = decode_batch(data)
            except ProtocolError as error:
                raise LogDamaged(f"{self._path}: {error}") from error
            self._segments = self._segments.with_active(self._segments.active.plus([batch]))

    # --- looking ------------------------------------------------------------------------------------------------------

    @property
    def start_offset(self) -> int:
        return self._segments.first.base_offset

    @property
    def end_offset(self) -> int:
        return self._segments.active.end_offset

    @property
    def size_bytes(self) -> int:
        segments = self._segments
        return segments.sealed_bytes + segments.active.size_bytes

    @property
    def last_timestamp_ns(self) -> int:
        return self._segments.active.last_timestamp_ns

    @property
    def epochs(self) -> Sequence[EpochStart]:
        start_offset = self.start_offset
        return [EpochStart(epoch, max(start, start_offset)) for epoch, start in self._epochs]

    # --- writing ------------------------------------------------------------------------------------------------------

    def append(self, batches: Sequence[RecordBatch], *, after_gap: bool = False) -> None:
        next_offset = self.end_offset
        for batch in batches:
            if batch.base_offset != next_offset and not (after_gap and batch.base_offset > next_offset):
                raise ValueError(f"batch begins at offset {batch.base_offset}, and {next_offset} is next")
            next_offset = batch.end_offset
        with self._lock:
            self._raise_if_unusable()
            segments, noted_bytes = self._segments, self._noted_bytes
            if segments.active.size_bytes >= self._settings.segment_max_bytes:
                segments, noted_bytes = segments.rolled(), 0
            active = segments.active.plus(batches)
            started = _started_epochs(batches, self._epochs)
            is_noted = segments is not self._segments or active.size_bytes - noted_bytes >= _NOTE_EVERY_BYTES
            noted = [*segments.sealed[-1:], active] if is_noted else []
            with storage_errors(self._path, "append"):
                table.append(self._connection, batches, started, noted)
            appended_bytes = active.size_bytes - segments.active.size_bytes
            self._segments = segments.with_active(active)
            self._epochs += started
            self._noted_bytes = active.size_bytes if is_noted else noted_bytes
        self._count_for_checkpoint(appended_bytes)

    def check_room(self, size_bytes: int) -> None:
        """With a file that has no name: a transaction that is rolled back need never reach the disk."""
        with self._lock:
            self._raise_if_unusable()
            with storage_errors(self._path, "append"), tempfile.TemporaryFile(dir=self._path.parent) as room:
                room.write(bytes(size_bytes))
                room.flush()

    def roll_if_due(self, now_ns: int) -> bool:
        with self._lock:
            self._raise_if_unusable()
            active = self._segments.active
            if not active.size_bytes or now_ns - active.first_timestamp_ns < self._settings.segment_max_age_ns:
                return False
            rolled = self._segments.rolled()
            with storage_errors(self._path, "roll"):
                table.note(self._connection, [active, rolled.active])
            self._segments, self._noted_bytes = rolled, 0
            return True

    # --- durability ---------------------------------------------------------------------------------------------------

    def sync(self) -> int:
        self._raise_if_unusable()
        end_offset = self.end_offset
        try:
            with storage_errors(self._path, "sync"):
                sync_file(wal_path(self._path))
                if not self._names_are_durable:
                    sync_directory(self._path.parent)
        except StorageError as error:
            with self._lock:
                self._raise_if_unusable()  # it was closed or deleted meanwhile, and its files with it
                self._unusable = StorageError(
                    f"{error}; nobody knows what the disk kept, so the log takes nothing more. Restart the server"
                )
            raise
        self._names_are_durable = True
        return end_offset

    def _count_for_checkpoint(self, appended_bytes: int) -> None:
        self._unchecked_bytes += appended_bytes + _COMMIT_BYTES
        if self._unchecked_bytes >= _CHECKPOINT_BYTES:
            self._unchecked_bytes = 0
            self._run_in_background(self._checkpoint)

    def _checkpoint(self) -> None:
        """In another thread and on another connection, so that appends and reads go on. Appends wait only when they have
        kept the write-ahead log from beginning anew for long, and then for what came during the first copy."""
        with self._checkpoint_lock:
            if self._unusable is not None:
                return
            try:
                with storage_errors(self._path, "checkpoint"), closing(open_for_checkpoint(self._path)) as connection:
                    if checkpoint(connection) >= _MAX_WAL_PAGES:
                        with self._lock:
                            checkpoint(connection)
            except StorageError as error:
                logger.error("%s; what was appended is safe, and it is tried again later", error)

    # --- reading ------------------------------------------------------------------------------------------------------

    def read(self, offset: int, *, stop: int, max_bytes: int) -> bytes:
        with self._lock:
            self._raise_if_gone()
            self._raise_if_below_start(offset)
            stop = min(stop, self.end_offset)
            if offset >= stop:
                return b""
            with storage_errors(self._path, f"read at offset {offset}"):
                return table.read(self._connection, offset, stop, max_bytes)

    def offset_for_time(self, timestamp_ns: int) -> int | None:
        with self._lock:
            self._raise_if_gone()
            found = (one for one in self._segments if one.size_bytes and one.last_timestamp_ns >= timestamp_ns)
            segment = next(found, None)
            if segment is None:
                return None
            with storage_errors(self._path, "look up a time"):
                return table.first_at_or_after(self._connection, timestamp_ns, segment.base_offset, segment.end_offset)

    # --- removing -----------------------------------------------------------------------------------------------------

    def truncate(self, end_offset: int) -> None:
        with self._lock:
            self._raise_if_unusable()
            if end_offset >= self.end_offset:
                return
            if end_offset < self.start_offset:
                raise OffsetOutOfRange(f"can't truncate to {end_offset}: {self.start_offset} is the first that is kept")
            with storage_errors(self._path, "truncate"):
                segments = table.truncate(self._connection, self._segments, end_offset)
            self._segments, self._noted_bytes = segments, segments.active.size_bytes
            self._epochs = tuple(one for one in self._epochs if one.start_offset < end_offset)
            self._compacted_end = min(self._compacted_end, end_offset)
            self._truncations += 1
        self.sync()

    def apply_retention(self, limits: RetentionLimits, now_ns: int) -> int:
        with self._lock:
            self._raise_if_unusable()
            kept = self._segments.within(limits, now_ns)
            start_offset = kept.first.base_offset
            if kept is self._segments:
                return start_offset
            ended = [now for now, after in pairwise(self._epochs) if after.start_offset <= start_offset]
            with storage_errors(self._path, "retention"):
                table.drop_before(self._connection, start_offset, ended)
            self._segments = kept
            self._epochs = self._epochs[len(ended) :]
        self._remove_rows_below(start_offset)
        return start_offset

    def _remove_rows_below(self, start_offset: int) -> None:
        """In steps, because appends wait meanwhile. What a kill leaves is removed when the log is opened again."""
        while True:
            with self._lock:
                if self._unusable is not None:
                    return
                with storage_errors(self._path, "remove old records"):
                    if not table.delete_oldest_below(self._connection, start_offset):
                        return
            self._count_for_checkpoint(0)

    # --- compaction ---------------------------------------------------------------------------------------------------

    def compact(
        self, compactor: Compactor, *, min_dirty_percent: int, force: bool = False, between: Callable[[], None]
    ) -> CompactionReport | None:
        self._raise_if_unusable()
        return CompactionPass(self, compactor, between).run(min_dirty_percent, force=force)

    @property
    def segments(self) -> Segments:
        """As of now."""
        return self._segments

    @property
    def truncations(self) -> int:
        """How many there were since the log was opened."""
        return self._truncations

    @property
    def compacted_end(self) -> int:
        """Up to where compaction came (exclusive)."""
        return self._compacted_end

    def replace(
        self, segment: Segment, before: list[RecordBatch], after: list[RecordBatch], *, truncations: int
    ) -> Segment:
        """See :class:`liftbridge_storage_sqlite.compaction.Rows`."""
        with self._lock, storage_errors(self._path, "compaction"):
            self._raise_if_unusable()
            if truncations != self._truncations or segment not in self._segments.sealed:
                raise Overtaken
            changed = table.replace(self._connection, segment, before, after)
            self._segments = self._segments.with_sealed(changed)
        self._count_for_checkpoint(sum(len(batch.data) for batch in after))
        return changed

    def mark_compacted(self, end_offset: int, *, truncations: int) -> None:
        """See :class:`liftbridge_storage_sqlite.compaction.Rows`."""
        with self._lock, storage_errors(self._path, "compaction"):
            self._raise_if_unusable()
            if truncations != self._truncations:
                raise Overtaken
            table.mark_compacted(self._connection, end_offset)
            self._compacted_end = end_offset

    # --- ending -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        with self._checkpoint_lock, self._lock:
            if isinstance(self._unusable, LogClosed | LogDeleted):
                return
            active = self._segments.active
            is_noted = self._unusable is not None or self._noted_bytes == active.size_bytes
            self._unusable = LogClosed("the log was closed")
            self._ended(self)
            with closing(self._connection), storage_errors(self._path, "close"):
                if not is_noted:
                    table.note(self._connection, [active])

    def delete(self) -> None:
        with self._checkpoint_lock, self._lock:
            if isinstance(self._unusable, LogDeleted):
                return
            self._unusable = LogDeleted("the log was deleted")
            self._ended(self)
            with storage_errors(self._path, "delete"):
                self._connection.close()
                remove_database(self._path)

    # ------------------------------------------------------------------------------------------------------------------

    def _raise_if_unusable(self) -> None:
        if self._unusable is not None:
            raise self._unusable

    def _raise_if_gone(self) -> None:
        if isinstance(self._unusable, LogClosed | LogDeleted):
            raise self._unusable

    def _raise_if_below_start(self, offset: int) -> None:
        if offset < self.start_offset:
            raise OffsetOutOfRange(f"offset {offset} is below {self.start_offset}, the first that is kept")


def _started_epochs(batches: Sequence[RecordBatch], known: tuple[EpochStart, ...]) -> tuple[EpochStart, ...]:
    """The epochs that begin with one of the batches."""
    latest = known[-1].leader_epoch if known else -1
    started: list[EpochStart] = []
    for batch in batches:
        if batch.leader_epoch > latest:
            latest = batch.leader_epoch
            started.append(EpochStart(latest, batch.base_offset))
    return tuple(started)
