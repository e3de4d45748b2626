"""One partition as it is on this server."""

import asyncio
import contextlib
from dataclasses import dataclass

from liftbridge.partition.assignment import Assignment
from liftbridge.partition.leader import PartitionLeader
from liftbridge.partition.partition import Partition, PartitionFigures
from liftbridge.partition.roles import LeaderRole, Listener, PausedRole, Role
from liftbridge.partition.waiting_room import Intake

NO_FIGURES = PartitionFigures()


@dataclass(slots=True)
class LocalPartition:
    """A partition on this server. ``damage`` says why it can't be used, None when it can."""

    assignment: Assignment
    partition: Partition | None = None
    role: Role | None = None
    leader: PartitionLeader | None = None
    #: Takes what is published: the leader, or what stands in its place while it doesn't run.
    intake: Intake | None = None
    listener: Listener | None = None
    damage: str | None = None
    #: Another server is about to lead: publishers wait for that one.
    handing_over: bool = False
    #: Of the log, when it was closed.
    last_figures: PartitionFigures = NO_FIGURES

    @property
    def is_leader(self) -> bool:
        return self.leader is not None

    def change_role(self, role: Role | None) -> Role | None:
        """Puts another role in the place of the present one, which is returned."""
        previous, self.role, self.handing_over = self.role, role, False
        self.leader = self.intake = role.leader if isinstance(role, LeaderRole) else None
        if isinstance(role, PausedRole):
            self.intake = role.room
        return previous

    def deliver_to(self, intake: Intake) -> None:
        """From now on, whatever is published goes there."""
        self.intake = intake
        if self.listener is not None:
            self.listener.ingress.intake = intake

    async def wait_settled(self, timeout_s: float) -> bool:
        """Returns True once this server knows, in its present role, how far the partition is committed: before that, it
        can't say what the latest record is. False when the time is over or the role ended."""
        role, partition = self.role, self.partition
        if role is None or partition is None:
            return False
        if not role.settled:
            try:
                async with asyncio.timeout(timeout_s):
                    while not role.settled and self.role is role and partition.end_reason is None:
                        await partition.wait_for_change()
            except TimeoutError:
                return False
        return role.settled and self.role is role

    async def wait_committed(self, offset: int, timeout_s: float) -> bool:
        """Returns True once everything below ``offset`` is known to be committed; False when the time is over or the
        role ended."""
        role, partition = self.role, self.partition
        if role is None or partition is None:
            return False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while partition.high_watermark < offset and self.role is role and partition.end_reason is None:
                    await partition.wait_for_change()
        return partition.high_watermark >= offset and self.role is role

    @property
    def high_watermark(self) -> int:
        return self.partition.high_watermark if self.partition else 0

    @property
    def end_offset(self) -> int:
        return self.partition.log.end_offset if self.partition else 0

    def figures(self) -> PartitionFigures:
        """As of now; of a paused partition, as of the pause, if this server has run since."""
        return self.partition.figures() if self.partition else self.last_figures
