"""Servers in the state machine, commands that come twice, and snapshots that hold all of it."""

import hypothesis.strategies as st
from hypothesis import given
from metadata_states import States

from liftbridge.metadata.commands import (
    ChangePartitions,
    ChangeServer,
    Command,
    CreateStream,
    DeleteStream,
    PartitionChange,
    Placement,
    RegisterServer,
    decode_command,
    encode_command,
)
from liftbridge.metadata.config import StreamConfig
from liftbridge.metadata.model import Applied, RefusalReason, Refused, ServerStatus
from liftbridge.metadata.state import MetadataState
from liftbridge.protocol.generated import internal_pb2 as internal

SERVERS = "abcd"


def refusal(outcome: Applied | Refused) -> RefusalReason | None:
    return outcome.reason if isinstance(outcome, Refused) else None


# --- servers ----------------------------------------------------------------------------------------------------------


def test_a_start_makes_a_server_live() -> None:
    states = States()
    states.register("a")
    states.set_status("a", ServerStatus.DRAINING)
    states.register("a", start=2)
    assert states.state.servers["a"].status is ServerStatus.LIVE


def test_a_change_meant_for_an_earlier_start_is_refused() -> None:
    states = States()
    states.register("a")
    states.register("a", start=2)
    assert refusal(states.apply(ChangeServer("a", ServerStatus.DOWN, "a-1"))) is RefusalReason.OTHER_START
    assert states.state.servers["a"].status is ServerStatus.LIVE
    assert refusal(states.apply(ChangeServer("x", ServerStatus.DOWN))) is RefusalReason.NO_SUCH_SERVER


def test_a_server_that_holds_something_is_not_removed() -> None:
    states = States()
    states.register("a", "b")
    stream = states.create("s", "ab")
    assert refusal(states.set_status("b", ServerStatus.GONE)) is RefusalReason.STILL_IN_USE
    assert states.change(stream, isr="a", replicas="a")
    assert refusal(states.set_status("b", ServerStatus.GONE)) is None


def test_a_removed_server_does_not_come_back_and_gets_nothing_placed() -> None:
    states = States()
    states.register("a")
    states.set_status("a", ServerStatus.GONE)
    assert refusal(states.apply(RegisterServer("a", "h", 1, "a-2"))) is RefusalReason.SERVER_REMOVED
    assert refusal(states.set_status("a", ServerStatus.LIVE)) is RefusalReason.SERVER_REMOVED
    create = CreateStream("s", "s", "", StreamConfig(), 0, (Placement(("a",), "a"),))
    assert refusal(states.apply(create)) is RefusalReason.BAD_PLACEMENT


def test_a_server_that_is_down_is_not_in_the_first_isr() -> None:
    states = States()
    states.register("a", "b")
    states.set_status("b", ServerStatus.DOWN)
    assert states.partition(states.create("s", "ab")).isr == ("a",)


# --- commands that come twice -----------------------------------------------------------------------------------------


def test_a_command_that_is_committed_twice_takes_effect_once_with_one_outcome() -> None:
    states = States()
    create = CreateStream("s", "s", "", StreamConfig(), 0, (Placement(("a",), "a"),))
    first = states.apply(create, "request-1")
    assert states.apply(create, "request-1") == first
    assert refusal(states.apply(create, "request-2")) is RefusalReason.STREAM_EXISTS
    assert refusal(states.apply(create, "request-2")) is RefusalReason.STREAM_EXISTS


def test_a_repeated_deletion_spares_a_stream_that_was_created_again() -> None:
    states = States()
    states.create("s", "a")
    states.apply(DeleteStream("s"), "delete")
    again = states.create("s", "a")
    assert isinstance(states.apply(DeleteStream("s"), "delete"), Applied)
    assert states.state.stream_by_id(again) is not None


def test_outcomes_are_remembered_across_a_snapshot() -> None:
    states = States()
    states.register("a", "b")
    stream = states.create("s", "ab")
    change = ChangePartitions((PartitionChange(stream, 0, stream, isr=("a",)), PartitionChange(99, 0, 1)))
    first = states.apply(change, "isr")
    refused = states.apply(DeleteStream("nothing"), "delete")
    restored = MetadataState()
    restored.restore(states.state.snapshot())
    assert restored.apply(100, encode_command(change, "isr")) == first
    assert restored.apply(101, encode_command(DeleteStream("nothing"), "delete")) == refused


