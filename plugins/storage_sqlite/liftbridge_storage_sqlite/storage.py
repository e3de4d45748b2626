"""The logs of one server: ``<data dir>/sqlite/<stream ID>-<partition>.db``."""

import fcntl
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from liftbridge.errors import StorageError
from liftbridge.interfaces.log import LogId, LogSettings, LogStorage, PartitionLog
from liftbridge_storage_sqlite.database import remove_database, storage_errors, sync_directory
from liftbridge_storage_sqlite.log import SqliteLog

_LOG_NAME = re.compile(r"(\d+)-(\d+)\.db")
_DEFAULT_CACHE_BYTES = 256 * 1024


class SqliteStorage(LogStorage):
    """See :class:`liftbridge.interfaces.log.LogStorage`. One server at a time: a second one on the same directory is
    refused. One thread copies write-ahead logs into databases, for all logs."""

    def __init__(self, directory: Path, *, cache_bytes: int = _DEFAULT_CACHE_BYTES) -> None:
        self._directory = directory
        self._cache_bytes = cache_bytes
        self._background = ThreadPoolExecutor(1, "liftbridge-sqlite")
        self._lock_descriptor: int | None = None
        self._logs: set[SqliteLog] = set()

    def open(self, log_id: LogId, settings: LogSettings) -> PartitionLog:
        self._take_lock()
        log = SqliteLog(
            self._path(log_id),
            settings,
            cache_bytes=self._cache_bytes,
            run_in_background=self._background.submit,
            ended=self._logs.discard,
        )
        self._logs.add(log)
        return log

    def list_logs(self) -> Sequence[LogId]:
        self._take_lock()
        matches = (_LOG_NAME.fullmatch(path.name) for path in self._directory.iterdir())
        return sorted(LogId(int(match[1]), int(match[2])) for match in matches if match)

    def remove(self, log_id: LogId) -> None:
        self._take_lock()
        with storage_errors(self._path(log_id), "delete"):
            remove_database(self._path(log_id))

    def close(self) -> None:
        with (
            ExitStack() as ending
        ):  # backward, and to the end: a log that can't be closed doesn't leave the others open
            ending.callback(self._release_lock)
            ending.callback(self._background.shutdown)
            for log in self._logs:
                ending.callback(log.close)

    def _release_lock(self) -> None:
        if self._lock_descriptor is not None:
            os.close(self._lock_descriptor)
            self._lock_descriptor = None

    def _path(self, log_id: LogId) -> Path:
        return self._directory / f"{log_id.stream_id}-{log_id.partition}.db"

    def _take_lock(self) -> None:
        if self._lock_descriptor is not None:
            return
        with storage_errors(self._directory, "open"):
            self._directory.mkdir(parents=True, exist_ok=True)
            sync_directory(self._directory.parent)
            descriptor = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise StorageError(
                f"{self._directory} is in use by another server; give each server a data directory of its own"
            ) from error
        self._lock_descriptor = descriptor
