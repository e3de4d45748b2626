"""Log storage in memory: the twin that the suite holds to the same promises as the real one."""

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

from liftbridge.errors import LogClosed, LogDeleted, OffsetOutOfRange
from liftbridge.interfaces.log import EpochStart, LogId, LogSettings, LogStorage, PartitionLog, RetentionLimits
from liftbridge.interfaces.records import RecordBatch
from liftbridge.protocol.record_batch import HEADER_BYTES, encode_batch, iter_records

_Segments = tuple[tuple[RecordBatch, ...], ...]


class _Content(NamedTuple):
    """What would be on the disk."""

    start_offset: int = 0
    end_offset: int = 0
    segments: _Segments = ((),)


class MemoryLogStorage(LogStorage):
    """See :class:`liftbridge.interfaces.log.LogStorage`. What was appended outlives ``close`` of a log, as files would,
    and ends with this object."""

    def __init__(self) -> None:
        self._contents: dict[LogId, _Content] = {}

    def open(self, log_id: LogId, settings: LogSettings) -> PartitionLog:
        return MemoryLog(self._contents, log_id, settings)

    def list_logs(self) -> Sequence[LogId]:
        return sorted(self._contents)

    def remove(self, log_id: LogId) -> None:
        self._contents.pop(log_id, None)

    def close(self) -> None:
        """Nothing is held."""


class MemoryLog(PartitionLog):
    """See :class:`liftbridge.interfaces.log.PartitionLog`. Segments are tuples of batches; the content is replaced as a
    whole, so a reader in another thread always has one that is consistent."""

    def __init__(self, contents: dict[LogId, _Content], log_id: LogId, settings: LogSettings) -> None:
        self._contents = contents
        self._log_id = log_id
        self._settings = settings
        self._lock = threading.Lock()
        self._content = contents.setdefault(log_id, _Content())
        self._unusable: LogClosed | LogDeleted | None = None

    @property
    def start_offset(self) -> int:
        return self._content.start_offset

    @property
    def end_offset(self) -> int:
        return self._content.end_offset

    @property
    def size_bytes(self) -> int:
        return sum(len(batch.data) for batch in _flat(self._content.segments))

    @property
    def last_timestamp_ns(self) -> int:
        batches = _flat(self._content.segments)
        return batches[-1].timestamp_ns if batches else 0

    @property
    def epochs(self) -> Sequence[EpochStart]:
        starts: list[EpochStart] = []
        for batch in _flat(self._content.segments):
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
            *sealed, active = self._content.segments
            if sum(len(batch.data) for batch in active) >= self._settings.segment_max_bytes:
                sealed, active = [*sealed, active], ()
            self._save(end_offset=next_offset, segments=(*sealed, (*active, *batches)))

    def read(self, offset: int, *, stop: int, max_bytes: int) -> bytes:
        with self._lock:
            self._raise_if_unusable()
            start, end, segments = self._content
        if offset < start:
            raise OffsetOutOfRange(f"offset {offset} is below {start}, the first that is kept")
        taken: list[bytes] = []
        size = 0
        for batch in _flat(segments) if offset < end else []:
            if batch.base_offset >= stop or (taken and size + len(batch.data) > max_bytes):
                break
            if batch.end_offset > offset and offset < stop:
                taken.append(batch.data)
                size += len(batch.data)
        return b"".join(taken)

    def offset_for_time(self, timestamp_ns: int) -> int | None:
        return next((b.base_offset for b in _flat(self._content.segments) if b.timestamp_ns >= timestamp_ns), None)

    def sync(self) -> int:
        self._raise_if_unusable()
        return self.end_offset

    def truncate(self, end_offset: int) -> None:
        with self._lock:
            self._raise_if_unusable()
            start_offset, old_end_offset, segments = self._content
            if end_offset >= old_end_offset:
                return
            if end_offset < start_offset:
                raise OffsetOutOfRange(f"can't truncate to {end_offset}: {start_offset} is the first that is kept")
            kept = [
                tuple(_until(batch, end_offset) for batch in segment if batch.base_offset < end_offset)
                for segment in segments
            ]
            segments = (kept[0], *(segment for segment in kept[1:] if segment))
            self._save(end_offset=max((b.end_offset for b in _flat(segments)), default=start_offset), segments=segments)

    def roll_if_due(self, now_ns: int) -> bool:
        with self._lock:
            self._raise_if_unusable()
            active = self._content.segments[-1]
            if not active or now_ns - active[0].timestamp_ns < self._settings.segment_max_age_ns:
                return False
            self._save(segments=(*self._content.segments, ()))
            return True

    def apply_retention(self, limits: RetentionLimits, now_ns: int) -> int:
        with self._lock:
            self._raise_if_unusable()
            start_offset, _, segments = self._content
            kept = list(segments)
            while (
                len(kept) > 1 and kept[0][-1].end_offset <= limits.keep_from_offset and _exceeds(kept, limits, now_ns)
            ):
                start_offset = kept.pop(0)[-1].end_offset
            self._save(start_offset=start_offset, segments=tuple(kept))
            return start_offset

    def close(self) -> None:
        self._unusable = self._unusable or LogClosed("the log was closed")

    def delete(self) -> None:
        self._unusable = LogDeleted("the log was deleted")
        self._contents.pop(self._log_id, None)

    def _save(self, **changes: Any) -> None:
        self._content = self._contents[self._log_id] = self._content._replace(**changes)

    def _raise_if_unusable(self) -> None:
        if self._unusable is not None:
            raise self._unusable


def _flat(segments: _Segments) -> list[RecordBatch]:
    return [batch for segment in segments for batch in segment]


def _exceeds(kept: Sequence[tuple[RecordBatch, ...]], limits: RetentionLimits, now_ns: int) -> bool:
    batches = _flat(tuple(kept))
    too_old = limits.max_age_ns and kept[0][-1].timestamp_ns < now_ns - limits.max_age_ns
    too_many = limits.max_messages and sum(batch.record_count for batch in batches) > limits.max_messages
    too_large = limits.max_bytes and sum(len(batch.data) for batch in batches) > limits.max_bytes
    return bool(too_old or too_many or too_large)


def _until(batch: RecordBatch, end_offset: int) -> RecordBatch:
    """The batch's records below ``end_offset``."""
    if batch.end_offset <= end_offset:
        return batch
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
