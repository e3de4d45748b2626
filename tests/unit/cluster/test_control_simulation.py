"""Clusters from a seed, on a virtual clock: servers die, freeze and come back, controllers change, reports are wrong. The
rules hold after each step, and when it gets quiet, whatever can be led is led."""

import random
from dataclasses import dataclass, field

import pytest
from metadata_states import NoPolicy, States

from liftbridge.cluster.control import ControllerCore, ControlSettings, Suspicion
from liftbridge.metadata.commands import ChangePartitions, ChangeServer, Command, PartitionChange
from liftbridge.metadata.model import PartitionState, ServerState, ServerStatus, StreamState

STEP_NS = 50_000_000
HEARTBEAT_STEPS = 5
SERVERS = "abcde"
SETTINGS = ControlSettings(session_timeout_s=1.0, rebalance_interval_s=3, failover_batch=3, drain_batch=2)


@dataclass
class Server:
    """A process as the simulation plays it."""

    server_id: str
    start: int = 1
    runs: bool = True
    frozen: bool = False
    beats: bool = True
    last_beat_step: int = -100

    @property
    def is_alive(self) -> bool:
        return self.runs and not self.frozen and self.beats


@dataclass
class Cluster:
    """Commands of the controller are committed late, and sometimes lost with it."""

    random: random.Random
    states: States = field(default_factory=States)
    now_ns: int = 0
    step: int = 0

    def __post_init__(self) -> None:
        self.servers = {server_id: Server(server_id) for server_id in SERVERS}
        self.states.register(*SERVERS)
        self.streams = [
            self.states.create(f"s{number}", *("".join(self.random.sample(SERVERS, 3)) for _ in range(2)))
            for number in range(4)
        ]
        self.leaders_by_epoch: dict[tuple[int, int, int], str] = {}
        self.pending: list[Command] = []
        self.elect_controller()

    def elect_controller(self) -> None:
        """A majority has another one; what the old one had planned may or may not be committed."""
        alive = [one.server_id for one in self.servers.values() if one.is_alive]
        if len(alive) <= len(SERVERS) // 2:
            self.controller = ""
            return
        if self.random.random() < 0.5:
            self.pending.clear()
        self.controller = self.random.choice(alive)
        self.began_step = self.step
        self.core = ControllerCore(self.controller, self.states.state, NoPolicy(), SETTINGS)  # type: ignore[arg-type]

    # --- what happens -------------------------------------------------------------------------------------------------

    def advance(self) -> None:
        self.step += 1
        self.now_ns += STEP_NS
        if not self.controller or not self.servers[self.controller].is_alive:
            if self.random.random() < 0.1:
                self.elect_controller()
            return
        for server in self.servers.values():
            due = self.step - server.last_beat_step >= HEARTBEAT_STEPS
            if server.is_alive and due and server.server_id != self.controller:
                server.last_beat_step = self.step
                self.core.heartbeat(server.server_id, f"{server.server_id}-{server.start}", self.now_ns)
        if self.pending:
            self.states.apply(self.pending.pop(0))
        else:
            self.pending = self.core.plan(self.now_ns)
            self.check_plan()
        self.check()

    def disturb(self) -> None:
        server = self.servers[self.random.choice(SERVERS)]
        match self.random.choice(["kill", "start", "freeze", "thaw", "mute", "unmute", "isr", "suspect", "drain"]):
            case "kill":
                server.runs = False
            case "start" if not server.runs:
                server.runs, server.frozen, server.start = True, False, server.start + 1
                self.states.register(server.server_id, start=server.start, unclean=self.random.random() < 0.3)
            case "freeze":
                server.frozen = True
            case "thaw":
                server.frozen = False
            case "mute":
                server.beats = False
            case "unmute":
                server.beats = True
            case "isr":
                self.change_isr()
            case "suspect":
                self.suspect(server)
            case "drain" if self.random.random() < 0.3:
                self.states.set_status(server.server_id, ServerStatus.DRAINING)

    def change_isr(self) -> None:
        """As partition leaders do: in with some, out with others."""
        stream, number, partition = self.random.choice(list(self.partitions()))
        if partition.leader:
            others = [one for one in partition.replicas if one != partition.leader and self.random.random() < 0.6]
            self.states.change(stream, number, isr=[partition.leader, *others])

    def suspect(self, reporter: Server) -> None:
        if not self.controller:
            return
        stream, number, partition = self.random.choice(list(self.partitions()))
        epoch = partition.leader_epoch - self.random.randrange(2)
        incarnation = f"{reporter.server_id}-{reporter.start}"
        self.core.suspect(Suspicion(stream, number, epoch, reporter.server_id, incarnation), self.now_ns)

    def partitions(self) -> "list[tuple[int, int, PartitionState]]":
        return [
            (stream, number, self.states.partition(stream, number)) for stream in self.streams for number in range(2)
        ]

    # --- what must hold -----------------------------------------------------------------------------------------------

    def check_plan(self) -> None:
        for command in self.pending:
            if isinstance(command, ChangeServer) and command.status is ServerStatus.DOWN:
                server = self.servers[command.server_id]
                assert self.step - self.began_step >= 20, "declared dead by a controller that has just begun"
                quiet_steps = self.step - server.last_beat_step
                assert quiet_steps > 20 - HEARTBEAT_STEPS, f"{command.server_id} was heard {quiet_steps} steps ago"
            if isinstance(command, ChangePartitions):
                assert 0 < len(command.changes) <= 3
                for change in command.changes:
                    self.check_change(change)

    def check_change(self, change: PartitionChange) -> None:
        partition = self.states.partition(change.stream_id, change.partition)
        assert not change.unclean
        if change.leader:
            assert change.leader in partition.isr
            assert self.states.state.servers[change.leader].status is ServerStatus.LIVE
        assert set(change.isr) <= set(partition.isr), "the controller lets nobody in"

    def check(self) -> None:
        for stream, number, partition in self.partitions():
            assert partition.isr
            assert partition.leader in ("", *partition.isr)
            key = (stream, number, partition.leader_epoch)
            known = self.leaders_by_epoch.setdefault(key, partition.leader)
            assert known == partition.leader, "two leaders in one epoch"

    def heal(self) -> None:
        """Everybody comes back, and nobody is disturbed any more."""
        for server in self.servers.values():
            server.frozen, server.beats = False, True
            if not server.runs or self.states.state.servers[server.server_id].status is ServerStatus.DRAINING:
                server.runs, server.start = True, server.start + 1
                self.states.register(server.server_id, start=server.start)


