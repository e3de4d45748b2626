"""Disks that are full for a while, one at a time, while publishers go on and nothing else goes wrong."""

from functools import partial
from typing import Any

from simulation.server import SimulatedServer
from simulation.world import World

#: Until a publisher was refused, the controller heard of it, and the successor leads: as the default settings make it.
_TIME_TO_GIVE_WAY_NS = 2_500_000_000
_OTHER_FAULTS = (
    "kill kill_all lose_power relapse freeze terminate drain transfer "
    "cut isolate disconnect break_link slow_link bad_network slow_disk"
)


class FullDiskWorld(World):
    """Whoever has had no room for a while leads nothing that somebody else in sync could lead. ``relieved`` counts the
    leaderships that were handed over because of that."""

    def __init__(self, seed: int, **arguments: Any) -> None:
        weights = {**dict.fromkeys(_OTHER_FAULTS.split(), 0.0), "fill_disk": 1.0}
        super().__init__(seed, weights=weights, **arguments)
        self.relieved = 0

    def disk_filled(self, server_id: str) -> None:
        """By the faults."""
        super().disk_filled(server_id)
        led = {number for number, one in enumerate(self._partitions_now()) if one.leader == server_id}
        since_ns = self.disks[server_id].full_since_ns
        self.timeline.after(_TIME_TO_GIVE_WAY_NS / 1e9, partial(self._count_relieved, server_id, since_ns, led))

    def _count_relieved(self, server_id: str, since_ns: int, led: set[int]) -> None:
        if self.disks[server_id].full_since_ns == since_ns:
            self.relieved += sum(self._partitions_now()[number].leader != server_id for number in led)

    def _check(self, server: SimulatedServer) -> None:
        super()._check(server)
        for disk in self.disks.values():
            if disk.full and self.timeline.now_ns - disk.full_since_ns > _TIME_TO_GIVE_WAY_NS:
                for number, one in enumerate(self._partitions_now()):
                    if one.leader == disk.server_id and len(one.isr) > 1:
                        self.invariants.fail("I20", f"{disk.server_id} has no room and leads partition {number}")

    def _partitions_now(self) -> Any:
        return next(iter(self.invariants.latest.streams.values())).partitions
