"""A member's conversation with its consumer group: joining, signs of life, generations, a coordinator that is gone."""

import contextlib
import time
from collections.abc import Mapping, Sequence

from liftbridge.client.brokers import Brokers, Deadline
from liftbridge.client.metadata import Stream
from liftbridge.errors import FailedPrecondition, NotFound, RequestError, Unavailable
from liftbridge.protocol.generated import api_pb2 as api

#: How long one question to the group may take.
_CALL_S = 5.0
#: A member asks at least so often, however patient the group is: that is how soon it hears of a rebalance.
_LONGEST_INTERVAL_S = 1.0
_NOT_A_MEMBER = "not a member"
_IS_A_MEMBER = "already a member"
#: How often a member without partitions looks whether its streams are there, and how often in a row they must not be: a server
#: that only started may know of none.
_LOOK_EVERY_S = 2.0
_LOOKS = 3


class StreamsGone(NotFound):
    """What a member reads was deleted: it will never get a message again."""


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
        self._created_ns: dict[str, int] = {}
        self._looked_s = 0.0
        self._looks_without_streams = 0
        self.epoch = 0
        self.interval_s = _LONGEST_INTERVAL_S
        self.assignments: frozenset[tuple[str, int]] = frozenset()

    async def join(self) -> None:
        """Raises FailedPrecondition for a stream that doesn't exist, and for a consumer ID that is taken."""
        streams = await self._fetch_streams()
        request = api.JoinConsumerGroupRequest(
            groupId=self._group_id, consumerId=self._consumer_id, streams=self._streams
        )
        response = await self._brokers.call_until_done("JoinConsumerGroup", request, Deadline(_CALL_S))
        self._coordinator, self.epoch = response.coordinator, response.epoch
        self._coordinator_timeout_s = response.coordinatorTimeout / 1e9
        self.interval_s = min(_LONGEST_INTERVAL_S, 0.4 * response.consumerTimeout / 1e9)
        self._answered_s = time.monotonic()
        self._created_ns = {name: streams[name].created_ns for name in self._streams if name in streams}
        self._looks_without_streams = 0

    async def leave(self) -> None:
        """Leaving what one isn't in is fine."""
        request = api.LeaveConsumerGroupRequest(groupId=self._group_id, consumerId=self._consumer_id)
        with contextlib.suppress(NotFound, FailedPrecondition):
            await self._brokers.call_until_done("LeaveConsumerGroup", request, Deadline(_CALL_S))

    async def refresh(self) -> None:
        """A sign of life; ``epoch`` and ``assignments`` are those of now. A member that the group gave up joins again.
        Raises StreamsGone, or Unavailable or what else is in the way: then ask again."""
        await self._refresh_assignments()
        if not self.assignments:
            await self._look_for_streams()

    async def _refresh_assignments(self) -> None:
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
                streams = await self._fetch_streams()
                self._refuse_gone([name for name in self._streams if name not in streams])
                raise
            await self._follow_group()

    async def _look_for_streams(self) -> None:
        """Nothing is assigned: others have all partitions, or there are none any more. Who read a stream that was deleted isn't
        assigned the one that was made in its place."""
        if time.monotonic() - self._looked_s < _LOOK_EVERY_S:
            return
        self._looked_s = time.monotonic()
        streams = await self._fetch_streams()
        if any(name in streams and self._is_same(streams[name]) for name in self._streams):
            self._looks_without_streams = 0
            return
        self._looks_without_streams += 1
        if self._looks_without_streams >= _LOOKS:
            self._refuse_gone(self._streams)

    def _is_same(self, stream: Stream) -> bool:
        return self._created_ns.get(stream.name, stream.created_ns) == stream.created_ns

    def _refuse_gone(self, names: Sequence[str]) -> None:
        if names:
            raise StreamsGone(
                f"consumer group {self._group_id}: deleted, so there is nothing to read: {', '.join(names)}"
            )

    async def _fetch_streams(self) -> Mapping[str, Stream]:
        return (await self._brokers.fetch(api.FetchMetadataRequest(), Deadline(_CALL_S))).streams

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
