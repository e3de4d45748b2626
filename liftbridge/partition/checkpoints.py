"""Checkpoints of all logs, so that a server that was killed is back soon."""

import asyncio
import logging

from liftbridge.errors import LogClosed, LogDeleted, StorageError
from liftbridge.interfaces.log import LogId
from liftbridge.partition.manager import PartitionManager
from liftbridge.partition.partition import Partition

logger = logging.getLogger(__name__)

#: Between two looks at a log. What a server writes in so long, the next start may have to check.
INTERVAL_S = 10.0


class Checkpoints:
    """Looks at each partition now and then. A log that didn't grow costs nothing but the look."""

    def __init__(self, partitions: PartitionManager) -> None:
        self._partitions = partitions
        self._end_offsets: dict[LogId, int] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            await self.look()

    async def look(self) -> None:
        """Makes the checkpoints that are due, one after the other."""
        before, self._end_offsets = self._end_offsets, {}
        for partition in [local.partition for local in self._partitions]:
            if partition is None:
                continue
            log_id, end_offset = partition.key.log_id, partition.log.end_offset
            if before.get(log_id, 0) != end_offset:
                await _checkpoint(partition)
            self._end_offsets[log_id] = end_offset


async def _checkpoint(partition: Partition) -> None:
    try:
        await asyncio.to_thread(partition.log.checkpoint)
    except (LogClosed, LogDeleted):
        return  # between the look and now
    except StorageError as error:
        logger.error("%s: no checkpoint: %s", partition.key, error)
