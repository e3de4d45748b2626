"""Three servers' partitions in one process: real roles and real conversations on a network in memory, and a controller
that is a dictionary."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace

import pytest

from liftbridge.clock import SystemClock
from liftbridge.interfaces.log import LogId, LogSettings, RetentionLimits
from liftbridge.partition import manager
from liftbridge.partition.assignment import Assignment, RetentionSettings
from liftbridge.partition.durability import Durability
from liftbridge.partition.leader import LeaderSettings
from liftbridge.partition.local import LocalPartition
from liftbridge.partition.manager import PartitionManager
from liftbridge.partition.partition import PartitionKey
from liftbridge.partition.pending import ACK_ALL, ACK_LEADER, PendingRun
from liftbridge.partition.refusal import Refusal, RefusalKind
from liftbridge.partition.replication.exchange import ExchangeLimits, ReplicationExchange
from liftbridge.partition.replication.fetching import FetchingLimits
from liftbridge.partition.replication.leading import SyncLimits
from liftbridge.partition.replication.serving import ServingLimits
from liftbridge.protocol.record_encoding import encode_value
from liftbridge.testing.batches import make_batch
from liftbridge.testing.memory_log import MemoryLogStorage
from liftbridge.testing.memory_transport import MemoryNetwork, MemoryTransport

MS = 1_000_000
LIMITS = ExchangeLimits(
    sync=SyncLimits(max_silence_ns=300 * MS, max_lag_ns=1000 * MS),
    serving=ServingLimits(poll_ns=50 * MS, max_silence_ns=300 * MS),
    fetching=FetchingLimits(answer_timeout_ns=150 * MS, retry_ns=50 * MS),
    suspect_after_ns=200 * MS,
)
KEY = PartitionKey("orders", 0, 7)
NAMES = ("a", "b", "c")
#: Longer than anything takes, even where others keep the machine busy.
PATIENCE_S = 20.0


@dataclass
class Acks:
    """What a publisher hears."""

    answer: "asyncio.Future[int | Refusal]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def stored(self, run: PendingRun, base_offset: int, reception_ns: int, commit_ns: int) -> None:
        self.answer.set_result(base_offset)

    def refused(self, run: PendingRun, refusal: Refusal) -> None:
        self.answer.set_result(refusal)


@dataclass
class Metadata:
    """The controller and its state; servers hear of changes when they are told to ``reconcile``."""

    isr: tuple[str, ...] = NAMES
    leader: str = "a"
    leader_epoch: int = 1
    partition_epoch: int = 1
    settings: LeaderSettings = field(default_factory=LeaderSettings)
    incarnations: dict[str, str] = field(default_factory=lambda: dict.fromkeys(NAMES, "first"))
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    suspected: list[int] = field(default_factory=list)
    #: Refuses other ISRs.
    frozen: bool = False

    async def change_isr(
        self,
        stream_id: int,
        partition: int,
        partition_epoch: int,
        isr: "tuple[str, ...] | list[str]",
        *,
        timeout_s: float,
    ) -> bool:
        if partition_epoch != self.partition_epoch or self.frozen:
            return False
        self.isr = tuple(isr)
        self.partition_epoch += 1
        self.changed.set()
        return True

    async def suspect_leader(self, stream_id: int, partition: int, leader_epoch: int, *, timeout_s: float) -> bool:
        self.suspected.append(leader_epoch)
        return True

    def elect(self, server_id: str) -> None:
        self.partition_epoch += 1
        self.leader, self.leader_epoch = server_id, self.partition_epoch
        self.changed.set()

    def is_current(self, server_id: str, incarnation: str) -> bool:
        return self.incarnations[server_id] == incarnation

    def may_serve(self, server_id: str, incarnation: str) -> bool:
        return self.is_current(server_id, incarnation)

    def is_down(self, server_id: str) -> bool:
        return False

    def assignment(self, server_id: str) -> Assignment:
        return Assignment(
            key=KEY,
            base_subject="orders",
            subject="orders",
            group="",
            replicas=NAMES,
            isr=self.isr,
            leader=self.leader,
            leader_epoch=self.leader_epoch,
            partition_epoch=self.partition_epoch,
            leads=self.leader == server_id,
            leader_settings=self.settings,
            log_settings=LogSettings(),
            retention=RetentionSettings(0, 0, 0, 1),
        )


class Server:
    """One server's partitions. A kill takes away all but its storage."""

    def __init__(self, network: MemoryNetwork, metadata: Metadata, name: str) -> None:
        self.name = name
        self.metadata = metadata
        self.storage = MemoryLogStorage()
        self.transport = MemoryTransport(network, name)
        self.running = False
        self.woken: list[PartitionKey] = []

    async def start(self) -> None:
        clock = SystemClock()
        await self.transport.start()
        self.exchange = ReplicationExchange(
            self.transport,
            clock,
            self.metadata,
            self.metadata,
            namespace="test",
            server_id=self.name,
            incarnation=self.metadata.incarnations[self.name],
            limits=LIMITS,
        )
        await self.exchange.start()
        self.partitions = PartitionManager(
            self.storage,
            self.transport,
            clock,
            self.exchange,
            self.metadata,
            server_id=self.name,
            wake=self.woken.append,
        )
        self.running = True
        await self.reconcile()

    async def reconcile(self) -> None:
        if self.running:
            await self.partitions.reconcile([self.metadata.assignment(self.name)])

    async def kill(self) -> None:
        """Nothing is said to anybody."""
        self.running = False
        self.transport.disconnect()
        await self.exchange.stop()
        await self.partitions.close()
        await self.transport.stop()

    @property
    def local(self) -> LocalPartition:
        local = self.partitions.get("orders", 0)
        assert local is not None
        return local

    def log_bytes(self) -> bytes:
        log = self.storage.open(LogId(7, 0), LogSettings())
        return log.read(0, stop=log.end_offset, max_bytes=1 << 30)

    def publish(self, value: bytes, policy: int = ACK_ALL) -> "asyncio.Future[int | Refusal]":
        acks = Acks()
        run = PendingRun(
            items=[encode_value(value)],
            item_bytes=len(encode_value(value)),
            subject="orders",
            ack_policy=policy,
            acks=acks,
            correlation_ids=[b""],
        )
        assert self.local.leader is not None
        self.local.leader.submit(run)
        return acks.answer


