"""Pausing partitions that nobody publishes to, in one task for all of them that sleeps until one may be due."""

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping

from liftbridge.clock import Clock
from liftbridge.errors import LiftbridgeError
from liftbridge.partition.leader import PartitionLeader
from liftbridge.partition.local import LocalPartition
from liftbridge.partition.manager import PartitionManager

logger = logging.getLogger(__name__)

_LONGEST_SLEEP_S = 30.0
_SHORTEST_SLEEP_S = 0.05
#: How often a partition is looked at again that is idle and has subscribers.
_SUBSCRIBED_S = 1.0


class AutoPauser:
    """Looks at what this server leads. Idle is who got no message for the stream's time, counted from the last one, or from
    when this server began to lead. ``pause`` asks the metadata group to pause partitions of one stream that still have
    their leader epochs, by number; a message that comes meanwhile is stored and resumes the partition if need be."""

    def __init__(
        self,
        partitions: PartitionManager,
        clock: Clock,
        pause: Callable[[str, Mapping[int, int]], Awaitable[None]],
    ) -> None:
        self._partitions = partitions
        self._clock = clock
        self._pause = pause
        self._changed = asyncio.Event()
        partitions.subscribe(self._changed.set)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._changed.clear()
            sleep_s = await self.pause_idle()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(sleep_s):
                    await self._changed.wait()

    async def pause_idle(self) -> float | None:
        """Pauses what is idle now and returns the seconds until something else may be; None: nothing can be."""
        now_ns = self._clock.time_ns()
        idle: dict[str, dict[int, int]] = defaultdict(dict)
        sleeps_s: list[float] = []
        for local in self._partitions:
            if local.leader is None or not local.assignment.auto_pause.idle_ns:
                continue
            rest_s = _rest_s(local, local.leader, now_ns)
            if rest_s <= 0:
                key = local.assignment.key
                idle[key.stream][key.partition] = local.leader.leader_epoch
            else:
                sleeps_s.append(rest_s)
        for stream, leader_epochs in idle.items():
            await self._pause_some(stream, leader_epochs)
        if idle:
            sleeps_s.append(_SUBSCRIBED_S)  # those that couldn't be paused
        return max(_SHORTEST_SLEEP_S, min(*sleeps_s, _LONGEST_SLEEP_S)) if sleeps_s else None

    async def _pause_some(self, stream: str, leader_epochs: Mapping[int, int]) -> None:
        logger.info('stream "%s": pausing idle partitions %s', stream, ", ".join(map(str, leader_epochs)))
        try:
            await self._pause(stream, leader_epochs)
        except LiftbridgeError as error:
            logger.warning('stream "%s": idle partitions couldn\'t be paused: %s', stream, error)


def _rest_s(local: LocalPartition, leader: PartitionLeader, now_ns: int) -> float:
    """How long the partition can't be paused yet, at least."""
    settings = local.assignment.auto_pause
    since_ns = max(leader.began_ns, leader.partition.log.last_timestamp_ns)
    rest_s = (since_ns + settings.idle_ns - now_ns) / 1e9
    if settings.unless_subscribed and leader.partition.subscribers:
        return max(rest_s, _SUBSCRIBED_S)
    return rest_s
