"""Where messages wait while this server is to lead a partition and its leader doesn't run: it is paused, or just begins."""

from collections.abc import Callable
from typing import Protocol

from liftbridge.partition.leader import LeaderSettings
from liftbridge.partition.partition import PartitionKey
from liftbridge.partition.pending import PendingRun
from liftbridge.partition.refusal import Refusal, RefusalKind

#: What waits takes memory; a resume takes milliseconds, and longer only while the metadata group has no leader.
_MAX_BYTES = 8 * 1024 * 1024
#: About what a message takes beside its own bytes.
_MESSAGE_BYTES = 128


class Intake(Protocol):
    """Takes runs for one partition: its leader, or a waiting room in the leader's place."""

    @property
    def settings(self) -> LeaderSettings:
        """Bounds of what may come in."""

    @property
    def overloaded(self) -> bool:
        """Whether publishers that can wait should."""

    @property
    def stepped_down(self) -> bool:
        """Whether this takes nothing more."""

    def submit(self, run: PendingRun) -> None:
        """Takes a run; its outcome is told to ``run.acks``, never raised."""


class WaitingRoom:
    """Keeps runs in their order until a leader takes them. ``wake`` is called for each: somebody wants the partition."""

    def __init__(
        self, key: PartitionKey, settings: LeaderSettings, *, readonly: bool, wake: Callable[[PartitionKey], None]
    ) -> None:
        self.settings = settings
        self.readonly = readonly
        self.key = key
        self._wake = wake
        self._runs: list[PendingRun] = []
        self._bytes = 0
        self._closed: Refusal | None = None

    @property
    def overloaded(self) -> bool:
        return self._bytes > _MAX_BYTES

    @property
    def stepped_down(self) -> bool:
        return self._closed is not None

    def submit(self, run: PendingRun) -> None:
        refusal = self._refusal()
        if refusal is not None:
            _refuse(run, refusal)
            return
        self._runs.append(run)
        self._bytes += run.size_bytes() + _MESSAGE_BYTES * len(run.items)
        self._wake(self.key)

    def _refusal(self) -> Refusal | None:
        if self._closed is not None:
            return self._closed
        if self.readonly:
            return Refusal(RefusalKind.READONLY, f"readonly partition: {self.key.partition}")
        if self.overloaded:
            return Refusal(
                RefusalKind.OVERLOADED, f"too much waits until {self.key} is resumed; this message was not stored"
            )
        return None

    def hand_over(self, leader: Intake) -> None:
        """The leader runs and has what waited, in order."""
        runs, self._runs, self._bytes = self._runs, [], 0
        for run in runs:
            leader.submit(run)

    def close(self, reason: str) -> None:
        """There won't be a leader here: what waits was not stored. Idempotent."""
        self._closed = self._closed or Refusal(RefusalKind.NOT_LEADER, reason)
        runs, self._runs, self._bytes = self._runs, [], 0
        for run in runs:
            _refuse(run, self._closed)


def _refuse(run: PendingRun, refusal: Refusal) -> None:
    if run.acks is not None:
        run.acks.refused(run, refusal)
