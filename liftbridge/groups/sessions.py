"""When the members of the groups that one server coordinates were last heard, without IO.

A member that asks with the present epoch is alive and knows what it has to do. One that asks with an epoch that is over
is alive too, but may never learn: it counts as heard when that epoch ended. So members live through any number of
changes in a row, each of which costs them a refused call, and yet nobody holds partitions for ever with an old epoch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from liftbridge.metadata.commands import LeaveGroup
from liftbridge.metadata.model import GroupState


@dataclass(slots=True)
class _GroupSessions:
    """``heard_ns``: by consumer and where it joined, because one that joined again is another member. ``ended_ns``: of
    epochs, as long as they count."""

    group: GroupState
    heard_ns: dict[tuple[str, int], int]
    ended_ns: dict[int, int] = field(default_factory=dict)


class MemberSessions:
    """All groups that ``server_id`` coordinates. Times are on the monotonic clock."""

    def __init__(self, server_id: str, timeout_ns: int) -> None:
        self._server_id = server_id
        self._timeout_ns = timeout_ns
        self._groups: dict[str, _GroupSessions] = {}

    def __bool__(self) -> bool:
        """Whether there is anything to watch over."""
        return bool(self._groups)

    def follow(self, groups: Mapping[str, GroupState], now_ns: int) -> None:
        """Takes over what the groups are now. Who is new here, or came with a group that is, has been heard just now."""
        before, self._groups = self._groups, {}
        for group in groups.values():
            if group.coordinator == self._server_id:
                sessions = before.get(group.group_id)
                if sessions is None or sessions.group.coordinator_index != group.coordinator_index:
                    sessions = _GroupSessions(group, _members_at(group, now_ns))
                elif sessions.group is not group:
                    self._update(sessions, group, now_ns)
                self._groups[group.group_id] = sessions

    def _update(self, sessions: _GroupSessions, group: GroupState, now_ns: int) -> None:
        if group.epoch != sessions.group.epoch:
            sessions.ended_ns[sessions.group.epoch] = now_ns
        counting = now_ns - self._timeout_ns
        sessions.ended_ns = {epoch: ended for epoch, ended in sessions.ended_ns.items() if ended >= counting}
        sessions.heard_ns = _members_at(group, now_ns) | {
            member: heard for member, heard in sessions.heard_ns.items() if _is_member(group, *member)
        }
        sessions.group = group

    def heard(self, group_id: str, consumer_id: str, epoch: int, now_ns: int) -> None:
        """The member called, and gave this epoch."""
        sessions = self._groups.get(group_id)
        member = sessions.group.members.get(consumer_id) if sessions is not None else None
        if sessions is None or member is None:
            return
        counts_ns = now_ns if epoch == sessions.group.epoch else sessions.ended_ns.get(epoch)
        if counts_ns is not None:
            key = (consumer_id, member.joined_index)
            sessions.heard_ns[key] = max(sessions.heard_ns[key], counts_ns)

    def start_afresh(self, now_ns: int) -> None:
        """This server couldn't hear anybody for a while: everybody gets a whole time-out again."""
        for sessions in self._groups.values():
            sessions.heard_ns = _members_at(sessions.group, now_ns)

    def overdue(self, now_ns: int) -> list[LeaveGroup]:
        """Removes, when proposed, those that are silent for too long. They stay on the list until they are removed, or
        heard."""
        return [
            LeaveGroup(group_id, consumer_id, True, joined_index, sessions.group.coordinator_index)
            for group_id, sessions in self._groups.items()
            for (consumer_id, joined_index), heard_ns in sessions.heard_ns.items()
            if now_ns - heard_ns > self._timeout_ns
        ]


def _members_at(group: GroupState, heard_ns: int) -> dict[tuple[str, int], int]:
    return {(member.consumer_id, member.joined_index): heard_ns for member in group.members.values()}


def _is_member(group: GroupState, consumer_id: str, joined_index: int) -> bool:
    member = group.members.get(consumer_id)
    return member is not None and member.joined_index == joined_index
