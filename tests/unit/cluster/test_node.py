"""Servers as members of a cluster, all in one process: the in-memory transport and consensus, and quick sessions."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from metadata_states import NoPolicy

from liftbridge.clock import SystemClock
from liftbridge.cluster import identity
from liftbridge.cluster.control import ControlSettings
from liftbridge.cluster.forming import Bootstrap
from liftbridge.cluster.identity import load_identity
from liftbridge.cluster.node import ClusterNode, NodeSettings, random_id
from liftbridge.errors import (
    AlreadyExists,
    ConfigError,
    DeadlineExceeded,
    FailedPrecondition,
    LiftbridgeError,
    NotFound,
    Unavailable,
)
from liftbridge.metadata import proposing
from liftbridge.metadata.asking import ControllerClient
from liftbridge.metadata.commands import RegisterServer
from liftbridge.metadata.config import StreamConfig
from liftbridge.metadata.controller import MetadataController
from liftbridge.metadata.model import PartitionState, ServerStatus
from liftbridge.metadata.state import MetadataState
from liftbridge.protocol.generated import internal_pb2 as internal
from liftbridge.testing.memory_consensus import MemoryConsensus, MemoryConsensusGroup
from liftbridge.testing.memory_transport import MemoryNetwork, MemoryTransport

HEARTBEAT_S, SESSION_S = 0.03, 0.3


@dataclass
class Member:
    """One server's parts."""

    node: ClusterNode
    state: MetadataState
    transport: MemoryTransport
    consensus: MemoryConsensus
    failures: list[LiftbridgeError] = field(default_factory=list)

    @property
    def asks(self) -> MetadataController:
        return self.node.controller


class Servers:
    """Members by server ID."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.network = MemoryNetwork()
        self.group = MemoryConsensusGroup()
        self.members: dict[str, Member] = {}

    def make(self, server_id: str, *, seed: bool = False, folder: str = "") -> Member:
        data_dir = self.folder / (folder or server_id)
        transport = MemoryTransport(self.network, server_id)
        consensus = MemoryConsensus(server_id, self.group)
        state = MetadataState()
        failures: list[LiftbridgeError] = []
        node = ClusterNode(
            transport,
            consensus,
            state,
            NoPolicy(),  # type: ignore[arg-type]
            SystemClock(),
            load_identity(data_dir, wanted_id=server_id, fallback_id="", namespace="ns"),
            data_dir,
            NodeSettings(
                Bootstrap(seed=seed, peers=(), max_voters=0),
                heartbeat_s=HEARTBEAT_S,
                control=ControlSettings(session_timeout_s=SESSION_S, rebalance_interval_s=0),
            ),
            incarnation=random_id(),
            fail=failures.append,
        )
        return Member(node, state, transport, consensus, failures)

    async def start(self, server_id: str, *, seed: bool = False) -> Member:
        member = self.members[server_id] = self.make(server_id, seed=seed)
        await member.transport.start()
        await member.node.enter()
        await member.node.register("127.0.0.1", 9292)
        member.node.establish()
        return member

    async def stop(self, server_id: str) -> None:
        """Without a word: what a kill looks like to the others."""
        member = self.members.pop(server_id)
        await member.node.leave()
        await member.consensus.stop()
        await member.transport.stop()

    async def create(self, through: str, name: str, *, partitions: int = 1, replicas: int = 3) -> int:
        stream = await self.members[through].asks.create_stream(
            name=name,
            subject=name,
            group="",
            config=StreamConfig(),
            partitions=partitions,
            replication_factor=replicas,
            timeout_s=5,
        )
        return stream.stream_id

    def partition(self, server_id: str, stream_id: int, number: int = 0) -> PartitionState:
        partition = self.members[server_id].state.partition(stream_id, number)
        assert partition is not None
        return partition

    def status(self, server_id: str, *, on: str = "a") -> ServerStatus:
        return self.members[on].state.servers[server_id].status

    def client(self, server_id: str) -> ControllerClient:
        transport = self.members[server_id].transport
        return ControllerClient(transport, "ns", SystemClock(), cluster_id="", sender="operator")


async def until(condition: Callable[[], Any], timeout_s: float = 5.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.002)


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[Servers]:
    servers = Servers(tmp_path)
    yield servers
    for server_id in list(servers.members):
        await servers.stop(server_id)


@pytest.fixture
async def three(servers: Servers) -> Servers:
    """a leads the metadata."""
    await servers.start("a", seed=True)
    await servers.start("b")
    await servers.start("c")
    await until(lambda: servers.group.voters == {"a", "b", "c"})
    return servers


# --- how a run ended --------------------------------------------------------------------------------------------------


async def test_a_start_that_ends_before_its_logs_are_open_leaves_what_was_noted_of_the_run_before(
    three: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was cut off, or stopped, while it waited for the others: the machine went down before it all the same."""
    await three.stop("c")
    monkeypatch.setattr(identity, "_boot_id", lambda: "another boot")
    hasty = three.make("c")
    await hasty.transport.start()
    await hasty.node.enter()
    await hasty.node.leave()
    hasty.node.note_clean_stop()
    await hasty.transport.stop()
    assert identity.begin_run(three.folder / "c"), "still unclean"
    back = await three.start("c")
    back.node.note_clean_stop()
    assert not identity.begin_run(three.folder / "c")


