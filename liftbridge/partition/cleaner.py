"""Rolling, retention and compaction, for all partitions, in tasks that sleep until something is due."""

import asyncio
import contextlib
import logging

from liftbridge.clock import Clock
from liftbridge.errors import LogClosed, LogDeleted, StorageError
from liftbridge.interfaces.log import RetentionLimits
from liftbridge.partition.assignment import RetentionSettings
from liftbridge.partition.compacting import Compactions
from liftbridge.partition.local import LocalPartition
from liftbridge.partition.manager import PartitionManager
from liftbridge.partition.partition import Partition, PartitionKey

logger = logging.getLogger(__name__)

_LONGEST_SLEEP_S = 30.0
_SHORTEST_SLEEP_S = 0.05


class Cleaner:
    """Looks at each partition once in its own check interval. The disk work runs in a worker thread. Compaction follows
    retention, and may take long, so the other partitions don't wait for it."""

    def __init__(self, partitions: PartitionManager, clock: Clock) -> None:
        self._partitions = partitions
        self._clock = clock
        self._due_ns: dict[PartitionKey, int] = {}
        self._compactions = Compactions(clock)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._compactions.run())
            await self._keep_cleaning()

    async def _keep_cleaning(self) -> None:
        while True:
            self._partitions.roles_changed.clear()
            sleep_s = await self.clean_due()
            with contextlib.suppress(TimeoutError):  # not wait_for: before Python 3.12 it can lose a cancellation
                async with asyncio.timeout(sleep_s):
                    await self._partitions.roles_changed.wait()

    async def clean_due(self) -> float:
        """Cleans what is due and returns the seconds until something else is."""
        now_ns = self._clock.monotonic_ns()
        due: dict[PartitionKey, int] = {}
        for local in list(self._partitions):
            key, interval_ns = local.assignment.key, local.assignment.retention.check_interval_ns
            due[key] = min(self._due_ns.get(key, now_ns + interval_ns), now_ns + interval_ns)
            if due[key] <= now_ns:
                due[key] = now_ns + interval_ns
                await clean(local, self._clock)
                if local.assignment.compaction.enabled:
                    self._compactions.request(local)
        self._due_ns = due
        self._compactions.forget_others(due.keys())
        next_ns = min(due.values(), default=now_ns + int(_LONGEST_SLEEP_S * 1e9))
        return min(_LONGEST_SLEEP_S, max(_SHORTEST_SLEEP_S, (next_ns - now_ns) / 1e9))


def limits_for(partition: Partition, retention: RetentionSettings) -> RetentionLimits:
    """Only what is committed counts: else a leader that is cut off, and takes more than the limit without ever
    committing it, would remove all that the others still have, and hold nothing once it has to drop the rest."""
    log, high_watermark = partition.log, partition.high_watermark
    uncommitted = max(0, log.end_offset - high_watermark)
    uncommitted_bytes = log.size_bytes * uncommitted // max(1, log.end_offset - log.start_offset)
    return RetentionLimits(
        max_bytes=retention.max_bytes and retention.max_bytes + uncommitted_bytes,
        max_messages=retention.max_messages and retention.max_messages + uncommitted,
        max_age_ns=retention.max_age_ns,
        keep_from_offset=high_watermark,
    )


async def clean(local: LocalPartition, clock: Clock) -> None:
    """Rolls the active segment if it is old, then applies the limits. Never removes uncommitted records."""
    partition, retention = local.partition, local.assignment.retention
    if partition is None:
        return
    now_ns = clock.time_ns()
    limits = limits_for(partition, retention)
    try:
        partition.log.roll_if_due(now_ns)
        if limits.max_bytes or limits.max_messages or limits.max_age_ns:
            await asyncio.to_thread(partition.log.apply_retention, limits, now_ns)
    except (LogClosed, LogDeleted):
        return  # meanwhile
    except StorageError as error:
        logger.error("%s: retention failed: %s", local.assignment.key, error)
