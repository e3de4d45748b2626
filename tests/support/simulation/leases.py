"""Leases, measured: for how long a deposed leader believes in its lease while its successor leads already.

Not one of the invariants, because what is committed is safe without leases: a deposed leader can't commit anything. But
acks of policy LEADER, and reads that must not be stale, are only as good as this is short.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterator

from liftbridge.metadata.model import ServerStatus
from liftbridge.partition.partition import PartitionKey
from simulation.server import SimulatedServer
from simulation.world import World

_Reign = tuple[PartitionKey, int]


class LeaseWorld(World):
    """``overlaps_s``: how long each overlap was, by what led to it."""

    def __init__(self, seed: int, **arguments: object) -> None:
        super().__init__(seed, **arguments)  # type: ignore[arg-type]
        self.overlaps_s: defaultdict[str, list[float]] = defaultdict(list)
        self._since: dict[_Reign, tuple[int, str]] = {}

    def _check(self, server: SimulatedServer) -> None:
        super()._check(server)
        deposed = {reign: one for reign, one in self._deposed() if not one.process.frozen and _holds_lease(one)}
        for reign in [reign for reign in self._since if reign not in deposed]:
            since_ns, cause = self._since.pop(reign)
            self.overlaps_s[cause].append((self.timeline.now_ns - since_ns) / 1e9)
        for reign, one in deposed.items():
            self._since.setdefault(reign, (self.timeline.now_ns, self._cause(one)))

    def _deposed(self) -> Iterator[tuple[_Reign, SimulatedServer]]:
        """Who leads in an epoch that isn't the latest in which somebody leads."""
        leading = [
            ((local.assignment.key, local.leader.leader_epoch), one)
            for one in self.running()
            for local in one.locals
            if local.leader is not None and not local.leader.stepped_down
        ]
        latest: dict[PartitionKey, int] = {}
        for (key, epoch), _ in leading:
            latest[key] = max(epoch, latest.get(key, 0))
        return ((reign, one) for reign, one in leading if reign[1] < latest[reign[0]])

    def _cause(self, one: SimulatedServer) -> str:
        if one.server is not None and one.server._led_metadata:
            return "leads the metadata group, as far as it knows"
        down = self.invariants.latest.servers[one.server_id].status is ServerStatus.DOWN
        return "declared dead, and heard again" if down else "moved or suspected while it lives"


def _holds_lease(server: SimulatedServer) -> bool:
    asyncio._set_running_loop(server.process)
    try:
        return server.holds_lease
    finally:
        asyncio._set_running_loop(None)
