"""The data plane of a whole cluster in one thread and one seed: the rules of replication and both sides of their
conversations as they run in a server, over a network that loses, repeats, delays and overtakes, on disks that forget what
wasn't synced, under a controller that is modelled. What must hold is checked after every step; replay a failure by its
seed."""

import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import Any

from liftbridge.interfaces.log import LogId, LogSettings, RetentionLimits
from liftbridge.interfaces.records import RecordBatch
from liftbridge.partition.partition import Partition, PartitionKey
from liftbridge.partition.replication.fetching import FetchingLimits, FollowedPartition, ReplicaFetcher
from liftbridge.partition.replication.following import FollowerReplication
from liftbridge.partition.replication.leading import IsrChange, LeaderReplication, SyncLimits
from liftbridge.partition.replication.serving import FetchServer, ServingLimits
from liftbridge.partition.replication.sessions import LedPartition
from liftbridge.protocol.record_batch import decode_batch
from liftbridge.protocol.replication import AnswerPart, Fetch, Reset, decode_message
from liftbridge.testing.batches import make_batch
from liftbridge.testing.memory_log import MemoryLogStorage

_MS = 1_000_000
_SYNC_LIMITS = SyncLimits(max_silence_ns=400 * _MS, max_lag_ns=1500 * _MS, max_wait_ns=100 * _MS)
_SERVING_LIMITS = ServingLimits(
    poll_ns=100 * _MS, high_watermark_delay_ns=5 * _MS, answer_max_bytes=600, max_silence_ns=400 * _MS
)
_FETCHING_LIMITS = FetchingLimits(answer_timeout_ns=250 * _MS, retry_ns=50 * _MS)
_LOG_SETTINGS = LogSettings(segment_max_bytes=400)
_MAX_PAYLOAD_BYTES = 250


class Violation(AssertionError):
    """A property of replication doesn't hold."""


# --- the controller, modelled -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PartitionMetadata:
    """A partition as the metadata group has it; ``leader`` is empty while no member of the ISR can lead."""

    replicas: tuple[str, ...]
    isr: tuple[str, ...]
    leader: str
    leader_epoch: int
    partition_epoch: int


@dataclass(frozen=True)
class Metadata:
    """One version of everything."""

    partitions: dict[LogId, PartitionMetadata]
    incarnations: dict[str, str] = field(default_factory=dict)


class Controller:
    """Linearizable: each change is a new version, and servers come to know the versions in order, in their own time."""

    def __init__(self, partitions: dict[LogId, PartitionMetadata]) -> None:
        self.versions = [Metadata(partitions)]
        self._index = 1
        self.live: set[str] = set()

    @property
    def now(self) -> Metadata:
        return self.versions[-1]

    def _change(self, log_id: LogId, *, new_leader: bool = False, **changes: Any) -> None:
        self._index += 1
        if new_leader:
            changes["leader_epoch"] = self._index
        changed = replace(self.now.partitions[log_id], partition_epoch=self._index, **changes)
        self.versions.append(replace(self.now, partitions={**self.now.partitions, log_id: changed}))

    def change_isr(self, server_id: str, log_id: LogId, change: IsrChange) -> bool:
        """Whether it took effect; checked where it is applied, not before."""
        partition = self.now.partitions[log_id]
        if not self.accepts(partition, server_id, change):
            return False
        self._change(log_id, isr=change.isr)
        return True

    def accepts(self, partition: PartitionMetadata, server_id: str, change: IsrChange) -> bool:
        return (
            partition.partition_epoch == change.partition_epoch
            and partition.leader == server_id
            and server_id in change.isr
        )

    def register(self, server_id: str, incarnation: str) -> None:
        """An unclean start: it may have lost anything, so it leaves every ISR it isn't the last member of. Whatever was
        computed from what an earlier start of it held is void, so every partition of it gets a new epoch."""
        before = len(self.versions)
        self.versions.append(replace(self.now, incarnations={**self.now.incarnations, server_id: incarnation}))
        self.live.add(server_id)
        for log_id, partition in self.now.partitions.items():
            if server_id in partition.replicas:
                self.restarted(server_id, log_id, partition)
        del self.versions[before:-1]  # nobody sees half of it

    def restarted(self, server_id: str, log_id: LogId, partition: PartitionMetadata) -> None:
        isr = tuple(one for one in partition.isr if one != server_id) or partition.isr
        leader = "" if partition.leader == server_id else partition.leader
        self._change(log_id, isr=isr, leader=leader)
        self.elect_if_leaderless(log_id)

    def lost_sight_of(self, server_id: str) -> None:
        """No heartbeat: it may be dead, or only out of reach."""
        self.live.discard(server_id)
        for log_id, partition in self.now.partitions.items():
            if partition.leader == server_id:
                self.elect(log_id, [one for one in partition.isr if one in self.live])

    def elect_if_leaderless(self, log_id: LogId) -> None:
        partition = self.now.partitions[log_id]
        if not partition.leader:
            self.elect(log_id, [one for one in partition.isr if one in self.live])

    def elect(self, log_id: LogId, candidates: list[str]) -> None:
        """None can lead: the partition is offline until one comes back."""
        self._change(log_id, leader=candidates[0] if candidates else "", new_leader=True)


