"""What is SQLite's own: kills, damage, a full database, and a write-ahead log that stays small."""

import resource
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from liftbridge.errors import DiskFull, LogDamaged, StorageError
from liftbridge.interfaces.log import LogId, LogSettings, PartitionLog
from liftbridge.protocol.record_batch import iter_batches
from liftbridge.testing.batches import make_batch
from liftbridge.testing.log_suite import fill, limits, read_all
from liftbridge_storage_sqlite import log as log_module
from liftbridge_storage_sqlite.storage import SqliteStorage

LOG = LogId(3, 1)
SMALL_SEGMENTS = LogSettings(segment_max_bytes=300)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "sqlite"


@pytest.fixture
def storage(directory: Path) -> Iterator[SqliteStorage]:
    storage = SqliteStorage(directory)
    yield storage
    storage.close()


def open_again(storage: SqliteStorage, directory: Path) -> PartitionLog:
    storage.close()
    return SqliteStorage(directory).open(LOG, SMALL_SEGMENTS)


@contextmanager
def files_limited(size_bytes: int) -> Iterator[None]:
    """Stands for a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_whether_there_is_room_is_found_out_without_storing_anything(storage: SqliteStorage, directory: Path) -> None:
    log = storage.open(LOG, SMALL_SEGMENTS)
    fill(log, 2)
    files = sorted(directory.iterdir())
    with files_limited(500_000):
        log.check_room(400_000)
        with pytest.raises(StorageError, match="File too large"):
            log.check_room(600_000)
    assert sorted(directory.iterdir()) == files
    assert read_all(log) == list(range(4))


# --- kills ------------------------------------------------------------------------------------------------------------

_APPEND_UNTIL_KILLED = """
import sys
from pathlib import Path
from liftbridge.interfaces.log import LogId, LogSettings
from liftbridge.testing.batches import make_batch
from liftbridge_storage_sqlite.storage import SqliteStorage

log = SqliteStorage(Path(sys.argv[1])).open(LogId(3, 1), LogSettings(segment_max_bytes=20_000))
while True:
    log.append([make_batch(log.end_offset, 3, value=b"v" * 100)])
    print(log.end_offset, flush=True)
