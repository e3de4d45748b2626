"""Turns of the event loop for others, while one finds messages without waiting."""

import asyncio
import time

#: For how long a loop over messages that are there may keep heartbeats and time-outs from running.
_EVERY_S = 0.05


class Turns:
    """``if turns.due: await turns.give()``"""

    def __init__(self) -> None:
        self._due_s = 0.0

    @property
    def due(self) -> bool:
        """Apart from ``give``, because a coroutine for each message costs more than the clock."""
        return time.monotonic() >= self._due_s

    async def give(self) -> None:
        """Everybody else who can run does so once."""
        await asyncio.sleep(0)
        self._due_s = time.monotonic() + _EVERY_S
