"""Consumer groups as the metadata group replicates them: when a change is accepted, and what the groups are then."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from liftbridge.interfaces.events import MetadataEvent, MetadataEventKind
from liftbridge.metadata.commands import ChangeCoordinators, CoordinatorChange, JoinGroup, LeaveGroup
from liftbridge.metadata.group_assignments import assign
from liftbridge.metadata.model import (
    Applied,
    GroupState,
    MemberState,
    RefusalReason,
    Refused,
    ServerState,
    ServerStatus,
    StreamState,
)

Streams = Mapping[str, StreamState]
Servers = Mapping[str, ServerState]


class ConsumerGroups:
    """All groups. ``version`` grows with every change; ``tell`` gets the events."""

    def __init__(self, tell: Callable[[MetadataEvent], None]) -> None:
        self._groups: dict[str, GroupState] = {}
        self._tell = tell
        self.version = 0

    @property
    def by_id(self) -> Mapping[str, GroupState]:
        return MappingProxyType(self._groups)

    def restore(self, groups: Mapping[str, GroupState]) -> None:
        """Puts these in the place of all that were."""
        self._groups = dict(groups)
        self.version += 1

    def join(self, index: int, command: JoinGroup, streams: Streams, servers: Servers) -> Applied | Refused:
        """The first to join a group makes it."""
        if not all(stream in streams for stream in command.streams):
            return Refused(RefusalReason.NO_SUCH_STREAM_TO_CONSUME, "stream does not exist")
        group = self._groups.get(command.group_id)
        if group is not None and command.consumer_id in group.members:
            return Refused(RefusalReason.ALREADY_A_MEMBER, "consumer is already a member of the consumer group")
        if group is None:
            group = GroupState(command.group_id, index, index, self.least_busy(servers), index, {})
        consumed = tuple(sorted(set(command.streams)))
        member = MemberState(command.consumer_id, index, consumed, {})
        self._put(index, group, {**group.members, command.consumer_id: member}, streams)
        self._tell(
            MetadataEvent(
                index,
                MetadataEventKind.CONSUMER_JOINED,
                stream="",
                group=command.group_id,
                consumer=command.consumer_id,
                streams=consumed,
            )
        )
        return Applied(index)

    def leave(self, index: int, command: LeaveGroup, streams: Streams) -> Applied | Refused:
        """The last one takes the group with it."""
        group = self._groups.get(command.group_id)
        if group is None:
            return Refused(RefusalReason.NO_SUCH_GROUP, "consumer group does not exist")
        member = group.members.get(command.consumer_id)
        if member is None:
            return Refused(RefusalReason.NOT_A_MEMBER, "consumer is not a member of the consumer group")
        known = (member.joined_index, group.coordinator_index)
        if command.expired and known != (command.joined_index, command.coordinator_index):
            return Refused(RefusalReason.GROUP_CHANGED, "the consumer joined again, or has another coordinator")
        self._put(index, group, {name: one for name, one in group.members.items() if one is not member}, streams)
        self._tell(
            MetadataEvent(
                index,
                MetadataEventKind.CONSUMER_LEFT,
                stream="",
                group=command.group_id,
                consumer=command.consumer_id,
                expired=command.expired,
            )
        )
        return Applied(index)

    def change_coordinators(self, index: int, command: ChangeCoordinators, servers: Servers) -> Applied:
        """Each change on its own: of a group as it was when the change was computed, to a live server."""
        return Applied(index, tuple(self._change_coordinator(index, one, servers) for one in command.changes))

    def _change_coordinator(self, index: int, change: CoordinatorChange, servers: Servers) -> bool:
        group = self._groups.get(change.group_id)
        if group is None or group.changed_index != change.changed_index or change.coordinator not in live(servers):
            return False
        self._groups[group.group_id] = replace(
            group, changed_index=index, coordinator=change.coordinator, coordinator_index=index
        )
        self.version += 1
        return True

    def stream_deleted(self, index: int, name: str, streams: Streams) -> None:
        """Who consumed the stream doesn't any more, also not one that is created with the same name later."""
        for group in list(self._groups.values()):
            if any(name in member.streams for member in group.members.values()):
                members = {consumer: _without(member, name) for consumer, member in group.members.items()}
                self._put(index, group, members, streams)

    def least_busy(self, servers: Servers, *, but: Iterable[str] = ()) -> str:
        """The live server that coordinates the fewest groups; "" when no server is live."""
        coordinated = Counter(group.coordinator for group in self._groups.values())
        candidates = set(live(servers)) - set(but)
        return min(candidates, key=lambda one: (coordinated[one], one), default="")

    def _put(self, index: int, group: GroupState, members: Mapping[str, MemberState], streams: Streams) -> None:
        """The group has these members now; partitions are assigned anew."""
        self.version += 1
        if not members:
            del self._groups[group.group_id]
            return
        consumed = {consumer: member.streams for consumer, member in members.items()}
        counts = {name: len(streams[name].partitions) for names in consumed.values() for name in names}
        assigned = assign(consumed, counts, {consumer: member.assigned for consumer, member in members.items()})
        self._groups[group.group_id] = replace(
            group,
            changed_index=index,
            members={name: replace(one, assigned=assigned[name]) for name, one in members.items()},
        )


def live(servers: Servers) -> list[str]:
    return [one.server_id for one in servers.values() if one.status is ServerStatus.LIVE]


def _without(member: MemberState, stream: str) -> MemberState:
    return replace(member, streams=tuple(one for one in member.streams if one != stream))