class Cluster:
    def __init__(self, metadata: Metadata) -> None:
        self.metadata = metadata
        self.network = MemoryNetwork()
        self.servers = {name: Server(self.network, metadata, name) for name in NAMES}
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        for server in self.servers.values():
            await server.start()
        self._keeper = asyncio.create_task(self._keep_reconciled())

    async def _keep_reconciled(self) -> None:
        while True:
            await self.metadata.changed.wait()
            self.metadata.changed.clear()
            for server in self.servers.values():
                await server.reconcile()

    async def stop(self) -> None:
        assert self._keeper is not None
        self._keeper.cancel()
        await asyncio.gather(self._keeper, return_exceptions=True)
        for server in self.servers.values():
            if server.running:
                await server.kill()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits for something that nobody announces."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await asyncio.sleep(0.01)


def _settings(durability: Durability) -> LeaderSettings:
    return LeaderSettings(durability=durability, sync_interval_s=0.01)


@pytest.fixture(params=list(Durability))
async def cluster(request: pytest.FixtureRequest) -> AsyncIterator[Cluster]:
    cluster = Cluster(Metadata(settings=_settings(request.param)))
    await cluster.start()
    yield cluster
    await cluster.stop()


async def answered(answer: "asyncio.Future[int | Refusal]") -> "int | Refusal":
    async with asyncio.timeout(PATIENCE_S):
        return await answer


async def test_all_is_acked_once_every_replica_has_the_same_bytes(cluster: Cluster) -> None:
    a, b, c = cluster.servers.values()
    for number in range(20):
        assert await answered(a.publish(b"%d" % number)) == number
    assert a.log_bytes() == b.log_bytes() == c.log_bytes() != b""
    await cluster.until(lambda: b.local.high_watermark == c.local.high_watermark == 20)


async def test_leader_is_acked_without_followers_and_all_is_not(cluster: Cluster) -> None:
    a = cluster.servers["a"]
    for name in ("b", "c"):
        cluster.network.cut("a", name)
    assert await answered(a.publish(b"x", ACK_LEADER)) == 0
    assert a.local.high_watermark == 0
    answer = a.publish(b"y")
    await cluster.until(lambda: cluster.metadata.isr == ("a",))
    assert await answered(answer) == 1, "the silent ones left the ISR"
    cluster.network.heal("a", "b")
    await cluster.until(lambda: set(cluster.metadata.isr) >= {"a", "b"})
    assert cluster.servers["b"].log_bytes() == a.log_bytes()


