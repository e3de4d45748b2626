"""The calls for consumer groups. Texts and their order are the original's (reference: its API, section 10.1)."""

from dataclasses import dataclass

from liftbridge.broker.api import CallContext
from liftbridge.broker.deadlines import remaining_s
from liftbridge.broker.validation import MAX_NAME_BYTES
from liftbridge.clock import Clock
from liftbridge.errors import InvalidRequest
from liftbridge.groups.coordinator import GroupCoordinator
from liftbridge.metadata.controller import MetadataController
from liftbridge.protocol.generated import api_pb2 as api

#: More than any consumer reads, and few enough that joining stays one small entry of the metadata log.
_MAX_STREAMS = 1000


@dataclass(frozen=True, slots=True)
class GroupTimeouts:
    """What consumers are told when they join: after how long without a call they are removed, and after how long without
    an answer they should report their coordinator."""

    consumer_s: float
    coordinator_s: float


class GroupHandlers:
    """Any server answers these, but for the assignments, which the coordinator has."""

    def __init__(
        self, controller: MetadataController, coordinator: GroupCoordinator, clock: Clock, timeouts: GroupTimeouts
    ) -> None:
        self._controller = controller
        self._coordinator = coordinator
        self._clock = clock
        self._timeouts = timeouts

    async def join(self, request: api.JoinConsumerGroupRequest, call: CallContext) -> api.JoinConsumerGroupResponse:
        """Answers once the consumer is a member."""
        _check_names(request.groupId, request.consumerId)
        if not request.streams:
            raise InvalidRequest("No streams provided")
        if len(request.streams) > _MAX_STREAMS:
            raise InvalidRequest(f"Invalid streams: {len(request.streams)} are more than {_MAX_STREAMS}")
        group = await self._controller.join_group(
            request.groupId, request.consumerId, request.streams, timeout_s=remaining_s(call, self._clock)
        )
        return api.JoinConsumerGroupResponse(
            coordinator=group.coordinator,
            epoch=group.epoch,
            consumerTimeout=int(self._timeouts.consumer_s * 1e9),
            coordinatorTimeout=int(self._timeouts.coordinator_s * 1e9),
        )

    async def leave(self, request: api.LeaveConsumerGroupRequest, call: CallContext) -> api.LeaveConsumerGroupResponse:
        """Answers once the consumer is no member any more."""
        _check_names(request.groupId, request.consumerId)
        await self._controller.leave_group(
            request.groupId, request.consumerId, timeout_s=remaining_s(call, self._clock)
        )
        return api.LeaveConsumerGroupResponse()

    async def fetch_assignments(
        self, request: api.FetchConsumerGroupAssignmentsRequest, call: CallContext
    ) -> api.FetchConsumerGroupAssignmentsResponse:
        """The member's partitions; also its sign of life."""
        del call
        _check_names(request.groupId, request.consumerId)
        epoch, member = await self._coordinator.assignments(request.groupId, request.consumerId, request.epoch)
        return api.FetchConsumerGroupAssignmentsResponse(
            epoch=epoch,
            assignments=[
                api.PartitionAssignment(stream=stream, partitions=partitions)
                for stream, partitions in member.assigned.items()
            ],
        )

    async def report_coordinator(
        self, request: api.ReportConsumerGroupCoordinatorRequest, call: CallContext
    ) -> api.ReportConsumerGroupCoordinatorResponse:
        """Answers once the report counts, and the group has another coordinator if it was the last one needed."""
        _check_names(request.groupId, request.consumerId)
        if not request.coordinator:
            raise InvalidRequest("No coordinator provided")
        await self._controller.report_coordinator(
            request.groupId,
            request.consumerId,
            request.coordinator,
            request.epoch,
            timeout_s=remaining_s(call, self._clock),
        )
        return api.ReportConsumerGroupCoordinatorResponse()


def _check_names(group_id: str, consumer_id: str) -> None:
    for field, text in (("groupId", group_id), ("consumerId", consumer_id)):
        if not text:
            raise InvalidRequest(f"No {field} provided")
        if len(text.encode()) > MAX_NAME_BYTES:
            raise InvalidRequest(f"Invalid {field}: it is longer than {MAX_NAME_BYTES} bytes")
