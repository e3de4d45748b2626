"""Reading metadata as it is now, not as this server has heard of it."""

import asyncio
from collections.abc import Awaitable, Callable


class CatchingUp:
    """Many who want the latest metadata at once ask the metadata leader together. ``catch_up`` does it for one."""

    def __init__(self, catch_up: Callable[[], Awaitable[None]]) -> None:
        self._catch_up = catch_up
        self._asking: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    async def now(self) -> None:
        """Returns once everything that was committed before the call is applied on this server: whoever was deposed
        before the call knows it afterwards. Raises what ``catch_up`` raises."""
        if self._next is None:  # a question that was asked already may be answered with what was true before this call
            self._next = asyncio.create_task(self._ask(self._asking))
            self._next.add_done_callback(_hear)
        await asyncio.shield(self._next)

    async def _ask(self, before: "asyncio.Task[None] | None") -> None:
        if before is not None:
            await asyncio.wait((before,))
        self._asking, self._next = self._next, None
        await self._catch_up()


def _hear(task: "asyncio.Task[None]") -> None:
    """Nobody may be left who waits for it."""
    if not task.cancelled():
        task.exception()