# --- propagation ------------------------------------------------------------------------------------------------------


async def test_what_was_proposed_through_a_server_is_seen_on_it_when_the_call_returns(three: Servers) -> None:
    for through in "abc":
        stream_id = await three.create(through, f"s-{through}")
        assert three.members[through].state.stream_by_id(stream_id) is not None


async def test_refusals_come_back_as_what_they_are(three: Servers) -> None:
    await three.create("b", "s")
    with pytest.raises(AlreadyExists, match="stream already exists"):
        await three.create("c", "s")
    with pytest.raises(NotFound, match="stream does not exist"):
        await three.members["c"].asks.delete_stream("x", timeout_s=5)


async def test_a_lost_answer_does_not_make_a_command_take_effect_twice(three: Servers) -> None:
    three.network.cut("a", "b", both_ways=False)
    creating = asyncio.create_task(three.create("b", "s"))
    await until(lambda: "s" in three.members["a"].state.streams)
    await asyncio.sleep(0.1)
    three.network.heal("a", "b")
    stream_id = await creating
    assert three.members["a"].state.stream_by_id(stream_id) is not None


async def test_a_command_finds_the_new_metadata_leader_within_its_deadline(three: Servers) -> None:
    three.group.isolate("a")
    three.network.cut("b", "a")
    three.network.cut("c", "a")
    stream_id = await three.create("c", "s")
    assert three.members["b"].state.stream_by_id(stream_id) is not None


async def test_without_a_metadata_leader_a_command_ends_at_its_deadline(three: Servers) -> None:
    three.group.isolate("a")
    three.group.isolate("b")
    for server_id in "ab":
        three.network.cut("c", server_id)
    with pytest.raises(DeadlineExceeded):
        await three.members["c"].asks.delete_stream("s", timeout_s=0.3)


