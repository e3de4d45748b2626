"""What the controller decides, without IO: heartbeats, reports and time in, commands out.

One object lives as long as one server leads the metadata group. Who is dead is decided by sessions between servers, so
an idle cluster costs a few messages a second for each server and nothing for a partition. The state is read, never
changed: what is decided here is proposed, and holds when it is committed.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from liftbridge.cluster.coordinators import replacements
from liftbridge.errors import InternalError
from liftbridge.interfaces.log import LogId
from liftbridge.metadata.commands import ChangePartitions, ChangeServer, Command, PartitionChange
from liftbridge.metadata.model import PartitionState, ServerState, ServerStatus, StreamState
from liftbridge.metadata.placement import PlacementPolicy, choose_leader, is_live
from liftbridge.metadata.state import MetadataState
from liftbridge.partition.troubles import Trouble, TroubleKind

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ControlSettings:
    """``session_timeout_s``: silence after which a server is dead. ``suspicion_window_s``: reports on a leader count
    together when they arrive within this time. ``rebalance_interval_s``: when nothing else changed for so long,
    replicas that are missing are added and leaderships evened out; 0 never does. ``report_window_s``: reports of consumers
    on their coordinator count together while each comes within this time of the one before. Batches: partitions that
    change with one command."""

    session_timeout_s: float = 1.0
    suspicion_window_s: float = 5.0
    rebalance_interval_s: float = 60.0
    report_window_s: float = 15.0
    failover_batch: int = 250
    drain_batch: int = 50


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A report that the leader of one epoch doesn't answer."""

    stream_id: int
    partition: int
    leader_epoch: int
    reporter: str
    incarnation: str


@dataclass(slots=True)
class _Session:
    """With one start of a server, since this controller first saw it. ``heard_ns`` is None until its first heartbeat;
    ``gone`` while the transport says that there is nobody."""

    incarnation: str
    since_ns: int
    heard_ns: int | None = None
    gone: bool = False


