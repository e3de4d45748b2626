"""Every stable store against its suite."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from registered import ProviderName, create

from liftbridge.interfaces.provider import Seam
from liftbridge.interfaces.stable import StableStore
from liftbridge.testing.stable_suite import OpenStore, StableStoreSuite


class TestLmdb(StableStoreSuite):
    provider: ClassVar[ProviderName] = (Seam.STABLE_STORE, "lmdb")

    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Iterator[OpenStore]:
        opened: list[StableStore] = []

        def open_store() -> StableStore:
            opened.append(create(self.provider, tmp_path, {"storage.lmdb.stable.max.size": 1 << 24}))
            return opened[-1]

        yield open_store
        for store in opened:
            store.close()


class TestMemory(StableStoreSuite):
    provider: ClassVar[ProviderName] = (Seam.STABLE_STORE, "memory")

    @pytest.fixture
    def open_store(self, tmp_path: Path) -> OpenStore:
        """Closing it keeps what is in it, as a disk would."""
        store = create(self.provider, tmp_path)
        return lambda: store