async def test_who_asks_when_there_has_been_no_metadata_leader_for_long_hears_so_at_once(
    three: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    three.group.isolate("a")
    three.group.isolate("b")
    for server_id in "ab":
        three.network.cut("c", server_id)
    monkeypatch.setattr(proposing, "_LEADERLESS_S", 0.2)
    asks = three.members["c"].asks
    for call in (
        lambda: asks.delete_stream("s", timeout_s=60),
        lambda: asks.pause("s", (), resume_all=False, timeout_s=60),
        lambda: asks.join_group("g", "consumer", ["s"], timeout_s=60),
        lambda: asks.report_coordinator("g", "consumer", "a", 1, timeout_s=60),
        asks.catch_up,
    ):
        async with asyncio.timeout(5):
            with pytest.raises(Unavailable, match=r"no metadata leader for .* majority of the servers a, b, c"):
                await call()
    with pytest.raises(DeadlineExceeded):
        await asks.resume("s", (), timeout_s=0.5)  # messages wait for it: it goes on by itself


# --- the ISR ----------------------------------------------------------------------------------------------------------


async def change(servers: Servers, through: str, stream_id: int, number: int, epoch: int, isr: Sequence[str]) -> bool:
    return await servers.members[through].asks.change_isr(stream_id, number, epoch, isr, timeout_s=5)


async def test_an_isr_change_is_accepted_once_and_then_stale(three: Servers) -> None:
    stream_id = await three.create("a", "s")
    epoch = three.partition("b", stream_id).partition_epoch
    leader = three.partition("b", stream_id).leader
    assert await change(three, "b", stream_id, 0, epoch, [leader])
    assert three.partition("b", stream_id).isr == (leader,)
    assert not await change(three, "b", stream_id, 0, epoch, ["a", "b", "c"])


async def test_isr_changes_of_one_turn_are_one_command(three: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    stream_id = await three.create("a", "s", partitions=600)
    proposed: list[bytes] = []
    propose = MemoryConsensus.propose

    async def spy(consensus: MemoryConsensus, command: bytes, *, timeout_s: float) -> object:
        proposed.append(command)
        return await propose(consensus, command, timeout_s=timeout_s)

    monkeypatch.setattr(MemoryConsensus, "propose", spy)
    partitions = [three.partition("c", stream_id, number) for number in range(600)]
    results = await asyncio.gather(
        *(
            change(three, "c", stream_id, number, one.partition_epoch, [one.leader])
            for number, one in enumerate(partitions)
        )
    )
    assert all(results)
    assert len(proposed) == 3
    assert all(len(three.partition("c", stream_id, number).isr) == 1 for number in range(600))


async def test_reports_of_the_followers_replace_a_leader(three: Servers) -> None:
    stream_id = await three.create("a", "s")
    before = three.partition("a", stream_id)
    followers = [one for one in "abc" if one != before.leader]
    for follower in followers:
        assert await three.members[follower].asks.suspect_leader(stream_id, 0, before.leader_epoch, timeout_s=5)
    await until(lambda: three.partition("a", stream_id).leader in followers)
    report = three.members[followers[0]].asks.suspect_leader
    assert not await report(stream_id, 0, before.leader_epoch, timeout_s=5)


# --- sessions ---------------------------------------------------------------------------------------------------------


async def test_a_server_that_is_cut_off_loses_its_lease_before_it_is_replaced(three: Servers) -> None:
    stream_id = await three.create("a", "s", partitions=3)
    (number,) = [number for number in range(3) if three.partition("a", stream_id, number).leader == "c"]
    await until(lambda: three.members["c"].node.holds_lease)
    three.network.cut("c", "a")
    await until(lambda: three.partition("b", stream_id, number).leader in ("a", "b"))
    assert not three.members["c"].node.holds_lease
    assert three.status("c") is ServerStatus.DOWN
    three.network.heal("c", "a")
    await until(lambda: three.status("c") is ServerStatus.LIVE)
    await until(lambda: three.members["c"].node.holds_lease)


async def test_nobody_is_taken_for_dead_when_the_metadata_leader_changes(three: Servers) -> None:
    heard: list[object] = []
    three.members["c"].state.subscribe_events(heard.append)
    await three.members["a"].consensus.transfer_leadership("b", timeout_s=5)
    await asyncio.sleep(3 * SESSION_S)
    assert heard == []
    assert {three.status(one) for one in "abc"} == {ServerStatus.LIVE}


async def test_a_server_that_stops_without_a_word_is_down_soon_and_live_when_it_starts_again(three: Servers) -> None:
    await three.stop("c")
    await until(lambda: three.status("c") is ServerStatus.DOWN)
    await three.start("c")
    assert three.status("c") is ServerStatus.LIVE


async def test_an_earlier_process_with_the_same_id_gives_way(three: Servers) -> None:
    old = three.members["c"]
    new = three.make("c", folder="elsewhere")
    await new.transport.start()
    with pytest.raises(ConfigError, match="is taken"):
        await new.node.enter()
    await new.transport.stop()
    assert old.failures == []
    # A process that couldn't see the old one.
    registration = RegisterServer("c", "elsewhere", 1, "another start")
    await three.members["b"].asks.register_server(registration, timeout_s=5)
    await until(lambda: old.failures)
    assert "another process registered as server c" in str(old.failures[0])


# --- leaving ----------------------------------------------------------------------------------------------------------


async def test_draining_hands_over_before_the_server_leaves(three: Servers) -> None:
    stream_id = await three.create("a", "s", partitions=9)
    await three.members["a"].node.drain(5)
    assert three.group.leader != "a"
    for number in range(9):
        partition = three.partition("b", stream_id, number)
        assert partition.leader in ("b", "c")
        assert set(partition.isr) == {"b", "c"}
    assert three.status("a", on="b") is ServerStatus.DOWN
    await asyncio.sleep(2 * SESSION_S)
    assert three.status("a", on="b") is ServerStatus.DOWN, "nobody brings it back"


async def test_a_server_alone_looks_at_no_clock_while_idle(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    await servers.start("a", seed=True)
    await asyncio.sleep(0.2)
    looked: list[int] = []
    monkeypatch.setattr(SystemClock, "monotonic_ns", lambda _clock: looked.append(1) or time.monotonic_ns())
    await asyncio.sleep(0.5)
    assert looked == []


async def test_a_server_alone_stops_without_draining(servers: Servers) -> None:
    alone = await servers.start("a", seed=True)
    stream_id = await servers.create("a", "s", replicas=1)
    await alone.node.drain(5)
    assert servers.partition("a", stream_id).leader == "a"
    assert servers.status("a") is ServerStatus.LIVE


# --- operators --------------------------------------------------------------------------------------------------------


async def ask(servers: Servers, *, timeout_s: float = 5, **request: Any) -> internal.ControlReply:
    return await servers.client("b").ask(internal.ControlRequest(**request), timeout_s=timeout_s)


async def test_the_cluster_is_shown_with_everybody_in_it(three: Servers) -> None:
    await three.create("a", "s", partitions=3)
    picture = (await ask(three, show_cluster=internal.ShowCluster())).cluster
    assert picture.metadata_leader == "a"
    assert picture.partitions == 3
    assert picture.offline_partitions == 0
    shown = [(one.server_id, one.status, one.voter, one.leaderships, one.replicas) for one in picture.members]
    assert shown == [(server_id, "live", True, 1, 3) for server_id in "abc"]


async def test_a_dead_server_is_removed_and_others_take_its_replicas(three: Servers) -> None:
    await three.start("d")
    stream_id = await three.create("a", "s", partitions=4)
    await three.stop("c")
    await until(lambda: three.status("c") is ServerStatus.DOWN)
    reply = await ask(three, remove_server=internal.RemoveServer(server_id="c"))
    assert reply.done == "server c is removed"
    for number in range(4):
        assert set(three.partition("a", stream_id, number).replicas) == {"a", "b", "d"}
    assert three.status("c") is ServerStatus.GONE
    assert "c" not in three.group.voters
    with pytest.raises(ConfigError, match="was removed"):
        await three.start("c")
    await three.stop("c")


async def test_a_live_server_is_removed_from_what_is_paused(three: Servers) -> None:
    stream_id = await three.create("a", "s", partitions=3)
    await three.members["a"].asks.pause("s", (), resume_all=False, timeout_s=5)
    reply = await ask(three, remove_server=internal.RemoveServer(server_id="c"))
    assert reply.done == "server c is removed"
    for number in range(3):
        partition = three.partition("a", stream_id, number)
        assert set(partition.replicas) == set(partition.isr) == {"a", "b"}


async def test_the_metadata_leader_can_be_removed(three: Servers) -> None:
    await three.create("a", "s", partitions=4, replicas=2)
    reply = await ask(three, remove_server=internal.RemoveServer(server_id="a"))
    assert reply.done == "server a is removed"
    assert three.group.leader == "b"
    await until(lambda: three.members["a"].failures)
    assert "removed from the cluster" in str(three.members["a"].failures[0])


async def test_the_only_copy_is_not_removed_unless_the_operator_accepts_the_loss(three: Servers) -> None:
    stream_id = await three.create("a", "s", partitions=3, replicas=1)
    (number,) = [number for number in range(3) if three.partition("a", stream_id, number).leader == "c"]
    await three.stop("c")
    await until(lambda: three.partition("a", stream_id, number).leader == "")
    with pytest.raises(FailedPrecondition, match="in sync only on c"):
        await ask(three, remove_server=internal.RemoveServer(server_id="c"))
    await ask(three, remove_server=internal.RemoveServer(server_id="c", accept_loss=True))
    partition = three.partition("a", stream_id, number)
    assert partition.leader in ("a", "b")
    assert partition.isr == partition.replicas == (partition.leader,)


async def test_a_live_only_copy_is_copied_before_it_is_removed(three: Servers) -> None:
    stream_id = await three.create("a", "s", partitions=3, replicas=1)
    (number,) = [number for number in range(3) if three.partition("a", stream_id, number).leader == "c"]
    removing = asyncio.create_task(ask(three, timeout_s=10, remove_server=internal.RemoveServer(server_id="c")))
    await until(lambda: len(three.partition("c", stream_id, number).replicas) == 2)
    partition = three.partition("c", stream_id, number)
    assert not removing.done()
    assert await change(
        three, "c", stream_id, number, partition.partition_epoch, partition.replicas
    )  # it has caught up
    assert (await removing).done == "server c is removed"
    assert three.partition("a", stream_id, number).leader in ("a", "b")


async def test_a_server_is_not_removed_when_no_majority_would_be_left(three: Servers) -> None:
    await three.stop("c")
    await until(lambda: three.status("c") is ServerStatus.DOWN)
    with pytest.raises(FailedPrecondition, match="no majority"):
        await ask(three, remove_server=internal.RemoveServer(server_id="b"))


async def test_a_partition_is_handed_to_a_replica_in_sync(three: Servers) -> None:
    stream_id = await three.create("a", "s")
    old = three.partition("a", stream_id).leader
    new = next(one for one in "abc" if one != old)
    await ask(three, transfer_leader=internal.TransferLeader(server_id=new, stream="s"))
    assert three.partition("a", stream_id).leader == new


async def test_only_an_accepted_loss_makes_a_replica_lead_that_is_not_in_sync(three: Servers) -> None:
    stream_id = await three.create("a", "s")
    partition = three.partition("b", stream_id)
    assert await change(three, "b", stream_id, 0, partition.partition_epoch, [partition.leader])
    behind = next(one for one in "abc" if one != partition.leader)
    request = internal.TransferLeader(server_id=behind, stream="s")
    with pytest.raises(FailedPrecondition, match="not in sync"):
        await ask(three, transfer_leader=request)
    request.accept_loss = True
    await ask(three, transfer_leader=request)
    assert three.partition("a", stream_id).isr == (behind,)


async def test_strangers_and_nonsense_are_refused(three: Servers) -> None:
    for request in (
        {"drain_server": internal.DrainServer(server_id="x")},
        {"remove_server": internal.RemoveServer(server_id="x")},
        {"transfer_leader": internal.TransferLeader(server_id="x")},
        {"transfer_leader": internal.TransferLeader(server_id="a", stream="nothing")},
        {},
    ):
        with pytest.raises(FailedPrecondition):
            await ask(three, **request)


async def test_a_request_of_another_cluster_is_refused(three: Servers) -> None:
    transport = three.members["b"].transport
    stranger = ControllerClient(transport, "ns", SystemClock(), cluster_id="another", sender="b")
    with pytest.raises(FailedPrecondition, match="another cluster"):
        await stranger.ask(internal.ControlRequest(show_cluster=internal.ShowCluster()), timeout_s=1)


def test_heartbeats_that_are_too_rare_for_the_sessions_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"clustering.session.heartbeat is 1s; .* at most 0.5s"):
        NodeSettings(Bootstrap(seed=True, peers=(), max_voters=0), heartbeat_s=1.0)
