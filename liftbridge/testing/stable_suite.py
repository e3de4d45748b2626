"""What every stable store must do. Subclass :class:`StableStoreSuite` and give it ``open_store``."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from liftbridge.interfaces.stable import StableStore

OpenStore = Callable[[], StableStore]


class StableStoreSuite:
    """The tests. ``open_store`` must be overridden: each call opens the same store, once the one before is closed."""

    @pytest.fixture
    def open_store(self) -> OpenStore:
        raise NotImplementedError("override the fixture open_store")

    def test_a_key_that_was_never_written_is_none(self, open_store: OpenStore) -> None:
        assert open_store().get(b"term") is None

    def test_get_returns_what_was_written_last(self, open_store: OpenStore) -> None:
        store = open_store()
        store.write({b"term": b"1", b"empty": b""})
        store.write({b"term": b"2"})
        assert store.get(b"term") == b"2"
        assert store.get(b"empty") == b""

    def test_a_store_that_is_opened_again_holds_everything(self, open_store: OpenStore) -> None:
        store = open_store()
        store.write({b"a": b"1", b"b": b"\0" * 100_000})
        store.close()
        store = open_store()
        assert dict(store.scan(b"", b"\xff")) == {b"a": b"1", b"b": b"\0" * 100_000}

    def test_scan_is_in_key_order_and_excludes_its_end(self, open_store: OpenStore) -> None:
        store = open_store()
        store.write({bytes([number]): bytes([number]) for number in reversed(range(1, 200))})
        assert [key[0] for key, _ in store.scan(b"\x05", b"\x0a")] == [5, 6, 7, 8, 9]
        assert list(store.scan(b"\x05", b"\x05")) == []
        assert list(store.scan(b"\xf0", b"\xff")) == []

    def test_scan_is_as_of_the_call(self, open_store: OpenStore) -> None:
        store = open_store()
        store.write({b"a": b"1", b"b": b"2"})
        pairs = store.scan(b"a", b"z")
        store.write({b"c": b"3"}, deletes=[b"b"])
        assert list(pairs) == [(b"a", b"1"), (b"b", b"2")]

    def test_deletes_come_before_puts(self, open_store: OpenStore) -> None:
        store = open_store()
        store.write({bytes([number]): b"old" for number in range(1, 10)})
        store.write({b"\x03": b"new", b"\x08": b"new"}, deletes=[b"\x08", b"\x09"], delete_range=(b"\x02", b"\x05"))
        assert [(key[0], value) for key, value in store.scan(b"\x01", b"\xff")] == [
            (1, b"old"), (3, b"new"), (5, b"old"), (6, b"old"), (7, b"old"), (8, b"new"),
        ]  # fmt: skip

    def test_deleting_what_is_not_there_does_nothing(self, open_store: OpenStore) -> None:
        store = open_store()
        store.write({b"a": b"1"}, deletes=[b"x"], delete_range=(b"y", b"z"))
        assert list(store.scan(b"a", b"z")) == [(b"a", b"1")]

    def test_threads_may_share_it_and_see_whole_writes(self, open_store: OpenStore) -> None:
        store = open_store()
        store.write({b"x": b"0", b"y": b"0"})

        def write(number: int) -> bool:
            value = str(number).encode()
            store.write({b"x": value, b"y": value})
            pairs = dict(store.scan(b"x", b"z"))
            return pairs[b"x"] == pairs[b"y"]

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(write, range(100)))

    def test_close_is_idempotent(self, open_store: OpenStore) -> None:
        store = open_store()
        store.write({b"a": b"1"})
        store.close()
        store.close()
