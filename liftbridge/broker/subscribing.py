"""Subscribe: the checks in the original's order, then a subscription."""

from dataclasses import dataclass

from liftbridge.broker.api import Subscription
from liftbridge.broker.group_subscriptions import GroupAccess
from liftbridge.errors import (
    FailedPrecondition,
    InternalError,
    InvalidRequest,
    LiftbridgeError,
    LogClosed,
    NotFound,
    Unavailable,
)
from liftbridge.metadata.model import StreamState
from liftbridge.metadata.resuming import Resumer
from liftbridge.metadata.state import MetadataState
from liftbridge.partition.local import LocalPartition
from liftbridge.partition.manager import PartitionManager
from liftbridge.partition.partition import Partition, PartitionKey
from liftbridge.partition.subscription import EndedSubscription, PartitionSubscription, resolve_range
from liftbridge.protocol.generated import api_pb2 as api

#: How long a subscriber waits for a leader that is new to its role.
_SETTLE_TIMEOUT_S = 5.0
#: The same for one that metadata names and that doesn't run yet, because it was just created or resumed.
_START_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Subscribing:
    """Opens subscriptions."""

    state: MetadataState
    partitions: PartitionManager
    groups: GroupAccess
    resumer: Resumer
    server_id: str

    async def subscribe(self, request: api.SubscribeRequest) -> Subscription:
        """Accepts a subscription or raises what the client gets (reference: the original's API, section 5.2)."""
        consumer = request.consumer
        if consumer.groupId and not consumer.consumerId:
            raise InvalidRequest("Consumer id cannot be empty when group id is provided")
        stream = self.state.streams.get(request.stream)
        if stream is None or not 0 <= request.partition < len(stream.partitions):
            raise NotFound("No such partition")
        self._check_leader(stream, request)
        if request.resume:
            await self._resume(stream, request.partition)
        elif stream.partitions[request.partition].paused:
            # Clients know a running subscription that ends so; anything else they take for a wrong server, and try again.
            return EndedSubscription(LogClosed("commit log was closed"))
        local, partition = await self._local(request)
        if consumer.groupId:
            await self.groups.catch_up()
        if _asks_for_the_end(request, partition) and not await local.wait_settled(_SETTLE_TIMEOUT_S):
            raise Unavailable(
                "the partition doesn't know yet how much of it is committed: a replica is missing, try again"
            )
        if request.startPosition == api.StartPosition.OFFSET and request.startOffset > partition.high_watermark:
            await self._look_for_end(request.startOffset, local)
        read_range = resolve_range(partition, request)
        if consumer.groupId:
            return self.groups.open(local, read_range, consumer)
        return PartitionSubscription(partition, read_range)

    async def _look_for_end(self, offset: int, local: LocalPartition) -> None:
        """An offset beyond what is committed here may be in the future, and then the subscription begins at the end. More
        likely its client has read up to it elsewhere: from a leader, while this follower hears late what is committed, or
        from a later leader that this one doesn't know of. To begin at the end here would give it again what it has."""
        leader = local.leader
        if leader is None:
            if not await local.wait_committed(offset, _SETTLE_TIMEOUT_S):
                raise Unavailable(f"this replica knows of nothing committed up to offset {offset}: ask the leader")
            return
        await self.groups.catch_up()
        known = self.state.partition(*local.assignment.key.log_id)
        if local.leader is not leader or known is None or known.leader_epoch != leader.leader_epoch:
            raise FailedPrecondition("Server not partition leader")

    def _check_leader(self, stream: StreamState, request: api.SubscribeRequest) -> None:
        state = stream.partitions[request.partition]
        if state.leader == self.server_id:
            return
        if not request.readISRReplica or self.server_id not in state.replicas:
            raise FailedPrecondition("Server not partition leader")
        if request.consumer.groupId:
            raise InvalidRequest("Consumer groups not compatible with ReadISRReplica")

    async def _resume(self, stream: StreamState, number: int) -> None:
        try:
            await self.resumer.resume(PartitionKey(stream.name, number, stream.stream_id))
        except LiftbridgeError as error:
            raise InternalError(f"Failed to resume stream: {error}") from error

    async def _local(self, request: api.SubscribeRequest) -> tuple[LocalPartition, Partition]:
        """The partition on this server, in its role."""
        await self.partitions.wait_serving(request.stream, request.partition, _START_TIMEOUT_S)
        local = self.partitions.get(request.stream, request.partition)
        if local is not None and local.damage is not None:
            raise InternalError(f"partition {request.partition} of stream {request.stream} is offline: {local.damage}")
        if local is None or local.partition is None or not _serves(local, request):
            raise FailedPrecondition("Server not partition leader")
        return local, local.partition


def _serves(local: LocalPartition, request: api.SubscribeRequest) -> bool:
    return local.is_leader or (request.readISRReplica and local.role is not None)


def _asks_for_the_end(request: api.SubscribeRequest, partition: Partition) -> bool:
    """Whether a position depends on what is committed, which a new leader has to find out: a client that got an answer
    before would see the end go back."""
    if request.stopPosition not in (api.StopPosition.STOP_ON_CANCEL, api.StopPosition.STOP_OFFSET) or request.reverse:
        return True
    if request.startPosition == api.StartPosition.OFFSET:
        return bool(request.startOffset > partition.high_watermark)
    return request.startPosition != api.StartPosition.EARLIEST
