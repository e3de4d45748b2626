"""Subscriptions of consumer groups: served while this server leads the partition and the consumer is assigned it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from liftbridge.errors import FailedPrecondition, Unavailable
from liftbridge.groups.readers import GroupReader, GroupReaders
from liftbridge.metadata.state import MetadataState
from liftbridge.partition.local import LocalPartition
from liftbridge.partition.partition import Partition, PartitionKey
from liftbridge.partition.subscription import PartitionSubscription, ReadRange
from liftbridge.protocol.generated import api_pb2 as api

_LEASE_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class GroupAccess:
    """What group subscriptions need to know of this server. ``catch_up`` returns once it knows the metadata that was
    committed before the call; while it ``holds_lease``, nobody else leads what it leads, but for half a session time-out
    after a leader that lives was replaced and cut off (Heartbeats)."""

    state: MetadataState
    readers: GroupReaders
    server_id: str
    catch_up: Callable[[], Awaitable[None]]
    holds_lease: Callable[[], bool]

    def open(self, local: LocalPartition, read_range: ReadRange, consumer: api.Consumer) -> "GroupSubscription":
        """Takes the group's place on the partition. Raises FailedPrecondition when it isn't the consumer's, or when
        this server doesn't lead it any more. Call ``catch_up`` before."""
        key = local.assignment.key
        state = self.state.partition(key.stream_id, key.partition)
        if local.partition is None or not local.is_leader or state is None or state.leader != self.server_id:
            raise FailedPrecondition("Server not partition leader")
        reader = GroupReader(key, consumer.groupId, consumer.consumerId, consumer.groupEpoch)
        subscription = GroupSubscription(local.partition, read_range, reader, state.leader_epoch, self)
        self.readers.attach(reader, subscription)
        return subscription


class GroupSubscription(PartitionSubscription):
    """Ends without an error once another member has the partition, and with Unavailable once another server, or another
    epoch of this one, leads it: then the consumer subscribes there, and nobody reads beside it here."""

    def __init__(
        self, partition: Partition, read_range: ReadRange, reader: GroupReader, leader_epoch: int, access: GroupAccess
    ) -> None:
        super().__init__(partition, read_range)
        self._reader = reader
        self._leader_epoch = leader_epoch
        self._access = access

    async def read(self, max_bytes: int) -> bytes:
        while not self._access.holds_lease():
            await asyncio.sleep(_LEASE_POLL_S)
        return await super().read(max_bytes)

    def _is_over(self) -> bool:
        key: PartitionKey = self._reader.key
        state = self._access.state.partition(key.stream_id, key.partition)
        if state is not None and state.leader_epoch != self._leader_epoch:
            raise Unavailable("the partition has another leader")
        return super()._is_over()

    def close(self) -> None:
        super().close()
        self._access.readers.detach(self._reader, self)
