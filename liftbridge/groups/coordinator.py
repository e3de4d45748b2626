"""The coordinator's part: tells members their partitions, and removes those that it hears nothing of."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial

from liftbridge.clock import Clock
from liftbridge.errors import FailedPrecondition, LiftbridgeError, NotFound, Unavailable
from liftbridge.groups.sessions import MemberSessions
from liftbridge.metadata.commands import LeaveGroup
from liftbridge.metadata.model import GroupState, MemberState
from liftbridge.metadata.state import MetadataState

logger = logging.getLogger(__name__)

#: Longest time between two looks at who is overdue.
_LONGEST_TICK_S = 1.0


class GroupCoordinator:
    """Runs on every server, and works for the groups that metadata says it coordinates.

    It does so only while ``holds_lease``: without, the cluster may have chosen another coordinator, that hears the members
    now. ``catch_up`` returns once this server knows the metadata that was committed before the call. ``expire`` proposes
    that an overdue member leaves its group.
    """

    def __init__(
        self,
        state: MetadataState,
        clock: Clock,
        *,
        server_id: str,
        consumer_timeout_s: float,
        holds_lease: Callable[[], bool],
        catch_up: Callable[[], Awaitable[None]],
        expire: Callable[[LeaveGroup], Awaitable[None]],
    ) -> None:
        self._state = state
        self._clock = clock
        self._server_id = server_id
        self._holds_lease = holds_lease
        self._catch_up = catch_up
        self._expire = expire
        self._sessions = MemberSessions(server_id, int(consumer_timeout_s * 1e9))
        self._tick_s = min(_LONGEST_TICK_S, consumer_timeout_s / 4)
        self._groups_version = -1
        self._changed = asyncio.Event()
        self._removing: dict[LeaveGroup, asyncio.Task[None]] = {}
        state.subscribe(self._follow)
        self._follow()

    # --- answering ----------------------------------------------------------------------------------------------------

    async def assignments(self, group_id: str, consumer_id: str, epoch: int) -> tuple[int, MemberState]:
        """The group's epoch and the member with its partitions; a sign of life of that member. Raises what the client
        gets. A refusal comes from the latest metadata: who asks right after a change may be ahead of this server."""
        try:
            return self._look_up(group_id, consumer_id, epoch)
        except (NotFound, FailedPrecondition):
            await self._catch_up()
            return self._look_up(group_id, consumer_id, epoch)

    def _look_up(self, group_id: str, consumer_id: str, epoch: int) -> tuple[int, MemberState]:
        group = self._state.groups.get(group_id)
        if group is None:
            raise NotFound("consumer group does not exist")
        if group.coordinator != self._server_id:
            raise FailedPrecondition("broker is not the consumer group coordinator")
        if not self._holds_lease():
            raise Unavailable("the broker doesn't reach the cluster, which may have chosen another coordinator")
        self._sessions.heard(group_id, consumer_id, epoch, self._clock.monotonic_ns())
        return group.epoch, _member(group, consumer_id, epoch)

    # --- watching over members ----------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled. One task for all members; nothing to do while this server coordinates no group."""
        self._sessions.start_afresh(self._clock.monotonic_ns())
        try:
            while True:
                self._changed.clear()
                if not self._sessions:
                    await self._changed.wait()
                if await self._slept_well():
                    self._remove_overdue()
                else:
                    self._sessions.start_afresh(self._clock.monotonic_ns())
        finally:
            for task in self._removing.values():
                task.cancel()

    async def _slept_well(self) -> bool:
        """Waits a tick. False when nobody can have been heard meanwhile: this process stood still, or has no lease."""
        began_ns = self._clock.monotonic_ns()
        await asyncio.sleep(self._tick_s)
        return self._holds_lease() and self._clock.monotonic_ns() - began_ns < 2e9 * self._tick_s

    def _remove_overdue(self) -> None:
        for member in self._sessions.overdue(self._clock.monotonic_ns()):
            if member not in self._removing:
                task = self._removing[member] = asyncio.create_task(self._try_to_remove(member))
                task.add_done_callback(partial(self._forget, member))

    def _forget(self, member: LeaveGroup, _task: "asyncio.Task[None]") -> None:
        del self._removing[member]

    async def _try_to_remove(self, member: LeaveGroup) -> None:
        logger.warning(
            "Consumer %s timed out for consumer group %s, removing from group", member.consumer_id, member.group_id
        )
        try:
            await self._expire(member)
        except LiftbridgeError as error:
            logger.warning("Consumer %s was not removed: %s", member.consumer_id, error)

    def _follow(self) -> None:
        if self._state.groups_version != self._groups_version:
            self._groups_version = self._state.groups_version
            self._sessions.follow(self._state.groups, self._clock.monotonic_ns())
            self._changed.set()


def _member(group: GroupState, consumer_id: str, epoch: int) -> MemberState:
    if epoch != group.epoch:
        raise FailedPrecondition("client-provided group epoch differs from broker group epoch")
    member = group.members.get(consumer_id)
    if member is None:
        raise FailedPrecondition("consumer is not a member of the consumer group")
    return member
