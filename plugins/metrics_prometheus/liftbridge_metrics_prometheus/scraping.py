"""Scrapes: a picture of the server, taken in small steps between which the event loop does its work."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterator
from itertools import chain
from typing import TypeVar

from liftbridge.broker.api import BrokerApi
from liftbridge.clock import Clock
from liftbridge.interfaces.context import EndpointContext
from liftbridge.interfaces.figures import GroupPosition
from liftbridge_metrics_prometheus.exposition import group_pieces, partition_pieces, render
from liftbridge_metrics_prometheus.machine import Machine
from liftbridge_metrics_prometheus.metrics import Identity, server_families

logger = logging.getLogger(__name__)

#: How long a scrape holds the event loop at a time, about.
_STEP_NS = 500_000
#: Who asks again so soon gets the same picture: however many ask, they cost no more than one scrape in this time.
_FRESH_NS = 1_000_000_000
#: A server that begins to keep cursors has to read them all, which need not be done in one scrape.
_POSITIONS_S = 1.0
_T = TypeVar("_T")


class Scrapes:
    """Takes pictures when somebody asks."""

    def __init__(self, context: EndpointContext) -> None:
        self._broker: BrokerApi = context.broker
        self._clock = context.clock
        self._identity = Identity(context.server_id, context.namespace, context.version)
        self._machine = Machine(context.data_dir)
        self._scrape: asyncio.Task[bytes] | None = None
        self._begun_ns = 0
        #: What health checks say.
        self.serving = False

    async def text(self) -> bytes:
        """The exposition, a second old at most, plus the time that it takes. Who asks while there is one in the making
        gets that one."""
        now_ns = self._clock.monotonic_ns()
        if self._scrape is None or (self._scrape.done() and now_ns - self._begun_ns >= _FRESH_NS):
            self._begun_ns = now_ns
            self._scrape = asyncio.create_task(self._take())
        return await asyncio.shield(self._scrape)

    async def _take(self) -> bytes:
        try:
            return await self._picture()
        except Exception:
            logger.exception("a scrape failed")
            raise

    async def _picture(self) -> bytes:
        machine = await self._machine.figures()
        replicas = [one async for one in _in_steps(self._broker.replica_figures(), self._clock)]
        positions = await self._positions()
        server = server_families(self._broker.figures(), self._identity, serving=self.serving, disk=machine.disk)
        text = chain(map(render, server), partition_pieces(replicas), group_pieces(positions))
        return b"".join([*[piece async for piece in _in_steps(text, self._clock)], machine.process_text])

    async def _positions(self) -> list[GroupPosition]:
        """As many as can be had in the time; the next scrape has more."""
        found: list[GroupPosition] = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_POSITIONS_S):
                async for one in self._broker.group_positions():
                    found.append(one)  # one by one: what was found before the time was over is kept
        return found

    async def close(self) -> None:
        """Takes no more. Who waits for one is left without."""
        if self._scrape is not None:
            self._scrape.cancel()
            await asyncio.gather(self._scrape, return_exceptions=True)
        self._machine.close()


async def _in_steps(items: Iterator[_T], clock: Clock) -> AsyncIterator[_T]:
    """The same items; now and then the event loop has a turn before the next one is made."""
    began_ns = clock.monotonic_ns()
    for item in items:
        yield item
        if clock.monotonic_ns() - began_ns >= _STEP_NS:
            await asyncio.sleep(0)
            began_ns = clock.monotonic_ns()
