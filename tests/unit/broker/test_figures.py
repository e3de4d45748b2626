"""What a server says of itself: read when somebody asks, for every kind of replica that there is."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from metadata_states import States
from partition_managers import assignment, partition_manager

from liftbridge.broker.figures import FiguresSource, cluster_figures
from liftbridge.cursors import Cursor, Cursors
from liftbridge.errors import LogDamaged
from liftbridge.interfaces.consensus import ConsensusStatus
from liftbridge.interfaces.events import MetadataEventKind
from liftbridge.interfaces.figures import (
    GroupFigures,
    GroupPosition,
    LeaderFigures,
    LogFigures,
    ReplicaFigures,
    ReplicaRole,
)
from liftbridge.interfaces.figures import ReplicaProblem as Problem
from liftbridge.interfaces.log import LogId, LogSettings, PartitionLog
from liftbridge.interfaces.transport import Delivery
from liftbridge.metadata.commands import JoinGroup
from liftbridge.metadata.known_servers import KnownServers
from liftbridge.metadata.model import ServerStatus
from liftbridge.partition.outcome import Outcome
from liftbridge.partition.pending import ACK_ALL, ACK_LEADER, PendingRun
from liftbridge.protocol.record_encoding import encode_value
from liftbridge.testing.memory_log import MemoryLogStorage
from liftbridge.testing.memory_transport import MemoryNetwork, MemoryTransport

STATUS = ConsensusStatus("a", "b", 7, commit_index=12, applied_index=11, last_index=13, voters=("a", "b"), learners=())


class _OneLogIsDamaged(MemoryLogStorage):
    """That of stream 2."""

    def open(self, log_id: LogId, settings: LogSettings) -> PartitionLog:
        if log_id.stream_id == 2:
            raise LogDamaged("a checksum is wrong")
        return super().open(log_id, settings)


async def _nothing() -> None:
    pass


class Server:
    """Server "a" with partitions in memory."""

    def __init__(self) -> None:
        self.states = States()
        self.transport = MemoryTransport(MemoryNetwork(), "a")
        self.partitions = partition_manager(_OneLogIsDamaged(), self.transport, KnownServers(self.states.state))
        self.cursors = Cursors(self.states.state, self.partitions, server_id="a", catch_up=_nothing, expected=False)
        self.source = FiguresSource(
            self.states.state,
            self.partitions,
            self.cursors,
            server_id="a",
            status=lambda: STATUS,
            connected=lambda: self.transport.connected,
            holds_lease=lambda: False,
        )

    async def publish(self, stream: str, policy: int = ACK_LEADER) -> None:
        local, acks = self.partitions.get(stream, 0), Outcome()
        assert local is not None
        assert local.leader is not None
        value = encode_value(b"x")
        local.leader.submit(
            PendingRun(
                (value,), item_bytes=len(value), subject=stream, ack_policy=policy, acks=acks, correlation_ids=(b"",)
            )
        )
        await acks.future

    def replica(self, stream: str) -> ReplicaFigures:
        return next(one for one in self.source.replicas() if one.stream == stream)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    await server.transport.start()
    yield server
    await server.partitions.close()
    await server.transport.stop()


# --- replicas ---------------------------------------------------------------------------------------------------------


async def test_a_leader_says_what_it_holds_and_who_is_in_sync(server: Server) -> None:
    await server.partitions.reconcile([assignment("s", 1)])
    for _ in range(3):
        await server.publish("s")
    figures = server.replica("s")
    assert figures.log is not None
    assert figures.log == LogFigures(0, 3, 3, size_bytes=figures.log.size_bytes)
    assert figures.log.size_bytes > 0
    assert figures.leader == LeaderFigures(replicas=1, in_sync=1, min_in_sync=1)
    assert (figures.role, figures.problem, figures.refused_messages) == (ReplicaRole.LEADER, None, {})


async def test_what_a_leader_refuses_is_counted_by_reason_wherever_it_came_from(server: Server) -> None:
    await server.partitions.reconcile([assignment("s", 1, min_isr=2)])
    await server.publish("s", ACK_ALL)
    await server.publish("s", ACK_ALL)
    local = server.partitions.get("s", 0)
    assert local is not None
    assert local.leader is not None
    assert local.listener is not None
    local.leader.set_readonly(True)
    local.listener.ingress.receive([Delivery("s", "", [b"plain", b"plain too"])])
    figures = server.replica("s")
    assert figures.refused_messages == {"too few replicas": 2, "readonly": 2}
    assert figures.leader == LeaderFigures(replicas=1, in_sync=1, min_in_sync=2, dropped_messages=2)


async def test_a_follower_says_so_and_nothing_that_only_leaders_know(server: Server) -> None:
    await server.partitions.reconcile([assignment("s", 1, leader="b", replicas="ab")])
    figures = server.replica("s")
    assert (figures.role, figures.leader, figures.log) == (ReplicaRole.FOLLOWER, None, LogFigures(0, 0, 0, 0))


@pytest.mark.parametrize("leader", ["a", "b"])
async def test_a_replica_whose_disk_takes_nothing_has_a_problem(server: Server, leader: str) -> None:
    await server.partitions.reconcile([assignment("s", 1, leader=leader, replicas="ab")])
    local = server.partitions.get("s", 0)
    assert local is not None
    assert local.partition is not None
    local.partition.cannot_store = True
    assert server.replica("s").problem is Problem.CANNOT_STORE


async def test_a_log_that_cannot_be_opened_is_a_problem_and_the_others_are_told_of(server: Server) -> None:
    await server.partitions.reconcile([assignment("bad", 2), assignment("good", 1)])
    assert server.replica("bad") == ReplicaFigures("bad", 0, ReplicaRole.NONE, Problem.DAMAGED, refused_messages={})
    assert server.replica("good").role is ReplicaRole.LEADER


@pytest.mark.parametrize("leader", ["a", "b"])
async def test_a_paused_partition_is_no_problem_on_any_of_its_servers(server: Server, leader: str) -> None:
    paused = replace(assignment("s", 1, leader=leader, replicas="ab"), paused=True)
    await server.partitions.reconcile([paused])
    assert server.replica("s") == ReplicaFigures("s", 0, ReplicaRole.PAUSED, refused_messages={})


async def test_a_partition_that_nobody_leads_has_no_role_here(server: Server) -> None:
    await server.partitions.reconcile([assignment("s", 1, leader="", replicas="ab")])
    assert (server.replica("s").role, server.replica("s").problem) == (ReplicaRole.NONE, None)


async def test_partitions_may_come_and_go_between_two_of_them(server: Server) -> None:
    await server.partitions.reconcile([assignment("s", 1), assignment("t", 3)])
    replicas = server.source.replicas()
    assert next(replicas).stream == "s"
    await server.partitions.reconcile([assignment("u", 4)])
    assert {one.stream for one in replicas} <= {"t"}
    assert [one.stream for one in server.source.replicas()] == ["u"]


# --- the server and its cluster ---------------------------------------------------------------------------------------


async def test_a_server_says_how_it_stands_in_its_cluster(server: Server) -> None:
    figures = server.source.server()
    assert (figures.connected, figures.holds_lease) == (True, False)
    assert (figures.metadata_leader, figures.is_metadata_leader) == ("b", False)
    assert (figures.term, figures.commit_index, figures.applied_index) == (7, 12, 11)


async def test_only_the_groups_that_it_coordinates_are_told_of(server: Server) -> None:
    server.states.register("a")
    server.states.create("s", "a")
    server.states.apply(JoinGroup("mine", "c1", ("s",)))
    server.states.apply(JoinGroup("mine", "c2", ("s",)))
    server.states.register("b")
    server.states.set_status("a", ServerStatus.DRAINING)
    server.states.apply(JoinGroup("theirs", "c1", ("s",)))
    coordinators = {group.group_id: group.coordinator for group in server.states.state.groups.values()}
    assert coordinators == {"mine": "a", "theirs": "b"}
    assert server.source.server().groups == (GroupFigures("mine", 2),)


async def test_events_are_counted_once_for_each_partition(server: Server) -> None:
    server.states.register("a", "b")
    server.states.create("s", "ab", "ba", "ab")
    server.states.register("b", start=2, unclean=True)
    events = server.source.server().events
    assert set(events) == set(MetadataEventKind)
    assert events[MetadataEventKind.STREAM_CREATED] == 3
    assert events[MetadataEventKind.ISR_CHANGED] == 3
    assert events[MetadataEventKind.PARTITION_OFFLINE] == 1
    assert events[MetadataEventKind.SERVER_UP] == 3
    assert events[MetadataEventKind.SERVER_DOWN] == 0


def test_cluster_counts_servers_and_partitions_that_are_not_well() -> None:
    states = States()
    states.register("a", "b", "c")
    in_order, short, offline = states.create("x", "abc", "abc"), states.create("y", "bc"), states.create("z", "c")
    states.change(short, isr="b")
    states.change(offline, leader="")
    states.set_status("c", ServerStatus.DOWN)
    figures = cluster_figures(states.state)
    assert in_order
    assert figures.servers == {"live": 2, "down": 1, "draining": 0}
    assert (figures.streams, figures.partitions) == (3, 4)
    assert (figures.offline_partitions, figures.under_replicated_partitions) == (1, 1)


def test_a_partition_that_lost_a_replica_for_good_counts_until_it_has_another() -> None:
    states = States()
    states.register("a", "b")
    stream = states.create("s", "ab")
    states.change(stream, replicas="a", isr="a")
    assert cluster_figures(states.state).under_replicated_partitions == 1


async def test_the_cluster_is_looked_at_anew_when_metadata_changed_and_only_then(server: Server) -> None:
    server.states.register("a")
    before = server.source.server().cluster
    assert server.source.server().cluster is before
    server.states.create("s", "a")
    await asyncio.sleep(0)
    assert server.source.server().cluster.streams == 1


# --- where groups stand -----------------------------------------------------------------------------------------------


async def positions(server: Server) -> list[GroupPosition]:
    return [one async for one in server.source.group_positions()]


async def test_groups_stand_behind_their_cursors_where_this_server_keeps_them(server: Server) -> None:
    server.states.register("a", "b")
    server.states.create("s", *"aaaaaa")
    cursors_id = server.states.create("__cursors", "a", "b", "b")
    server.states.apply(JoinGroup("g", "c1", ("s",)))
    await server.partitions.reconcile([assignment("__cursors", cursors_id)])
    assert await positions(server) == []
    kept = [number for number in range(6) if Cursor("__group:g", "s", number).partition_of(3) == 0]
    assert 1 < len(kept) < 6
    for number in kept:
        await server.cursors.set(Cursor("__group:g", "s", number), 40 + number)
    other = next(one for id_ in "abcdef" if (one := Cursor(id_, "s", kept[0])).partition_of(3) == 0)
    await server.cursors.set(other, 7)
    assert await positions(server) == [GroupPosition("g", "s", number, 41 + number) for number in kept]
    await server.cursors.set(Cursor("__group:g", "s", kept[0]), 50)
    assert (await positions(server))[0] == GroupPosition("g", "s", kept[0], 51)


async def test_without_a_stream_of_cursors_nobody_stands_anywhere(server: Server) -> None:
    server.states.register("a")
    server.states.create("s", "a")
    server.states.apply(JoinGroup("g", "c1", ("s",)))
    assert await positions(server) == []


async def test_cursors_that_cannot_be_read_are_left_out(server: Server) -> None:
    server.states.register("a")
    server.states.create("s", "a")
    cursors_id = server.states.create("__cursors", "a")
    server.states.apply(JoinGroup("g", "c1", ("s",)))
    await server.partitions.reconcile([assignment("__cursors", cursors_id)])
    await server.cursors.set(Cursor("__group:g", "s", 0), 3)
    local = server.partitions.get("__cursors", 0)
    assert local is not None
    assert local.partition is not None
    local.partition.end(LogDamaged("a checksum is wrong"))
    assert await positions(server) == []
