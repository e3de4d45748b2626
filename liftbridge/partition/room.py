"""Which partitions the disk takes nothing of, and whether it takes records again."""

import asyncio
import contextlib
import logging

from liftbridge.partition.manager import PartitionManager
from liftbridge.partition.troubles import TroubleKind, Troubles

logger = logging.getLogger(__name__)

_CHECK_S = 1.0


class RoomWatch:
    """Sleeps until the disk refuses an append. Then it looks whether the other partitions that are led here fare the same,
    so that each is handed over before its publishers are refused, and each second whether there is room again."""

    def __init__(self, partitions: PartitionManager, troubles: Troubles) -> None:
        self._partitions = partitions
        self._troubles = troubles
        self._changed = asyncio.Event()
        self._refused = 0
        troubles.subscribe(self._changed.set)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._changed.clear()
            refused = self._count()
            if refused > self._refused:
                await self._check_led()
            self._refused = self._count()
            with contextlib.suppress(TimeoutError):  # not wait_for: before Python 3.12 it can lose a cancellation
                async with asyncio.timeout(_CHECK_S if self._refused else None):
                    await self._changed.wait()
                    continue
            await self._check_refused()

    def _count(self) -> int:
        return sum(one.kind is TroubleKind.CANNOT_STORE for one in self._troubles)

    async def _check_led(self) -> None:
        refused = 0
        for local in list(self._partitions):
            if local.leader is not None and local.partition is not None and not local.partition.cannot_store:
                refused += not local.partition.check_room()
                await asyncio.sleep(0)  # heartbeats must not wait for a thousand of them
        if refused:
            logger.error("There is no room for %d more partitions that this server leads", refused)

    async def _check_refused(self) -> None:
        for local in list(self._partitions):
            if local.partition is not None and local.partition.cannot_store:
                local.partition.check_room()
                await asyncio.sleep(0)
