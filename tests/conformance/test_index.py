"""Every offset index against its suite."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from liftbridge.interfaces.index import IndexStorage
from liftbridge.testing.index_suite import IndexStorageSuite
from liftbridge.testing.memory_index import MemoryIndexStorage
from liftbridge_storage_lmdb.index import LmdbIndexStorage


class TestLmdb(IndexStorageSuite):
    @pytest.fixture
    def index_storage(self, tmp_path: Path) -> Iterator[IndexStorage]:
        storage = LmdbIndexStorage(tmp_path / "index", max_bytes=1 << 24)
        yield storage
        storage.close()


class TestMemory(IndexStorageSuite):
    @pytest.fixture
    def index_storage(self) -> IndexStorage:
        return MemoryIndexStorage()