class ControllerCore:
    """The decisions. ``server_id`` is this server, the metadata leader, which needs no session with itself."""

    def __init__(
        self, server_id: str, state: MetadataState, policy: PlacementPolicy, settings: ControlSettings
    ) -> None:
        self._server_id = server_id
        self._state = state
        self._policy = policy
        self._settings = settings
        self._timeout_ns = int(settings.session_timeout_s * 1e9)
        self._window_ns = int(settings.suspicion_window_s * 1e9)
        self._sessions: dict[str, _Session] = {}
        self._witnesses: dict[tuple[int, int, int], dict[str, int]] = {}
        self._suspected: set[tuple[int, int, int]] = set()
        self._down_since_ns: dict[str, int] = {}
        self._awake_ns: int | None = None
        self._troubles: dict[str, dict[LogId, Trouble]] = {}
        self._troubles_version = 0
        self._looked_at: tuple[int, int, int] | None = None
        self._calm_since_ns = 0

    # --- what comes in ------------------------------------------------------------------------------------------------

    def heartbeat(self, server_id: str, incarnation: str, now_ns: int) -> bool:
        """A sign of life. True if its sender is up in metadata: others may lead what is led by one that is not, and for
        a start of a server that isn't registered it is no sign at all."""
        self._wake(now_ns)
        server = self._state.servers.get(server_id)
        if server is None or server.incarnation != incarnation or server.status is ServerStatus.GONE:
            return False
        session = self._session(server, now_ns)
        session.heard_ns, session.gone = now_ns, False
        return server.status is not ServerStatus.DOWN

    def note_troubles(self, server_id: str, troubles: Iterable[Trouble]) -> bool:
        """All that a server that is heard says to be wrong with its partitions now; True if that is news."""
        told = {one.log_id: one for one in troubles}
        if told == self._troubles.get(server_id, {}):
            return False
        self._troubles[server_id] = told
        self._troubles_version += 1
        return True

    def trouble(self, server_id: str, log_id: LogId) -> Trouble | None:
        """What a server said last of a replica; None: nothing is wrong."""
        return self._troubles.get(server_id, {}).get(log_id)

    def quiet(self, now_ns: int) -> list[tuple[str, str]]:
        """Servers that are up as far as is known and haven't been heard for half a time-out, with their starts: worth
        asking the transport whether they are there at all."""
        quiet = []
        for server in self._state.servers.values():
            if server.server_id != self._server_id and server.status in (ServerStatus.LIVE, ServerStatus.DRAINING):
                session = self._session(server, now_ns)
                if now_ns - (session.heard_ns or session.since_ns) > self._timeout_ns // 2:
                    quiet.append((server.server_id, server.incarnation))
        return quiet

    def gone(self, server_id: str, incarnation: str) -> None:
        """The transport says that nobody is there: no need to wait for the time-out. Until the next heartbeat."""
        session = self._sessions.get(server_id)
        if session is not None and session.incarnation == incarnation:
            session.gone = True

    def forget_silence(self) -> None:
        """This server couldn't hear anybody for a while: everybody gets a whole time-out again."""
        self._sessions.clear()

    def _wake(self, now_ns: int) -> None:
        """Notices that this server itself stood still, frozen or starved, and heard nobody meanwhile."""
        if self._awake_ns is not None and now_ns - self._awake_ns > self._timeout_ns // 2:
            self.forget_silence()
        self._awake_ns = now_ns

    def silence_s(self, server_id: str, now_ns: int) -> float | None:
        """Since the last heartbeat of a server's present start; None when there was none."""
        session = self._sessions.get(server_id)
        return None if session is None or session.heard_ns is None else (now_ns - session.heard_ns) / 1e9

    def suspect(self, report: Suspicion, now_ns: int) -> str:
        """Counts the report; returns "" or why it doesn't count."""
        partition = self._state.partition(report.stream_id, report.partition)
        if partition is None or partition.leader_epoch != report.leader_epoch or not partition.leader:
            return "stale: the partition has another leader epoch by now"
        reporter = self._state.servers.get(report.reporter)
        if report.reporter not in partition.isr or report.reporter == partition.leader:
            return f"{report.reporter} is no follower in the ISR"
        if reporter is None or reporter.incarnation != report.incarnation:
            return f"server {report.reporter} was started again"
        key = (report.stream_id, report.partition, report.leader_epoch)
        witnesses = self._witnesses.setdefault(key, {})
        witnesses[report.reporter] = now_ns
        if self._enough(partition, witnesses, now_ns):
            self._suspected.add(key)
        return ""

    def _enough(self, partition: PartitionState, witnesses: dict[str, int], now_ns: int) -> bool:
        """A majority of the live followers in the ISR, within the window."""
        followers = [one for one in partition.isr if one != partition.leader and is_live(self._state, one)]
        recent = sum(now_ns - witnesses[one] <= self._window_ns for one in followers if one in witnesses)
        return recent > len(followers) // 2

    def is_planned(self, change: PartitionChange) -> bool:
        """Whether the change takes the lead from a server that could go on leading."""
        partition = self._state.partition(change.stream_id, change.partition)
        return (
            partition is not None
            and self._may_lead_on(partition.leader)
            and (change.stream_id, change.partition, partition.leader_epoch) not in self._suspected
        )

    # --- what comes out -----------------------------------------------------------------------------------------------

    def plan(self, now_ns: int) -> list[Command]:
        """What to propose now, in this order. Proposing may fail: what is still needed comes with the next call."""
        self._wake(now_ns)
        changes = list(self._status_changes(now_ns))
        if changes:
            return changes
        looked_at = (self._state.version, len(self._suspected), self._troubles_version)
        if looked_at == self._looked_at:
            return self._rebalance(now_ns)
        commands = [*replacements(self._state), *self._partition_commands()]
        if not commands:
            self._looked_at = looked_at
            self._calm_since_ns = now_ns
        return commands

    def _status_changes(self, now_ns: int) -> Iterator[Command]:
        for server in self._state.servers.values():
            alive = self._is_alive(server, now_ns)
            if server.status is ServerStatus.DOWN:
                self._down_since_ns.setdefault(server.server_id, now_ns)
            else:
                self._down_since_ns.pop(server.server_id, None)
            if server.status in (ServerStatus.LIVE, ServerStatus.DRAINING) and alive is False:
                yield ChangeServer(server.server_id, ServerStatus.DOWN, server.incarnation)
            elif server.status is ServerStatus.DOWN and alive and self._is_back(server, now_ns):
                yield ChangeServer(server.server_id, ServerStatus.LIVE, server.incarnation)

    def _is_alive(self, server: ServerState, now_ns: int) -> bool | None:
        """None while nothing can be said. A controller that has just begun, or a server that has just registered, gives
        and gets a whole time-out for the first heartbeat: or a new controller would declare everybody dead."""
        if server.server_id == self._server_id:
            return True
        session = self._session(server, now_ns)
        if session.gone:
            return False
        if session.heard_ns is not None:
            return now_ns - session.heard_ns <= self._timeout_ns
        return None if now_ns - session.since_ns <= self._timeout_ns else False

    def _is_back(self, server: ServerState, now_ns: int) -> bool:
        """Heard since it is down: a server that stops says so, and what it sent just before mustn't bring it back."""
        heard_ns = self._session(server, now_ns).heard_ns
        return server.server_id == self._server_id or (
            heard_ns is not None and heard_ns > self._down_since_ns[server.server_id]
        )

    def _session(self, server: ServerState, now_ns: int) -> _Session:
        session = self._sessions.get(server.server_id)
        if session is None or session.incarnation != server.incarnation:
            session = self._sessions[server.server_id] = _Session(server.incarnation, now_ns)
        return session

    # --- partitions ---------------------------------------------------------------------------------------------------

    def _partition_commands(self) -> list[Command]:
        self._forget_old_epochs()
        leaderships = self._leaderships()
        elections: list[PartitionChange] = []
        handovers: list[PartitionChange] = []
        for stream in self._state.streams.values():
            for number, partition in enumerate(stream.partitions):
                if change := self._election(stream, number, partition, leaderships):
                    elections.append(change)
                elif change := self._handover(stream, number, partition, leaderships):
                    handovers.append(change)
        size = self._settings.failover_batch
        if elections:
            return [ChangePartitions(tuple(elections[at : at + size])) for at in range(0, len(elections), size)]
        return [ChangePartitions(tuple(handovers[: self._settings.drain_batch]))] if handovers else []

    def _leaderships(self) -> Counter[str]:
        led = (partition.leader for stream in self._state.streams.values() for partition in stream.partitions)
        return Counter(leader for leader in led if leader)

    def _election(
        self, stream: StreamState, number: int, partition: PartitionState, leaderships: Counter[str]
    ) -> PartitionChange | None:
        """Another leader, or none, for a partition whose leader is dead or suspected."""
        suspected = (stream.stream_id, number, partition.leader_epoch) in self._suspected
        if self._may_lead_on(partition.leader) and not suspected:
            return None
        log_id = LogId(stream.stream_id, number)
        candidates = self._able_first(log_id, [one for one in partition.isr if one != partition.leader])
        if not candidates and (suspected or not partition.leader):
            return None
        leader = self._choose(stream, number, candidates, leaderships) if candidates else ""
        return PartitionChange(stream.stream_id, number, partition.partition_epoch, leader=leader)

    def _may_lead_on(self, server_id: str) -> bool:
        server = self._state.servers.get(server_id)
        return server is not None and server.status in (ServerStatus.LIVE, ServerStatus.DRAINING)

    def _handover(
        self, stream: StreamState, number: int, partition: PartitionState, leaderships: Counter[str]
    ) -> PartitionChange | None:
        """Another leader in the place of one that could go on, but shouldn't."""
        return self._retreat(stream, number, partition, leaderships) or self._relief(
            stream, number, partition, leaderships
        )

    def _retreat(
        self, stream: StreamState, number: int, partition: PartitionState, leaderships: Counter[str]
    ) -> PartitionChange | None:
        """Takes draining servers out of the ISR, and their lead away, where others can take over. Nobody waits for the
        followers of a paused partition, and nobody could take them in again before it is resumed: they stay in its ISR."""
        staying = tuple(one for one in partition.isr if not self._is_draining(one))
        if len(staying) in (0, len(partition.isr)) or (partition.paused and partition.leader in staying):
            return None
        leader = None
        if partition.leader not in staying:
            candidates = self._able_first(LogId(stream.stream_id, number), staying)
            if not candidates:
                return None
            leader = self._choose(stream, number, candidates, leaderships)
        isr = () if partition.paused else staying
        return PartitionChange(stream.stream_id, number, partition.partition_epoch, leader=leader, isr=isr)

    def _relief(
        self, stream: StreamState, number: int, partition: PartitionState, leaderships: Counter[str]
    ) -> PartitionChange | None:
        """Takes a leader that can store nothing out of the ISR, and its lead away, where another one in sync can store. It
        comes back by catching up. Where nobody can it goes on: what was stored is still read."""
        if not self._troubles.get(partition.leader):
            return None
        log_id = LogId(stream.stream_id, number)
        trouble = self.trouble(partition.leader, log_id)
        if trouble is None or trouble.kind is not TroubleKind.CANNOT_STORE or partition.paused:
            return None
        staying = tuple(one for one in partition.isr if one != partition.leader)
        able = self._able(log_id, staying)
        if not able:
            return None
        leader = self._choose(stream, number, able, leaderships)
        return PartitionChange(stream.stream_id, number, partition.partition_epoch, leader=leader, isr=staying)

    def _able(self, log_id: LogId, servers: Iterable[str]) -> list[str]:
        """Who is live, and has no trouble with the partition."""
        return [one for one in servers if is_live(self._state, one) and self.trouble(one, log_id) is None]

    def _able_first(self, log_id: LogId, servers: Iterable[str]) -> list[str]:
        """As ``_able``; when there is none, who at least is live."""
        servers = tuple(servers)
        return self._able(log_id, servers) or [one for one in servers if is_live(self._state, one)]

    def _is_draining(self, server_id: str) -> bool:
        server = self._state.servers.get(server_id)
        return server is not None and server.status is ServerStatus.DRAINING

    def _choose(self, stream: StreamState, number: int, candidates: list[str], leaderships: Counter[str]) -> str:
        try:
            leader = choose_leader(self._policy, stream.name, number, candidates, leaderships)
        except InternalError as error:  # a plugin answers nonsense: a failover can't wait for a better one
            logger.error("%s; the default is taken", error)
            leader = min(candidates, key=lambda server: leaderships[server])
        leaderships[leader] += 1
        return leader

    def _rebalance(self, now_ns: int) -> list[Command]:
        """Evens leaderships out, a batch at a time, after a calm while: servers that come back lead nothing at first."""
        interval_ns = int(self._settings.rebalance_interval_s * 1e9)
        if not interval_ns or now_ns - self._calm_since_ns < interval_ns:
            return []
        self._calm_since_ns = now_ns
        if repairs := self._repairs():
            return [ChangePartitions(tuple(repairs))]
        leaderships = self._leaderships()
        moves: list[PartitionChange] = []
        for stream in self._state.streams.values():
            for number, partition in enumerate(stream.partitions):
                able = self._able(LogId(stream.stream_id, number), partition.isr)
                successor = self._lighter_leader(partition.leader, able, leaderships)
                if successor and len(moves) < self._settings.drain_batch:
                    leaderships[partition.leader] -= 1
                    leaderships[successor] += 1
                    epoch = partition.partition_epoch
                    moves.append(PartitionChange(stream.stream_id, number, epoch, leader=successor))
        return [ChangePartitions(tuple(moves))] if moves else []

    def _repairs(self) -> list[PartitionChange]:
        """Gives partitions that have too few replicas, because a server was removed, one more on who holds least."""
        held: Counter[str] = Counter({one: 0 for one in self._state.servers if is_live(self._state, one)})
        short: list[tuple[StreamState, int, PartitionState]] = []
        for stream in self._state.streams.values():
            for number, partition in enumerate(stream.partitions):
                held.update(one for one in partition.replicas if one in held)
                if len(partition.replicas) < stream.replication_factor and partition.leader:
                    short.append((stream, number, partition))
        repairs = []
        for stream, number, partition in short[: self._settings.drain_batch]:
            others = [one for one in held if one not in partition.replicas]
            if others:
                heir = min(others, key=lambda one: held[one])
                held[heir] += 1
                replicas = (*partition.replicas, heir)
                repairs.append(PartitionChange(stream.stream_id, number, partition.partition_epoch, replicas=replicas))
        return repairs

    @staticmethod
    def _lighter_leader(leader: str, candidates: list[str], leaderships: Counter[str]) -> str:
        """Who would lead at least two fewer than the present leader; "" when nobody does."""
        lightest = min(candidates, key=lambda one: leaderships[one], default="")
        if not leader or not lightest or leaderships[leader] - leaderships[lightest] < 2:
            return ""
        return lightest

    def _forget_old_epochs(self) -> None:
        def is_current(key: tuple[int, int, int]) -> bool:
            partition = self._state.partition(key[0], key[1])
            return partition is not None and partition.leader_epoch == key[2]

        self._witnesses = {key: witnesses for key, witnesses in self._witnesses.items() if is_current(key)}
        self._suspected = {key for key in self._suspected if is_current(key)}
