"""Runs a server in this process until a signal ends it."""

import asyncio
import logging
import signal
from collections.abc import Coroutine
from typing import Any

import uvloop

from liftbridge.config import Settings
from liftbridge.plugin_manager import PluginManager
from liftbridge.server import Server

logger = logging.getLogger(__name__)


def run(settings: Settings, plugins: PluginManager) -> int:
    """Runs a server until SIGINT or SIGTERM; returns the exit code."""
    return uvloop.run(_run(settings, plugins))


async def _run(settings: Settings, plugins: PluginManager) -> int:
    stop, hurry = asyncio.Event(), asyncio.Event()

    def end() -> None:
        """The second signal cuts short what the first one began."""
        if stop.is_set() and not hurry.is_set():
            logger.info("Asked again: not waiting for other servers to take over")
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, end)
    server = Server(settings, plugins)
    try:
        if await _finished_before(server.start(), stop, server.failed):
            await _finished_before(stop.wait(), server.failed)
            logger.info("Shutting down...")
            await _finished_before(server.drain(), hurry, server.failed)
    finally:
        await server.stop()
    logger.info("Stopped")
    return 0


async def _finished_before(work: Coroutine[Any, Any, Any], *ends: "asyncio.Event | asyncio.Future[None]") -> bool:
    """Whether the work was finished before one of the ends came; cancels it if not. Raises what the work raised, or
    the end that is a future."""
    working = asyncio.create_task(work)
    ending = [one if isinstance(one, asyncio.Future) else asyncio.create_task(one.wait()) for one in ends]
    try:
        await asyncio.wait((working, *ending), return_when=asyncio.FIRST_COMPLETED)
        for one in (working, *ending):
            if one.done():
                one.result()
        return working.done()
    finally:
        mine = [one for one in (working, *ending) if isinstance(one, asyncio.Task)]
        for task in mine:
            task.cancel()
        await asyncio.gather(*mine, return_exceptions=True)
