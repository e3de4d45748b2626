"""Waiting until the leaders of a stream do what was committed, on whichever servers they are."""

import asyncio
import logging
from typing import Protocol

from liftbridge.cluster.answering import Answering
from liftbridge.errors import TransportError
from liftbridge.interfaces.transport import Transport
from liftbridge.metadata.state import MetadataState

logger = logging.getLogger(__name__)

_ATTEMPT_S = 1.0
_RETRY_S = 0.05
_INDEX_BYTES = 8


class LocalPartitions(Protocol):
    """This server's."""

    async def wait_reconciled(self, index: int, timeout_s: float) -> None:
        """Returns once what runs is what metadata said at this index, or the time is over."""


class StartedLeaders:
    """Answers for this server's partitions, and asks the others for theirs."""

    def __init__(
        self, transport: Transport, state: MetadataState, local: LocalPartitions, *, namespace: str, server_id: str
    ) -> None:
        self._transport = transport
        self._state = state
        self._local = local
        self._namespace = namespace
        self._server_id = server_id
        self._answering = Answering(transport, self._subject(server_id), self._answer)

    def _subject(self, server_id: str) -> str:
        return f"{self._namespace}.cluster.started.{server_id}"

    async def start(self) -> None:
        await self._answering.start()

    async def stop(self) -> None:
        await self._answering.stop()

    async def _answer(self, request: bytes) -> bytes | None:
        if len(request) != _INDEX_BYTES:
            return None
        await self._local.wait_reconciled(int.from_bytes(request, "big"), _ATTEMPT_S)
        return b"started"

    async def wait_until_done(self, stream_id: int, index: int, timeout_s: float) -> None:
        """Returns once every leader of the stream does what was committed at ``index``, or the time is over. Of a new stream,
        what is published to a leader that doesn't run yet isn't lost, but has to wait or to be repeated."""
        try:
            async with asyncio.timeout(timeout_s):
                while waiting := [
                    one for one in sorted(self._leaders(stream_id)) if not await self._has_done(one, index)
                ]:
                    logger.debug("stream %d: %s are behind index %d", stream_id, ", ".join(waiting), index)
        except TimeoutError:
            logger.warning("stream %d: not all of its leaders reached index %d in %g s", stream_id, index, timeout_s)

    def _leaders(self, stream_id: int) -> set[str]:
        """As of now: a server that was chosen may just have died, and another one been elected."""
        stream = self._state.stream_by_id(stream_id)
        return {partition.leader for partition in stream.partitions} - {""} if stream is not None else set()

    async def _has_done(self, leader: str, index: int) -> bool:
        if leader == self._server_id:
            await self._local.wait_reconciled(index, _ATTEMPT_S)
            return True
        request = index.to_bytes(_INDEX_BYTES, "big")
        try:
            await self._transport.request(self._subject(leader), request, timeout_s=_ATTEMPT_S)
        except TransportError:
            await asyncio.sleep(_RETRY_S)
            return False
        return True