def run(seed: int, *, steps: int = 400) -> Cluster:
    cluster = Cluster(random.Random(seed))
    for _ in range(steps):
        cluster.advance()
        if cluster.random.random() < 0.15:
            cluster.disturb()
            cluster.check()
    cluster.heal()
    for _ in range(200):
        cluster.advance()
    return cluster


def check_outcome(cluster: Cluster) -> None:
    assert cluster.controller
    for server in cluster.states.state.servers.values():
        assert server.status is ServerStatus.LIVE
    for _stream, _number, partition in cluster.partitions():
        assert partition.leader, "offline, though everybody is there"


@pytest.mark.parametrize("seed", range(60))
def test_the_rules_hold_and_what_can_be_led_is_led(seed: int) -> None:
    check_outcome(run(seed))


@pytest.mark.slow
def test_the_rules_hold_in_thousands_of_runs() -> None:
    for seed in range(60, 2000):
        check_outcome(run(seed))


def test_a_run_is_the_same_again() -> None:
    assert run(7).states.state.snapshot() == run(7).states.state.snapshot()


def without_grace(core: ControllerCore, server: ServerState, now_ns: int) -> bool:
    session = core._session(server, now_ns)
    return session.heard_ns is not None and now_ns - session.heard_ns <= 1_000_000_000


def any_replica_may_lead(
    core: ControllerCore, stream: StreamState, number: int, partition: PartitionState, leaderships: object
) -> PartitionChange | None:
    live = [one for one in partition.replicas if core._state.servers[one].status is ServerStatus.LIVE]
    if partition.leader in live or not live:
        return None
    return PartitionChange(stream.stream_id, number, partition.partition_epoch, leader=live[0])


@pytest.mark.parametrize(
    ("method", "broken"), [("_is_alive", without_grace), ("_election", any_replica_may_lead)], ids=["grace", "ISR"]
)
def test_broken_rules_are_noticed(monkeypatch: pytest.MonkeyPatch, method: str, broken: object) -> None:
    monkeypatch.setattr(ControllerCore, method, broken)
    with pytest.raises(AssertionError):
        for seed in range(60):
            check_outcome(run(seed))