"""


@pytest.mark.parametrize("appends", [1, 40, 400])
def test_nothing_appended_is_lost_by_a_kill(directory: Path, appends: int) -> None:
    command = [sys.executable, "-c", _APPEND_UNTIL_KILLED, str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        appended = [int(writer.stdout.readline()) for _ in range(appends)][-1]
        writer.kill()
        appended = max([appended, *map(int, writer.stdout.read().split())])
    storage = SqliteStorage(directory)
    log = storage.open(LOG, LogSettings(segment_max_bytes=20_000))
    assert appended <= log.end_offset <= appended + 3
    assert read_all(log) == list(range(log.end_offset))
    assert log.size_bytes == len(log.read(0, stop=1 << 40, max_bytes=1 << 40))
    fill(log, 2)
    storage.close()


def test_rows_that_an_interrupted_retention_left_go_at_the_next_opening(
    storage: SqliteStorage, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = storage.open(LOG, SMALL_SEGMENTS)
    fill(log, 20)
    monkeypatch.setattr(log_module.SqliteLog, "_remove_rows_below", lambda self, start_offset: None)
    start = log.apply_retention(limits(max_messages=5), now_ns=0)
    assert start > 0
    monkeypatch.undo()
    log = open_again(storage, directory)
    assert (log.start_offset, log.end_offset) == (start, 40)
    with sqlite3.connect(directory / "3-1.db") as looking:
        assert looking.execute("SELECT min(base_offset) FROM batches").fetchone() == (start,)
    looking.close()
    assert read_all(log) == list(range(start, 40))


# --- damage and full disks --------------------------------------------------------------------------------------------


def test_a_file_that_is_no_database_is_damage_and_stays_as_it_is(storage: SqliteStorage, directory: Path) -> None:
    storage.list_logs()
    (directory / "3-1.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(LogDamaged, match=r"3-1\.db"):
        storage.open(LOG, SMALL_SEGMENTS)
    assert (directory / "3-1.db").read_bytes() == b"not a database" * 1000
    assert storage.open(LogId(4, 0), SMALL_SEGMENTS).end_offset == 0


def test_a_database_that_lost_its_end_is_damage(storage: SqliteStorage, directory: Path) -> None:
    fill(storage.open(LOG, LogSettings()), 2000)
    storage.close()
    path = directory / "3-1.db"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    storage = SqliteStorage(directory)
    with pytest.raises(LogDamaged):
        read_all(storage.open(LOG, LogSettings()))
    storage.close()


def test_a_flipped_bit_in_what_was_not_noted_is_found_by_opening(storage: SqliteStorage, directory: Path) -> None:
    log = storage.open(LOG, LogSettings())
    log.append([make_batch(0, value=b"precious")])
    assert isinstance(log, log_module.SqliteLog)
    with sqlite3.connect(directory / "3-1.db") as damaging:  # as a kill leaves it: not closed, so not noted
        (data,) = damaging.execute("SELECT data FROM batches").fetchone()
        damaging.execute("UPDATE batches SET data = ?", (data.replace(b"precious", b"pregious"),))
    damaging.close()
    with pytest.raises(LogDamaged, match="checksum"):
        log_module.SqliteLog(
            directory / "3-1.db",
            LogSettings(),
            cache_bytes=1 << 16,
            run_in_background=lambda run: None,
            ended=lambda log: None,
        )


def test_a_full_database_refuses_and_takes_more_once_there_is_room(storage: SqliteStorage) -> None:
    log = storage.open(LOG, LogSettings())
    fill(log, 5)
    before = (log.end_offset, log.size_bytes, log.epochs)
    assert isinstance(log, log_module.SqliteLog)
    (pages,) = log._connection.execute("PRAGMA page_count").fetchone()
    log._connection.execute(f"PRAGMA max_page_count = {pages}")
    large = [make_batch(10 + 100 * number, 100, value=b"v" * 100, leader_epoch=7) for number in range(3)]
    with pytest.raises(DiskFull, match=r"3-1\.db"):
        log.append(large)
    assert (log.end_offset, log.size_bytes, log.epochs) == before
    assert read_all(log) == list(range(10))
    log._connection.execute("PRAGMA max_page_count = 1000000")
    log.append(large)
    assert read_all(log) == list(range(310))


def test_a_format_of_a_later_version_is_refused(storage: SqliteStorage, directory: Path) -> None:
    storage.open(LOG, LogSettings()).close()
    with sqlite3.connect(directory / "3-1.db") as later:
        later.execute("PRAGMA user_version = 99")
    later.close()
    with pytest.raises(StorageError, match="format 99"):
        storage.open(LOG, LogSettings())


def test_after_a_failed_sync_the_log_takes_nothing_more(
    storage: SqliteStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = storage.open(LOG, LogSettings())
    fill(log, 1)

    def fail(path: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(log_module, "sync_file", fail)
    with pytest.raises(StorageError, match="Input/output error"):
        log.sync()
    monkeypatch.undo()
    with pytest.raises(StorageError, match="Restart the server"):
        log.append([make_batch(2)])
    assert read_all(log) == [0, 1]


def test_a_second_server_on_the_directory_is_refused(storage: SqliteStorage, directory: Path) -> None:
    storage.list_logs()
    with pytest.raises(StorageError, match="another server"):
        SqliteStorage(directory).list_logs()


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_sync_before_the_first_append_of_a_reopened_log_is_no_error(storage: SqliteStorage, directory: Path) -> None:
    fill(storage.open(LOG, LogSettings()), 3)
    log = open_again(storage, directory)
    assert log.sync() == 6


def test_a_deleted_log_leaves_no_file(storage: SqliteStorage, directory: Path) -> None:
    log = storage.open(LOG, LogSettings())
    fill(log, 5)
    log.delete()
    assert [path.name for path in directory.iterdir()] == ["lock"]


@pytest.mark.parametrize("is_read", [False, True])
def test_the_write_ahead_log_stays_small_under_load(
    storage: SqliteStorage, directory: Path, is_read: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "_CHECKPOINT_BYTES", 256 * 1024)
    monkeypatch.setattr(log_module, "_MAX_WAL_PAGES", 1024)
    log = storage.open(LOG, LogSettings())
    appended_bytes, largest = 0, 0
    while appended_bytes < 20_000_000:
        batch = make_batch(log.end_offset, 100, value=b"v" * 100)
        log.append([batch])
        appended_bytes += len(batch.data)
        if is_read:
            assert list(iter_batches(log.read(batch.base_offset, stop=1 << 40, max_bytes=1)))
        largest = max(largest, (directory / "3-1.db-wal").stat().st_size)
    assert largest < 12_000_000
    storage.close()
    assert not (directory / "3-1.db-wal").exists()


def test_room_that_retention_made_is_used_again(storage: SqliteStorage, directory: Path) -> None:
    log = storage.open(LOG, LogSettings(segment_max_bytes=100_000))
    sizes = []
    for _ in range(5):
        for _ in range(300):
            log.append([make_batch(log.end_offset, 100, value=b"v" * 100)])
        log.apply_retention(limits(max_bytes=200_000), now_ns=0)
        sizes.append((directory / "3-1.db").stat().st_size + (directory / "3-1.db-wal").stat().st_size)
    assert log.start_offset > 0
    assert sizes[-1] < 2.5 * sizes[0]
