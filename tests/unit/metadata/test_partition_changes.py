"""What may become of a partition, decided inside apply: epochs are preconditions, and broken rules are refused."""

import pytest
from metadata_states import States

from liftbridge.interfaces.events import MetadataEvent, MetadataEventKind
from liftbridge.metadata.commands import ChangePartitions, PartitionChange
from liftbridge.metadata.model import Applied, ServerStatus


@pytest.fixture
def states() -> States:
    states = States()
    states.register("a", "b", "c", "d")
    return states


@pytest.fixture
def stream(states: States) -> int:
    return states.create("s", "abc")


def test_a_new_partition_is_in_sync_everywhere_in_its_first_epoch(states: States, stream: int) -> None:
    partition = states.partition(stream)
    assert partition.isr == partition.replicas == ("a", "b", "c")
    assert partition.leader_epoch == partition.partition_epoch == stream


def test_an_isr_change_moves_the_partition_epoch_and_not_the_leader_epoch(states: States, stream: int) -> None:
    assert states.change(stream, isr="ac")
    partition = states.partition(stream)
    assert partition.isr == ("a", "c")
    assert partition.leader_epoch == stream
    assert partition.partition_epoch > stream


def test_a_change_computed_from_an_older_epoch_is_stale(states: States, stream: int) -> None:
    before = states.partition(stream).partition_epoch
    assert states.change(stream, isr="ab")
    assert not states.change(stream, epoch=before, isr="ac")
    assert not states.change(stream, epoch=before, leader="c")
    assert states.partition(stream).isr == ("a", "b")


def test_another_leader_begins_a_new_epoch(states: States, stream: int) -> None:
    assert states.change(stream, leader="b")
    partition = states.partition(stream)
    assert partition.leader == "b"
    assert partition.leader_epoch == partition.partition_epoch > stream


def test_the_same_leader_again_begins_a_new_epoch_too(states: States, stream: int) -> None:
    assert states.change(stream, leader="a")
    assert states.partition(stream).leader_epoch > stream


def test_another_set_of_replicas_begins_a_new_epoch_with_the_same_leader(states: States, stream: int) -> None:
    assert states.change(stream, replicas="abd", isr="ab")
    partition = states.partition(stream)
    assert (partition.leader, partition.replicas, partition.isr) == ("a", ("a", "b", "d"), ("a", "b"))
    assert partition.leader_epoch > stream


def test_the_isr_keeps_the_order_of_the_replicas(states: States, stream: int) -> None:
    assert states.change(stream, isr="cba")
    assert states.partition(stream).isr == ("a", "b", "c")


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("a leader outside the ISR", {"leader": "b", "isr": "ac"}),
        ("an ISR without the leader", {"isr": "bc"}),
        ("a stranger in the ISR", {"isr": "ad"}),
        ("a leader without a replica", {"leader": "d"}),
        ("the same replica twice", {"replicas": "aab"}),
        ("replicas without the leader", {"replicas": "bc"}),
        ("an unknown leader", {"leader": "x", "replicas": "x", "unclean": True}),
    ],
)
def test_what_breaks_a_rule_is_not_accepted(states: States, stream: int, what: str, change: dict[str, str]) -> None:
    before = states.partition(stream)
    assert not states.change(stream, **change), what  # type: ignore[arg-type]
    assert states.partition(stream) == before


@pytest.mark.parametrize("status", [ServerStatus.DOWN, ServerStatus.DRAINING])
def test_who_is_not_live_neither_leads_anew_nor_comes_into_the_isr(
    states: States, stream: int, status: ServerStatus
) -> None:
    assert states.change(stream, isr="ac")
    states.set_status("b", status)
    states.set_status("c", status)
    assert not states.change(stream, isr="abc")
    assert not states.change(stream, leader="c")
    assert states.change(stream, isr="a"), "leaving is always possible"