def test_only_so_many_outcomes_are_remembered() -> None:
    states = States()
    for number in range(3000):
        states.apply(DeleteStream("x"), f"request-{number}")
    snapshot = internal.MetadataSnapshot.FromString(states.state.snapshot())
    assert len(snapshot.outcomes) == 1024
    assert snapshot.outcomes[-1].request_id == "request-2999"


# --- snapshots --------------------------------------------------------------------------------------------------------


def test_a_snapshot_from_before_clusters_loads() -> None:
    old = internal.MetadataSnapshot(
        servers=[internal.Server(server_id="a", host="h", port=1, incarnation="x")],
        streams=[
            internal.Stream(
                stream_id=5,
                name="s",
                subject="s",
                partitions=[
                    internal.Partition(replicas=["a"], isr=["a"], leader="a", leader_epoch=5, partition_epoch=9)
                ],
            )
        ],
    )
    state = MetadataState()
    state.restore(old.SerializeToString())
    assert state.servers["a"].status is ServerStatus.LIVE
    assert state.applied_index == 9
    partition = state.partition(5, 0)
    assert partition is not None
    assert partition.leader == "a"


server_ids = st.sampled_from(SERVERS)
replica_lists = st.lists(server_ids, max_size=3).map(tuple)
commands = st.one_of(
    st.builds(RegisterServer, server_ids, st.just("host"), st.just(1), st.sampled_from(["1", "2", "3"]), st.booleans()),
    st.builds(
        CreateStream,
        st.sampled_from(["s", "t"]),
        st.just("subject"),
        st.just(""),
        st.just(StreamConfig()),
        st.just(0),
        st.lists(
            st.lists(server_ids, min_size=1, max_size=3, unique=True).map(lambda one: Placement(tuple(one), one[0])),
            max_size=2,
        ).map(tuple),
    ),
    st.builds(DeleteStream, st.sampled_from(["s", "t"])),
    st.builds(ChangeServer, server_ids, st.sampled_from(ServerStatus), st.sampled_from(["", "1", "2"])),
    st.lists(
        st.builds(
            PartitionChange,
            st.integers(1, 12),
            st.integers(0, 1),
            st.integers(1, 12),
            st.none() | st.just("") | server_ids,
            replica_lists,
            replica_lists,
            st.booleans(),
        ),
        max_size=4,
    ).map(lambda changes: ChangePartitions(tuple(changes))),
)


@given(commands, st.text(max_size=5))
def test_commands_survive_their_bytes(command: Command, request_id: str) -> None:
    assert decode_command(encode_command(command, request_id)) == (command, request_id)


@given(st.lists(st.tuples(commands, st.sampled_from(["", "x", "y"])), max_size=30), st.integers(0, 30))
def test_whatever_is_proposed_the_rules_hold_and_a_snapshot_at_any_moment_continues_equally(
    proposals: list[tuple[Command, str]], snapshot_at: int
) -> None:
    whole, restored = MetadataState(), MetadataState()
    for index, (command, request_id) in enumerate(proposals, 1):
        if index == snapshot_at:
            restored.restore(whole.snapshot())
        outcome = whole.apply(index, encode_command(command, request_id))
        if index >= snapshot_at > 0:
            assert restored.apply(index, encode_command(command, request_id)) == outcome
        check_rules(whole)
    if 0 < snapshot_at <= len(proposals):
        assert restored.snapshot() == whole.snapshot()


def check_rules(state: MetadataState) -> None:
    for stream in state.streams.values():
        assert state.stream_by_id(stream.stream_id) is stream
        for partition in stream.partitions:
            assert partition.isr
            assert set(partition.isr) <= set(partition.replicas)
            assert len(set(partition.replicas)) == len(partition.replicas)
            assert partition.leader in ("", *partition.isr)
            assert stream.stream_id <= partition.leader_epoch <= partition.partition_epoch
    for server in state.servers.values():
        if server.status is ServerStatus.GONE:
            assert not any(
                server.server_id in one.replicas for stream in state.streams.values() for one in stream.partitions
            )
