"""Runs a server in this process until a signal ends it."""

import asyncio
import inspect
import logging
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import uvloop

from liftbridge.config import Settings
from liftbridge.free_memory import giving_back_free_memory
from liftbridge.plugin_manager import PluginManager
from liftbridge.server import Server
from liftbridge.tasks import end_tasks

logger = logging.getLogger(__name__)

#: Longer than endpoints give calls to end, and the transport its connections.
_STOP_PATIENCE_S = 12.0


def run(settings: Settings, plugins: PluginManager) -> int:
    """Runs a server until SIGINT or SIGTERM, and reloads at each SIGHUP; returns the exit code."""
    return uvloop.run(_run(settings, plugins))


async def _run(settings: Settings, plugins: PluginManager) -> int:
    stop, hurry, reload = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def end() -> None:
        """The second signal cuts short what the first one began."""
        if stop.is_set() and not hurry.is_set():
            logger.info("Asked again: not waiting for other servers to take over")
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, end)
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload.set)
    server = Server(settings, plugins)
    try:
        if await _finished_before(server.start(), stop, server.failed):
            async with giving_back_free_memory():
                await _finished_before(_reload_whenever(reload, server), stop, server.failed)
            logger.info("Shutting down...")
            await _finished_before(server.drain(), hurry, server.failed)
    finally:
        overdue = asyncio.get_running_loop().call_later(_STOP_PATIENCE_S, _tell_what_is_left)
        await server.stop()
        overdue.cancel()
    logger.info("Stopped")
    return 0


async def _reload_whenever(asked: asyncio.Event, server: Server) -> None:
    """However often it is asked meanwhile, that is once more."""
    while True:
        await asked.wait()
        asked.clear()
        await server.reload()


def _tell_what_is_left() -> None:
    """For whoever reports it: stopping has no reason to take so long."""
    left = "\n".join(" < ".join(reversed(_places(task.get_coro()))) for task in asyncio.all_tasks())
    logger.error("Still stopping after %.3g s. What is left:\n%s", _STOP_PATIENCE_S, left)


def _places(work: Any) -> list[str]:
    """Where a suspended coroutine stands, the outermost call first."""
    places = []
    while inspect.iscoroutine(work):
        frame = work.cr_frame
        if frame is not None:
            places.append(f"{work.__qualname__} ({Path(frame.f_code.co_filename).name}:{frame.f_lineno})")
        work = work.cr_await
    return places


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
        await end_tasks(one for one in (working, *ending) if isinstance(one, asyncio.Task))
