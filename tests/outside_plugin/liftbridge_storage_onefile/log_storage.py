"""A log storage that keeps each log in one file: eight bytes that say where it starts, then batches, back to back."""

import errno
import os
import re
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple
from weakref import WeakSet

from liftbridge.errors import DiskFull, LogClosed, LogDamaged, LogDeleted, OffsetOutOfRange, ProtocolError, StorageError
from liftbridge.interfaces.log import EpochStart, LogId, LogSettings, LogStorage, PartitionLog, RetentionLimits
from liftbridge.interfaces.records import RecordBatch
from liftbridge.protocol.record_batch import HEADER_BYTES, cut_batch, decode_batch, decode_header

_START_BYTES = 8
_FILE_NAME = re.compile(r"(\d+)-(\d+)\.log")


class Place(NamedTuple):
    """Where a batch stands in the file, and what is asked about it."""

    base_offset: int
    end_offset: int
    record_count: int
    leader_epoch: int
    timestamp_ns: int
    position: int
    size_bytes: int


class OnefileStorage(LogStorage):
    """See :class:`liftbridge.interfaces.log.LogStorage`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._logs: WeakSet[OnefileLog] = WeakSet()

    def open(self, log_id: LogId, settings: LogSettings) -> PartitionLog:
        self._directory.mkdir(parents=True, exist_ok=True)
        log = OnefileLog(self._path(log_id), settings)
        self._logs.add(log)
        return log

    def list_logs(self) -> Sequence[LogId]:
        matches = [_FILE_NAME.fullmatch(path.name) for path in self._directory.glob("*.log")]
        return sorted(LogId(int(match[1]), int(match[2])) for match in matches if match)

    def remove(self, log_id: LogId) -> None:
        self._path(log_id).unlink(missing_ok=True)

    def close(self) -> None:
        for log in list(self._logs):
            log.close()

    def _path(self, log_id: LogId) -> Path:
        return self._directory / f"{log_id.stream_id}-{log_id.partition}.log"


class OnefileLog(PartitionLog):
    """See :class:`liftbridge.interfaces.log.PartitionLog`. Where each batch stands is kept in memory; one lock guards it.
    Retention drops single batches: each is a segment of its own, and the last one is the active segment."""

    def __init__(self, path: Path, settings: LogSettings) -> None:
        self._path = path
        self._settings = settings
        self._lock = threading.Lock()
        self._unusable: StorageError | None = None
        self._sealed_end = 0
        if not path.exists():
            self._write_file(0, [])
        self._open_file()

    def _open_file(self) -> None:
        """Reads the whole file, checks every batch, and cuts what a crash tore off."""
        self._file = self._path.open("r+b", buffering=0)
        data = self._file.read()
        self._start_offset = int.from_bytes(data[:_START_BYTES], "big")
        self._places: list[Place] = []
        position = _START_BYTES
        while position < len(data):
            try:
                if len(data) - position < HEADER_BYTES:
                    break
                if position + HEADER_BYTES + decode_header(data, position).body_bytes > len(data):
                    break
                batch = decode_batch(data, position)
            except ProtocolError as error:
                raise LogDamaged(f"{self._path}, byte {position}: {error}") from error
            self._places.append(_place(batch, position))
            position += len(batch.data)
        self._file.truncate(position)
        self._position = position

    # --- looking ------------------------------------------------------------------------------------------------------

    @property
    def start_offset(self) -> int:
        return self._start_offset

    @property
    def end_offset(self) -> int:
        places = self._places
        return places[-1].end_offset if places else self._start_offset

    @property
    def size_bytes(self) -> int:
        return self._position - _START_BYTES

    @property
    def last_timestamp_ns(self) -> int:
        places = self._places
        return places[-1].timestamp_ns if places else 0

    @property
    def epochs(self) -> Sequence[EpochStart]:
        starts: list[EpochStart] = []
        for place in self._places:
            if not starts or place.leader_epoch > starts[-1].leader_epoch:
                starts.append(EpochStart(place.leader_epoch, place.base_offset))
        return starts

    def offset_for_time(self, timestamp_ns: int) -> int | None:
        self._raise_if_unusable()
        return next((place.base_offset for place in self._places if place.timestamp_ns >= timestamp_ns), None)

    # --- appending and reading ----------------------------------------------------------------------------------------

    def append(self, batches: Sequence[RecordBatch], *, after_gap: bool = False) -> None:
        with self._lock:
            self._raise_if_unusable()
            places: list[Place] = []
            position, next_offset = self._position, self.end_offset
            for batch in batches:
                if batch.base_offset != next_offset and not (after_gap and batch.base_offset > next_offset):
                    raise ValueError(f"batch begins at offset {batch.base_offset}, and {next_offset} is next")
                places.append(_place(batch, position))
                position, next_offset = position + len(batch.data), batch.end_offset
            self._write_at_end(b"".join(batch.data for batch in batches))
            self._places += places
            self._position = position

    def _write_at_end(self, data: bytes) -> None:
        """All of it or nothing."""
        try:
            written = os.pwrite(self._file.fileno(), data, self._position)
            if written < len(data):
                raise OSError(errno.ENOSPC, "short write")
        except OSError as error:
            self._file.truncate(self._position)
            kind = DiskFull if error.errno == errno.ENOSPC else StorageError
            raise kind(f"{self._path}: append: {error.strerror}") from error

    def read(self, offset: int, *, stop: int, max_bytes: int) -> bytes:
        with self._lock:
            self._raise_if_unusable()
            places = self._places
            if offset < self._start_offset:
                raise OffsetOutOfRange(f"offset {offset} is below {self._start_offset}, the first that is kept")
            first = max(0, bisect_right(places, offset, key=lambda place: place.base_offset) - 1)
            if places and places[first].end_offset <= offset:
                first += 1
            if offset >= stop or first == len(places) or places[first].base_offset >= stop:
                return b""
            start = places[first].position
            end = start + places[first].size_bytes
            for place in places[first + 1 :]:
                if place.base_offset >= stop or place.position + place.size_bytes - start > max_bytes:
                    break
                end = place.position + place.size_bytes
            return os.pread(self._file.fileno(), end - start, start)

    def sync(self) -> int:
        """Without the lock, so that appends go on meanwhile. The file may be replaced just now; then this one, which
        the variable keeps open, is synced for nothing, and the new one is durable already."""
        self._raise_if_unusable()
        end_offset, file = self.end_offset, self._file
        try:
            os.fdatasync(file.fileno())
        except (OSError, ValueError) as error:
            self._raise_if_unusable()
            self._unusable = StorageError(f"{self._path}: sync: {error}; restart the server")
            raise self._unusable from error
        return end_offset

    # --- removing -----------------------------------------------------------------------------------------------------

    def truncate(self, end_offset: int) -> None:
        with self._lock:
            self._raise_if_unusable()
            if end_offset >= self.end_offset:
                return
            if end_offset < self._start_offset:
                raise OffsetOutOfRange(
                    f"can't truncate to {end_offset}: {self._start_offset} is the first that is kept"
                )
            kept = [self._batch(place) for place in self._places if place.base_offset < end_offset]
            if kept and kept[-1].end_offset > end_offset:
                kept[-1] = cut_batch(kept[-1], end_offset)
            self._replace_file(self._start_offset, kept)
            self._sealed_end = min(self._sealed_end, self.end_offset)

    def apply_retention(self, limits: RetentionLimits, now_ns: int) -> int:
        with self._lock:
            self._raise_if_unusable()
            exceeds = _exceeds(self._places, limits, now_ns)
            dropped = 0
            for place in self._places:
                is_active = place is self._places[-1] and place.end_offset > self._sealed_end
                if is_active or place.end_offset > limits.keep_from_offset or not exceeds(place):
                    break
                dropped += 1
            if dropped:
                start_offset = self._places[dropped - 1].end_offset
                self._replace_file(start_offset, [self._batch(place) for place in self._places[dropped:]])
            return self._start_offset

    def roll_if_due(self, now_ns: int) -> bool:
        self._raise_if_unusable()
        is_old = now_ns - self.last_timestamp_ns >= self._settings.segment_max_age_ns
        if not self._places or self.end_offset <= self._sealed_end or not is_old:
            return False
        self._sealed_end = self.end_offset
        return True

    def _batch(self, place: Place) -> RecordBatch:
        return decode_batch(os.pread(self._file.fileno(), place.size_bytes, place.position))

    def _replace_file(self, start_offset: int, batches: Iterable[RecordBatch]) -> None:
        self._write_file(start_offset, batches)
        self._open_file()

    def _write_file(self, start_offset: int, batches: Iterable[RecordBatch]) -> None:
        """Durably, and after a crash there is the old file or the new one."""
        new = self._path.with_suffix(".new")
        with new.open("wb") as file:
            file.write(start_offset.to_bytes(_START_BYTES, "big"))
            file.writelines(batch.data for batch in batches)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)

    # --- ending -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        with self._lock:
            if self._unusable is None:
                os.fdatasync(self._file.fileno())
            if not isinstance(self._unusable, LogDeleted):
                self._unusable = LogClosed("the log was closed")
            self._file.close()

    def delete(self) -> None:
        with self._lock:
            self._unusable = LogDeleted("the log was deleted")
            self._file.close()
            self._path.unlink(missing_ok=True)

    def _raise_if_unusable(self) -> None:
        if self._unusable is not None:
            raise self._unusable


def _place(batch: RecordBatch, position: int) -> Place:
    return Place(
        base_offset=batch.base_offset,
        end_offset=batch.end_offset,
        record_count=batch.record_count,
        leader_epoch=batch.leader_epoch,
        timestamp_ns=batch.timestamp_ns,
        position=position,
        size_bytes=len(batch.data),
    )


def _exceeds(places: list[Place], limits: RetentionLimits, now_ns: int) -> Callable[[Place], bool]:
    """Says of one batch after the other, the oldest first, whether it is too much."""
    records = sum(place.record_count for place in places)
    size_bytes = sum(place.size_bytes for place in places)

    def exceeds(place: Place) -> bool:
        nonlocal records, size_bytes
        too_old = limits.max_age_ns and place.timestamp_ns < now_ns - limits.max_age_ns
        too_many = limits.max_messages and records > limits.max_messages
        too_large = limits.max_bytes and size_bytes > limits.max_bytes
        records -= place.record_count
        size_bytes -= place.size_bytes
        return bool(too_old or too_many or too_large)

    return exceeds