async def test_all_is_refused_at_once_below_min_isr(cluster: Cluster) -> None:
    a = cluster.servers["a"]
    cluster.metadata.settings = replace(cluster.metadata.settings, min_isr=2)
    cluster.metadata.elect("a")
    await cluster.until(lambda: a.local.leader is not None and a.local.leader.settings.min_isr == 2)
    for name in ("b", "c"):
        await cluster.servers[name].kill()
    await cluster.until(lambda: cluster.metadata.isr == ("a",))
    refusal = await answered(a.publish(b"x"))
    assert isinstance(refusal, Refusal)
    assert refusal.kind is RefusalKind.TOO_FEW_REPLICAS


async def test_whoever_waits_when_the_role_is_lost_hears_that_nobody_knows(cluster: Cluster) -> None:
    a = cluster.servers["a"]
    for name in ("b", "c"):
        cluster.network.cut("a", name)
    answer = a.publish(b"x")
    await cluster.until(lambda: a.local.end_offset == 1)
    cluster.metadata.elect("b")
    refusal = await answered(answer)
    assert isinstance(refusal, Refusal)
    assert refusal.kind is RefusalKind.OUTCOME_UNKNOWN
    assert "leader changed" in refusal.message


async def test_a_leader_that_hands_over_answers_everything_and_holds_up_who_comes_after(cluster: Cluster) -> None:
    a = cluster.servers["a"]
    answers = [a.publish(b"%d" % number) for number in range(20)]
    assert await a.partitions.hand_over(KEY.log_id, 1, PATIENCE_S)
    assert [one.result() for one in answers] == list(range(20))
    assert a.local.handing_over
    cluster.metadata.elect("b")
    await cluster.until(lambda: a.local.leader is None)
    assert not a.local.handing_over


async def test_handing_over_gives_up_while_followers_are_away_and_for_another_epoch(cluster: Cluster) -> None:
    a = cluster.servers["a"]
    cluster.metadata.frozen = True
    for name in ("b", "c"):
        cluster.network.cut("a", name)
    a.publish(b"x")
    assert not await a.partitions.hand_over(KEY.log_id, 1, 0.05)
    assert not await a.partitions.hand_over(KEY.log_id, 2, PATIENCE_S)


async def test_without_a_successor_the_leader_goes_on(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager, "HAND_OVER_S", 0.01)
    a = cluster.servers["a"]
    assert await a.partitions.hand_over(KEY.log_id, 1, PATIENCE_S)
    await cluster.until(lambda: not a.local.handing_over)


async def test_what_was_not_appended_when_the_role_is_lost_is_surely_not_stored(cluster: Cluster) -> None:
    a = cluster.servers["a"]
    leader = a.local.leader
    assert leader is not None
    answer = a.publish(b"x")
    leader.step_down()
    refusal = await answered(answer)
    assert isinstance(refusal, Refusal)
    assert refusal.kind is RefusalKind.NOT_LEADER
    assert a.local.end_offset == 0


async def test_publishers_are_held_up_while_too_much_waits_for_followers(cluster: Cluster) -> None:
    a = cluster.servers["a"]
    cluster.metadata.frozen = True
    cluster.metadata.settings = replace(cluster.metadata.settings, max_unsynced_bytes=100)
    cluster.metadata.elect("a")
    await cluster.until(lambda: a.local.leader is not None and a.local.leader.settings.max_unsynced_bytes == 100)
    leader = a.local.leader
    assert leader is not None
    for name in ("b", "c"):
        cluster.network.cut("a", name)
    answers = [a.publish(bytes(60)) for _ in range(3)]
    await cluster.until(lambda: leader.overloaded)
    resumed = asyncio.Event()
    leader.call_when_ready(resumed.set)
    for name in ("b", "c"):
        cluster.network.heal("a", name)
    async with asyncio.timeout(PATIENCE_S):
        await resumed.wait()
    assert [await answered(answer) for answer in answers] == [0, 1, 2]


