"""Every offset index against its suite."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from registered import ProviderName, create

from liftbridge.interfaces.index import IndexStorage
from liftbridge.interfaces.provider import Seam
from liftbridge.testing.index_suite import IndexStorageSuite


class TestLmdb(IndexStorageSuite):
    provider: ClassVar[ProviderName] = (Seam.INDEX_STORAGE, "lmdb")

    @pytest.fixture
    def index_storage(self, tmp_path: Path) -> Iterator[IndexStorage]:
        storage = create(self.provider, tmp_path, {"storage.lmdb.index.max.size": 1 << 24})
        yield storage
        storage.close()


class TestMemory(IndexStorageSuite):
    provider: ClassVar[ProviderName] = (Seam.INDEX_STORAGE, "memory")

    @pytest.fixture
    def index_storage(self, tmp_path: Path) -> IndexStorage:
        storage: IndexStorage = create(self.provider, tmp_path)
        return storage
