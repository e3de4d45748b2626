"""Asking for the latest metadata: together, and never with an answer that is older than the question."""

import asyncio

import pytest

from liftbridge.errors import Unavailable
from liftbridge.metadata.catching_up import CatchingUp


class Leader:
    """Answers a question when the test says so."""

    def __init__(self) -> None:
        self.questions: list[asyncio.Future[None]] = []
        self.catching_up = CatchingUp(self._catch_up)

    async def _catch_up(self) -> None:
        self.questions.append(asyncio.get_running_loop().create_future())
        await self.questions[-1]

    async def ask(self, count: int) -> "list[asyncio.Task[None]]":
        tasks = [asyncio.create_task(self.catching_up.now()) for _ in range(count)]
        for _ in range(5):
            await asyncio.sleep(0)
        return tasks


async def test_who_asks_meanwhile_shares_the_next_answer_not_this_one() -> None:
    leader = Leader()
    (first,) = await leader.ask(1)
    later = await leader.ask(100)
    assert len(leader.questions) == 1
    leader.questions[0].set_result(None)
    await first
    await asyncio.sleep(0)
    await leader.ask(0)
    assert len(leader.questions) == 2
    assert not any(task.done() for task in later)
    leader.questions[1].set_result(None)
    await asyncio.gather(*later)
    assert len(leader.questions) == 2


async def test_an_error_is_for_those_who_shared_the_question() -> None:
    leader = Leader()
    asking = await leader.ask(2)
    later = await leader.ask(1)
    leader.questions[0].set_exception(Unavailable("nobody"))
    assert [str(one) for one in await asyncio.gather(*asking, return_exceptions=True)] == ["nobody"] * 2
    await leader.ask(0)
    leader.questions[1].set_result(None)
    await asyncio.gather(*later)


async def test_who_gives_up_takes_nothing_from_the_others() -> None:
    leader = Leader()
    gone, staying = await leader.ask(2)
    gone.cancel()
    await leader.ask(0)
    leader.questions[0].set_result(None)
    await staying
    with pytest.raises(asyncio.CancelledError):
        await gone
