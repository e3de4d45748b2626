"""Before a leader that lives is replaced: its publishers get their answers, and the next ones wait for its successor.

Without this a planned change of leader would answer like a crash, "outcome unknown", to everything on its way.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Sequence

from google.protobuf.message import DecodeError

from liftbridge.cluster.answering import Answering
from liftbridge.errors import TransportError
from liftbridge.interfaces.log import LogId
from liftbridge.interfaces.transport import Transport
from liftbridge.metadata.commands import PartitionChange
from liftbridge.metadata.state import MetadataState
from liftbridge.partition.manager import PartitionManager
from liftbridge.protocol.generated import internal_pb2 as internal

logger = logging.getLogger(__name__)

#: For the last acks. A cluster that commits needs a few milliseconds.
_QUIET_S = 0.5
#: For the answer of a leader; one that doesn't come doesn't stop the change.
_ANSWER_S = 0.8


def _subject(namespace: str, server_id: str) -> str:
    return f"{namespace}.cluster.handover.{server_id}"


async def prepare_successors(
    transport: Transport, namespace: str, state: MetadataState, changes: Sequence[PartitionChange]
) -> None:
    """Tells the present leaders of the partitions, and returns when each is quiet or had its time. ``changes`` are what
    will be proposed; those that leave a leader in place, or replace none, are left out."""
    requests: dict[str, internal.HandOver] = defaultdict(internal.HandOver)
    for change in changes:
        partition = state.partition(change.stream_id, change.partition)
        if change.leader and partition is not None and partition.leader not in ("", change.leader):
            requests[partition.leader].partitions.add(
                stream_id=change.stream_id, partition=change.partition, leader_epoch=partition.leader_epoch
            )
    await asyncio.gather(*(_prepare(transport, namespace, leader, one) for leader, one in requests.items()))


async def _prepare(transport: Transport, namespace: str, leader: str, request: internal.HandOver) -> None:
    try:
        await transport.request(_subject(namespace, leader), request.SerializeToString(), timeout_s=_ANSWER_S)
    except TransportError as error:
        logger.warning("server %s hands over without preparing for it: %s", leader, error)


class HandingOver:
    """The leader's side."""

    def __init__(self, transport: Transport, partitions: PartitionManager, *, namespace: str, server_id: str) -> None:
        self._partitions = partitions
        self._answering = Answering(transport, _subject(namespace, server_id), self._hand_over)

    async def start(self) -> None:
        await self._answering.start()

    async def stop(self) -> None:
        await self._answering.stop()

    async def _hand_over(self, payload: bytes) -> bytes | None:
        try:
            request = internal.HandOver.FromString(payload)
        except DecodeError:
            logger.warning("A request of %d bytes to hand over was ignored: it makes no sense", len(payload))
            return None
        quiet = await asyncio.gather(
            *(
                self._partitions.hand_over(LogId(one.stream_id, one.partition), one.leader_epoch, _QUIET_S)
                for one in request.partitions
            )
        )
        if not all(quiet):
            logger.warning("%d of %d partitions are handed over while publishers wait", quiet.count(False), len(quiet))
        return b"quiet"
