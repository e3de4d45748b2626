"""Log storage in memory: the twin that the suite holds to the same promises as the real one."""

import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from weakref import WeakSet

from liftbridge.errors import LogClosed, LogDeleted, OffsetOutOfRange
from liftbridge.interfaces.log import (
    CompactionReport,
    Compactor,
    EpochStart,
    LogId,
    LogSettings,
    LogStorage,
    PartitionLog,
    RetentionLimits,
)
from liftbridge.interfaces.records import RecordBatch
from liftbridge.protocol.record_batch import cut_batch


@dataclass(slots=True)
class _Segment:
    """Batches that retention drops together, from ``base_offset`` on, and sums over them."""

    base_offset: int = 0
    batches: list[RecordBatch] = field(default_factory=list)
    base_offsets: list[int] = field(default_factory=list)
    size_bytes: int = 0
    record_count: int = 0

    def add(self, batch: RecordBatch) -> None:
        self.batches.append(batch)
        self.base_offsets.append(batch.base_offset)
        self.size_bytes += len(batch.data)
        self.record_count += batch.record_count

    def place_of(self, offset: int) -> int:
        """Which of the batches holds ``offset``, or is the next behind it."""
        place = max(0, bisect_right(self.base_offsets, offset) - 1)
        return place if self.batches[place].end_offset > offset else place + 1


@dataclass(slots=True)
class _Content:
    """What would be on the disk. Only the last segment may be empty."""

    start_offset: int = 0
    end_offset: int = 0
    size_bytes: int = 0
    segments: list[_Segment] = field(default_factory=lambda: [_Segment()])
    #: Below it each key occurs only once.
    compacted_end: int = 0

    def add(self, batch: RecordBatch) -> None:
        self.segments[-1].add(batch)
        self.size_bytes += len(batch.data)
        self.end_offset = batch.end_offset

    def batches(self, offset: int) -> Iterator[RecordBatch]:
        """From the one that holds ``offset``, or is the next behind it."""
        number = max(0, bisect_right(self.segments, offset, key=lambda one: one.base_offset) - 1)
        for segment in self.segments[number:]:
            if segment.batches:
                yield from segment.batches[segment.place_of(offset) :]


class MemoryLogStorage(LogStorage):
    """See :class:`liftbridge.interfaces.log.LogStorage`. What was appended outlives ``close`` of a log, as files would,
    and ends with this object."""

    def __init__(self) -> None:
        self._contents: dict[LogId, _Content] = {}
        self._logs: WeakSet[MemoryLog] = WeakSet()

    def open(self, log_id: LogId, settings: LogSettings) -> PartitionLog:
        log = MemoryLog(self._contents, log_id, settings)
        self._logs.add(log)
        return log

    def list_logs(self) -> Sequence[LogId]:
        return sorted(self._contents)

    def remove(self, log_id: LogId) -> None:
        self._contents.pop(log_id, None)

    def close(self) -> None:
        for log in list(self._logs):
            log.close()


