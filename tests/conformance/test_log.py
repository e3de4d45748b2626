"""Every log storage against its suite, and against a list."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from liftbridge.interfaces.log import LogStorage
from liftbridge.testing.log_suite import LogStorageSuite, OpenStorage
from liftbridge.testing.memory_index import MemoryIndexStorage
from liftbridge.testing.memory_log import MemoryLogStorage
from liftbridge_storage_lmdb.index import LmdbIndexStorage
from liftbridge_storage_segments.storage import SegmentStorage
from liftbridge_storage_sqlite.storage import SqliteStorage


class TestSegments(LogStorageSuite):
    @pytest.fixture
    def open_storage(self, tmp_path: Path) -> Iterator[OpenStorage]:
        opened: list[LogStorage] = []

        def open_storage() -> LogStorage:
            opened.append(SegmentStorage(tmp_path, MemoryIndexStorage(), index_interval_bytes=100))
            return opened[-1]

        yield open_storage
        for storage in opened:
            storage.close()


class TestSegmentsWithLmdbIndex(LogStorageSuite):
    @pytest.fixture
    def open_storage(self, tmp_path: Path) -> Iterator[OpenStorage]:
        index = LmdbIndexStorage(tmp_path / "index", max_bytes=1 << 24)
        opened: list[LogStorage] = []

        def open_storage() -> LogStorage:
            opened.append(SegmentStorage(tmp_path, index, index_interval_bytes=100))
            return opened[-1]

        yield open_storage
        for storage in opened:
            storage.close()
        index.close()


class TestSqlite(LogStorageSuite):
    @pytest.fixture
    def open_storage(self, tmp_path: Path) -> Iterator[OpenStorage]:
        opened: list[LogStorage] = []

        def open_storage() -> LogStorage:
            opened.append(SqliteStorage(tmp_path / "sqlite"))
            return opened[-1]

        yield open_storage
        for storage in opened:
            storage.close()


class TestMemory(LogStorageSuite):
    @pytest.fixture
    def open_storage(self) -> OpenStorage:
        storage = MemoryLogStorage()
        return lambda: storage
