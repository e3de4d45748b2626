"""Compaction of the partitions whose streams ask for it: one pass after the other, each in a worker thread.

A pass is work for the interpreter, which it shares with the event loop. So it works for a few milliseconds at a time and
then sleeps for as long: publishers and subscribers feel it as little as a busy neighbour.
"""

import asyncio
import logging
import time
from collections.abc import Collection

from liftbridge.clock import Clock
from liftbridge.errors import LogClosed, LogDeleted, StorageError
from liftbridge.interfaces.log import CompactionReport
from liftbridge.partition.local import LocalPartition
from liftbridge.partition.partition import Partition, PartitionKey
from liftbridge.protocol.compaction import KeyCompactor

logger = logging.getLogger(__name__)

_SLICE_S = 0.002
#: A pass over this little takes milliseconds, so it is worth it whenever something is new.
_SMALL_LOG_BYTES = 1024 * 1024


class Compactions:
    """The partitions that wait for a pass. All methods run on the event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: dict[PartitionKey, LocalPartition] = {}
        self._requested = asyncio.Event()
        #: When the oldest tombstone was stored that a pass left, None if it left none; unknown before the first pass.
        self._oldest_tombstone_ns: dict[PartitionKey, int | None] = {}

    def request(self, local: LocalPartition) -> None:
        """Has a look at it as soon as those before it are done. Asking again changes nothing."""
        self._waiting[local.assignment.key] = local
        self._requested.set()

    def forget_others(self, keys: Collection[PartitionKey]) -> None:
        """Only these partitions are left."""
        for key in self._oldest_tombstone_ns.keys() - keys:
            del self._oldest_tombstone_ns[key]

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._requested.wait()
            self._requested.clear()
            while self._waiting:
                key = next(iter(self._waiting))
                await self.compact(self._waiting.pop(key))

    async def compact(self, local: LocalPartition) -> CompactionReport | None:
        """One pass, if enough is new or tombstones are old enough; None otherwise. Logs what goes wrong."""
        key, settings, partition = local.assignment.key, local.assignment.compaction, local.partition
        if partition is None or not settings.enabled:
            return None
        if not partition.log.can_compact:
            logger.warning("%s: its log storage has no compaction, so every message stays", key)
            return None
        drop_before_ns = self._clock.time_ns() - settings.tombstone_max_age_ns if settings.tombstone_max_age_ns else 0
        compactor = KeyCompactor(partition.high_watermark, drop_tombstones_before_ns=drop_before_ns)
        force = self._has_expired_tombstones(key, drop_before_ns)
        percent = settings.min_dirty_percent if partition.log.size_bytes > _SMALL_LOG_BYTES else 0
        try:
            report = await _run_pass(partition, compactor, percent, force)
        except (LogClosed, LogDeleted, _Ended):
            return None
        except StorageError as error:
            logger.error("%s: compaction failed and will be tried again: %s", key, error)
            return None
        if report is not None:
            self._oldest_tombstone_ns[key] = compactor.oldest_tombstone_ns
            logger.log(
                logging.INFO if report.records_removed else logging.DEBUG,
                "%s: compaction removed %d messages, %d of %d bytes",
                key,
                report.records_removed,
                report.bytes_before - report.bytes_after,
                report.bytes_before,
            )
        return report

    def _has_expired_tombstones(self, key: PartitionKey, drop_before_ns: int) -> bool:
        """Also True when nobody knows yet."""
        oldest_ns = self._oldest_tombstone_ns.get(key, 0)
        return drop_before_ns > 0 and oldest_ns is not None and oldest_ns < drop_before_ns


async def _run_pass(
    partition: Partition, compactor: KeyCompactor, min_dirty_percent: int, force: bool
) -> CompactionReport | None:
    pace = _Pace(partition)
    try:
        return await asyncio.to_thread(
            partition.log.compact, compactor, min_dirty_percent=min_dirty_percent, force=force, between=pace.step
        )
    finally:
        pace.ended = True  # the thread goes on for a moment when this task is cancelled


class _Ended(Exception):
    """The pass is not wanted any more."""


class _Pace:
    """Called by a pass again and again, in its thread."""

    def __init__(self, partition: Partition) -> None:
        self.ended = False
        self._partition = partition
        self._since_s = time.perf_counter()

    def step(self) -> None:
        """Leaves the interpreter to others for a while, if it is time to. Raises _Ended once nobody wants the pass."""
        if self.ended or self._partition.end_reason is not None:
            raise _Ended
        worked_s = time.perf_counter() - self._since_s
        if worked_s >= _SLICE_S:
            time.sleep(worked_s)
            self._since_s = time.perf_counter()