class MemoryLog(PartitionLog):
    """See :class:`liftbridge.interfaces.log.PartitionLog`. One lock for everything that looks into the content."""

    def __init__(self, contents: dict[LogId, _Content], log_id: LogId, settings: LogSettings) -> None:
        self._contents = contents
        self._log_id = log_id
        self._settings = settings
        self._lock = threading.Lock()
        self._content = contents.setdefault(log_id, _Content())
        self._unusable: LogClosed | LogDeleted | None = None
        self._truncations = 0

    @property
    def start_offset(self) -> int:
        return self._content.start_offset

    @property
    def end_offset(self) -> int:
        return self._content.end_offset

    @property
    def size_bytes(self) -> int:
        return self._content.size_bytes

    @property
    def last_timestamp_ns(self) -> int:
        with self._lock:
            last = next((one for one in reversed(self._content.segments) if one.batches), None)
            return last.batches[-1].timestamp_ns if last else 0

    @property
    def epochs(self) -> Sequence[EpochStart]:
        starts: list[EpochStart] = []
        with self._lock:
            for batch in self._content.batches(self.start_offset):
                if not starts or batch.leader_epoch != starts[-1].leader_epoch:
                    starts.append(EpochStart(batch.leader_epoch, batch.base_offset))
        return starts

    def append(self, batches: Sequence[RecordBatch], *, after_gap: bool = False) -> None:
        with self._lock:
            self._raise_if_unusable()
            next_offset = self.end_offset
            for batch in batches:
                if batch.base_offset != next_offset and not (after_gap and batch.base_offset > next_offset):
                    raise ValueError(f"batch begins at offset {batch.base_offset}, and {next_offset} is next")
                next_offset = batch.end_offset
            if self._content.segments[-1].size_bytes >= self._settings.segment_max_bytes:
                self._content.segments.append(_Segment(self.end_offset))
            for batch in batches:
                self._content.add(batch)

    def read(self, offset: int, *, stop: int, max_bytes: int) -> bytes:
        with self._lock:
            self._raise_if_unusable()
            if offset < self.start_offset:
                raise OffsetOutOfRange(f"offset {offset} is below {self.start_offset}, the first that is kept")
            if offset >= min(stop, self.end_offset):
                return b""
            taken: list[bytes] = []
            size = 0
            for batch in self._content.batches(offset):
                size += len(batch.data)
                if batch.base_offset >= stop or (taken and size > max_bytes):
                    break
                taken.append(batch.data)
            return b"".join(taken)

    def offset_for_time(self, timestamp_ns: int) -> int | None:
        with self._lock:
            self._raise_if_unusable()
            batches = self._content.batches(self.start_offset)
            return next((batch.base_offset for batch in batches if batch.timestamp_ns >= timestamp_ns), None)

    def sync(self) -> int:
        self._raise_if_unusable()
        return self.end_offset

    def truncate(self, end_offset: int) -> None:
        with self._lock:
            self._raise_if_unusable()
            before = self._content
            if end_offset >= before.end_offset:
                return
            if end_offset < before.start_offset:
                raise OffsetOutOfRange(
                    f"can't truncate to {end_offset}: {before.start_offset} is the first that is kept"
                )
            after = _Content(before.start_offset, before.start_offset, segments=[_Segment(before.start_offset)])
            for segment in before.segments:
                kept = [batch for batch in segment.batches if batch.base_offset < end_offset]
                if kept and after.segments[-1].batches:
                    after.segments.append(_Segment(after.end_offset))
                for batch in kept:
                    after.add(cut_batch(batch, end_offset) if batch.end_offset > end_offset else batch)
            after.compacted_end = min(before.compacted_end, after.end_offset)
            self._truncations += 1
            self._content = self._contents[self._log_id] = after

    def roll_if_due(self, now_ns: int) -> bool:
        with self._lock:
            self._raise_if_unusable()
            active = self._content.segments[-1]
            if not active.batches or now_ns - active.batches[0].timestamp_ns < self._settings.segment_max_age_ns:
                return False
            self._content.segments.append(_Segment(self.end_offset))
            return True

    def apply_retention(self, limits: RetentionLimits, now_ns: int) -> int:
        with self._lock:
            self._raise_if_unusable()
            content = self._content
            while len(content.segments) > 1 and _has_to_go(content, limits, now_ns):
                dropped = content.segments.pop(0)
                content.start_offset = dropped.batches[-1].end_offset
                content.size_bytes -= dropped.size_bytes
            return content.start_offset

    def compact(
        self, compactor: Compactor, *, min_dirty_percent: int, force: bool = False, between: Callable[[], None]
    ) -> CompactionReport | None:
        self._raise_if_unusable()
        truncations = self._truncations
        before = _committed(self._content.segments, compactor.upto)
        dirty_bytes = _size([one for one in before if one.batches[-1].end_offset > self._content.compacted_end])
        if not force and (not dirty_bytes or dirty_bytes * 100 < min_dirty_percent * _size(before)):
            return None
        bytes_before, removed = _size(before), 0
        offset: int | None = self._content.compacted_end
        while offset is not None:
            offset = self._learn_from(offset, compactor, between)
            with self._lock:
                self._raise_if_unusable()
                if truncations != self._truncations:  # what made records go may be gone itself
                    break
                removed += self._rewrite(compactor)
            compactor.forget()
        return CompactionReport(removed, bytes_before, _size(_committed(self._content.segments, compactor.upto)))

    def _learn_from(self, offset: int, compactor: Compactor, between: Callable[[], None]) -> int | None:
        """Where to go on in the next round, None when all was learnt."""
        with self._lock:
            batches = list(self._content.batches(offset))
        for batch in batches:
            if batch.base_offset < compactor.upto:
                between()
                if not compactor.learn(batch):
                    return compactor.learnt_end
        return None

    def _rewrite(self, compactor: Compactor) -> int:
        """How many records went."""
        content, removed = self._content, 0
        for number, segment in enumerate(content.segments[:-1]):
            rewritten = _rewritten(segment, compactor)
            removed += segment.record_count - rewritten.record_count
            content.size_bytes -= segment.size_bytes - rewritten.size_bytes
            content.segments[number] = rewritten
            if rewritten.batches[-1].end_offset <= compactor.learnt_end:
                content.compacted_end = rewritten.batches[-1].end_offset
        return removed

    def close(self) -> None:
        self._unusable = self._unusable or LogClosed("the log was closed")

    def delete(self) -> None:
        self._unusable = LogDeleted("the log was deleted")
        self._contents.pop(self._log_id, None)

    def _raise_if_unusable(self) -> None:
        if self._unusable is not None:
            raise self._unusable


def _committed(segments: Sequence[_Segment], upto: int) -> list[_Segment]:
    """The sealed ones below ``upto``."""
    return [one for one in segments[:-1] if one.batches[-1].end_offset <= upto]


def _size(segments: Sequence[_Segment]) -> int:
    return sum(segment.size_bytes for segment in segments)


def _rewritten(segment: _Segment, compactor: Compactor) -> _Segment:
    """Batches without records stay where an epoch begins, and at the end, where the next segment goes on."""
    kept, epoch = _Segment(segment.base_offset), None
    for batch in segment.batches:
        rewritten = compactor.rewrite(batch) if batch.base_offset < compactor.learnt_end else batch
        if rewritten.record_count or batch.leader_epoch != epoch or batch is segment.batches[-1]:
            kept.add(rewritten)
            epoch = batch.leader_epoch
    return kept


def _has_to_go(content: _Content, limits: RetentionLimits, now_ns: int) -> bool:
    """Whether the oldest segment exceeds a limit, and holds nothing that must stay."""
    last = content.segments[0].batches[-1]
    record_count = sum(segment.record_count for segment in content.segments)
    too_old = limits.max_age_ns and last.timestamp_ns < now_ns - limits.max_age_ns
    too_many = limits.max_messages and record_count > limits.max_messages
    too_large = limits.max_bytes and content.size_bytes > limits.max_bytes
    return last.end_offset <= limits.keep_from_offset and bool(too_old or too_many or too_large)
