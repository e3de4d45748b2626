"""Every log storage against its suites, and against a list."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from registered import ProviderName, create

from liftbridge.interfaces.log import LogStorage
from liftbridge.interfaces.provider import Seam
from liftbridge.testing.compaction_suite import LogCompactionSuite
from liftbridge.testing.log_suite import LogStorageSuite, OpenStorage
from liftbridge.testing.memory_index import MemoryIndexStorage
from liftbridge_storage_lmdb.index import LmdbIndexStorage

SEGMENTS = (Seam.LOG_STORAGE, "segments")
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
