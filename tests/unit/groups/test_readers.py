"""Who may read a partition for a group, and who has to stop."""

import pytest
from metadata_states import States

from liftbridge.errors import FailedPrecondition
from liftbridge.groups.readers import GroupReader, GroupReaders
from liftbridge.metadata.commands import DeleteStream, JoinGroup, LeaveGroup
from liftbridge.partition.partition import PartitionKey


class Running:
    """A subscription."""

    def __init__(self) -> None:
        self.displaced = False

    def displace(self) -> None:
        self.displaced = True


class Reading(States):
    """Stream ``s`` with two partitions, and what reads it on one server."""

    def __init__(self) -> None:
        super().__init__()
        self.register("a")
        self.stream_id = self.create("s", "a", "a")
        self.readers = GroupReaders(self.state)

    def attach(self, consumer: str, partition: int, epoch: int | None = None, *, group: str = "g") -> Running:
        if epoch is None:
            epoch = self.state.groups[group].epoch
        running = Running()
        key = PartitionKey("s", partition, self.stream_id)
        self.readers.attach(GroupReader(key, group, consumer, epoch), running)
        return running

    def owner(self, partition: int) -> str:
        return next(
            one for one in self.state.groups["g"].members if self.state.groups["g"].assigns(one, "s", partition)
        )


@pytest.fixture
def reading() -> Reading:
    return Reading()


def test_partition_that_goes_to_another_member_is_read_by_nobody_else(reading: Reading) -> None:
    reading.apply(JoinGroup("g", "c1", ("s",)))
    before = [reading.attach("c1", number) for number in (0, 1)]
    reading.apply(JoinGroup("g", "c2", ("s",)))
    owners = [reading.owner(number) for number in (0, 1)]
    assert sorted(owners) == ["c1", "c2"]
    assert [one.displaced for one in before] == [owner == "c2" for owner in owners]
    lost = owners.index("c2")
    with pytest.raises(FailedPrecondition):
        reading.attach("c1", lost)
    with pytest.raises(FailedPrecondition):
        reading.attach("c2", lost, epoch=0)
    assert not reading.attach("c2", lost).displaced


def test_new_subscription_of_the_same_member_takes_over(reading: Reading) -> None:
    reading.apply(JoinGroup("g", "c1", ("s",)))
    first = reading.attach("c1", 0)
    second = reading.attach("c1", 0)
    assert first.displaced
    assert not second.displaced
    reading.readers.detach(GroupReader(PartitionKey("s", 0, reading.stream_id), "g", "c1", 0), first)
    third = reading.attach("c1", 0)
    assert second.displaced, "what ended before gives up nothing"
    assert not third.displaced


def test_group_that_is_gone_reads_nothing_more(reading: Reading) -> None:
    reading.apply(JoinGroup("g", "c1", ("s",)))
    running = reading.attach("c1", 0)
    reading.apply(LeaveGroup("g", "c1"))
    assert running.displaced


def test_group_made_again_begins_with_epoch_0_and_refuses_epochs_of_the_one_before(reading: Reading) -> None:
    for consumer in ("c1", "c2"):
        reading.apply(JoinGroup("g", consumer, ("s",)))
    old = reading.state.groups["g"].epoch
    for consumer in ("c1", "c2"):
        reading.apply(LeaveGroup("g", consumer))
    reading.apply(JoinGroup("g", "c1", ("s",)))
    with pytest.raises(FailedPrecondition):
        reading.attach("c1", 0, epoch=old)
    reading.attach("c1", 0, epoch=0)


def test_names_that_nobody_joined_take_turns_by_epoch_until_somebody_joins(reading: Reading) -> None:
    first = reading.attach("x", 0, epoch=5)
    with pytest.raises(FailedPrecondition):
        reading.attach("y", 0, epoch=4)
    assert not reading.attach("x", 0, epoch=1, group="other").displaced
    second = reading.attach("y", 0, epoch=5)
    assert first.displaced
    reading.apply(JoinGroup("g", "c1", ("s",)))
    assert second.displaced


def test_snapshot_that_skips_changes_ends_what_they_would_have_ended(reading: Reading) -> None:
    reading.apply(JoinGroup("g", "c1", ("s",)))
    running = [reading.attach("c1", number) for number in (0, 1)]
    ahead = Reading()
    for consumer in ("c1", "c2"):
        ahead.apply(JoinGroup("g", consumer, ("s",)))
    reading.state.restore(ahead.state.snapshot())
    assert [one.displaced for one in running] == [reading.owner(number) == "c2" for number in (0, 1)]


def test_deleted_stream_is_read_by_no_member(reading: Reading) -> None:
    reading.apply(JoinGroup("g", "c1", ("s",)))
    running = reading.attach("c1", 0)
    reading.apply(DeleteStream("s"))
    assert running.displaced
