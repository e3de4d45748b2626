"""The LMDB stable store: durable against kills, loud about damage, held by one process."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from liftbridge.errors import DiskFull, StorageError
from liftbridge_storage_lmdb.stable import LmdbStableStore

_CHILD = """
import sys
from pathlib import Path
from liftbridge_storage_lmdb.stable import LmdbStableStore

store = LmdbStableStore(Path(sys.argv[1]), max_bytes=1 << 24)
number = int(store.get(b"x") or b"0")
while True:
    number += 1
    value = str(number).encode()
    store.write({b"x": value, b"y": value}, delete_range=(b"x", b"z"))
    print(number, flush=True)
"""


def test_a_write_is_whole_and_there_once_it_returned_however_often_the_process_is_killed(tmp_path: Path) -> None:
    said = 0
    for kill_after in (1, 7, 20):
        with subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(tmp_path / "stable")], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            for _ in range(kill_after):
                said = int(child.stdout.readline())
            child.send_signal(signal.SIGKILL)
            for line in child.stdout:
                if line.endswith("\n"):
                    said = int(line)
        store = LmdbStableStore(tmp_path / "stable", max_bytes=1 << 24)
        x, y = store.get(b"x"), store.get(b"y")
        store.close()
        assert x == y
        assert x is not None
        assert int(x) >= said > 0


def test_a_damaged_store_is_an_error_and_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "stable").mkdir()
    path = tmp_path / "stable" / "data.mdb"
    path.write_bytes(b"\xff" * 8192)
    with pytest.raises(StorageError, match="stable"):
        LmdbStableStore(tmp_path / "stable", max_bytes=1 << 24).get(b"term")
    assert path.read_bytes() == b"\xff" * 8192


def test_a_store_whose_end_is_missing_is_an_error(tmp_path: Path) -> None:
    store = LmdbStableStore(tmp_path / "stable", max_bytes=1 << 24)
    store.write({str(number).encode(): b"\0" * 1000 for number in range(200)})
    store.close()
    path = tmp_path / "stable" / "data.mdb"
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(StorageError, match="missing"):
        LmdbStableStore(tmp_path / "stable", max_bytes=1 << 24).get(b"1")


def test_a_second_holder_is_refused_until_the_first_lets_go(tmp_path: Path) -> None:
    store = LmdbStableStore(tmp_path / "stable", max_bytes=1 << 24)
    store.write({b"term": b"1"})
    second = LmdbStableStore(tmp_path / "stable", max_bytes=1 << 24)
    with pytest.raises(StorageError, match="in use"):
        second.get(b"term")
    store.close()
    assert second.get(b"term") == b"1"
    second.close()


def test_a_full_store_refuses_the_write_and_keeps_what_it_had(tmp_path: Path) -> None:
    store = LmdbStableStore(tmp_path / "stable", max_bytes=64 * 1024)
    store.write({b"term": b"1"})
    with pytest.raises(DiskFull, match=r"storage\.lmdb\.stable\.max\.size"):
        store.write({b"term": b"2", b"big": b"\0" * 100_000})
    assert store.get(b"term") == b"1"
    assert store.get(b"big") is None
    store.close()


@pytest.mark.parametrize("key", [b"", b"k" * 600])
def test_a_key_that_cannot_be_is_a_storage_error(tmp_path: Path, key: bytes) -> None:
    store = LmdbStableStore(tmp_path / "stable", max_bytes=1 << 24)
    with pytest.raises(StorageError):
        store.write({key: b"1"})
    store.close()
