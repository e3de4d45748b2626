"""One partition's log: a row of segments, the last of which is written to."""

import struct
import threading
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

from liftbridge.errors import LiftbridgeError, LogClosed, LogDamaged, LogDeleted, OffsetOutOfRange, StorageError
from liftbridge.interfaces.index import IndexEntry, OffsetIndex
from liftbridge.interfaces.log import (
    CompactionReport,
    Compactor,
    EpochStart,
    LogSettings,
    PartitionLog,
    RetentionLimits,
)
from liftbridge.interfaces.records import RecordBatch
from liftbridge.protocol.record_batch import cut_batch
from liftbridge_storage_segments.compaction import (
    CompactionPass,
    Interrupted,
    finish_replacement,
    finish_replacements,
    replacement_path,
)
from liftbridge_storage_segments.files import Files, storage_error, storage_errors
from liftbridge_storage_segments.recovery import scan, verify_last, verify_sealed
from liftbridge_storage_segments.removal import remove_directory
from liftbridge_storage_segments.segment import SEGMENT_PATTERN, SUMMARY_SUFFIX, Segment, segment_path
from liftbridge_storage_segments.segments import Segments, first_at_or_after

#: Where a batch's base offset stands in it.
BASE_OFFSET = struct.Struct(">Q")
BASE_OFFSET_POSITION = 16
#: How many readers' places are remembered, so that a reader that goes on needs no lookup.
_REMEMBERED_PLACES = 64
#: An opening after a kill scans about so much, and what came in the time between two calls of ``checkpoint``.
_CHECKPOINT_BYTES = 16 * 1024 * 1024


