"""The logs of one server: ``<data dir>/sqlite/<stream ID>-<partition>.db``."""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from liftbridge.held_directory import HeldDirectory
from liftbridge.interfaces.log import LogId, LogSettings, LogStorage, PartitionLog
from liftbridge_storage_sqlite.database import remove_database, storage_errors
from liftbridge_storage_sqlite.log import SqliteLog

_LOG_NAME = re.compile(r"(\d+)-(\d+)\.db")
_DEFAULT_CACHE_BYTES = 256 * 1024


class SqliteStorage(LogStorage):
    """See :class:`liftbridge.interfaces.log.LogStorage`. One server at a time: a second one on the same directory is
    refused. One thread copies write-ahead logs into databases, for all logs."""

    def __init__(self, directory: Path, *, cache_bytes: int = _DEFAULT_CACHE_BYTES) -> None:
        self._directory = directory
        self._held = HeldDirectory(directory)
        self._cache_bytes = cache_bytes
        self._background = ThreadPoolExecutor(1, "liftbridge-sqlite")
        self._logs: set[SqliteLog] = set()

    def open(self, log_id: LogId, settings: LogSettings) -> PartitionLog:
        self._hold()
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
        self._hold()
        matches = (_LOG_NAME.fullmatch(path.name) for path in self._directory.iterdir())
        return sorted(LogId(int(match[1]), int(match[2])) for match in matches if match)

    def remove(self, log_id: LogId) -> None:
        self._hold()
        with storage_errors(self._path(log_id), "delete"):
            remove_database(self._path(log_id))

    def close(self) -> None:
        with (
            ExitStack() as ending
        ):  # backward, and to the end: a log that can't be closed doesn't leave the others open
            ending.callback(self._held.let_go)
            ending.callback(self._background.shutdown)
            for log in self._logs:
                ending.callback(log.close)

    def _path(self, log_id: LogId) -> Path:
        return self._directory / f"{log_id.stream_id}-{log_id.partition}.db"

    def _hold(self) -> None:
        with storage_errors(self._directory, "open"):
            self._held.hold()
