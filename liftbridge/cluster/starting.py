"""Waiting until the leaders of a new stream run, on whichever servers they are."""

import asyncio
import logging
from typing import Protocol

from liftbridge.cluster.answering import Answering
from liftbridge.errors import TransportError
from liftbridge.interfaces.transport import Transport
from liftbridge.metadata.state import MetadataState

logger = logging.getLogger(__name__)

_ANSWER_WITHIN_S = 5.0
_STREAM_ID_BYTES = 8


class LocalPartitions(Protocol):
    """This server's."""

    async def wait_started(self, stream_id: int, timeout_s: float) -> None:
        """Returns once every partition of the stream that this server leads runs, or the time is over."""


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
        if len(request) != _STREAM_ID_BYTES:
            return None
        await self._local.wait_started(int.from_bytes(request, "big"), _ANSWER_WITHIN_S)
        return b"started"

    async def wait_started(self, stream_id: int, timeout_s: float) -> None:
        """Returns once every leader of the stream runs, or the time is over: what is published to a leader that doesn't
        run yet isn't lost, but has to wait or to be repeated."""
        stream = self._state.stream_by_id(stream_id)
        leaders = {partition.leader for partition in stream.partitions} - {""} if stream is not None else set()
        await asyncio.gather(*(self._wait(leader, stream_id, timeout_s) for leader in leaders))

    async def _wait(self, leader: str, stream_id: int, timeout_s: float) -> None:
        if leader == self._server_id:
            await self._local.wait_started(stream_id, timeout_s)
            return
        request = stream_id.to_bytes(_STREAM_ID_BYTES, "big")
        try:
            await self._transport.request(self._subject(leader), request, timeout_s=timeout_s)
        except TransportError as error:
            logger.warning(
                "stream %d: server %s doesn't say that it leads its partitions: %s", stream_id, leader, error
            )
