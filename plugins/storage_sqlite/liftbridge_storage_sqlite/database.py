"""One log's database: how it is opened, what it holds, and what SQLite's errors mean.

Commits are not synced (``synchronous=NORMAL`` in WAL mode): they are in the operating system's hands when they return.
Syncing the write-ahead log makes them durable, because SQLite syncs it before it copies anything from there into the
database, and the database before it writes the write-ahead log anew.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from liftbridge.errors import DiskFull, LogDamaged, StorageError
from liftbridge.held_directory import sync_directory

_FORMAT = 1
_SCHEMA = """
CREATE TABLE batches (
    base_offset INTEGER PRIMARY KEY, end_offset INTEGER, record_count INTEGER, timestamp_ns INTEGER, data BLOB
);
CREATE TABLE segments (
    base_offset INTEGER PRIMARY KEY, end_offset INTEGER, record_count INTEGER, size_bytes INTEGER,
    first_timestamp_ns INTEGER, last_timestamp_ns INTEGER
);
CREATE TABLE epochs (leader_epoch INTEGER PRIMARY KEY, start_offset INTEGER);
CREATE TABLE compaction (end_offset INTEGER);
INSERT INTO segments VALUES (0, 0, 0, 0, 0, 0);
INSERT INTO compaction VALUES (0);
"""
#: A write-ahead log that grew beyond this is cut when it begins anew.
_KEPT_WAL_BYTES = 8 * 1024 * 1024

_DAMAGE = ("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_FORMAT")


def open_database(path: Path, *, cache_bytes: int) -> sqlite3.Connection:
    """The database of a log, made if it isn't there. Whoever uses it takes care that one thread at a time does."""
    connection = _connect(path, "rwc")
    try:
        connection.execute(f"PRAGMA cache_size = -{cache_bytes // 1024}")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute(f"PRAGMA journal_size_limit = {_KEPT_WAL_BYTES}")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            connection.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {_FORMAT}; COMMIT")
        elif version != _FORMAT:
            raise StorageError(f"{path} has format {version}, and this version of the plugin reads {_FORMAT}")
    except BaseException:
        connection.close()
        raise
    return connection


def open_for_checkpoint(path: Path) -> sqlite3.Connection:
    """A second connection to a database that exists."""
    connection = _connect(path, "rw")
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def checkpoint(connection: sqlite3.Connection) -> int:
    """Copies what is in the write-ahead log into the database, without waiting for anybody. Returns how many pages the
    write-ahead log holds. If that was all of it at the moment of the next commit, it begins anew there."""
    _, pages, _ = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return int(pages)


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False, timeout=10)


def wal_path(path: Path) -> Path:
    """The write-ahead log of the database at ``path``."""
    return path.with_name(path.name + "-wal")


def remove_database(path: Path) -> None:
    """Removes a database that nobody has open. The name that it is listed by goes last, so that a deletion that was
    interrupted can be seen and done again."""
    for suffix in ("-wal", "-shm", ""):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    sync_directory(path.parent)


def sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def storage_errors(path: Path, what: str) -> Iterator[None]:
    """Turns the errors of SQLite and the operating system into ours; ``what`` says what was being done."""
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "")
        if name.startswith("SQLITE_FULL"):
            raise DiskFull(f"{path}: {what}: {error}") from error
        kind = LogDamaged if name.startswith(_DAMAGE) else StorageError
        raise kind(f"{path}: {what}: {error} ({name or type(error).__name__})") from error
    except OSError as error:
        raise StorageError(f"{path}: {what}: {error.strerror or error}") from error


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
