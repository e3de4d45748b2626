"""The offset index: keys are (stream ID, partition, segment, base offset), values are positions.

Entries are collected in memory and written a few thousand at a time, for all logs in one transaction. What wasn't
written yet is found in memory; what a crash loses is found by scanning. The environment is opened without any sync, so a
loss of power may destroy it: then it is thrown away and begun anew.
"""

import logging
import shutil
import struct
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import lmdb

from liftbridge.interfaces.index import IndexEntry, IndexStorage, OffsetIndex
from liftbridge.interfaces.log import LogId

logger = logging.getLogger(__name__)

_KEY = struct.Struct(">QIQQ")
_POSITION = struct.Struct(">Q")
_MAX = (1 << 64) - 1
#: Entries of all logs that wait in memory before they are written.
_WRITE_AT = 4096


class LmdbIndexStorage(IndexStorage):
    """See :class:`liftbridge.interfaces.index.IndexStorage`."""

    def __init__(self, directory: Path, *, max_bytes: int) -> None:
        self._directory = directory
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._environment: lmdb.Environment | None = None
        self._indexes: dict[LogId, _LmdbIndex] = {}
        self._waiting = 0
        self._full = False

    def open(self, log_id: LogId) -> OffsetIndex:
        with self._lock:
            if log_id not in self._indexes:
                self._indexes[log_id] = _LmdbIndex(self, log_id)
            return self._indexes[log_id]

    def close(self) -> None:
        self.write()
        with self._lock:
            if self._environment is not None:
                self._environment.close()
                self._environment = None

    def forget(self, index: "_LmdbIndex") -> None:
        """The log of the index was deleted."""
        with self._lock:
            if self._indexes.get(index.log_id) is index:
                del self._indexes[index.log_id]

    def added(self, count: int) -> None:
        """So many more entries wait; writes them if that is many."""
        self._waiting += count
        if self._waiting >= _WRITE_AT:
            self.write()

    def write(self) -> None:
        """Writes what waits. A full or broken store is logged once and then left alone: reads scan instead."""
        with self._lock:
            self._waiting = 0
            taken = [(index.log_id, index.take_waiting()) for index in self._indexes.values()]
            if self._full or not any(entries for _, entries in taken):
                return
            try:
                with self._open_environment().begin(write=True) as transaction:
                    for log_id, entries in taken:
                        for entry in entries:
                            key = _KEY.pack(*log_id, entry.segment, entry.base_offset)
                            transaction.put(key, _POSITION.pack(entry.position))
            except (lmdb.Error, OSError) as error:
                self._full = True
                logger.warning("%s: index not written any more, reads scan instead: %s", self._directory, error)

    def find(self, log_id: LogId, offset: int, segment: int) -> IndexEntry | None:
        """The last written entry of the segment that isn't above ``offset``."""
        with self._lock:
            try:
                with self._open_environment().begin() as transaction, transaction.cursor() as cursor:
                    found = cursor.set_range(_KEY.pack(*log_id, segment, offset + 1))
                    if not (cursor.prev() if found else cursor.last()):
                        return None
                    key, value = bytes(cursor.key()), bytes(cursor.value())
            except (lmdb.Error, OSError) as error:
                logger.warning("%s: index not readable: %s", self._directory, error)
                return None
        if len(key) != _KEY.size or len(value) != _POSITION.size:
            return None
        stream_id, partition, found_segment, base_offset = _KEY.unpack(key)
        if (stream_id, partition, found_segment) != (*log_id, segment):
            return None
        return IndexEntry(base_offset, segment, _POSITION.unpack(value)[0])

    def drop(self, first: bytes, last: bytes) -> None:
        """Forgets the keys from ``first`` to ``last``, both included."""
        with (
            self._forgetting(),
            self._open_environment().begin(write=True) as transaction,
            transaction.cursor() as cursor,
        ):
            more = cursor.set_range(first)
            while more and bytes(cursor.key()) <= last:
                more = cursor.delete()

    def drop_tail(self, log_id: LogId, segment: int, position: int) -> None:
        """Forgets the log's entries of ``segment`` from ``position`` on, and those of later segments. Looks only at these."""
        first, last = _KEY.pack(*log_id, segment, 0), _KEY.pack(*log_id, _MAX, _MAX)
        with self._forgetting(), self._open_environment().begin(write=True) as transaction:
            with transaction.cursor() as cursor:
                stale = list(_tail(cursor, first, last, segment, position))
            for key in stale:
                transaction.delete(key)

    @contextmanager
    def _forgetting(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except (lmdb.Error, OSError) as error:
                logger.warning("%s: stale index entries stay: %s", self._directory, error)

    def _open_environment(self) -> lmdb.Environment:
        if self._environment is None:
            try:
                self._environment = self._open_or_raise()
            except (lmdb.Error, OSError) as error:
                logger.warning("%s: index can't be opened and is begun anew: %s", self._directory, error)
                shutil.rmtree(self._directory, ignore_errors=True)
                self._environment = self._open_or_raise()
        return self._environment

    def _open_or_raise(self) -> lmdb.Environment:
        environment = lmdb.open(
            str(self._directory), map_size=self._max_bytes, sync=False, metasync=False, max_dbs=0, readahead=False
        )
        used_bytes = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
        file_bytes = (self._directory / "data.mdb").stat().st_size
        if used_bytes > file_bytes:  # touching the missing pages would end the process by a signal
            environment.close()
            raise lmdb.CorruptedError(f"{used_bytes - file_bytes} of {used_bytes} bytes are missing")
        return environment


def _tail(cursor: lmdb.Cursor, first: bytes, last: bytes, segment: int, position: int) -> Iterator[bytes]:
    """The keys before ``last`` backward to ``first``, or to one of ``segment`` whose position is below ``position``."""
    more = cursor.prev() if cursor.set_range(last) else cursor.last()
    while more and bytes(cursor.key()) >= first:
        key, value = bytes(cursor.key()), bytes(cursor.value())
        known = len(key) == _KEY.size and len(value) == _POSITION.size
        if known and _KEY.unpack(key)[2] == segment and _POSITION.unpack(value)[0] < position:
            return
        yield key
        more = cursor.prev()


class _LmdbIndex(OffsetIndex):
    """The index of one log: what waits to be written, and the storage for the rest."""

    def __init__(self, storage: LmdbIndexStorage, log_id: LogId) -> None:
        self.log_id = log_id
        self._storage = storage
        self._waiting: list[IndexEntry] = []

    def add(self, entries: Sequence[IndexEntry]) -> None:
        self._waiting += entries
        self._storage.added(len(entries))

    def take_waiting(self) -> list[IndexEntry]:
        """What waits, which the caller writes now."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def find(self, offset: int, *, segment: int) -> IndexEntry | None:
        waiting = [entry for entry in self._waiting if entry.segment == segment]
        place = bisect_right(waiting, offset, key=lambda entry: entry.base_offset)
        return waiting[place - 1] if place else self._storage.find(self.log_id, offset, segment)

    def flush(self) -> None:
        self._storage.write()

    def drop_from(self, segment: int, position: int) -> None:
        self._waiting = [
            entry
            for entry in self._waiting
            if entry.segment < segment or (entry.segment == segment and entry.position < position)
        ]
        self._storage.drop_tail(self.log_id, segment, position)

    def drop_before(self, segment: int) -> None:
        self._waiting = [entry for entry in self._waiting if entry.segment >= segment]
        if segment:
            self._drop((0, 0), (segment - 1, _MAX))

    def drop_segments(self, first: int, last: int) -> None:
        self._waiting = [entry for entry in self._waiting if not first <= entry.segment <= last]
        self._drop((first, 0), (last, _MAX))

    def delete(self) -> None:
        self._storage.forget(self)
        self._waiting.clear()
        self._drop((0, 0), (_MAX, _MAX))

    def _drop(self, first: tuple[int, int], last: tuple[int, int]) -> None:
        self._storage.drop(_KEY.pack(*self.log_id, *first), _KEY.pack(*self.log_id, *last))
