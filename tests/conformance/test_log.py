"""Every log storage against its suites, and against a list."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from registered import ProviderName, create

from liftbridge.interfaces.keys import KeyRing
from liftbridge.interfaces.log import LogId, LogSettings, LogStorage, PartitionLog
from liftbridge.interfaces.provider import Seam
from liftbridge.partition.encryption import encrypted
from liftbridge.testing.batches import make_batch
from liftbridge.testing.compaction_suite import LogCompactionSuite
from liftbridge.testing.log_suite import LogStorageSuite, OpenStorage
from liftbridge.testing.memory_index import MemoryIndexStorage
from liftbridge_storage_lmdb.index import LmdbIndexStorage

SEGMENTS = (Seam.LOG_STORAGE, "segments")
KEYS = KeyRing((b"k" * 32,))
#: So that small logs have several index entries.
DENSE_INDEX = {"storage.segments.index.interval": 100}


def opening(make: Callable[[], LogStorage]) -> Iterator[OpenStorage]:
    """Opens the same storage again and again, and closes it in the end."""
    opened: list[LogStorage] = []

    def open_storage() -> LogStorage:
        opened.append(make())
        return opened[-1]

    yield open_storage
    for storage in opened:
        storage.close()


class Segments:
    provider: ClassVar[ProviderName] = SEGMENTS

    @pytest.fixture
    def open_storage(self, tmp_path: Path) -> Iterator[OpenStorage]:
        yield from opening(lambda: create(SEGMENTS, tmp_path, DENSE_INDEX, index=MemoryIndexStorage()))


class SegmentsWithLmdbIndex:
    provider: ClassVar[ProviderName] = SEGMENTS

    @pytest.fixture
    def open_storage(self, tmp_path: Path) -> Iterator[OpenStorage]:
        index = LmdbIndexStorage(tmp_path / "index", max_bytes=1 << 24)
        yield from opening(lambda: create(SEGMENTS, tmp_path, DENSE_INDEX, index=index))
        index.close()


class Sqlite:
    provider: ClassVar[ProviderName] = (Seam.LOG_STORAGE, "sqlite")

    @pytest.fixture
    def open_storage(self, tmp_path: Path) -> Iterator[OpenStorage]:
        yield from opening(lambda: create(self.provider, tmp_path))


class Memory:
    provider: ClassVar[ProviderName] = (Seam.LOG_STORAGE, "memory")

    @pytest.fixture
    def open_storage(self, tmp_path: Path) -> OpenStorage:
        """Closing it keeps what is in it, as a disk would."""
        storage = create(self.provider, tmp_path)
        return lambda: storage


@dataclass(frozen=True)
class EncryptedStorage(LogStorage):
    """Any storage, with the kernel's encryption between it and the suite."""

    storage: LogStorage

    def open(self, log_id: LogId, settings: LogSettings) -> PartitionLog:
        return encrypted(self.storage.open(log_id, settings), KEYS, log_id, key_bytes=500)

    def list_logs(self) -> Sequence[LogId]:
        return self.storage.list_logs()

    def remove(self, log_id: LogId) -> None:
        self.storage.remove(log_id)

    def close(self) -> None:
        self.storage.close()


class EncryptedSegments:
    @pytest.fixture
    def open_storage(self, tmp_path: Path) -> Iterator[OpenStorage]:
        yield from opening(
            lambda: EncryptedStorage(create(SEGMENTS, tmp_path, DENSE_INDEX, index=MemoryIndexStorage()))
        )


class TestEncryptedSegments(EncryptedSegments, LogStorageSuite):
    def test_appending_moves_the_end_and_counts_the_bytes(self, log: PartitionLog) -> None:
        """What is stored is what takes room."""
        batch = make_batch(0, 3, timestamp_ns=77)
        log.append([batch])
        assert (log.start_offset, log.end_offset) == (0, 3)
        assert len(batch.data) < log.size_bytes < len(batch.data) + 100
        assert log.last_timestamp_ns == 77


class TestEncryptedSegmentsCompaction(EncryptedSegments, LogCompactionSuite):
    pass


class TestSegments(Segments, LogStorageSuite):
    pass


class TestSegmentsCompaction(Segments, LogCompactionSuite):
    pass


class TestSegmentsWithLmdbIndex(SegmentsWithLmdbIndex, LogStorageSuite):
    pass


class TestSegmentsWithLmdbIndexCompaction(SegmentsWithLmdbIndex, LogCompactionSuite):
    pass


class TestSqlite(Sqlite, LogStorageSuite):
    pass


class TestSqliteCompaction(Sqlite, LogCompactionSuite):
    pass


class TestMemory(Memory, LogStorageSuite):
    pass


class TestMemoryCompaction(Memory, LogCompactionSuite):
    pass
