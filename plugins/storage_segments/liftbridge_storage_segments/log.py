"""One partition's log: a row of segments, the last of which is written to."""

import threading
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from liftbridge.errors import LiftbridgeError, LogClosed, LogDamaged, LogDeleted, OffsetOutOfRange, StorageError
from liftbridge.interfaces.index import OffsetIndex
from liftbridge.interfaces.log import EpochStart, LogSettings, PartitionLog, RetentionLimits
from liftbridge.interfaces.records import RecordBatch
from liftbridge.protocol.record_batch import HEADER_BYTES, decode_batch, encode_batch, iter_records
from liftbridge_storage_segments.files import Files, storage_errors
from liftbridge_storage_segments.recovery import raise_if_damage, scan
from liftbridge_storage_segments.segment import SEGMENT_SUFFIX, SUMMARY_SUFFIX, Segment, segment_path

#: How many readers' places are remembered, so that a reader that goes on needs no lookup.
_REMEMBERED_PLACES = 64


class SegmentedLog(PartitionLog):
    """See :class:`liftbridge.interfaces.log.PartitionLog`.

    ``_segments`` is never changed in place: whoever changes it puts another tuple there, under the lock, and readers
    in other threads go on with the one they have.
    """

    def __init__(
        self, directory: Path, settings: LogSettings, files: Files, index: OffsetIndex, index_interval_bytes: int
    ) -> None:
        self._directory = directory
        self._settings = settings
        self._files = files
        self._index = index
        self._index_interval_bytes = index_interval_bytes
        self._lock = threading.Lock()
        self._places: dict[int, tuple[Segment, int]] = {}
        self._unusable: LiftbridgeError | None = None
        self._segments: tuple[Segment, ...] = self._open_segments()

    # --- opening ------------------------------------------------------------------------------------------------------

    def _open_segments(self) -> tuple[Segment, ...]:
        with storage_errors(f"{self._directory}: open"):
            if not self._directory.exists():
                self._directory.mkdir(parents=True)
                self._files.sync_directory(self._directory.parent)
            self._remove_leftovers()
            paths = sorted(self._directory.glob("*" + SEGMENT_SUFFIX))
            if not paths:
                return (self._new_segment(0),)
        segments = [self._segment(path) for path in paths]
        for segment, following in pairwise(segments):
            self._verify_sealed(segment, following)
        self._verify_last(segments[-1])
        return tuple(segments)

    def _remove_leftovers(self) -> None:
        segments = {path.stem for path in self._directory.glob("*" + SEGMENT_SUFFIX)}
        for path in self._directory.iterdir():
            if path.suffix == ".new" or (path.suffix == SUMMARY_SUFFIX and path.stem not in segments):
                self._files.remove(path)

    def _segment(self, path: Path) -> Segment:
        return Segment(path, self._files, self._index, self._index_interval_bytes)

    def _new_segment(self, base_offset: int) -> Segment:
        path = segment_path(self._directory, base_offset)
        self._files.create(path)
        return self._segment(path)

    def _verify_sealed(self, segment: Segment, following: Segment) -> None:
        size = segment.file_size()
        if size < segment.vouched_bytes:
            raise LogDamaged(f"{segment.path}: {segment.vouched_bytes - size} bytes are missing at its end")
        tear = scan(segment)
        if tear is not None and segment.end_offset != following.base_offset:
            raise LogDamaged(f"{segment.path}: damaged at byte {tear.position}: {tear.reason}")
        if segment.end_offset > following.base_offset:
            self._finish_truncation(segment, following)
        elif segment.end_offset < following.base_offset and not segment.vouched_bytes:
            raise LogDamaged(
                f"{segment.path} ends at offset {segment.end_offset}, and {following.path.name} is next: records are "
                "missing between them"
            )

    def _finish_truncation(self, segment: Segment, following: Segment) -> None:
        """A crash interrupted a truncation inside a batch after its first half was saved in a segment of its own."""
        segment.cut(segment.find(following.base_offset), durable=True)
        scan(segment)

    def _verify_last(self, segment: Segment) -> None:
        size = segment.file_size()
        if size < segment.vouched_bytes:
            raise LogDamaged(f"{segment.path}: {segment.vouched_bytes - size} bytes are missing at its end")
        tear = scan(segment)
        if tear is not None:
            raise_if_damage(segment, tear)
            segment.cut(tear.position, durable=True)

    # --- looking ------------------------------------------------------------------------------------------------------

    @property
    def start_offset(self) -> int:
        return self._segments[0].base_offset

    @property
    def end_offset(self) -> int:
        return self._segments[-1].end_offset

    @property
    def size_bytes(self) -> int:
        return sum(segment.size_bytes for segment in self._segments)

    @property
    def last_timestamp_ns(self) -> int:
        for segment in reversed(self._segments):
            if segment.last_timestamp_ns:
                return segment.last_timestamp_ns
        return 0

    @property
    def epochs(self) -> Sequence[EpochStart]:
        starts: list[EpochStart] = []
        for segment in self._segments:
            starts += [one for one in segment.epochs if not starts or one.leader_epoch > starts[-1].leader_epoch]
        return starts

    # --- writing ------------------------------------------------------------------------------------------------------

    def append(self, batches: Sequence[RecordBatch], *, after_gap: bool = False) -> None:
        self._raise_if_unusable()
        next_offset = self.end_offset
        for batch in batches:
            if batch.base_offset != next_offset and not (after_gap and batch.base_offset > next_offset):
                raise ValueError(f"batch begins at offset {batch.base_offset}, and {next_offset} is next")
            next_offset = batch.end_offset
        active = self._segments[-1]
        if active.size_bytes >= self._settings.segment_max_bytes:
            active = self._roll()
        data = batches[0].data if len(batches) == 1 else b"".join(batch.data for batch in batches)
        try:
            active.append(tuple(batches), data)
        except StorageError:
            self._seal_off_if_torn(active)
            raise

    def _seal_off_if_torn(self, active: Segment) -> None:
        """After a failed append that couldn't be undone, nothing may be written behind the garbage."""
        if active.file_size() != active.size_bytes:
            self._unusable = StorageError(f"{active.path}: a failed append couldn't be undone; restart the server")

    def _roll(self) -> Segment:
        active = self._segments[-1]
        active.seal()
        with storage_errors(f"{self._directory}: new segment"):
            segment = self._new_segment(active.end_offset)
        with self._lock:
            self._segments = (*self._segments, segment)
        return segment

    def roll_if_due(self, now_ns: int) -> bool:
        self._raise_if_unusable()
        active = self._segments[-1]
        if not active.size_bytes or now_ns - active.first_timestamp_ns < self._settings.segment_max_age_ns:
            return False
        self._roll()
        return True

    def sync(self) -> int:
        self._raise_if_unusable()
        segment = self._segments[-1]
        end_offset = segment.end_offset
        try:
            segment.sync()
        except StorageError as error:
            self._unusable = StorageError(f"{error}; nobody knows what the disk kept, so the log takes nothing more")
            raise
        return end_offset

    # --- reading ------------------------------------------------------------------------------------------------------

    def read(self, offset: int, *, stop: int, max_bytes: int) -> bytes:
        segments = self._segments
        if isinstance(self._unusable, LogClosed | LogDeleted):
            raise self._unusable
        if offset < segments[0].base_offset:
            raise OffsetOutOfRange(f"offset {offset} is below {segments[0].base_offset}, the first that is kept")
        if offset >= min(stop, segments[-1].end_offset):
            return b""
        segment, position = self._place_of(segments, offset, stop)
        if segment is None:
            return b""
        data, end_offset = segment.read_batches(position, stop=stop, max_bytes=max_bytes)
        self._remember(end_offset, segment, position + len(data))
        return data

    def _place_of(self, segments: tuple[Segment, ...], offset: int, stop: int) -> tuple[Segment | None, int]:
        """Where to read for ``offset``; no segment when the next batch begins at ``stop`` or later."""
        place = self._places.get(offset)
        if place is not None and place[1] < place[0].size_bytes:
            return place
        number = bisect_right(segments, offset, key=lambda segment: segment.base_offset) - 1
        for segment in segments[number:]:
            if segment.base_offset >= stop:
                break
            position = segment.find(offset)
            if position < segment.size_bytes:
                base, _, _ = segment.batch_at(offset)
                return (segment, position) if base < stop else (None, 0)
        return None, 0

    def _remember(self, offset: int, segment: Segment, position: int) -> None:
        places = self._places
        places[offset] = (segment, position)
        if len(places) > _REMEMBERED_PLACES:
            with self._lock:
                for old in list(places)[: _REMEMBERED_PLACES // 2]:
                    places.pop(old, None)

    def offset_for_time(self, timestamp_ns: int) -> int | None:
        for segment in self._segments:
            if segment.last_timestamp_ns >= timestamp_ns and segment.size_bytes:
                return self._first_at_or_after(segment, timestamp_ns)
        return None

    @staticmethod
    def _first_at_or_after(segment: Segment, timestamp_ns: int) -> int:
        """Binary search by offset; timestamps never go down."""
        low, high = segment.base_offset, segment.end_offset - 1
        while low < high:
            middle = (low + high) // 2
            _, end, batch_ns = segment.batch_at(middle)
            if batch_ns >= timestamp_ns:
                high = middle
            else:
                low = end
        base, _, _ = segment.batch_at(low)
        return base

    # --- removing -----------------------------------------------------------------------------------------------------

    def truncate(self, end_offset: int) -> None:
        self._raise_if_unusable()
        if end_offset >= self.end_offset:
            return
        if end_offset < self.start_offset:
            raise OffsetOutOfRange(f"can't truncate to {end_offset}: {self.start_offset} is the first that is kept")
        self._places.clear()
        kept = list(self._segments)
        while len(kept) > 1 and kept[-1].base_offset >= end_offset:
            dropped = kept.pop()
            self._index.drop_from(dropped.base_offset, 0)
            with self._lock:
                self._segments = tuple(kept)
            dropped.remove()
        with storage_errors(f"{self._directory}: truncate"):
            self._files.sync_directory(self._directory)
        self._truncate_last(kept, end_offset)

    def _truncate_last(self, kept: list[Segment], end_offset: int) -> None:
        last = kept[-1]
        if last.end_offset <= end_offset:
            return
        position = last.find(end_offset)
        base, _, _ = last.batch_at(end_offset)
        if base < end_offset:
            self._split_batch(kept, position, end_offset)
            return
        last.cut(position, durable=True)
        scan(last)

    def _split_batch(self, kept: list[Segment], position: int, end_offset: int) -> None:
        """Keeps the first records of the batch at ``position``: saved in a segment of their own before the batch is
        cut, so that a crash in between loses nothing (opening then finishes the cut)."""
        last = kept[-1]
        data, _ = last.read_batches(position, stop=end_offset, max_bytes=HEADER_BYTES)
        batch = _first_records(decode_batch(data), end_offset)
        path = segment_path(self._directory, batch.base_offset)
        with storage_errors(f"{path}: truncate"):
            if path == last.path:
                self._files.remove(last.summary_path)
                kept.pop()
            self._files.replace(path, batch.data)
        if kept and kept[-1] is last:
            last.cut(position, durable=True)
            scan(last)
        segment = self._segment(path)
        scan(segment)
        with self._lock:
            self._segments = (*kept, segment)

    def apply_retention(self, limits: RetentionLimits, now_ns: int) -> int:
        with self._lock:
            self._raise_if_unusable()
            kept = list(self._segments)
            dropped: list[Segment] = []
            while len(kept) > 1 and kept[0].end_offset <= limits.keep_from_offset and _exceeds(kept, limits, now_ns):
                dropped.append(kept.pop(0))
            self._segments = tuple(kept)
        if dropped:
            self._places.clear()
            for segment in dropped:
                segment.remove()
            with storage_errors(f"{self._directory}: retention"):
                self._files.sync_directory(self._directory)
            self._index.drop_before(kept[0].base_offset)
        return kept[0].base_offset

    # --- ending -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        if isinstance(self._unusable, LogClosed | LogDeleted):
            return
        usable, self._unusable = self._unusable is None, LogClosed("the log was closed")
        active = self._segments[-1]
        if usable and active.size_bytes > active.vouched_bytes:
            active.seal()
        for segment in self._segments:
            self._files.forget(segment.path)

    def delete(self) -> None:
        self._unusable = LogDeleted("the log was deleted")
        for segment in self._segments:
            self._files.forget(segment.path)
        self._index.delete()
        remove_directory(self._directory, self._files)

    def _raise_if_unusable(self) -> None:
        if self._unusable is not None:
            raise self._unusable


def _exceeds(kept: list[Segment], limits: RetentionLimits, now_ns: int) -> bool:
    """Whether the oldest segment has to go. The limits are upper bounds for what stays."""
    if limits.max_age_ns and kept[0].last_timestamp_ns < now_ns - limits.max_age_ns:
        return True
    if limits.max_messages and sum(segment.record_count for segment in kept) > limits.max_messages:
        return True
    return bool(limits.max_bytes and sum(segment.size_bytes for segment in kept) > limits.max_bytes)


def _first_records(batch: RecordBatch, end_offset: int) -> RecordBatch:
    body = batch.data[HEADER_BYTES:]
    kept = [record for record in iter_records(body) if record.offset < end_offset]
    return encode_batch(
        body[: kept[-1].end] if kept else b"",
        base_offset=batch.base_offset,
        end_offset=end_offset,
        record_count=len(kept),
        leader_epoch=batch.leader_epoch,
        timestamp_ns=batch.timestamp_ns,
        attributes=batch.data[5],
    )


#: Directories that are being deleted get this prefix first, so that a crash never leaves half a log that opens.
DELETED_PREFIX = "deleted-"


def remove_directory(directory: Path, files: Files) -> None:
    """Removes a log's directory; a no-op when it doesn't exist."""
    if not directory.exists():
        return
    doomed = directory.with_name(DELETED_PREFIX + directory.name)
    with storage_errors(f"{directory}: delete"):
        files.rename(directory, doomed)
    empty_directory(doomed, files)


def empty_directory(directory: Path, files: Files) -> None:
    """Removes a doomed directory and what is in it."""
    with storage_errors(f"{directory}: delete"):
        for path in directory.iterdir():
            files.remove(path)
        directory.rmdir()
