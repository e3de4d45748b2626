"""Tasks end when they are told to, whatever a library makes of its cancellation."""

import asyncio

import pytest

from liftbridge.tasks import cancellable, end_tasks


async def deaf_for(cancellations: int) -> str:
    """As a coroutine whose library loses so many cancellations; it never ends by itself."""
    forever = asyncio.get_running_loop().create_future()
    while True:
        try:
            await asyncio.shield(forever)
        except asyncio.CancelledError:
            if not cancellations:
                raise
            cancellations -= 1


async def test_a_task_that_loses_a_cancellation_is_cancelled_again() -> None:
    deaf, ready = asyncio.create_task(deaf_for(1)), asyncio.create_task(deaf_for(0))
    await asyncio.sleep(0)
    async with asyncio.timeout(10):
        await end_tasks((deaf, ready))
    assert deaf.cancelled()
    assert ready.cancelled()


async def test_what_tasks_raise_is_neither_raised_nor_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ValueError("a failure")

    failing = asyncio.create_task(fail())
    await asyncio.sleep(0)
    await end_tasks([failing])
    del failing
    assert not caplog.records


async def test_a_cancellation_that_came_with_the_result_counts() -> None:
    result = asyncio.get_running_loop().create_future()

    async def loses_it() -> int:
        try:
            await asyncio.shield(result)
        except asyncio.CancelledError:
            return 1
        return 0

    task = asyncio.create_task(cancellable(loses_it()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_earlier_cancellation_does_not_count() -> None:
    """Whoever tidies up after one may still ask somebody."""

    async def tidies_up() -> str:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            answer = await cancellable(asyncio.sleep(0, "tidy"))
        return answer

    async def run() -> str:
        try:
            return await tidies_up()
        except asyncio.CancelledError:
            return await cancellable(asyncio.sleep(0, "tidier"))

    task = asyncio.create_task(run())
    await asyncio.sleep(0)
    task.cancel()
    assert await task == "tidier"
