"""A disk that is a directory: segment files and their index are the real ones. The stable store is modelled: its many small
syncs would take longer than all the rest."""

import shutil
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from liftbridge.interfaces.log import LogId, LogSettings, PartitionLog
from liftbridge_storage_lmdb.index import LmdbIndexStorage
from liftbridge_storage_segments.storage import SegmentStorage
from simulation.disk import Disk, MountedDisk, RevocableStore

_INDEX_BYTES = 16 * 1024 * 1024
#: So that small logs have one, too.
_INDEX_INTERVAL_BYTES = 256


class FileDisk(Disk):
    """After a kill the next process has a copy of what there was then: what the killed one still tries, while the simulation
    winds it up, reaches nobody."""

    def __init__(self, server_id: str, directory: Path) -> None:
        super().__init__(server_id)
        self._directories = (directory / f"{server_id}-{number}" for number in count())
        self._directory = next(self._directories)
        self._directory.mkdir(parents=True)

    def mount(self) -> "FileMount":
        self.mounted = mount = FileMount(self._directory, RevocableStore(self.stable))
        return mount

    def unmount(self) -> None:
        if self.mounted is not None and self.running:
            left, self._directory = self._directory, next(self._directories)
            shutil.copytree(left, self._directory)
        super().unmount()

    def sealed_end(self, log_id: LogId) -> int:
        directory = self._directory / "streams" / f"{log_id.stream_id}-{log_id.partition}"
        return max((int(path.stem) for path in directory.glob("*.log")), default=0)


class FileMount(MountedDisk):
    """A directory, which is copied before it is revoked."""

    def __init__(self, directory: Path, stable: RevocableStore) -> None:
        self.stable = stable
        self._index = LmdbIndexStorage(directory / "index", max_bytes=_INDEX_BYTES)
        self._logs = SegmentStorage(directory, self._index, index_interval_bytes=_INDEX_INTERVAL_BYTES)

    def revoke(self) -> None:
        self.stable.revoked = True

    def open(self, log_id: LogId, settings: LogSettings) -> PartitionLog:
        return self._logs.open(log_id, settings)

    def list_logs(self) -> Sequence[LogId]:
        return self._logs.list_logs()

    def remove(self, log_id: LogId) -> None:
        self._logs.remove(log_id)

    def close(self) -> None:
        self._logs.close()
        self._index.close()
