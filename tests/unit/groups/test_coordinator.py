"""What a coordinator answers, whom it removes, and when it had better not."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest
from metadata_states import States

from liftbridge.clock import SystemClock
from liftbridge.errors import FailedPrecondition, NotFound, Unavailable
from liftbridge.groups.coordinator import GroupCoordinator
from liftbridge.metadata.commands import JoinGroup, LeaveGroup

_TIMEOUT_S = 0.2


class Coordinating(States):
    """Server ``a``, which coordinates group ``g``. ``unheard`` is what it hears of when it catches up."""

    def __init__(self) -> None:
        super().__init__()
        self.register("a")
        self.create("s", "a", "a")
        self.has_lease = True
        self.unheard: list[JoinGroup | LeaveGroup] = []
        self.expired: list[str] = []
        self.coordinator = GroupCoordinator(
            self.state,
            SystemClock(),
            server_id="a",
            consumer_timeout_s=_TIMEOUT_S,
            holds_lease=lambda: self.has_lease,
            catch_up=self._catch_up,
            expire=self._expire,
        )

    async def _catch_up(self) -> None:
        for command in self.unheard:
            self.apply(command)
        self.unheard.clear()

    async def _expire(self, command: LeaveGroup) -> None:
        self.expired.append(command.consumer_id)
        self.apply(command)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0.01)


@pytest.fixture
async def running() -> AsyncIterator[Coordinating]:
    coordinating = Coordinating()
    task = asyncio.create_task(coordinating.coordinator.run())
    yield coordinating
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def test_member_that_asks_before_this_server_heard_of_it_is_answered() -> None:
    coordinating = Coordinating()
    coordinating.unheard = [JoinGroup("g", "c1", ("s",))]
    epoch, member = await coordinating.coordinator.assignments("g", "c1", 0)
    assert (epoch, member.assigned) == (0, {"s": (0, 1)})


async def test_refusals_are_of_the_latest_metadata() -> None:
    coordinating = Coordinating()
    with pytest.raises(NotFound, match="consumer group does not exist"):
        await coordinating.coordinator.assignments("g", "c1", 0)
    coordinating.apply(JoinGroup("g", "c1", ("s",)))
    coordinating.unheard = [JoinGroup("g", "c2", ("s",))]
    with pytest.raises(FailedPrecondition, match="client-provided group epoch differs"):
        await coordinating.coordinator.assignments("g", "c1", 12345)
    assert "c2" in coordinating.state.groups["g"].members


async def test_without_a_lease_nobody_is_told_anything() -> None:
    coordinating = Coordinating()
    coordinating.apply(JoinGroup("g", "c1", ("s",)))
    coordinating.has_lease = False
    with pytest.raises(Unavailable):
        await coordinating.coordinator.assignments("g", "c1", 0)


async def test_silent_members_are_removed_and_the_others_stay(running: Coordinating) -> None:
    for consumer in ("c1", "c2", "c3"):
        running.apply(JoinGroup("g", consumer, ("s",)))

    async def live() -> None:
        while True:
            await running.coordinator.assignments("g", "c2", running.state.groups["g"].epoch)
            await asyncio.sleep(0.02)

    alive = asyncio.create_task(live())
    await running.until(lambda: len(running.expired) == 2)
    await asyncio.sleep(_TIMEOUT_S)
    alive.cancel()
    assert sorted(running.expired) == ["c1", "c3"]
    assert set(running.state.groups["g"].members) == {"c2"}
    await running.until(lambda: not running.state.groups)


async def test_nobody_is_removed_while_nobody_can_be_heard(running: Coordinating) -> None:
    running.has_lease = False
    running.apply(JoinGroup("g", "c1", ("s",)))
    await asyncio.sleep(2 * _TIMEOUT_S)
    assert running.expired == []
    running.has_lease = True
    regained = asyncio.get_running_loop().time()
    await running.until(lambda: running.expired)
    assert asyncio.get_running_loop().time() - regained > _TIMEOUT_S * 0.7, "everybody gets a whole time-out"