def test_only_an_unclean_change_elects_a_server_outside_the_isr(states: States, stream: int) -> None:
    assert states.change(stream, isr="a")
    states.set_status("a", ServerStatus.DOWN)
    assert states.change(stream, leader="")
    assert not states.change(stream, leader="b")
    assert states.change(stream, leader="b", unclean=True)
    partition = states.partition(stream)
    assert (partition.leader, partition.isr) == ("b", ("b",))


def test_a_partition_of_a_deleted_or_unknown_stream_is_stale(states: States, stream: int) -> None:
    for stream_id, number in [(stream + 1000, 0), (stream, 7)]:
        applied = states.apply(ChangePartitions((PartitionChange(stream_id, number, stream, isr=("a",)),)))
        assert isinstance(applied, Applied)
        assert applied.accepted == (False,)


def test_a_batch_changes_what_it_can(states: States, stream: int) -> None:
    other = states.create("t", "abc", "bca")
    changes = (
        PartitionChange(stream, 0, stream, isr=("a", "b")),
        PartitionChange(stream, 0, stream, isr=("a", "c")),
        PartitionChange(other, 1, other, leader="c"),
        PartitionChange(other, 0, other - 1, leader="c"),
    )
    applied = states.apply(ChangePartitions(changes))
    assert isinstance(applied, Applied)
    assert applied.accepted == (True, False, True, False)
    assert states.partition(stream).isr == ("a", "b")
    assert states.partition(other, 1).leader == "c"
    assert states.partition(other, 0).leader == "a"


# --- restarts ---------------------------------------------------------------------------------------------------------


def test_a_restart_of_the_leader_begins_a_new_epoch(states: States, stream: int) -> None:
    states.register("a", start=2)
    partition = states.partition(stream)
    assert partition.leader == "a"
    assert partition.leader_epoch > stream
    assert partition.isr == ("a", "b", "c")


def test_an_unclean_restart_takes_the_server_out_of_the_isr(states: States, stream: int) -> None:
    states.register("b", start=2, unclean=True)
    partition = states.partition(stream)
    assert partition.isr == ("a", "c")
    assert partition.leader_epoch == stream, "the leader leads on"
    assert partition.partition_epoch > stream


def test_an_unclean_restart_of_the_leader_leaves_the_partition_to_an_election(states: States, stream: int) -> None:
    states.register("a", start=2, unclean=True)
    partition = states.partition(stream)
    assert (partition.leader, partition.isr) == ("", ("b", "c"))
    assert partition.leader_epoch > stream


def test_the_last_one_in_sync_stays_in_sync_whatever_happened(states: States, stream: int) -> None:
    for server_id in "abc":
        states.register(server_id, start=2, unclean=True)
    assert states.partition(stream).isr == ("c",)


def test_an_unclean_restart_voids_a_request_to_come_in(states: States, stream: int) -> None:
    assert states.change(stream, isr="ac")
    computed_from = states.partition(stream).partition_epoch
    states.register("b", start=2, unclean=True)
    assert not states.change(stream, epoch=computed_from, isr="abc")


def test_registering_the_same_start_again_changes_nothing(states: States, stream: int) -> None:
    before = states.partition(stream)
    states.register("a")
    assert states.partition(stream) == before


# --- what observers hear ----------------------------------------------------------------------------------------------


def test_observers_hear_of_leaders_isrs_and_servers(states: States, stream: int) -> None:
    heard: list[MetadataEvent] = []
    states.state.subscribe_events(heard.append)
    states.change(stream, isr="ab")
    states.change(stream, leader="b")
    states.set_status("c", ServerStatus.DOWN)
    states.change(stream, leader="")
    assert [(event.kind, event.stream, event.partitions, event.server) for event in heard] == [
        (MetadataEventKind.ISR_CHANGED, "s", (0,), ""),
        (MetadataEventKind.LEADER_ELECTED, "s", (0,), ""),
        (MetadataEventKind.SERVER_DOWN, "", (), "c"),
        (MetadataEventKind.PARTITION_OFFLINE, "s", (0,), ""),
    ]
    assert [event.index for event in heard] == sorted(event.index for event in heard)
