"""A whole Raft group in one thread and one seed: cores, disks that forget what wasn't persisted, a network that loses,
repeats, delays and reorders, partitions, crashes; and the properties of Raft, checked after every step."""

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

from liftbridge.errors import NotLeader
from liftbridge_raft_builtin.core import (
    CoreSettings,
    Entry,
    EntryKind,
    HardState,
    Membership,
    Message,
    RaftCore,
    Ready,
    Role,
    Snapshot,
    StoredState,
)
from liftbridge_raft_builtin.core.codec import decode_message, encode_membership, encode_message

SETTINGS = CoreSettings(
    heartbeat_ticks=2, election_ticks=5, max_message_bytes=40, max_inflight_messages=3, max_apply_entries=4
)
SNAPSHOT_PADDING_BYTES = 150


class Violation(AssertionError):
    """A property of Raft doesn't hold."""


@dataclass
class Disk:
    """What survives a crash."""

    hard_state: HardState = field(default_factory=HardState)
    snapshot: Snapshot = field(default_factory=Snapshot)
    entries: list[Entry] = field(default_factory=list)
    forgets_votes: bool = False

    def write(self, ready: Ready) -> None:
        if ready.snapshot is not None:
            self.snapshot, self.entries = ready.snapshot, []
        if ready.hard_state is not None:
            kept = ready.hard_state
            self.hard_state = HardState(kept.term, "", kept.commit) if self.forgets_votes else kept
        if ready.entries:
            first_index = ready.entries[0].index
            self.entries = [entry for entry in self.entries if entry.index < first_index] + list(ready.entries)

    def write_snapshot(self, snapshot: Snapshot, trailing_entries: int) -> None:
        self.snapshot = snapshot
        self.entries = [entry for entry in self.entries if entry.index >= snapshot.index - trailing_entries]

    def read(self) -> StoredState:
        return StoredState(self.hard_state, self.snapshot, tuple(self.entries))


@dataclass
class Machine:
    """The applied commands, as a checksum over all of them."""

    index: int = 0
    state: int = 0

    def apply(self, entry: Entry) -> None:
        if entry.index != self.index + 1:
            raise Violation(f"entry {entry.index} applied after {self.index}")
        self.index = entry.index
        self.state = zlib.crc32(entry.data + bytes([entry.kind]), self.state)

    def snapshot(self) -> bytes:
        return f"{self.index} {self.state} ".encode() + bytes(SNAPSHOT_PADDING_BYTES)

    @staticmethod
    def restored(data: bytes) -> "Machine":
        if not data:
            return Machine()
        index, state, _padding = data.split(b" ")
        return Machine(int(index), int(state))


@dataclass
class Server:
    """One member. ``work`` is the Ready being done, ``half_done`` whether it is persisted."""

    server_id: str
    disk: Disk
    core: RaftCore
    machine: Machine
    work: Ready | None = None
    half_done: bool = False
    running: bool = True
    seen_commit: int = 0


class History:
    """What any member ever did, and what must therefore hold for all."""

    def __init__(self) -> None:
        self.leaders: dict[int, str] = {}
        self.entries: dict[tuple[int, int], tuple[Entry, int | None]] = {}
        self.committed: dict[int, tuple[Entry, int]] = {}
        self.states: dict[int, int] = {0: 0}
        self.reads: dict[int, int] = {}

    @property
    def commit(self) -> int:
        return max(self.committed, default=0)

    def check(self, server: Server) -> None:
        core = server.core
        if core.role is Role.LEADER:
            self._check_leader(core)
        for index in range(server.seen_commit + 1, core.log.commit + 1):
            if index > core.log.base_index:
                self._check_commit(core, core.log.slice(index, index + 1)[0])
        server.seen_commit = core.log.commit

    def _check_leader(self, core: RaftCore) -> None:
        known = self.leaders.get(core.term)
        if known is None:
            self.leaders[core.term] = core.server_id
            self._check_leader_completeness(core)
        elif known != core.server_id:
            raise Violation(f"election safety: {known} and {core.server_id} lead in term {core.term}")

    def _check_leader_completeness(self, core: RaftCore) -> None:
        for index, (entry, term) in self.committed.items():
            if term < core.term and index > core.log.base_index and not core.log.matches(index, entry.term):
                raise Violation(f"leader completeness: leader {core.server_id} of {core.term} lacks entry {index}")

    def _check_commit(self, core: RaftCore, entry: Entry) -> None:
        known, _term = self.committed.setdefault(entry.index, (entry, core.term))
        if known != entry:
            raise Violation(f"state machine safety: {entry} committed by {core.server_id}, and {known} before")

    def check_log_matching(self, core: RaftCore, entries: tuple[Entry, ...]) -> None:
        for entry in entries:
            seen = (entry, core.log.term_at(entry.index - 1))
            known = self.entries.setdefault((entry.index, entry.term), seen)
            if known[0] != entry or (None not in {known[1], seen[1]} and known != seen):
                raise Violation(f"log matching: {seen} at {core.server_id}, and {known} before")

    def check_state(self, server: Server) -> None:
        machine = server.machine
        if self.states.setdefault(machine.index, machine.state) != machine.state:
            raise Violation(f"state machine safety: {server.server_id} has another state at {machine.index}")

    def check_read(self, token: int, index: int) -> None:
        if index < self.reads[token]:
            raise Violation(f"stale read: at {index}, when {self.reads[token]} was committed before it")