class SegmentedLog(PartitionLog):
    """See :class:`liftbridge.interfaces.log.PartitionLog`.

    Whoever changes ``_segments`` puts another object there, under the lock. ``ended`` is called with the log when it is
    closed or deleted.
    """

    def __init__(
        self,
        directory: Path,
        settings: LogSettings,
        files: Files,
        index: OffsetIndex,
        index_interval_bytes: int,
        *,
        ended: Callable[["SegmentedLog"], object],
    ) -> None:
        self._directory = directory
        self._settings = settings
        self._files = files
        self._index = index
        self._index_interval_bytes = index_interval_bytes
        self._ended = ended
        self._lock = threading.Lock()
        self._places: dict[int, tuple[Segment, int]] = {}
        self._unusable: LiftbridgeError | None = None
        self._truncations = 0
        self._segments = Segments(self._open_segments())

    # --- opening ------------------------------------------------------------------------------------------------------

    def _open_segments(self) -> tuple[Segment, ...]:
        with storage_errors(f"{self._directory}: open"):
            if not self._directory.exists():
                self._files.create_directory(self._directory)
            finish_replacements(self._directory, self._files)
            self._remove_leftovers()
            paths = sorted(self._directory.glob(SEGMENT_PATTERN))
            if not paths:
                return (self._new_segment(0),)
        segments = [self._segment(path) for path in paths]
        for segment, following in pairwise(segments):
            verify_sealed(segment, following)
        verify_last(segments[-1])
        return tuple(segments)

    def _remove_leftovers(self) -> None:
        segments = {path.stem for path in self._directory.glob(SEGMENT_PATTERN)}
        for path in self._directory.iterdir():
            if path.suffix == ".new" or (path.suffix == SUMMARY_SUFFIX and path.stem not in segments):
                self._files.remove(path)

    def _segment(self, path: Path) -> Segment:
        return Segment(path, self._files, self._index, self._index_interval_bytes)

    def _new_segment(self, base_offset: int) -> Segment:
        path = segment_path(self._directory, base_offset)
        self._files.create(path)
        return self._segment(path)

    # --- looking ------------------------------------------------------------------------------------------------------

    @property
    def start_offset(self) -> int:
        return self._segments.all[0].base_offset

    @property
    def end_offset(self) -> int:
        return self._segments.all[-1].end_offset

    @property
    def size_bytes(self) -> int:
        return self._segments.size_bytes

    @property
    def last_timestamp_ns(self) -> int:
        return self._segments.last_timestamp_ns

    @property
    def epochs(self) -> Sequence[EpochStart]:
        return self._segments.epochs()

    # --- writing ------------------------------------------------------------------------------------------------------

    def append(self, batches: Sequence[RecordBatch], *, after_gap: bool = False) -> None:
        self._raise_if_unusable()
        next_offset = self.end_offset
        for batch in batches:
            if batch.base_offset != next_offset and not (after_gap and batch.base_offset > next_offset):
                raise ValueError(f"batch begins at offset {batch.base_offset}, and {next_offset} is next")
            next_offset = batch.end_offset
        active = self._segments.all[-1]
        if active.size_bytes >= self._settings.segment_max_bytes:
            active = self._roll()
        data = batches[0].data if len(batches) == 1 else b"".join(batch.data for batch in batches)
        try:
            active.append(tuple(batches), data)
        except StorageError:
            self._seal_off_if_torn(active)
            raise

    def check_room(self, size_bytes: int) -> None:
        self._raise_if_unusable()
        active = self._segments.active
        try:
            active.check_room(size_bytes)
        except StorageError:
            self._seal_off_if_torn(active)
            raise

    def _seal_off_if_torn(self, active: Segment) -> None:
        """After a failed append that couldn't be undone, nothing may be written behind the garbage."""
        try:
            undone = active.file_size() == active.size_bytes
        except StorageError:
            undone = False
        if not undone:
            self._unusable = StorageError(f"{active.path}: a failed append couldn't be undone; restart the server")

    def _roll(self) -> Segment:
        active = self._segments.all[-1]
        self._seal(active)
        with storage_errors(f"{self._directory}: new segment"):
            segment = self._new_segment(active.end_offset)
        with self._lock:
            for older in self._segments.all[-2:-1]:  # what was sealed just now may still be truncated
                older.forget_marks()
            self._segments = Segments((*self._segments.all, segment))
        return segment

    def _seal(self, segment: Segment) -> None:
        try:
            segment.sync()
        except StorageError as error:
            self._refuse_appends(segment, error)
            raise
        with self._lock:
            segment.seal()

    def roll_if_due(self, now_ns: int) -> bool:
        self._raise_if_unusable()
        active = self._segments.all[-1]
        if not active.size_bytes or now_ns - active.first_timestamp_ns < self._settings.segment_max_age_ns:
            return False
        self._roll()
        return True

    def sync(self) -> int:
        self._raise_if_unusable()
        segment = self._segments.active
        end_offset = segment.end_offset
        try:
            segment.sync()
        except StorageError as error:
            self._refuse_appends(segment, error)
            if segment not in self._segments.all:
                return self.sync()
            raise
        return end_offset

    def checkpoint(self) -> None:
        self._raise_if_unusable()
        segment = self._segments.active
        summary = segment.last_mark()
        if summary.size_bytes - segment.vouched_bytes < _CHECKPOINT_BYTES:
            return
        self.sync()
        self._index.flush()
        with self._lock:
            self._raise_if_unusable()
            if segment in self._segments.all and summary.size_bytes > segment.vouched_bytes:
                segment.vouch(summary)

    def _refuse_appends(self, segment: Segment, error: StorageError) -> None:
        """After a failed sync, unless a truncation or deletion took the file away meanwhile: the disk did nothing wrong
        then."""
        with self._lock:
            self._raise_if_unusable()
            if segment in self._segments.all:
                self._unusable = StorageError(
                    f"{error}; nobody knows what the disk kept, so the log takes nothing more. Restart the server"
                )

    # --- reading ------------------------------------------------------------------------------------------------------

    def read(self, offset: int, *, stop: int, max_bytes: int) -> bytes:
        while True:
            self._raise_if_gone()
            segments = self._segments
            try:
                return self._read_from(segments, offset, stop, max_bytes)
            except StorageError:
                with self._lock:  # whoever is changing the segments under our hands is done once we have it
                    if self._segments is segments:
                        self._raise_if_gone()
                        raise

    def _read_from(self, segments: Segments, offset: int, stop: int, max_bytes: int) -> bytes:
        if offset < segments.all[0].base_offset:
            raise OffsetOutOfRange(f"offset {offset} is below {segments.all[0].base_offset}, the first that is kept")
        if offset >= min(stop, segments.all[-1].end_offset):
            return b""
        places = self._places
        place = places.get(offset)
        if place is not None and place[1] < place[0].size_bytes:
            data, end_offset = place[0].read_batches(place[1], stop=stop, max_bytes=max_bytes)
            _raise_if_replaced(place[0])
            if data and BASE_OFFSET.unpack_from(data, BASE_OFFSET_POSITION)[0] == offset:
                self._remember(places, end_offset, place[0], place[1] + len(data))
                return data
        segment, position = segments.place_of(offset)
        data, end_offset = segment.read_batches(position, stop=stop, max_bytes=max_bytes)
        _raise_if_replaced(segment)
        if data:
            self._remember(places, end_offset, segment, position + len(data))
        return data

    def _remember(self, places: dict[int, tuple[Segment, int]], offset: int, segment: Segment, position: int) -> None:
        """``places`` is what the reader began with: if a truncation put another one there, nothing may be added to it."""
        places[offset] = (segment, position)
        if len(places) > _REMEMBERED_PLACES:
            with self._lock:
                for old in list(places)[: _REMEMBERED_PLACES // 2]:
                    places.pop(old, None)

    def offset_for_time(self, timestamp_ns: int) -> int | None:
        while True:
            self._raise_if_gone()
            segments = self._segments
            try:
                segment = segments.holding_time(timestamp_ns)
                if segment is None:
                    return None
                found = first_at_or_after(segment, timestamp_ns)
                _raise_if_replaced(segment)
                return found
            except StorageError:
                with self._lock:  # as in read
                    if self._segments is segments:
                        self._raise_if_gone()
                        raise

    # --- removing -----------------------------------------------------------------------------------------------------

    def truncate(self, end_offset: int) -> None:
        with self._lock:
            self._raise_if_unusable()
            if end_offset >= self.end_offset:
                return
            if end_offset < self.start_offset:
                raise OffsetOutOfRange(f"can't truncate to {end_offset}: {self.start_offset} is the first that is kept")
            self._truncations += 1
            try:
                self._drop_segments_from(end_offset)
                *before, last = self._segments.all
                self._segments = Segments((*before, *self._truncated(last, end_offset)))
            except StorageError as error:
                self._unusable = StorageError(f"{error}; a truncation stopped half-way: restart the server")
                raise
            finally:
                self._places = {}

    def _drop_segments_from(self, end_offset: int) -> None:
        while len(self._segments.all) > 1 and self._segments.active.base_offset >= end_offset:
            *kept, dropped = self._segments.all
            self._segments = Segments(kept)
            self._index.drop_from(dropped.base_offset, 0)
            dropped.remove()

    def _truncated(self, segment: Segment, end_offset: int) -> tuple[Segment, ...]:
        """What takes the place of ``segment`` so that nothing from ``end_offset`` on is left. New objects: readers in
        other threads still hold the old one."""
        if segment.end_offset <= end_offset:
            return (segment,)
        position = segment.find(end_offset)
        batch = segment.read_batch(position)
        if batch.base_offset < end_offset:
            return self._split_batch(segment, position, cut_batch(batch, end_offset))
        segment.cut(position)
        return (self._verified(segment.renamed(segment.path, self._index)),)

    def _split_batch(self, segment: Segment, position: int, kept: RecordBatch) -> tuple[Segment, ...]:
        """Puts ``kept`` in the place of the batch at ``position``: it is saved in a segment of its own before the
        batch is cut, so that a crash in between loses nothing (opening then finishes the cut)."""
        path = segment_path(self._directory, segment.end_offset_before(position))
        with storage_errors(f"{path}: truncate"):
            if position == 0:
                self._files.remove(segment.summary_path)
            self._files.replace(path, kept.data)
        self._index.drop_from(segment.base_offset, position)
        split = self._verified(self._segment(path))
        if position == 0:
            return (split,)
        segment.cut(position)
        return self._verified(segment.renamed(segment.path, self._index)), split

    def _verified(self, segment: Segment) -> Segment:
        tear = scan(segment)
        if tear is not None:
            raise LogDamaged(f"{segment.path}: damaged at byte {tear.position}: {tear.reason}")
        return segment

    def apply_retention(self, limits: RetentionLimits, now_ns: int) -> int:
        with self._lock:
            self._raise_if_unusable()
            dropped = self._segments.expired(limits, now_ns)
            kept = self._segments.all[len(dropped) :]
            if dropped:
                self._segments = Segments(kept)
        for segment in dropped:
            segment.remove()
        if dropped:
            self._index.drop_before(kept[0].base_offset)
        return kept[0].base_offset

    # --- compaction ---------------------------------------------------------------------------------------------------

    def compact(
        self, compactor: Compactor, *, min_dirty_percent: int, force: bool = False, between: Callable[[], None]
    ) -> CompactionReport | None:
        def step() -> None:
            self._raise_if_unusable()
            between()

        one_pass = CompactionPass(self, self._directory, self._files, compactor, step)
        if not force and not one_pass.is_worthwhile(min_dirty_percent):
            return None
        try:
            return one_pass.run()
        except StorageError:
            self._raise_if_gone()
            raise

    # What a pass needs of the log, from its own thread (see compaction.Row).

    @property
    def segments(self) -> tuple[Segment, ...]:
        return self._segments.all

    @property
    def truncations(self) -> int:
        return self._truncations

    def may_merge(self, group: Sequence[Segment]) -> bool:
        span_ns = group[-1].last_timestamp_ns - group[0].first_timestamp_ns
        size = sum(segment.size_bytes for segment in group)
        return size <= self._settings.segment_max_bytes and span_ns <= self._settings.segment_max_age_ns

    def new_output(self, path: Path, index: OffsetIndex) -> Segment:
        return Segment(path, self._files, index, self._index_interval_bytes)

    def replace(
        self, group: Sequence[Segment], output: Segment, entries: Sequence[IndexEntry], *, truncations: int
    ) -> None:
        with self._lock:
            self._raise_if_unusable()
            before, after = self._around(group, truncations)
            decided = replacement_path(output)
            try:
                self._files.rename(output.path, decided)
                for segment in group:
                    segment.replaced = True
                path = finish_replacement(decided, self._files)
            except OSError as error:
                failed = storage_error(f"{output.path}: put in the place of segments", error)
                if decided.exists() or group[0].replaced:
                    self._unusable = StorageError(f"{failed}; compaction stopped half-way: restart the server")
                raise failed from error
            self._index.drop_segments(group[0].base_offset, group[-1].base_offset)
            self._index.add(entries)
            replacement = output.renamed(path, self._index)
            self._segments = Segments((*before, replacement, *after))
            self._places = {}
            replacement.seal()
            replacement.forget_marks()

    def mark_compacted(self, segment: Segment, *, truncations: int) -> None:
        with self._lock:
            self._raise_if_unusable()
            self._around([segment], truncations)
            if segment.vouched_bytes < segment.size_bytes:
                segment.sync()
            segment.mark_compacted()
            segment.seal()

    def _around(self, group: Sequence[Segment], truncations: int) -> tuple[tuple[Segment, ...], tuple[Segment, ...]]:
        """The segments before and after the group. Raises Interrupted if it isn't there any more, or if records that
        the pass has seen may be gone."""
        around = self._segments.around(group)
        if around is None or truncations != self._truncations:
            raise Interrupted
        return around

    # --- ending -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        if isinstance(self._unusable, LogClosed | LogDeleted):
            return
        with self._lock:  # so that no compaction is in the middle of replacing segments
            usable, self._unusable = self._unusable is None, LogClosed("the log was closed")
        self._ended(self)
        active = self._segments.all[-1]
        if usable and active.size_bytes > active.vouched_bytes:
            active.sync()
            active.seal(may_grow=True)
        for segment in self._segments.all:
            self._files.forget(segment.path)

    def delete(self) -> None:
        with self._lock:
            self._unusable = LogDeleted("the log was deleted")
        self._ended(self)
        self._index.delete()
        try:
            remove_directory(self._directory, self._files)
        finally:  # not before: a reader in another thread may have opened them until now
            for segment in self._segments.all:
                self._files.forget(segment.path)

    def _raise_if_gone(self) -> None:
        if isinstance(self._unusable, LogClosed | LogDeleted):
            raise self._unusable

    def _raise_if_unusable(self) -> None:
        if self._unusable is not None:
            raise self._unusable


class _Replaced(StorageError):
    """Compaction put another file in the place of the segment that was read."""


def _raise_if_replaced(segment: Segment) -> None:
    if segment.replaced:
        raise _Replaced(f"{segment.path} was replaced; if it stays so, restart the server")
