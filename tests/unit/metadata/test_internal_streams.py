"""The cluster's own streams: made by whoever leads the metadata group, and spread over servers as they come."""

from metadata_states import NoPolicy, States

from liftbridge.metadata.commands import ChangePartitions, CreateStream
from liftbridge.metadata.internal_streams import ALL_SERVERS, InternalStream, InternalStreams
from liftbridge.metadata.model import ServerStatus


def carry_out(streams: InternalStreams, states: States) -> int:
    """Until nothing is planned any more; returns how many commands that took."""
    for done in range(20):
        commands = list(streams.plan(states.state, NoPolicy(), 5))
        if not commands:
            return done
        for command in commands:
            states.apply(command)
    raise AssertionError("it finds no rest")


def wanted(factor: int, *, partitions: int = 2, bound: int = 0) -> InternalStreams:
    return InternalStreams((InternalStream("__x", "ns.x", partitions, factor),), max_replicas=bound)


def replicas(states: States) -> list[list[str]]:
    return [sorted(one.replicas) for one in states.state.streams["__x"].partitions]


def test_nothing_is_planned_before_a_server_is_up() -> None:
    states = States()
    assert carry_out(wanted(ALL_SERVERS), states) == 0
    states.register("a")
    states.set_status("a", ServerStatus.DOWN)
    assert carry_out(wanted(ALL_SERVERS), states) == 0


def test_stream_is_made_once_with_what_the_settings_say() -> None:
    states = States()
    states.register("a")
    streams = wanted(ALL_SERVERS)
    (command,) = streams.plan(states.state, NoPolicy(), 5)
    assert isinstance(command, CreateStream)
    assert (command.name, command.subject, len(command.placements)) == ("__x", "ns.x", 2)
    assert command.creation_timestamp_ns == 5
    assert carry_out(streams, states) == 1
    assert list(streams.plan(states.state, NoPolicy(), 6)) == []


def test_every_server_that_comes_gets_a_replica() -> None:
    states = States()
    states.register("a")
    carry_out(wanted(ALL_SERVERS), states)
    states.register("b", "c")
    (command,) = wanted(ALL_SERVERS).plan(states.state, NoPolicy(), 5)
    assert isinstance(command, ChangePartitions)
    assert len(command.changes) == 2
    carry_out(wanted(ALL_SERVERS), states)
    assert replicas(states) == [["a", "b", "c"]] * 2
    states.register("d")
    carry_out(wanted(ALL_SERVERS, bound=3), states)
    assert replicas(states) == [["a", "b", "c"]] * 2


def test_a_number_is_reached_as_far_as_there_are_servers_and_spread_over_them() -> None:
    states = States()
    states.register("a")
    carry_out(wanted(2), states)
    assert replicas(states) == [["a"], ["a"]]
    states.register("b", "c")
    carry_out(wanted(2), states)
    assert sorted(map(len, replicas(states))) == [2, 2]
    assert {one for held in replicas(states) for one in held} == {"a", "b", "c"}


def test_a_server_that_is_down_gets_nothing_and_one_that_was_removed_is_replaced() -> None:
    states = States()
    states.register("a", "b", "c")
    states.set_status("c", ServerStatus.DOWN)
    carry_out(wanted(ALL_SERVERS, partitions=1), states)
    assert replicas(states) == [["a", "b"]]
    states.set_status("c", ServerStatus.LIVE)
    carry_out(wanted(ALL_SERVERS, partitions=1), states)
    assert replicas(states) == [["a", "b", "c"]]
    stream_id = states.state.streams["__x"].stream_id
    assert states.change(stream_id, isr=("a", "b"), replicas=("a", "b"))
    states.set_status("c", ServerStatus.GONE)
    assert carry_out(wanted(3, partitions=1), states) == 0
    states.register("d")
    carry_out(wanted(3, partitions=1), states)
    assert replicas(states) == [["a", "b", "d"]]


def test_a_partition_without_a_leader_waits_for_one() -> None:
    states = States()
    states.register("a")
    carry_out(wanted(ALL_SERVERS, partitions=1), states)
    assert states.change(states.state.streams["__x"].stream_id, leader="")
    states.register("b")
    assert carry_out(wanted(ALL_SERVERS, partitions=1), states) == 0