# --- servers ----------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Publish:
    """Records that a client published, and up to where they reach once they are stored."""

    value: bytes
    base_offset: int
    end_offset: int
    leader_epoch: int


@dataclass(eq=False)
class LocalReplica:
    """One partition on a running server."""

    partition: Partition
    leader_epoch: int = -1
    led: LedPartition | None = None
    leader: str = ""
    unacked: list[Publish] = field(default_factory=list)
    seen_high_watermark: int = 0


@dataclass(frozen=True)
class Rules:
    """The classes under test; a test hands in broken ones to see the simulation notice."""

    leader: type[LeaderReplication] = LeaderReplication
    follower: type[FollowerReplication] = FollowerReplication
    controller: type[Controller] = Controller
    barrier: bool = True
    checks_incarnations: bool = True


class Server:
    """A process: everything in it but the disk is gone after a crash."""

    def __init__(self, world: "World", server_id: str, disk: "Disk", incarnation: str) -> None:
        self.world = world
        self.server_id = server_id
        self.disk = disk
        self.incarnation = incarnation
        self.applied = -1
        self.metadata = Metadata({})
        self.syncs: list[Callable[[], None]] = []
        self.serving = FetchServer(
            max_payload_bytes=lambda: _MAX_PAYLOAD_BYTES, limits=_SERVING_LIMITS, is_current=self._is_current
        )
        self.fetchers: dict[str, ReplicaFetcher] = {}
        self.replicas: dict[LogId, LocalReplica] = {}
        self.requested: list[tuple[LedPartition, IsrChange]] = []

    def _is_current(self, replica: str, incarnation: str) -> bool:
        known = self.metadata.incarnations.get(replica)
        return known == incarnation or not self.world.rules.checks_incarnations

    # --- roles --------------------------------------------------------------------------------------------------------

    def apply_next(self) -> None:
        """Comes to know one more version of metadata, and acts on it."""
        versions = self.world.controller.versions
        if self.applied + 1 >= len(versions):
            return
        self.applied += 1
        self.metadata = versions[self.applied]
        if self.metadata.incarnations.get(self.server_id) != self.incarnation:
            return
        for log_id, metadata in self.metadata.partitions.items():
            if self.server_id in metadata.replicas:
                self._assume(log_id, metadata)

    def _assume(self, log_id: LogId, metadata: PartitionMetadata) -> None:
        local = self.replicas.get(log_id)
        if local is None:
            log = self.disk.storage.open(log_id, _LOG_SETTINGS)
            key = PartitionKey("stream", log_id.partition, log_id.stream_id)
            local = self.replicas[log_id] = LocalReplica(Partition(key, log, "subject"))
            local.seen_high_watermark = local.partition.high_watermark
        if (metadata.leader_epoch, metadata.leader) != (local.leader_epoch, local.leader):
            self._leave_role(log_id, local)
            local.leader_epoch, local.leader = metadata.leader_epoch, metadata.leader
            if metadata.leader == self.server_id:
                self._lead(log_id, local, metadata)
            elif metadata.leader:
                self._follow(log_id, local)
        elif local.led is not None:
            self.serving.isr_changed(local.led, metadata.isr, metadata.partition_epoch)

    def _leave_role(self, log_id: LogId, local: LocalReplica) -> None:
        if local.led is not None:
            self.serving.unlead(log_id)
            local.unacked.clear()
            if self.world.rules.barrier:
                local.led = None
        elif local.leader in self.fetchers:
            self.fetchers[local.leader].unfollow(log_id)

    def _lead(self, log_id: LogId, local: LocalReplica, metadata: PartitionMetadata) -> None:
        if metadata.leader_epoch == self.world.controller.now.partitions[log_id].leader_epoch:
            self.world.history.check_holds_all(self.server_id, log_id, local.partition.log)
        replication = self.world.rules.leader(
            local.partition,
            server_id=self.server_id,
            leader_epoch=metadata.leader_epoch,
            replicas=metadata.replicas,
            isr=metadata.isr,
            partition_epoch=metadata.partition_epoch,
            min_isr=self.world.min_isr,
            now_ns=self.world.now_ns,
            durable_end=self.disk.synced[log_id] if self.world.synced else None,
            limits=_SYNC_LIMITS,
            may_serve=self._is_current,
        )
        local.led = LedPartition(log_id, local.partition, replication, lambda: self._committed(log_id, local))
        self.serving.lead(local.led)
        self.world.history.check_replica(self, log_id, local)
        if self.world.synced:
            led, end_offset = local.led, local.partition.log.end_offset
            self.syncs.append(partial(self._synced, log_id, led, end_offset))

    def _follow(self, log_id: LogId, local: LocalReplica) -> None:
        fetcher = self.fetchers.get(local.leader)
        if fetcher is None:
            fetcher = self.fetchers[local.leader] = ReplicaFetcher(
                server_id=self.server_id,
                incarnation=self.incarnation,
                max_payload_bytes=lambda: _MAX_PAYLOAD_BYTES,
                sync=partial(self._start_sync, local.leader),
                limits=_FETCHING_LIMITS,
                first_session=self.world.now_ns + 1,
            )
        replication = self.world.rules.follower(local.partition, local.leader_epoch, f"{self.server_id} {log_id}")
        fetcher.follow(FollowedPartition(log_id, local.partition, replication, needs_sync=self.world.synced))

    def _start_sync(self, leader: str, followed: FollowedPartition) -> None:
        end_offset = self.replicas[followed.log_id].partition.log.end_offset

        def done() -> None:
            self.disk.synced[followed.log_id] = end_offset
            self.fetchers[leader].synced(followed)

        self.syncs.append(done)

    # --- publishing ---------------------------------------------------------------------------------------------------

    def publish(self, log_id: LogId, value: bytes, records: int, *, wants_all: bool) -> None:
        local = self.replicas.get(log_id)
        led = local.led if local is not None else None
        if local is None or led is None:
            return
        if wants_all and len(led.replication.isr) < self.world.min_isr:
            return  # refused at the door
        epoch = led.replication.leader_epoch
        batch = self.world.make_batch(local.partition.log.end_offset, records, value=value, leader_epoch=epoch)
        self.world.history.check_append(log_id, batch)
        local.partition.log.append([batch])
        local.partition.last_body = (batch.base_offset, batch.data)
        if wants_all:
            local.unacked.append(Publish(value, batch.base_offset, batch.end_offset, epoch))
        self.serving.appended(led)
        if self.world.synced:
            self.syncs.append(lambda: self._synced(log_id, led, batch.end_offset))
        elif led.replication.appended(batch.end_offset):
            self.serving.committed(led)

    def _synced(self, log_id: LogId, led: LedPartition, end_offset: int) -> None:
        """Only what the log held when the sync began, and only in the role that appended it."""
        if self.replicas[log_id].led is led:
            self.disk.synced[log_id] = max(self.disk.synced[log_id], end_offset)
            if led.replication.appended(end_offset):
                self.serving.committed(led)

    def _committed(self, log_id: LogId, local: LocalReplica) -> None:
        self.world.history.check_replica(self, log_id, local)
        while local.unacked and local.unacked[0].end_offset <= local.partition.high_watermark:
            self.world.history.acked(log_id, local.unacked.pop(0))

    # --- messages -----------------------------------------------------------------------------------------------------

    def receive(self, sender: str, payload: bytes) -> None:
        message = decode_message(payload)
        match message:
            case Fetch():
                joining = self.serving.receive(message, sender, self.world.now_ns)
                self.requested += self.serving.wanted_now(joining, self.world.now_ns)
            case AnswerPart() | Reset():
                if sender in self.fetchers:
                    self.fetchers[sender].receive(message, self.world.now_ns)
        for local in self.replicas.values():
            local.partition.log.start_offset  # noqa: B018 - a log that broke would raise here
        self.disk.note_truncations(self.replicas)

    def pump(self) -> None:
        for subject, payloads in self.serving.collect(self.world.now_ns):
            for payload in payloads:
                self.world.send(self.server_id, subject, payload)
        for leader, fetcher in self.fetchers.items():
            for payload in fetcher.collect(self.world.now_ns):
                self.world.send(self.server_id, leader, payload)

    def tick(self) -> None:
        self.serving.tick(self.world.now_ns)
        for fetcher in self.fetchers.values():
            fetcher.tick(self.world.now_ns)
        self.requested += self.serving.wanted_changes(self.world.now_ns)


