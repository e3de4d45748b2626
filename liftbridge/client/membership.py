"""A member's conversation with its consumer group: joining, signs of life, generations, a coordinator that is gone."""

import contextlib
import time
from collections.abc import Sequence

from liftbridge.client.brokers import Brokers, Deadline
from liftbridge.errors import FailedPrecondition, NotFound, RequestError, Unavailable
from liftbridge.protocol.generated import api_pb2 as api

#: How long one question to the group may take.
_CALL_S = 5.0
#: A member asks at least so often, however patient the group is: that is how soon it hears of a rebalance.
_LONGEST_INTERVAL_S = 1.0
_NOT_A_MEMBER = "not a member"
_IS_A_MEMBER = "already a member"


class Membership:
    """``epoch`` is the generation that ``assignments`` belong to, as (stream, partition)."""

    def __init__(self, brokers: Brokers, group_id: str, consumer_id: str, streams: Sequence[str]) -> None:
        self._brokers = brokers
        self._group_id = group_id
        self._consumer_id = consumer_id
        self._streams = tuple(streams)
        self._coordinator = ""
        self._coordinator_timeout_s = 15.0
        self._answered_s = time.monotonic()
        self.epoch = 0
        self.interval_s = _LONGEST_INTERVAL_S
        self.assignments: frozenset[tuple[str, int]] = frozenset()

    async def join(self) -> None:
        """Raises FailedPrecondition for a stream that doesn't exist, and for a consumer ID that is taken."""
        request = api.JoinConsumerGroupRequest(
            groupId=self._group_id, consumerId=self._consumer_id, streams=self._streams
        )
        response = await self._brokers.call_until_done("JoinConsumerGroup", request, Deadline(_CALL_S))
        self._coordinator, self.epoch = response.coordinator, response.epoch
        self._coordinator_timeout_s = response.coordinatorTimeout / 1e9
        self.interval_s = min(_LONGEST_INTERVAL_S, 0.4 * response.consumerTimeout / 1e9)
        self._answered_s = time.monotonic()

    async def leave(self) -> None:
        """Leaving what one isn't in is fine."""
        request = api.LeaveConsumerGroupRequest(groupId=self._group_id, consumerId=self._consumer_id)
        with contextlib.suppress(NotFound, FailedPrecondition):
            await self._brokers.call_until_done("LeaveConsumerGroup", request, Deadline(_CALL_S))

    async def refresh(self) -> None:
        """A sign of life; ``epoch`` and ``assignments`` are those of now. A member that the group gave up joins again.
        Raises Unavailable, or what else is in the way: then ask again."""
        try:
            await self._fetch_assignments()
        except (NotFound, FailedPrecondition) as error:
            if isinstance(error, NotFound) or _NOT_A_MEMBER in str(error):
                self.assignments = frozenset()
                await self._join_again()
            elif not await self._follow_group():
                raise Unavailable(str(error)) from None
            await self._fetch_assignments()
        except RequestError:
            if not await self._follow_group() and time.monotonic() - self._answered_s > self._coordinator_timeout_s:
                await self._report()
            raise

    async def _fetch_assignments(self) -> None:
        request = api.FetchConsumerGroupAssignmentsRequest(
            groupId=self._group_id, consumerId=self._consumer_id, epoch=self.epoch
        )
        deadline = Deadline(_CALL_S)
        address = await self._brokers.address_of(self._coordinator, deadline)
        response = await self._brokers.call(
            "FetchConsumerGroupAssignments", request, deadline, address=address, elsewhere=False
        )
        self._answered_s = time.monotonic()
        self.epoch = response.epoch
        self.assignments = frozenset(
            (one.stream, partition) for one in response.assignments for partition in one.partitions
        )

    async def _join_again(self) -> None:
        try:
            await self.join()
        except FailedPrecondition as error:
            if _IS_A_MEMBER not in str(error):
                raise
            await self._follow_group()

    async def _follow_group(self) -> bool:
        """Takes over the group's coordinator and epoch; True if one of them is another."""
        request = api.FetchMetadataRequest(groups=[self._group_id])
        group = (await self._brokers.fetch(request, Deadline(_CALL_S))).groups.get(self._group_id)
        if group is None or (group.coordinator, group.epoch) == (self._coordinator, self.epoch):
            return False
        self._coordinator, self.epoch = group.coordinator, group.epoch
        return True

    async def _report(self) -> None:
        """The group gets another coordinator when enough members say that this one doesn't answer."""
        request = api.ReportConsumerGroupCoordinatorRequest(
            groupId=self._group_id, consumerId=self._consumer_id, coordinator=self._coordinator, epoch=self.epoch
        )
        with contextlib.suppress(
            RequestError
        ):  # it was replaced already, or nobody can take over yet: asked again anyway
            await self._brokers.call("ReportConsumerGroupCoordinator", request, Deadline(_CALL_S))
