"""Ending tasks for certain: in Python 3.11 ``asyncio.wait_for``, which libraries use, loses a cancellation that comes in the
same turn of the event loop as the result. The task then goes on, and who cancelled it once waits for ever."""

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Any, TypeVar

_T = TypeVar("_T")
_AGAIN_S = 0.5


async def end_tasks(tasks: "Iterable[asyncio.Task[Any]]") -> None:
    """Cancels the tasks, again if need be, and returns when all have ended. What they raise is not raised here."""
    everything = list(tasks)
    running = {task for task in everything if not task.done()}
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=_AGAIN_S)
    for task in everything:
        if not task.cancelled():
            task.exception()  # so that asyncio doesn't log it as one that nobody asked for


async def cancellable(work: Awaitable[_T]) -> _T:
    """The result of a library's coroutine; raises CancelledError if a cancellation came meanwhile and was lost."""
    task = asyncio.current_task()
    assert task is not None
    before = task.cancelling()
    result = await work
    if task.cancelling() > before:
        raise asyncio.CancelledError
    return result