class Disk:
    """What survives a crash, and how much of it survives the loss of power."""

    def __init__(self) -> None:
        self.storage = MemoryLogStorage()
        self.synced: defaultdict[LogId, int] = defaultdict(int)

    def note_truncations(self, replicas: dict[LogId, LocalReplica]) -> None:
        for log_id, local in replicas.items():
            self.synced[log_id] = min(self.synced[log_id], local.partition.log.end_offset)

    def lose_power(self, chance: random.Random) -> None:
        """Any number of the batches that weren't synced is gone, from the tail."""
        for log_id in self.storage.list_logs():
            log = self.storage.open(log_id, _LOG_SETTINGS)
            ends = [batch.base_offset for batch in batches_of(log) if batch.base_offset >= self.synced[log_id]]
            if ends and chance.random() < 0.8:
                log.truncate(chance.choice(ends))


def batches_of(log: Any) -> list[RecordBatch]:
    """Everything in the log."""
    data = log.read(log.start_offset, stop=log.end_offset, max_bytes=1 << 30)
    batches, position = [], 0
    while position < len(data):
        batches.append(decode_batch(data, position))
        position += len(batches[-1].data)
    return batches


# --- what must hold ---------------------------------------------------------------------------------------------------


class History:
    """What any server ever committed, acknowledged or wrote."""

    def __init__(self) -> None:
        self.committed: defaultdict[LogId, dict[int, RecordBatch]] = defaultdict(dict)
        self.committed_end: defaultdict[LogId, int] = defaultdict(int)
        self.written: dict[tuple[LogId, int, int], bytes] = {}
        self.acks = 0
        #: What is below may be gone everywhere: a replica that was away goes on where its leader's log begins.
        self.retained_from: defaultdict[LogId, int] = defaultdict(int)

    def fills_a_gap(self, log_id: LogId, batch: RecordBatch) -> bool:
        """Whether a batch stands where a leader's retention had removed what was committed."""
        return not batch.record_count and batch.end_offset <= self.retained_from[log_id]

    def agrees(self, known: RecordBatch, batch: RecordBatch, offset: int) -> bool:
        """Whether a replica that holds ``batch`` holds at ``offset`` what was committed in ``known``."""
        del offset
        return known == batch

    def check_append(self, log_id: LogId, batch: RecordBatch) -> None:
        """One leader an epoch, which never writes an offset twice."""
        key = (log_id, batch.leader_epoch, batch.base_offset)
        if self.written.setdefault(key, batch.data) != batch.data:
            raise Violation(f"{log_id}: offset {batch.base_offset} was written twice in epoch {batch.leader_epoch}")

    def acked(self, log_id: LogId, publish: Publish) -> None:
        """An ack of policy ALL: the records are committed, with this content, at these offsets."""
        self.acks += 1
        for offset in range(publish.base_offset, publish.end_offset):
            batch = self.committed[log_id].get(offset)
            if batch is None or publish.value not in batch.data or batch.leader_epoch != publish.leader_epoch:
                raise Violation(f"{log_id}: acked {publish.value!r} at {offset}, where {batch} is committed")

    def check_replica(self, server: Server, log_id: LogId, local: LocalReplica) -> None:
        """High watermark and committed records of one replica, as a reader at it would see them."""
        partition = local.partition
        log, seen, now = partition.log, local.seen_high_watermark, partition.high_watermark
        if now < seen:
            raise Violation(f"{server.server_id} {log_id}: the high watermark went back from {seen} to {now}")
        if now > log.end_offset:
            raise Violation(f"{server.server_id} {log_id}: high watermark {now} is above the end, {log.end_offset}")
        local.seen_high_watermark = now
        if now > max(seen, log.start_offset):
            leads = local.led is not None and server.serving.get(log_id) is local.led
            self._check_committed(server, log_id, local, max(seen, log.start_offset), leads=leads)

    def _check_committed(self, server: Server, log_id: LogId, local: LocalReplica, start: int, *, leads: bool) -> None:
        committed, stop = self.committed[log_id], local.partition.high_watermark
        data = local.partition.log.read(start, stop=stop, max_bytes=1 << 30)
        position = 0
        while position < len(data):
            batch = decode_batch(data, position)
            position += len(batch.data)
            for offset in range(max(start, batch.base_offset), min(stop, batch.end_offset)):
                known = committed.get(offset)
                if known is None and leads:
                    committed[offset] = batch
                elif known is None or not self.agrees(known, batch, offset):
                    raise Violation(
                        f"{server.server_id} {log_id}: {batch} is read at {offset}, and {known} was committed"
                    )
        if leads and stop > self.committed_end[log_id]:
            self.committed_end[log_id] = stop
            if local.led is not None and len(local.led.replication.isr) < server.world.min_isr:
                raise Violation(f"{server.server_id} {log_id}: commits {stop} with {local.led.replication.isr} in sync")

    def check_holds_all(self, server_id: str, log_id: LogId, log: Any) -> None:
        """Every committed record that retention left is in this log."""
        if log.end_offset < self.committed_end[log_id]:
            raise Violation(
                f"{server_id} {log_id}: ends at {log.end_offset}, {self.committed_end[log_id]} is committed"
            )
        committed = self.committed[log_id]
        for batch in batches_of(log):
            for offset in range(batch.base_offset, batch.end_offset):
                if offset in committed and not self.agrees(committed[offset], batch, offset):
                    if self.fills_a_gap(log_id, batch):
                        continue
                    raise Violation(
                        f"{server_id} {log_id}: holds {batch} at {offset}, {committed[offset]} is committed"
                    )


