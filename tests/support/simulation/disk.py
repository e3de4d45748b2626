"""One server's disk: what a kill of the process leaves, and the less that a loss of power leaves."""

import random
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Protocol

from liftbridge.errors import DiskFull, LogClosed
from liftbridge.interfaces.log import EpochStart, LogId, LogSettings, LogStorage, PartitionLog, RetentionLimits
from liftbridge.interfaces.records import RecordBatch
from liftbridge.protocol.record_batch import decode_batch
from liftbridge.testing.memory_log import MemoryLog
from liftbridge.testing.memory_stable import MemoryStableStore

_SMALL_SEGMENTS = LogSettings(segment_max_bytes=2000)


class LogWatcher(Protocol):
    """Hears what is done to logs."""

    def appended(self, server_id: str, log: "SimulatedLog", batches: Sequence[RecordBatch]) -> None:
        """Called before they are in the log."""

    def truncated(self) -> None:
        """Called after a log lost records at its end."""


class Disk:
    """``logs`` is what the system holds, ``synced`` up to where of it is on the platter. The stable store and the notes on
    the server's identity are durable at once, as their real counterparts are."""

    def __init__(self, server_id: str) -> None:
        self.server_id = server_id
        self.logs: dict[LogId, Any] = {}
        self.synced: defaultdict[LogId, int] = defaultdict(int)
        self.stable: dict[bytes, bytes] = {}
        self.cluster_id = ""
        self.incarnations: set[str] = set()
        self.running = False
        self.rebooted = False
        #: There is no room for records; the stable store has some of its own.
        self.full = False
        self.full_since_ns = 0
        self.watcher: LogWatcher | None = None
        self.mounted: MountedDisk | None = None

    def mount(self) -> "MountedDisk":
        self.mounted = mount = Mount(self)
        return mount

    def unmount(self) -> None:
        """The process is gone: what it still tries doesn't reach the disk."""
        if self.mounted is not None:
            self.mounted.revoke()
            self.mounted = None

    def lose_power(self, chance: random.Random) -> dict[LogId, int]:
        """Any number of batches that were not synced is gone, from the tail. Returns where the logs that lost some end."""
        self.rebooted = True
        cut = {}
        for log_id in list(self.logs):
            log = self.peek(log_id)
            bases = [one.base_offset for one in batches_of(log) if one.base_offset >= self.synced[log_id]]
            if bases and chance.random() < 0.8:
                cut[log_id] = chance.choice(bases)
                log.truncate(cut[log_id])
        return cut

    def peek(self, log_id: LogId) -> MemoryLog:
        """A look at a log from outside."""
        return MemoryLog(self.logs, log_id, _SMALL_SEGMENTS)

    def end_offset(self, log_id: LogId) -> int:
        content = self.logs.get(log_id)
        return 0 if content is None else int(content.end_offset)

    def sealed_end(self, log_id: LogId) -> int:
        """Where the segment that is written to begins."""
        content = self.logs.get(log_id)
        return 0 if content is None else int(content.segments[-1].base_offset)

    # --- what identity.py does with files -----------------------------------------------------------------------------

    def begin_run(self) -> bool:
        """Whether the last stop can have cost data."""
        unclean = self.running and self.rebooted
        if self.mounted is not None:
            self.running, self.rebooted = True, unclean
        return unclean

    def note_registered(self) -> None:
        if self.mounted is not None:
            self.running, self.rebooted = True, False

    def end_run(self) -> None:
        if self.mounted is not None:
            self.running = False


class MountedDisk(LogStorage):
    """A disk in the hands of one process."""

    stable: "RevocableStore"

    @abstractmethod
    def revoke(self) -> None:
        """The process is gone: nothing that it still does reaches the disk."""


class Mount(MountedDisk):
    """A modelled disk."""

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.stable = RevocableStore(disk.stable)
        self._open: list[SimulatedLog] = []

    def revoke(self) -> None:
        self.stable.revoked = True
        for log in self._open:
            log.revoke()

    def open(self, log_id: LogId, settings: LogSettings) -> PartitionLog:
        log = SimulatedLog(self.disk, log_id, _SMALL_SEGMENTS)
        if self.stable.revoked:
            log.revoke()
        self._open.append(log)
        return log

    def list_logs(self) -> Sequence[LogId]:
        return sorted(self.disk.logs)

    def remove(self, log_id: LogId) -> None:
        if not self.stable.revoked:
            self.disk.logs.pop(log_id, None)
            self.disk.synced.pop(log_id, None)

    def close(self) -> None:
        """Nothing is held."""


class RevocableStore(MemoryStableStore):
    """Drops what a dead process writes."""

    revoked = False

    def write(self, *args: Any, **kwargs: Any) -> None:
        if not self.revoked:
            super().write(*args, **kwargs)


class SimulatedLog(MemoryLog):
    """Knows how much of it is on the platter, and tells of appends."""

    def __init__(self, disk: Disk, log_id: LogId, settings: LogSettings) -> None:
        super().__init__(disk.logs, log_id, settings)
        self.disk = disk
        self.log_id = log_id
        self._revoked = False
        #: The twin works them out at each question. None: not known now.
        self._known_epochs: list[EpochStart] | None = None

    @property
    def epochs(self) -> Sequence[EpochStart]:
        if self._known_epochs is None:
            self._known_epochs = list(super().epochs)
        return self._known_epochs

    def revoke(self) -> None:
        self._revoked = True
        self._unusable = LogClosed("the process is gone")

    def append(self, batches: Sequence[RecordBatch], *, after_gap: bool = False) -> None:
        self._raise_if_unusable()
        self.check_room(1)
        if self.disk.watcher is not None:
            self.disk.watcher.appended(self.disk.server_id, self, batches)
        super().append(batches, after_gap=after_gap)
        if not self._known_epochs or batches[-1].leader_epoch != self._known_epochs[-1].leader_epoch:
            self._known_epochs = None

    def check_room(self, size_bytes: int) -> None:
        self._raise_if_unusable()
        if self.disk.full:
            raise DiskFull("No space left on device")

    def sync(self) -> int:
        end_offset = super().sync()
        self.disk.synced[self.log_id] = end_offset
        return end_offset

    def apply_retention(self, limits: RetentionLimits, now_ns: int) -> int:
        self._known_epochs = None
        return super().apply_retention(limits, now_ns)

    def truncate(self, end_offset: int) -> None:
        super().truncate(end_offset)
        self._known_epochs = None
        self.disk.synced[self.log_id] = min(self.disk.synced[self.log_id], self.end_offset)
        if self.disk.watcher is not None:
            self.disk.watcher.truncated()

    def close(self) -> None:
        if not self._revoked:
            self.sync()
        super().close()

    def delete(self) -> None:
        if not self._revoked:
            super().delete()
            self.disk.synced.pop(self.log_id, None)


def batches_of(log: PartitionLog) -> list[RecordBatch]:
    """Everything in the log."""
    return decode_batches(log.read(log.start_offset, stop=log.end_offset, max_bytes=1 << 30))


def decode_batches(data: bytes) -> list[RecordBatch]:
    batches, position = [], 0
    while position < len(data):
        batches.append(decode_batch(data, position))
        position += len(batches[-1].data)
    return batches
