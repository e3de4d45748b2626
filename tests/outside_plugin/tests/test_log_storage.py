"""The log storage keeps the promises of the seam."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from liftbridge_storage_onefile.log_storage import OnefileStorage

from liftbridge.errors import LogDamaged
from liftbridge.interfaces.log import LogSettings
from liftbridge.testing.log_suite import LOG, LogStorageSuite, OpenStorage, fill, read_all


class TestOnefileStorage(LogStorageSuite):
    @pytest.fixture
    def open_storage(self, tmp_path: Path) -> Iterator[OpenStorage]:
        opened: list[OnefileStorage] = []

        def open_storage() -> OnefileStorage:
            opened.append(OnefileStorage(tmp_path))
            return opened[-1]

        yield open_storage
        for storage in opened:
            storage.close()


def test_what_a_crash_tore_off_is_cut(tmp_path: Path) -> None:
    storage = OnefileStorage(tmp_path)
    fill(storage.open(LOG, LogSettings()), 3)
    storage.close()
    (path,) = tmp_path.glob("*.log")
    path.write_bytes(path.read_bytes()[:-1])
    log = storage.open(LOG, LogSettings())
    assert read_all(log) == [0, 1, 2, 3]
    fill(log, 1)
    assert read_all(log) == [0, 1, 2, 3, 4, 5]
    storage.close()


def test_damage_is_reported_and_not_cut(tmp_path: Path) -> None:
    storage = OnefileStorage(tmp_path)
    fill(storage.open(LOG, LogSettings()), 3)
    storage.close()
    (path,) = tmp_path.glob("*.log")
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(LogDamaged):
        storage.open(LOG, LogSettings())
    assert path.read_bytes() == damaged
