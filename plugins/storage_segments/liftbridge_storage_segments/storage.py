"""The logs of one server: ``<data dir>/streams/<stream ID>-<partition>/``."""

import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from liftbridge.held_directory import HeldDirectory
from liftbridge.interfaces.index import IndexStorage
from liftbridge.interfaces.log import LogId, LogSettings, LogStorage, PartitionLog
from liftbridge_storage_segments.files import Files, storage_errors
from liftbridge_storage_segments.log import SegmentedLog
from liftbridge_storage_segments.removal import DELETED_PREFIX, empty_directory, remove_directory

_LOG_NAME = re.compile(r"(\d+)-(\d+)")


class SegmentStorage(LogStorage):
    """See :class:`liftbridge.interfaces.log.LogStorage`. One server at a time: a second one on the same directory is
    refused."""

    def __init__(
        self,
        data_dir: Path,
        index: IndexStorage,
        *,
        index_interval_bytes: int = 16 * 1024,
        open_files: int = 256,
        files: Files | None = None,
    ) -> None:
        self._directory = data_dir / "streams"
        self._held = HeldDirectory(self._directory)
        self._index = index
        self._index_interval_bytes = index_interval_bytes
        self._files = files or Files(open_files)
        self._logs: set[SegmentedLog] = set()

    def open(self, log_id: LogId, settings: LogSettings) -> PartitionLog:
        self._hold()
        log = SegmentedLog(
            self._path(log_id),
            settings,
            self._files,
            self._index.open(log_id),
            self._index_interval_bytes,
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
        self._index.open(log_id).delete()
        remove_directory(self._path(log_id), self._files)

    def close(self) -> None:
        with (
            ExitStack() as ending
        ):  # backward, and to the end: a log that can't be closed doesn't leave the others open
            ending.callback(self._held.let_go)
            ending.callback(self._files.close)
            for log in self._logs:
                ending.callback(log.close)

    def _path(self, log_id: LogId) -> Path:
        return self._directory / f"{log_id.stream_id}-{log_id.partition}"

    def _hold(self) -> None:
        """Once; also removes what an interrupted deletion left."""
        with storage_errors(f"{self._directory}: open"):
            first = self._held.hold()
        if first:
            for path in self._directory.glob(DELETED_PREFIX + "*"):
                empty_directory(path, self._files)