@dataclass(frozen=True)
class Sabotage:
    """Rules of the driver that can be broken on purpose, to see the simulation notice."""

    forgets_votes: bool = False
    sends_before_persisting: bool = False


class Simulation:
    """``run`` takes random steps and then heals everything; replay a failure by its seed."""

    def __init__(
        self,
        seed: int,
        *,
        voters: int = 3,
        spares: int = 0,
        core_class: type[RaftCore] = RaftCore,
        sabotage: Sabotage | None = None,
    ) -> None:
        self.random = random.Random(seed)
        self.history = History()
        self.network: list[bytes] = []
        self.cut: set[frozenset[str]] = set()
        self.loss = self.random.choice([0.0, 0.02, 0.1, 0.25])
        self.repeats = self.random.choice([0.0, 0.05])
        self._core_class = core_class
        self._sabotage = sabotage or Sabotage()
        self.snapshots_installed = 0
        self._proposals = 0
        self._reads = 0
        ids = [f"s{number}" for number in range(voters + spares)]
        first = Entry(1, 1, EntryKind.MEMBERSHIP, encode_membership(Membership.of(ids[:voters])))
        self.servers = {
            server_id: self._new_server(server_id, [first] if place < voters else [])
            for place, server_id in enumerate(ids)
        }
        self._changes_members = spares > 0
        # Clocks that run at different speeds: nothing may depend on them but how soon things go on.
        self._speeds = {server_id: self.random.choice([0.1, 0.5, 1.0, 1.0]) for server_id in ids}

    def _new_server(self, server_id: str, entries: list[Entry]) -> Server:
        term = 1 if entries else 0
        disk = Disk(HardState(term), entries=entries, forgets_votes=self._sabotage.forgets_votes)
        return Server(server_id, disk, self._new_core(server_id, disk), Machine())

    def _new_core(self, server_id: str, disk: Disk) -> RaftCore:
        return self._core_class(server_id, disk.read(), SETTINGS, self.random.randrange)

    # --- running ------------------------------------------------------------------------------------------------------

    def run(self, steps: int) -> None:
        weights = self._weights()
        servers = list(self.servers.values())
        for action in self.random.choices(list(weights), list(weights.values()), k=steps):
            server = self.random.choice(servers)
            action(server)
            self.history.check(server)
        self.heal()

    def _weights(self) -> dict[Callable[[Server], object], float]:
        """How often each thing happens; every run has a character of its own."""
        choice = self.random.choice
        return {
            self.work: 100,
            self.deliver: choice([60, 120]),
            self.tick: choice([20, 40]),
            self.propose: choice([1, 4, 12]),
            self.read: 3,
            self.crash: choice([0, 0.5, 2]),
            self.bounce: choice([0, 1, 6]),
            self.restart: choice([1, 3]),
            self.partition: choice([0, 0.4, 1.5]),
            self.compact: 0.6,
            self.transfer: 0.3,
            self.change_members: choice([1, 5]) if self._changes_members else 0,
        }

    def heal(self, max_rounds: int = 300) -> None:
        """Ends every fault; then the group must decide, and all members must agree."""
        self.cut, self.loss, self.repeats = set(), 0.0, 0.0
        self._speeds = dict.fromkeys(self._speeds, 1.0)
        for server in self.servers.values():
            self.restart(server)
        probe_index = 0
        for _round in range(max_rounds):
            self._round()
            leader = self.leader()
            if leader is None:
                continue
            if not probe_index and leader.core.log.commit == leader.core.log.last_index:
                probe_index = self._propose_at(leader.core)
            if probe_index and self._all_applied(leader.core, probe_index):
                return
        raise Violation(f"liveness: no agreement after {max_rounds} rounds without faults")

    def _round(self) -> None:
        for server in self.servers.values():
            self.tick(server)
            while self.work(server):
                pass
            self.history.check(server)
        arriving, self.network = self.network, []
        for data in arriving:
            self._arrive(data)

    def _all_applied(self, leader: RaftCore, index: int) -> bool:
        return all(self.servers[member].machine.index >= index for member in leader.membership.members)

    def leader(self) -> Server | None:
        """The one of the latest term."""
        leaders = [one for one in self.servers.values() if one.running and one.core.role is Role.LEADER]
        return max(leaders, key=lambda server: server.core.term, default=None)

    # --- steps --------------------------------------------------------------------------------------------------------

    def tick(self, server: Server) -> None:
        if server.running and self.random.random() < self._speeds[server.server_id]:
            server.core.tick()

    def work(self, server: Server) -> bool:
        """Half of a Ready: first persisting, then the rest. A crash may come in between."""
        if not server.running:
            return False
        if server.work is None:
            server.work, server.half_done = server.core.ready(), False
            if server.work is not None:
                self.history.check_log_matching(server.core, server.work.entries)
        if server.work is None:
            return False
        steps = [self._persist, self._send]
        if self._sabotage.sends_before_persisting:
            steps.reverse()
        if not server.half_done:
            steps[0](server, server.work)
            server.half_done = True
            return True
        steps[1](server, server.work)
        self._finish(server, server.work)
        return True

    def _persist(self, server: Server, ready: Ready) -> None:
        server.disk.write(ready)

    def _finish(self, server: Server, ready: Ready) -> None:
        if ready.snapshot is not None:
            server.machine = Machine.restored(ready.snapshot.data)
            self.snapshots_installed += 1
            self.history.check_state(server)
        for entry in ready.committed:
            server.machine.apply(entry)
            self.history.check_state(server)
        for token, index in ready.reads:
            self.history.check_read(token, index)
        server.core.advance(ready)
        server.work = None

    def _send(self, _server: Server, ready: Ready) -> None:
        self.network += map(encode_message, ready.messages)

    def deliver(self, _server: Server) -> None:
        if not self.network:
            return
        place = min(self.random.randrange(len(self.network)), self.random.randrange(len(self.network)))
        data = self.network[place] if self.random.random() < self.repeats else self.network.pop(place)
        if self.random.random() >= self.loss:
            self._arrive(data)

    def deliver_where(self, wanted: Callable[[Message], bool]) -> None:
        """For scripts: what is wanted arrives, everything else on its way is lost."""
        arriving, self.network = self.network, []
        for data in arriving:
            if wanted(decode_message(data)):
                self._arrive(data)

    def _arrive(self, data: bytes) -> None:
        message = decode_message(data)
        receiver = self.servers[message.to]
        if receiver.running and frozenset((message.sender, message.to)) not in self.cut:
            receiver.core.step(message)
            self.history.check(receiver)

    def propose(self, server: Server) -> None:
        leader = self.leader()
        core = leader.core if leader is not None and self.random.random() < 0.7 else server.core
        if core.role is Role.LEADER and not core.transferee:
            self._propose_at(core)

    def _propose_at(self, core: RaftCore) -> int:
        commands = [f"c{self._proposals + place}".encode() for place in range(self.random.randint(1, 3))]
        self._proposals += len(commands)
        try:
            return core.propose(commands)
        except NotLeader:
            return 0

    def read(self, server: Server) -> None:
        server = self._victim(server)
        if server.running and server.core.role is Role.LEADER:
            self._reads += 1
            self.history.reads[self._reads] = self.history.commit
            server.core.read(self._reads)

    def _victim(self, server: Server) -> Server:
        """Faults are worth most where a leader is."""
        leaders = [one for one in self.servers.values() if one.running and one.core.role is Role.LEADER]
        return self.random.choice(leaders) if leaders and self.random.random() < 0.5 else server

    def crash(self, server: Server) -> None:
        self.crash_now(self._victim(server).server_id)

    def crash_now(self, server_id: str) -> None:
        """Stops it; what it hadn't persisted is gone."""
        self.servers[server_id].running = False
        self.servers[server_id].work = None

    def restart(self, server: Server) -> None:
        if not server.running:
            server.core = self._new_core(server.server_id, server.disk)
            server.machine = Machine.restored(server.disk.snapshot.data)
            server.seen_commit = server.core.log.commit
            server.running = True

    def bounce(self, server: Server) -> None:
        """Loses what is in memory, and is back at once: worst in the middle of its work."""
        at_work = [one for one in self.servers.values() if one.work is not None and not one.half_done]
        server = self.random.choice(at_work) if at_work and self.random.random() < 0.7 else self._victim(server)
        self.crash_now(server.server_id)
        self.restart(server)

    def partition(self, server: Server) -> None:
        ids = list(self.servers)
        kind = self.random.random()
        if kind < 0.3:
            self.cut.clear()
            return
        side = {self._victim(server).server_id}
        if kind < 0.6:
            side = {server_id for server_id in ids if self.random.random() < 0.5}
        self.cut = {frozenset((one, other)) for one in side for other in ids if other not in side}

    def compact(self, server: Server) -> None:
        log = server.core.log
        if server.running and server.work is None and log.applied > log.snapshot.index + 2:
            snapshot = server.core.snapshot_of(server.machine.snapshot())
            trailing_entries = self.random.choice([0, 2])
            server.disk.write_snapshot(snapshot, trailing_entries)
            server.core.compact(snapshot, trailing_entries)

    def transfer(self, _server: Server) -> None:
        leader = self.leader()
        if leader is not None:
            leader.core.transfer(self.random.choice(list(self.servers)))

    def change_members(self, _server: Server) -> None:
        leader = self.leader()
        if leader is None:
            return
        server_id = self.random.choice(list(self.servers))
        membership = leader.core.membership
        if server_id not in membership.members:
            leader.core.change_membership(lambda now: now.with_learner(server_id))
        elif server_id in membership.learners:
            leader.core.promote(server_id)
        elif len(membership.voters) > 2:
            leader.core.change_membership(lambda now: now.without(server_id))
