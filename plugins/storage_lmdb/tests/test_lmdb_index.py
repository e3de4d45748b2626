"""The LMDB index when its store is lost, broken or full: it forgets, and never raises."""

import gc
import shutil
import weakref
from pathlib import Path

import pytest

from liftbridge.interfaces.index import IndexEntry
from liftbridge.interfaces.log import LogId
from liftbridge_storage_lmdb.index import LmdbIndexStorage

LOG = LogId(1, 0)
ENTRY = IndexEntry(10, 0, 500)


def entries(count: int) -> list[IndexEntry]:
    return [IndexEntry(number * 10, 0, number * 1000) for number in range(count)]


def write(directory: Path, count: int = 5000) -> None:
    storage = LmdbIndexStorage(directory, max_bytes=1 << 24)
    storage.open(LOG).add(entries(count))
    storage.close()


def test_what_was_written_is_there_after_reopening(tmp_path: Path) -> None:
    write(tmp_path / "index")
    storage = LmdbIndexStorage(tmp_path / "index", max_bytes=1 << 24)
    assert storage.open(LOG).find(25, segment=0) == IndexEntry(20, 0, 2000)
    assert storage.open(LogId(1, 1)).find(25, segment=0) is None
    storage.close()


def test_a_truncation_forgets_what_was_written_behind_it_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path / "index")
    storage = LmdbIndexStorage(tmp_path / "index", max_bytes=1 << 24)
    others = {LogId(1, 1): storage.open(LogId(1, 1)), LogId(2, 0): storage.open(LogId(2, 0))}
    for other in others.values():
        other.add(entries(10))
    index = storage.open(LOG)
    index.add([IndexEntry(50_000 + number, 50_000, number * 100) for number in range(10)])
    index.flush()
    index.drop_from(50_000, 300)
    assert index.find(60_000, segment=50_000) == IndexEntry(50_002, 50_000, 200)
    index.drop_from(0, 4_000_500)
    assert index.find(60_000, segment=50_000) is None
    assert index.find(60_000, segment=0) == IndexEntry(40_000, 0, 4_000_000)
    assert index.find(25, segment=0) == IndexEntry(20, 0, 2000)
    index.drop_from(0, 0)
    assert index.find(60_000, segment=0) is None
    assert all(other.find(1000, segment=0) == IndexEntry(90, 0, 9000) for other in others.values())
    storage.close()


def test_what_was_flushed_is_there_after_a_kill(tmp_path: Path) -> None:
    storage = LmdbIndexStorage(tmp_path / "index", max_bytes=1 << 24)
    index = storage.open(LOG)
    index.add([ENTRY])
    index.flush()
    shutil.copytree(tmp_path / "index", tmp_path / "left")
    left = LmdbIndexStorage(tmp_path / "left", max_bytes=1 << 24)
    assert left.open(LOG).find(25, segment=0) == ENTRY
    left.close()
    storage.close()


@pytest.mark.parametrize("junk", [b"", b"junk", b"\0" * 8192, b"\xff" * 8192])
def test_a_store_that_is_not_one_is_begun_anew(tmp_path: Path, junk: bytes) -> None:
    write(tmp_path / "index")
    (tmp_path / "index" / "data.mdb").write_bytes(junk)
    storage = LmdbIndexStorage(tmp_path / "index", max_bytes=1 << 24)
    index = storage.open(LOG)
    assert index.find(25, segment=0) is None
    index.add([ENTRY])
    storage.close()
    storage = LmdbIndexStorage(tmp_path / "index", max_bytes=1 << 24)
    assert storage.open(LOG).find(25, segment=0) == ENTRY
    storage.close()


@pytest.mark.parametrize("kept_pages", [2, 3, 10])
def test_a_store_whose_end_is_missing_is_begun_anew(tmp_path: Path, kept_pages: int) -> None:
    write(tmp_path / "index")
    path = tmp_path / "index" / "data.mdb"
    path.write_bytes(path.read_bytes()[: kept_pages * 4096])
    storage = LmdbIndexStorage(tmp_path / "index", max_bytes=1 << 24)
    assert storage.open(LOG).find(25, segment=0) is None
    storage.close()


def test_a_store_in_an_impossible_place_only_forgets(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    storage = LmdbIndexStorage(tmp_path / "file" / "index", max_bytes=1 << 24)
    index = storage.open(LOG)
    index.add(entries(5000))
    assert index.find(25, segment=0) is None
    index.drop_from(0, 0)
    index.drop_before(5)
    index.delete()
    storage.close()
    assert "index" in caplog.text


def test_a_full_store_stops_growing_and_is_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    storage = LmdbIndexStorage(tmp_path / "index", max_bytes=64 * 1024)
    index = storage.open(LOG)
    for first in range(0, 60_000, 1000):
        index.add([IndexEntry(number, 0, number) for number in range(first, first + 1000)])
    assert sum("not written any more" in record.message for record in caplog.records) == 1
    found = index.find(59_999, segment=0)
    assert found is None or found.base_offset <= 59_999
    storage.close()


def test_the_index_of_a_deleted_log_is_let_go(tmp_path: Path) -> None:
    storage = LmdbIndexStorage(tmp_path / "index", max_bytes=1 << 24)
    index = storage.open(LOG)
    index.add([ENTRY])
    index.delete()
    held = weakref.ref(index)
    del index
    gc.collect()
    assert held() is None
    storage.close()


def test_entries_of_a_waiting_batch_do_not_pile_up(tmp_path: Path) -> None:
    storage = LmdbIndexStorage(tmp_path / "index", max_bytes=1 << 24)
    index = storage.open(LOG)
    for entry in entries(20_000):
        index.add([entry])
    assert len(index._waiting) < 5000
    storage.close()
