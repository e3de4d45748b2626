"""Consumer groups as every server holds them."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from metadata_states import States

from liftbridge.interfaces.events import MetadataEvent, MetadataEventKind
from liftbridge.metadata.commands import (
    ChangeCoordinators,
    Command,
    CoordinatorChange,
    DeleteStream,
    JoinGroup,
    LeaveGroup,
    encode_command,
)
from liftbridge.metadata.model import Applied, GroupState, Refused, ServerStatus
from liftbridge.metadata.state import MetadataState


class Groups(States):
    """Two servers and streams ``s`` and ``t`` of four partitions each."""

    def __init__(self) -> None:
        super().__init__()
        self.register("a", "b")
        for stream in "st":
            self.create(stream, *["ab"] * 4)
        self.events: list[MetadataEvent] = []
        self.state.subscribe_events(self.events.append)

    def join(self, consumer: str, *streams: str, group: str = "g") -> int:
        applied = self.apply(JoinGroup(group, consumer, streams or ("s",)))
        assert isinstance(applied, Applied)
        return applied.index

    def leave(self, consumer: str, *, group: str = "g", **how: Any) -> Applied | Refused:
        return self.apply(LeaveGroup(group, consumer, **how))

    def expire(self, consumer: str) -> Applied | Refused:
        """As the coordinator knows the consumer now."""
        group = self.group()
        joined, coordinator = group.members[consumer].joined_index, group.coordinator_index
        return self.leave(consumer, expired=True, joined_index=joined, coordinator_index=coordinator)

    def group(self, name: str = "g") -> GroupState:
        return self.state.groups[name]

    def move(self, coordinator: str, *, changed_index: int | None = None, group: str = "g") -> bool:
        known = self.group(group).changed_index if changed_index is None else changed_index
        applied = self.apply(ChangeCoordinators((CoordinatorChange(group, known, coordinator),)))
        assert isinstance(applied, Applied)
        return applied.accepted == (True,)


@pytest.fixture
def groups() -> Groups:
    return Groups()


def test_a_new_group_has_epoch_0_and_every_change_gives_it_its_index(groups: Groups) -> None:
    groups.join("c1")
    assert groups.group().epoch == 0
    assert groups.join("c2") == groups.group().epoch
    left = groups.leave("c1")
    assert isinstance(left, Applied)
    assert left.index == groups.group().epoch > 0


def test_the_last_to_leave_takes_the_group_with_it_and_the_next_one_is_new(groups: Groups) -> None:
    groups.join("c1")
    groups.join("c2")
    groups.leave("c1")
    groups.leave("c2")
    assert "g" not in groups.state.groups
    groups.join("c1")
    assert groups.group().epoch == 0


def test_partitions_are_shared_and_come_back_when_somebody_leaves(groups: Groups) -> None:
    groups.join("c1", "s", "t")
    groups.join("c2", "t", "s", "s")
    assert groups.group().members["c2"].streams == ("s", "t")
    assert sorted(len(one.assigned["s"]) for one in groups.group().members.values()) == [2, 2]
    assert groups.group().assigns("c1", "s", 0) != groups.group().assigns("c2", "s", 0)
    groups.leave("c2")
    assert groups.group().members["c1"].assigned == {"s": (0, 1, 2, 3), "t": (0, 1, 2, 3)}


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (JoinGroup("g", "c1", ("s",)), "consumer is already a member of the consumer group"),
        (JoinGroup("g", "c2", ("s", "nowhere")), "stream does not exist"),
        (JoinGroup("new", "c2", ("nowhere",)), "stream does not exist"),
        (LeaveGroup("nobody", "c1"), "consumer group does not exist"),
        (LeaveGroup("g", "c9"), "consumer is not a member of the consumer group"),
        (LeaveGroup("g", "c9", expired=True), "consumer is not a member of the consumer group"),
    ],
)
def test_what_is_refused_changes_nothing(groups: Groups, command: Command, message: str) -> None:
    groups.join("c1")
    before = groups.state.snapshot(), groups.state.groups_version
    refused = groups.apply(command)
    assert isinstance(refused, Refused)
    assert refused.message == message
    assert groups.state.groups_version == before[1]
    assert set(groups.state.groups) == {"g"}


def test_nobody_expires_who_joined_again_or_got_another_coordinator(groups: Groups) -> None:
    first = groups.join("c1")
    groups.leave("c1")
    again = groups.join("c1")
    assert isinstance(groups.leave("c1", expired=True, joined_index=first, coordinator_index=first), Refused)
    groups.move("b")
    assert isinstance(groups.leave("c1", expired=True, joined_index=again, coordinator_index=again), Refused)
    assert isinstance(groups.expire("c1"), Applied)
    assert not groups.state.groups


def test_several_may_expire_as_the_coordinator_knew_them_before_the_first_did(groups: Groups) -> None:
    joined = {consumer: groups.join(consumer) for consumer in ("c1", "c2", "c3")}
    for consumer in ("c1", "c3"):
        groups.leave(consumer, expired=True, joined_index=joined[consumer], coordinator_index=joined["c1"])
    assert set(groups.group().members) == {"c2"}


def test_a_deleted_stream_is_no_longer_consumed_and_the_rest_is_shared_anew(groups: Groups) -> None:
    groups.join("c1", "s", "t")
    groups.join("c2", "t")
    groups.join("other", "t", group="untouched")
    deleted = groups.apply(DeleteStream("s"))
    assert isinstance(deleted, Applied)
    assert groups.group().epoch == deleted.index
    assert [len(one.assigned["t"]) for one in groups.group().members.values()] == [2, 2]
    assert groups.group("untouched").epoch == 0
    groups.create("s", *["ab"] * 4)
    assert not groups.group().assigns("c1", "s", 0), "another stream of the same name"


def test_the_coordinator_is_the_live_server_with_the_fewest_groups(groups: Groups) -> None:
    groups.register("c")
    groups.set_status("a", ServerStatus.DOWN)
    for number in range(4):
        groups.join("c1", group=f"g{number}")
    assert [groups.group(f"g{number}").coordinator for number in range(4)] == ["b", "c", "b", "c"]


def test_another_coordinator_must_be_live_and_the_group_as_it_was(groups: Groups) -> None:
    created = groups.join("c1")
    assert groups.group().coordinator == "a"
    groups.set_status("b", ServerStatus.DRAINING)
    assert not groups.move("b")
    assert not groups.move("nobody")
    groups.set_status("b", ServerStatus.LIVE)
    joined = groups.join("c2")
    assert not groups.move("b", changed_index=created)
    assert groups.group().epoch == joined
    assert groups.move("b")
    assert groups.group().coordinator == "b"
    assert groups.group().epoch == groups.group().coordinator_index > joined


def test_observers_hear_who_joins_and_leaves(groups: Groups) -> None:
    groups.join("c1", "t", "s")
    groups.expire("c1")
    heard = [(one.kind, one.group, one.consumer, one.streams, one.expired) for one in groups.events]
    assert heard == [
        (MetadataEventKind.CONSUMER_JOINED, "g", "c1", ("s", "t"), False),
        (MetadataEventKind.CONSUMER_LEFT, "g", "c1", (), True),
    ]


_consumers = st.sampled_from(["c1", "c2", "c3", "c4"])
_streams = st.lists(st.sampled_from(["s", "t", "u"]), min_size=1, max_size=2).map(tuple)
_groups = st.sampled_from(["g", "h"])
_operations = st.one_of(
    st.builds(JoinGroup, _groups, _consumers, _streams),
    st.builds(LeaveGroup, _groups, _consumers),
    st.builds(DeleteStream, st.sampled_from(["s", "t"])),
    st.tuples(_groups, st.sampled_from(["a", "b"])),
)


@settings(max_examples=60)
@given(st.lists(_operations, max_size=25), st.integers(0, 25))
def test_a_server_that_starts_from_a_snapshot_ends_up_the_same(
    operations: list[Command | tuple[str, str]], cut: int
) -> None:
    groups = Groups()
    replica = MetadataState()
    restored = False
    for place, operation in enumerate(operations):
        if place == cut:
            replica.restore(groups.state.snapshot())
            restored = True
        command = operation if not isinstance(operation, tuple) else _move(groups, *operation)
        outcome = groups.apply(command)
        if restored:
            assert replica.apply(groups.state.applied_index, encode_command(command)) == outcome
    if not restored:
        replica.restore(groups.state.snapshot())
    assert replica.groups == groups.state.groups
    assert replica.snapshot() == groups.state.snapshot()
    for group in groups.state.groups.values():
        assert group.members
        _check_that_everything_consumed_is_assigned(group)


def _move(groups: Groups, group: str, server: str) -> ChangeCoordinators:
    known = groups.state.groups.get(group)
    return ChangeCoordinators((CoordinatorChange(group, known.changed_index if known else 1, server),))


def _check_that_everything_consumed_is_assigned(group: GroupState) -> None:
    consumed = {stream for member in group.members.values() for stream in member.streams}
    owned = [
        (stream, number)
        for member in group.members.values()
        for stream, numbers in member.assigned.items()
        for number in numbers
    ]
    assert sorted(owned) == sorted((stream, number) for stream in consumed for number in range(4))
