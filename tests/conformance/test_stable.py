"""Every stable store against its suite."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from liftbridge.interfaces.stable import StableStore
from liftbridge.testing.memory_stable import MemoryStableStore
from liftbridge.testing.stable_suite import OpenStore, StableStoreSuite
from liftbridge_storage_lmdb.stable import LmdbStableStore


class TestLmdb(StableStoreSuite):
    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Iterator[OpenStore]:
        opened: list[StableStore] = []

        def open_store() -> StableStore:
            opened.append(LmdbStableStore(tmp_path / "stable", max_bytes=1 << 24))
            return opened[-1]

        yield open_store
        for store in opened:
            store.close()


class TestMemory(StableStoreSuite):
    @pytest.fixture
    def open_store(self) -> OpenStore:
        contents: dict[bytes, bytes] = {}
        return lambda: MemoryStableStore(contents)