# --- the world --------------------------------------------------------------------------------------------------------


class World:
    """``run`` takes random steps and then heals everything. ``weights`` says how often some steps happen, by name."""

    def __init__(
        self, seed: int, *, rules: Rules | None = None, servers: int = 3, weights: Mapping[str, float] | None = None
    ) -> None:
        self.random = random.Random(seed)
        self.rules = rules or Rules()
        self.weights = weights or {}
        self.history = History()
        self.now_ns = 0
        self.synced = self.random.random() < 0.3
        self.min_isr = self.random.choice([1, 1, 2])
        self.loss = self.random.choice([0.0, 0.0, 0.02, 0.15])
        self.repeats = self.random.choice([0.0, 0.05])
        self.silence = self.random.choice([0.0, 0.1, 0.5])
        self.network: list[tuple[str, str, bytes]] = []
        self.cut: set[tuple[str, str]] = set()
        self._numbers = count(1)
        ids = [f"s{number}" for number in range(servers)]
        self.log_ids = [LogId(1, number) for number in range(self.random.choice([1, 1, 2, 3]))]
        self.controller = self.rules.controller(
            {
                log_id: PartitionMetadata(tuple(ids), tuple(ids), ids[log_id.partition % servers], 1, 1)
                for log_id in self.log_ids
            }
        )
        self.disks = {server_id: Disk() for server_id in ids}
        self.servers: dict[str, Server] = {}
        #: Servers whose disk may lack what it had when they were last seen, until the controller knows.
        self.lossy: set[str] = set()
        self.requests: list[tuple[Server, LedPartition, IsrChange]] = []
        self.first_start(ids)

    def first_start(self, ids: list[str]) -> None:
        """All at once, with empty disks: nobody has lost anything, and everybody is in every ISR."""
        incarnations = {server_id: f"{server_id}-first" for server_id in ids}
        self.controller.versions[-1] = replace(self.controller.now, incarnations=incarnations)
        self.controller.live.update(ids)
        for server_id in ids:
            self.servers[server_id] = Server(self, server_id, self.disks[server_id], incarnations[server_id])

    def make_batch(self, base_offset: int, count: int, *, value: bytes, leader_epoch: int) -> RecordBatch:
        """What a publisher sends."""
        return make_batch(base_offset, count, value=value, leader_epoch=leader_epoch)

    # --- running ------------------------------------------------------------------------------------------------------

    def run(self, steps: int) -> None:
        weights = self._weights()
        ids = list(self.disks)
        for action in self.random.choices(list(weights), list(weights.values()), k=steps):
            server_id = self.random.choice(ids)
            action(server_id)
            self.check()
        self.heal()

    def _weights(self) -> dict[Callable[[str], None], float]:
        """How often each thing happens; every run has a character of its own."""
        choice = self.random.choice
        weights: dict[Callable[[str], None], float] = {
            self.deliver: choice([60, 120]),
            self.pump: 60,
            self.pass_time: choice([15, 40]),
            self.publish: choice([5, 15, 40]),
            self.apply_metadata: choice([10, 30]),
            self.carry_request: choice([4, 12]),
            self.sync: 10 if self.synced else 2,
            self.crash: choice([0, 0.5, 2]),
            self.lose_power: choice([0, 0.5, 2]),
            self.restart: choice([1, 4]),
            self.notice_death: choice([1, 4]),
            self.depose: choice([0, 0.3, 2]),
            self.cut_link: choice([0, 0.5, 2]),
            self.heal_links: choice([0.5, 2]),
            self.retain: choice([0, 1]),
        }
        return {step: self.weights.get(step.__name__, weight) for step, weight in weights.items()}

    def check(self) -> None:
        """After each step: what every running replica shows, and that whoever may be elected holds what is committed."""
        for server in self.servers.values():
            for log_id, local in server.replicas.items():
                if local.partition.high_watermark != local.seen_high_watermark:
                    self.history.check_replica(server, log_id, local)
        for log_id, partition in self.controller.now.partitions.items():
            self._check_isr(log_id, partition)

    def _check_isr(self, log_id: LogId, partition: PartitionMetadata) -> None:
        if partition.leader and partition.leader not in partition.isr:
            raise Violation(f"{log_id}: leader {partition.leader} isn't in the ISR {partition.isr}")
        committed_end = self.history.committed_end[log_id]
        for server_id in partition.isr:
            if server_id in self.lossy:
                continue
            end_offset = self.end_offset(server_id, log_id)
            if end_offset < committed_end:
                raise Violation(f"{log_id}: {server_id} is in the ISR, ends at {end_offset} and not at {committed_end}")

    def end_offset(self, server_id: str, log_id: LogId) -> int:
        return self.disks[server_id].storage.open(log_id, _LOG_SETTINGS).end_offset

    def heal(self, max_rounds: int = 400) -> None:
        """Ends every fault; then every partition must have one leader, all replicas in sync and equal, and commit."""
        self.cut, self.loss, self.repeats, self.silence = set(), 0.0, 0.0, 0.0
        for server_id in self.disks:
            self.restart(server_id)
            if server_id not in self.controller.live:
                self._reappear(server_id)
        probes: dict[LogId, bytes] = {}
        for _round in range(max_rounds):
            self._round()
            if len(probes) < len(self.log_ids):
                self._probe(probes)
            elif all(self._healthy(log_id) for log_id in self.log_ids):
                return
        raise Violation(f"liveness: not healthy after {max_rounds} rounds without faults: {self.controller.now}")

    def _round(self) -> None:
        self.now_ns += 10 * _MS
        for server in list(self.servers.values()):
            for _version in range(5):
                server.apply_next()
            server.tick()
            self.sync(server.server_id)
            server.pump()
        for _request in range(len(self.requests) + 10):
            self.carry_request("")
        arriving, self.network = self.network, []
        for source, target, payload in arriving:
            self.servers[target].receive(source, payload)
        self.check()

    def _probe(self, probes: dict[LogId, bytes]) -> None:
        for log_id in self.log_ids:
            leader = self.servers.get(self.controller.now.partitions[log_id].leader)
            local = leader.replicas.get(log_id) if leader is not None else None
            if leader is None or local is None or local.led is None or log_id in probes:
                continue
            if local.leader_epoch == self.controller.now.partitions[log_id].leader_epoch:
                probes[log_id] = b"probe %d" % next(self._numbers)
                leader.publish(log_id, probes[log_id], 1, wants_all=False)

    def _healthy(self, log_id: LogId) -> bool:
        partition = self.controller.now.partitions[log_id]
        if any(log_id not in self.servers[one].replicas for one in partition.replicas):
            return False
        ends = {self.end_offset(server_id, log_id) for server_id in partition.replicas}
        committed = {self.servers[one].replicas[log_id].partition.high_watermark for one in partition.replicas}
        if set(partition.isr) != set(partition.replicas) or len(ends) > 1 or committed != ends:
            return False
        for server_id in partition.replicas:
            log = self.disks[server_id].storage.open(log_id, _LOG_SETTINGS)
            self.history.check_holds_all(server_id, log_id, log)
        return True

    # --- steps: what goes well ----------------------------------------------------------------------------------------

    def pass_time(self, server_id: str) -> None:
        self.now_ns += self.random.randrange(20 * _MS)
        if server_id in self.servers:
            self.servers[server_id].tick()

    def pump(self, server_id: str) -> None:
        if server_id in self.servers:
            self.servers[server_id].pump()

    def publish(self, server_id: str) -> None:
        log_id = self.random.choice(self.log_ids)
        if self.random.random() < 0.8:
            server_id = self.controller.now.partitions[log_id].leader
        if server_id in self.servers:
            value = b"value %d" % next(self._numbers)
            self.servers[server_id].publish(
                log_id, value, self.random.randint(1, 4), wants_all=self.random.random() < 0.7
            )

    def apply_metadata(self, server_id: str) -> None:
        if server_id in self.servers:
            self.servers[server_id].apply_next()

    def carry_request(self, _server_id: str) -> None:
        """A request for another ISR on its way: it, or its answer, may be lost, and it may be late."""
        for server in self.servers.values():
            while server.requested:
                self.requests.append((server, *server.requested.pop(0)))
        if not self.requests:
            return
        server, led, change = self.requests.pop(self.random.randrange(len(self.requests)))
        if server.server_id in self.lossy:
            return  # shrinking to a server that then loses its disk: nobody promises anything
        if self.random.random() < self.silence:
            server.serving.change_unknown(led, change)
            if self.random.random() < 0.7:
                self.requests.append((server, led, change))
        elif not self.controller.change_isr(server.server_id, led.log_id, change):
            server.serving.change_refused(led, change)  # else the leader sees it in metadata

    def sync(self, server_id: str) -> None:
        server = self.servers.get(server_id)
        while server is not None and server.syncs:
            server.syncs.pop(0)()
        if server is not None and not self.synced:
            for log_id, local in server.replicas.items():
                server.disk.synced[log_id] = local.partition.log.end_offset

    def retain(self, server_id: str) -> None:
        server = self.servers.get(server_id)
        for log_id, local in server.replicas.items() if server is not None else ():
            limits = RetentionLimits(0, 4, 0, local.partition.high_watermark)
            start_offset = local.partition.log.apply_retention(limits, 0)
            self.history.retained_from[log_id] = max(self.history.retained_from[log_id], start_offset)

    # --- steps: what goes wrong ---------------------------------------------------------------------------------------

    def send(self, source: str, target: str, payload: bytes) -> None:
        self.network.append((source, target, payload))

    def deliver(self, _server_id: str) -> None:
        if not self.network:
            return
        place = 0 if self.random.random() < 0.8 else self.random.randrange(len(self.network))
        message = self.network[place]
        if self.random.random() >= self.repeats:
            self.network.pop(place)
        source, target, payload = message
        if self.random.random() < self.loss or (source, target) in self.cut or target not in self.servers:
            return
        self.servers[target].receive(source, payload)

    def crash(self, server_id: str) -> None:
        """Killed; the disk has everything that was written."""
        if self._may_stop(server_id):
            self.servers.pop(server_id, None)

    def lose_power(self, server_id: str) -> None:
        """Killed, and what wasn't synced may be gone."""
        if server_id in self.servers and self._may_stop(server_id) and (self.synced or self._is_backed(server_id)):
            del self.servers[server_id]
            self.disks[server_id].lose_power(self.random)
            if not self.synced:
                self.lossy.add(server_id)

    def _is_backed(self, server_id: str) -> bool:
        """Whether each ISR has another member that runs and has lost nothing: without one, nothing is promised."""
        return all(
            any(one in self.servers and one != server_id and one not in self.lossy for one in partition.isr)
            for partition in self.controller.now.partitions.values()
        )

    def _may_stop(self, server_id: str) -> bool:
        """Not the last one that backs a server which lost something."""
        return not self.lossy or self._is_backed(server_id)

    def restart(self, server_id: str) -> None:
        if server_id in self.servers:
            return
        incarnation = f"{server_id}-{next(self._numbers)}"
        self.controller.register(server_id, incarnation)
        if any(p.isr == (server_id,) and server_id in self.lossy for p in self.controller.now.partitions.values()):
            raise AssertionError("the simulation took more than the protocol promises")
        self.lossy.discard(server_id)
        self.servers[server_id] = Server(self, server_id, self.disks[server_id], incarnation)

    def notice_death(self, server_id: str) -> None:
        if server_id not in self.servers and server_id in self.controller.live:
            self.controller.lost_sight_of(server_id)

    def depose(self, server_id: str) -> None:
        """The controller doesn't hear of a server that runs, for a while."""
        if server_id in self.servers and server_id in self.controller.live:
            self.controller.lost_sight_of(server_id)
        elif server_id in self.servers:
            self._reappear(server_id)

    def _reappear(self, server_id: str) -> None:
        self.controller.live.add(server_id)
        for log_id in self.log_ids:
            self.controller.elect_if_leaderless(log_id)

    def cut_link(self, server_id: str) -> None:
        other = self.random.choice(list(self.disks))
        self.cut.add((server_id, other))
        if self.random.random() < 0.6:
            self.cut.add((other, server_id))

    def heal_links(self, _server_id: str) -> None:
        self.cut.clear()
