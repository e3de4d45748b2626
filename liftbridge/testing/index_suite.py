"""What every offset index must do. Subclass :class:`IndexStorageSuite` and give it ``index_storage``.

An index may forget, so the suite demands of what was just added only; it must never answer wrongly.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from liftbridge.interfaces.index import IndexEntry, IndexStorage
from liftbridge.interfaces.log import LogId

_LOG = LogId(7, 0)
_MANY = 10_000


class IndexStorageSuite:
    """The tests. ``index_storage`` must be overridden."""

    @pytest.fixture
    def index_storage(self) -> Iterator[IndexStorage]:
        raise NotImplementedError("override the fixture index_storage")

    def test_a_new_index_knows_nothing(self, index_storage: IndexStorage) -> None:
        assert index_storage.open(_LOG).find(0, segment=0) is None

    def test_find_gives_the_last_entry_that_is_not_above_the_offset(self, index_storage: IndexStorage) -> None:
        index = index_storage.open(_LOG)
        index.add([IndexEntry(10, 10, 0), IndexEntry(20, 10, 500), IndexEntry(35, 10, 900)])
        found = [index.find(offset, segment=10) for offset in (9, 10, 19, 20, 34, 35, 1 << 50)]
        assert [entry and entry.base_offset for entry in found] == [None, 10, 10, 20, 20, 35, 35]

    def test_find_stays_in_the_segment(self, index_storage: IndexStorage) -> None:
        index = index_storage.open(_LOG)
        index.add([IndexEntry(0, 0, 0), IndexEntry(90, 0, 800), IndexEntry(100, 100, 0)])
        assert index.find(150, segment=0) == IndexEntry(90, 0, 800)
        assert index.find(150, segment=100) == IndexEntry(100, 100, 0)
        assert index.find(150, segment=50) is None
        assert index.find(150, segment=200) is None

    def test_logs_do_not_see_each_other(self, index_storage: IndexStorage) -> None:
        index_storage.open(LogId(1, 0)).add([IndexEntry(0, 0, 1)])
        index_storage.open(LogId(1, 1)).add([IndexEntry(0, 0, 2)])
        index_storage.open(LogId(1, 1)).delete()
        assert index_storage.open(LogId(1, 1)).find(9, segment=0) is None
        assert index_storage.open(LogId(2, 0)).find(9, segment=0) is None
        assert index_storage.open(LogId(1, 0)).find(9, segment=0) == IndexEntry(0, 0, 1)

    def test_many_entries(self, index_storage: IndexStorage) -> None:
        index = index_storage.open(_LOG)
        for number in range(_MANY):
            index.add([IndexEntry(number * 10, 0, number * 1000)])
        for number in (0, 1, _MANY // 2, _MANY - 1):
            assert index.find(number * 10 + 9, segment=0) == IndexEntry(number * 10, 0, number * 1000)

    def test_drop_from_leaves_no_entry_at_or_beyond_the_position(self, index_storage: IndexStorage) -> None:
        index = index_storage.open(_LOG)
        index.add([IndexEntry(0, 0, 0), IndexEntry(10, 10, 0), IndexEntry(15, 10, 500), IndexEntry(20, 20, 0)])
        index.drop_from(10, 500)
        assert index.find(99, segment=20) is None
        found = index.find(99, segment=10)
        assert found is None or found.position < 500
        assert index.find(99, segment=0) == IndexEntry(0, 0, 0)

    def test_an_entry_added_after_drop_from_counts(self, index_storage: IndexStorage) -> None:
        index = index_storage.open(_LOG)
        index.add([IndexEntry(0, 0, 0), IndexEntry(10, 0, 500)])
        index.drop_from(0, 300)
        index.add([IndexEntry(12, 0, 300)])
        assert index.find(20, segment=0) == IndexEntry(12, 0, 300)

    def test_drop_before_leaves_later_segments(self, index_storage: IndexStorage) -> None:
        index = index_storage.open(_LOG)
        index.add([IndexEntry(0, 0, 0), IndexEntry(10, 10, 0), IndexEntry(20, 20, 0)])
        index.drop_before(20)
        assert index.find(99, segment=0) is None
        assert index.find(99, segment=10) is None
        assert index.find(99, segment=20) == IndexEntry(20, 20, 0)

    def test_drop_segments_leaves_the_others(self, index_storage: IndexStorage) -> None:
        index = index_storage.open(_LOG)
        index.add([IndexEntry(base, base, 0) for base in (0, 10, 20, 30)])
        index.drop_segments(10, 20)
        assert [index.find(base, segment=base) for base in (10, 20)] == [None, None]
        assert index.find(99, segment=0) == IndexEntry(0, 0, 0)
        index.add([IndexEntry(12, 10, 300)])
        assert index.find(99, segment=10) == IndexEntry(12, 10, 300)

    def test_drops_of_an_empty_index_do_nothing(self, index_storage: IndexStorage) -> None:
        index = index_storage.open(_LOG)
        index.drop_from(0, 0)
        index.drop_before(0)
        index.drop_before(10)
        index.drop_segments(0, 10)
        index.delete()
        assert index.find(0, segment=0) is None

    def test_threads_find_nothing_wrong_while_entries_come_and_go(self, index_storage: IndexStorage) -> None:
        index = index_storage.open(_LOG)
        added = threading.Event()

        def add() -> None:
            for number in range(_MANY):
                index.add([IndexEntry(number, 0, number * 1000)])
            added.set()

        def find() -> None:
            while not added.is_set():
                for offset in range(0, _MANY, 97):
                    found = index.find(offset, segment=0)
                    assert found is None or (found.base_offset <= offset and found.position == found.base_offset * 1000)

        with ThreadPoolExecutor(3) as pool:
            running = [pool.submit(find), pool.submit(find), pool.submit(add)]
            while not added.wait(0.001):
                index.drop_from(0, _MANY // 2 * 1000)
            for one in running:
                one.result(timeout=60)
        index.drop_from(0, 0)
        assert index.find(_MANY, segment=0) is None

    def test_close_is_idempotent(self, index_storage: IndexStorage) -> None:
        index_storage.open(_LOG).add([IndexEntry(0, 0, 0)])
        index_storage.close()
        index_storage.close()
