"""Subscribe: the checks in the original's order, then a subscription."""

from liftbridge.broker.api import CallContext
from liftbridge.broker.group_subscriptions import GroupAccess
from liftbridge.errors import FailedPrecondition, InternalError, InvalidRequest, NotFound, Unavailable
from liftbridge.metadata.state import MetadataState
from liftbridge.partition.manager import LocalPartition, PartitionManager
from liftbridge.partition.partition import Partition
from liftbridge.partition.subscription import PartitionSubscription, resolve_range
from liftbridge.protocol.generated import api_pb2 as api

#: How long a subscriber waits for a leader that is new to its role.
_SETTLE_TIMEOUT_S = 5.0


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


async def subscribe(
    request: api.SubscribeRequest,
    call: CallContext,
    state: MetadataState,
    partitions: PartitionManager,
    groups: GroupAccess,
) -> PartitionSubscription:
    """Accepts a subscription or raises what the client gets (reference: the original's API, section 5.2)."""
    del call
    consumer = request.consumer
    if consumer.groupId and not consumer.consumerId:
        raise InvalidRequest("Consumer id cannot be empty when group id is provided")
    stream = state.streams.get(request.stream)
    if stream is None or not 0 <= request.partition < len(stream.partitions):
        raise NotFound("No such partition")
    local = partitions.get(request.stream, request.partition)
    if local is not None and local.damage is not None:
        raise InternalError(f"partition {request.partition} of stream {request.stream} is offline: {local.damage}")
    if local is None or local.partition is None or not _serves(local, request):
        raise FailedPrecondition("Server not partition leader")
    if consumer.groupId and not local.is_leader:
        raise InvalidRequest("Consumer groups not compatible with ReadISRReplica")
    if consumer.groupId:
        await groups.catch_up()
    if _asks_for_the_end(request, local.partition) and not await local.wait_settled(_SETTLE_TIMEOUT_S):
        raise Unavailable("the partition doesn't know yet how much of it is committed: a replica is missing, try again")
    read_range = resolve_range(local.partition, request)
    if consumer.groupId:
        return groups.open(local, read_range, consumer)
    return PartitionSubscription(local.partition, read_range)