async def test_a_deposed_leader_drops_what_nobody_else_has_and_copies_the_rest(cluster: Cluster) -> None:
    a, b, c = cluster.servers.values()
    assert await answered(a.publish(b"kept")) == 0
    for name in ("b", "c"):
        cluster.network.cut("a", name)
    await answered(a.publish(b"orphan", ACK_LEADER))
    cluster.metadata.elect("b")
    await cluster.until(lambda: b.local.is_leader)
    assert await answered(b.publish(b"new", ACK_LEADER)) == 1
    for name in ("b", "c"):
        cluster.network.heal("a", name)
    assert await answered(b.publish(b"newer")) == 2
    await cluster.until(lambda: a.log_bytes() == b.log_bytes() == c.log_bytes())
    assert b"orphan" not in a.log_bytes()


async def test_a_killed_leader_loses_nothing_that_was_acked_and_comes_back(cluster: Cluster) -> None:
    a, b, c = cluster.servers.values()
    for number in range(5):
        await answered(a.publish(b"%d" % number))
    await a.kill()
    cluster.metadata.incarnations["a"] = "second"
    cluster.metadata.isr = ("b", "c")
    cluster.metadata.elect("c")
    await cluster.until(lambda: c.local.is_leader)
    assert await c.local.wait_settled(PATIENCE_S)
    assert c.local.high_watermark == 5
    assert await answered(c.publish(b"after")) == 5
    await a.start()
    await cluster.until(lambda: set(cluster.metadata.isr) == set(NAMES))
    assert await answered(c.publish(b"all three")) == 6
    assert a.log_bytes() == b.log_bytes() == c.log_bytes()


async def test_a_leader_that_does_not_answer_is_reported(cluster: Cluster) -> None:
    await cluster.servers["a"].kill()
    await cluster.until(lambda: len(cluster.metadata.suspected) >= 2)
    assert set(cluster.metadata.suspected) == {1}


async def test_a_server_that_answers_but_does_not_lead_is_reported(cluster: Cluster) -> None:
    cluster.servers["b"].running = False  # it learns nothing more, and talks as before
    cluster.metadata.elect("b")
    await cluster.until(lambda: cluster.metadata.suspected.count(cluster.metadata.leader_epoch) >= 2)
    cluster.servers["b"].running = True


async def test_a_new_leader_settles_before_it_says_what_is_latest(cluster: Cluster) -> None:
    a, b, _c = cluster.servers.values()
    await answered(a.publish(b"x"))
    cluster.metadata.frozen = True
    for name in ("a", "c"):
        cluster.network.cut("b", name)
    b.local.partition.retract_high_watermark(0)  # type: ignore[union-attr]
    cluster.metadata.elect("b")
    await cluster.until(lambda: b.local.is_leader)
    assert not await b.local.wait_settled(0.05)
    for name in ("a", "c"):
        cluster.network.heal("b", name)
    assert await b.local.wait_settled(PATIENCE_S)
    assert b.local.high_watermark == 1


async def test_a_log_that_ends_above_all_that_the_leader_holds_begins_anew(cluster: Cluster) -> None:
    """All who were in sync lost power, and retention had emptied the other's log: nothing there can be continued."""
    a, b, c = cluster.servers.values()
    for number in range(5):
        await answered(a.publish(b"%d" % number))
    for server in (a, b, c):
        await server.kill()
    for server in (b, c):
        server.storage.open(LogId(7, 0), LogSettings()).truncate(2)
    emptied = a.storage.open(LogId(7, 0), LogSettings(segment_max_bytes=1))
    emptied.append([make_batch(5, 1, leader_epoch=1)])
    emptied.append([make_batch(6, 1, leader_epoch=1)])
    start = emptied.apply_retention(RetentionLimits(0, 1, 0, keep_from_offset=7), 0)
    emptied.truncate(start)
    assert 2 < emptied.start_offset == emptied.end_offset
    cluster.metadata.isr = ("b", "c")
    cluster.metadata.elect("b")
    for server in (a, b, c):
        await server.start()
    await cluster.until(lambda: set(cluster.metadata.isr) == set(NAMES))
    assert await answered(b.publish(b"all three")) == 2
    assert a.log_bytes() == b.log_bytes() == c.log_bytes()
