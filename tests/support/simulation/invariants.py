"""What must hold, whatever happens: looked at after each turn of a server, and when clients hear something.

The numbers are those of the list of invariants that the project keeps; tests/simulation/test_cluster_simulation.py says
which check stands for which.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from liftbridge.interfaces.log import LogId
from liftbridge.interfaces.records import RecordBatch
from liftbridge.metadata.model import PartitionState, ServerState, StreamState
from liftbridge.metadata.state import MetadataState
from liftbridge.partition.leader import PartitionLeader
from liftbridge.partition.local import LocalPartition
from liftbridge.partition.partition import Partition
from liftbridge.protocol.generated import api_pb2 as api
from liftbridge.protocol.record_batch import HEADER_BYTES, iter_records
from simulation.disk import Disk, SimulatedLog, decode_batches

if TYPE_CHECKING:
    from simulation.clients import Published, Reader, _Session
    from simulation.server import SimulatedServer


class Violation(AssertionError):
    """An invariant doesn't hold. The message begins with its name."""


class Record(NamedTuple):
    """One stored record, as every replica must have it."""

    leader_epoch: int
    message: bytes

    @property
    def value(self) -> bytes:
        return bytes(api.Message.FromString(self.message).value)


@dataclass
class MetadataView:
    """Metadata after one index."""

    index: int = 0
    servers: Mapping[str, ServerState] = field(default_factory=dict)
    streams: Mapping[str, StreamState] = field(default_factory=dict)

    def partition(self, log_id: LogId) -> PartitionState | None:
        for stream in self.streams.values():
            if stream.stream_id == log_id.stream_id:
                return stream.partitions[log_id.partition]
        return None


@dataclass
class _PartitionHistory:
    """What was ever committed, written or promised in one partition. ``excused``: everybody in the ISR lost unsynced
    records, which the durability of the stream allows; nothing is promised from then on."""

    committed: dict[int, Record] = field(default_factory=dict)
    #: The last message of each session that was committed.
    latest: "dict[_Session | None, int]" = field(default_factory=dict)
    committed_end: int = 0
    start_offset: int = 0
    written: dict[tuple[int, int], Record] = field(default_factory=dict)
    leaders: dict[int, str] = field(default_factory=dict)
    excused: bool = False


class Invariants:
    """The history of one run. Any check that fails raises a :class:`Violation` in ``raise_problems``, which the world calls
    after each step: inside a server an exception could be swallowed."""

    def __init__(self, disks: Mapping[str, Disk], *, synced: bool, min_isr: int) -> None:
        self.disks = disks
        self.synced = synced
        self.min_isr = min_isr
        self.latest = MetadataView()
        self.acks = 0
        self.lost_leader_acks = 0
        #: Servers that lost unsynced records, and their starts until then: until metadata knows of a later one.
        self.lossy: dict[str, set[str]] = {}
        self._views: dict[int, MetadataView] = {}
        self._histories: defaultdict[LogId, _PartitionHistory] = defaultdict(_PartitionHistory)
        self._seen: dict[Partition, int] = {}
        self._messages: dict[bytes, Published] = {}
        self._leaders: dict[Partition, PartitionLeader | None] = {}
        self._isrs_due = True
        self._problems: list[str] = []

    def fail(self, name: str, text: str) -> None:
        self._problems.append(f"{name}: {text}")

    def raise_problems(self) -> None:
        if self._problems:
            raise Violation(self._problems[0])

    def is_excused(self, log_id: LogId) -> bool:
        return self._histories[log_id].excused

    def excused_logs(self) -> list[LogId]:
        return [log_id for log_id, history in self._histories.items() if history.excused]

    @property
    def excused(self) -> int:
        return len(self.excused_logs())

    def committed_end(self, log_id: LogId) -> int:
        return self._histories[log_id].committed_end

    # --- metadata -----------------------------------------------------------------------------------------------------

    def applied(self, state: MetadataState) -> None:
        """I13: a server's metadata after an entry, or from a snapshot."""
        view = MetadataView(state.applied_index, dict(state.servers), dict(state.streams))
        known = self._views.setdefault(view.index, view)
        if known.servers != view.servers or known.streams != view.streams:
            self.fail("I13", f"metadata differs after index {view.index}: {view}, and elsewhere {known}")
        if view.index > self.latest.index:
            self.latest = view
            self._isrs_due = True
            self._note_excuses()
            self._check_rules_of_metadata()

    def _check_rules_of_metadata(self) -> None:
        """I8, I9: one leader an epoch, in the ISR, which is a part of the replicas."""
        for stream in self.latest.streams.values():
            for number, partition in enumerate(stream.partitions):
                log_id = LogId(stream.stream_id, number)
                where = f"{log_id} at index {self.latest.index}"
                if partition.leader:
                    known = self._histories[log_id].leaders.setdefault(partition.leader_epoch, partition.leader)
                    if known != partition.leader:
                        self.fail("I8", f"{where}: {known} and {partition.leader} lead in {partition.leader_epoch}")
                if partition.leader not in ("", *partition.isr):
                    self.fail("I9", f"{where}: leader {partition.leader} isn't in the ISR {partition.isr}")
                if not set(partition.isr) <= set(partition.replicas):
                    self.fail("I9", f"{where}: ISR {partition.isr} of replicas {partition.replicas}")

    def lost_power(self, server_id: str) -> None:
        """What that server hadn't synced may be gone."""
        self.lossy[server_id] = set(self.disks[server_id].incarnations)
        self._isrs_due = True
        self._note_excuses()

    def _note_excuses(self) -> None:
        for stream in self.latest.streams.values():
            for number, partition in enumerate(stream.partitions):
                if self.lossy and not self.synced and set(partition.isr) <= set(self.lossy):
                    self._histories[LogId(stream.stream_id, number)].excused = True
        for server_id, before in list(self.lossy.items()):
            server = self.latest.servers.get(server_id)
            if server is not None and server.incarnation not in before:
                del self.lossy[server_id]

    # --- logs ---------------------------------------------------------------------------------------------------------

    def appended(self, server_id: str, log: SimulatedLog, batches: Sequence[RecordBatch]) -> None:
        """I3, I8: in an epoch an offset is written once, and epochs in a log never fall."""
        history = self._histories[log.log_id]
        epoch = log.epochs[-1].leader_epoch if log.epochs else 0
        for batch in batches:
            if batch.leader_epoch < epoch:
                self.fail("I8", f"{server_id} {log.log_id}: epoch {batch.leader_epoch} after {epoch}")
            epoch = batch.leader_epoch
            for offset, record in _records(batch):
                known = history.written.setdefault((epoch, offset), record)
                if known != record and not history.excused:
                    self.fail("I3", f"{server_id} {log.log_id}: offset {offset} written twice in epoch {epoch}")

    def check_server(self, server: "SimulatedServer") -> None:
        """After a turn of it."""
        for local in server.locals:
            partition = local.partition
            if partition is None:
                if local.damage is not None:
                    self.fail("I18", f"{server.server_id} {local.assignment.key} is damaged: {local.damage}")
                continue
            led = self._leaders.get(partition)
            if local.leader is not led and local.role is not None:  # without a role it is just giving one up
                self._leaders[partition] = local.leader
                self._check_leader(server, local)
            seen = self._seen.get(partition, 0)
            if partition.high_watermark != seen:
                self._seen[partition] = partition.high_watermark
                # One that stepped down in this turn, or is about to, may have committed.
                self._check_high_watermark(server, local, seen, local.leader or led)

    def _check_leader(self, server: "SimulatedServer", local: LocalPartition) -> None:
        """I8: who leads in an epoch is whom metadata named."""
        if local.leader is None:
            return
        log_id = local.assignment.key.log_id
        leaders, epoch = self._histories[log_id].leaders, local.leader.leader_epoch
        if leaders.get(epoch) != server.server_id:
            self.fail("I8", f"{server.server_id} leads {log_id} in epoch {epoch}, not {leaders.get(epoch)}")

    def _check_high_watermark(
        self, server: "SimulatedServer", local: LocalPartition, seen: int, leader: PartitionLeader | None
    ) -> None:
        """I10, I11: it only grows, covers what is held, and what it covers is the same everywhere."""
        assert local.partition is not None
        log_id = local.assignment.key.log_id
        history, log, now = self._histories[log_id], local.partition.log, local.partition.high_watermark
        if history.excused:
            return
        where = f"{server.server_id} {log_id}"
        if now < seen:
            self.fail("I10", f"{where}: the high watermark went back from {seen} to {now}")
        if now > log.end_offset:
            self.fail("I10", f"{where}: high watermark {now} above the end, {log.end_offset}")
            return
        start = max(seen, log.start_offset)
        if now <= start:
            return
        for batch in decode_batches(log.read(start, stop=now, max_bytes=1 << 30)):
            for offset, record in _records(batch):
                if start <= offset < now:
                    self._check_committed(where, history, offset, record, leads=leader is not None)
        if leader is not None and now > history.committed_end:
            self._commit(where, local, leader, history, now)

    def _check_committed(
        self, where: str, history: _PartitionHistory, offset: int, record: Record, *, leads: bool
    ) -> None:
        known = history.committed.get(offset)
        if known is None and leads:
            history.committed[offset] = record
            self._check_source(where, history, offset, record)
        elif known is None:
            self.fail("I10", f"{where}: offset {offset} is committed here, and no leader committed it")
        elif known != record:
            self.fail("I11", f"{where}: holds {record} at {offset}, and {known} was committed")

    def _check_source(self, where: str, history: _PartitionHistory, offset: int, record: Record) -> None:
        """I6, I2, I7, I17: somebody published it; at the offset that was acked, and not if it was refused; once, and behind
        what the same session published before."""
        message = self._messages.get(record.value)
        if message is None:
            self.fail("I6", f"{where}: nobody published {record.value!r}, at {offset}")
        elif message.refused:
            self.fail("I17", f"{where}: {record.value!r} is stored at {offset}, and was refused")
        elif message.offset not in (None, offset):
            self.fail("I2", f"{where}: {record.value!r} is at {offset}, and was acked at {message.offset}")
        else:
            before = history.latest.get(message.session, -1)
            if message.number <= before:
                self.fail("I7", f"{where}: {record.value!r} is at {offset}, behind number {before} of its session")
            history.latest[message.session] = message.number

    def _commit(
        self, where: str, local: LocalPartition, leader: PartitionLeader, history: _PartitionHistory, end_offset: int
    ) -> None:
        """I10: never with fewer in sync than the stream asks for."""
        isr = leader._replication.isr
        if len(isr) < min(self.min_isr, len(local.assignment.replicas)):
            self.fail("I10", f"{where}: commits up to {end_offset} with {isr} in sync")
        history.committed_end = end_offset
        self._isrs_due = True

    def truncated(self) -> None:
        """Some log lost records at its end."""
        self._isrs_due = True

    def check_isrs(self) -> None:
        """I1, I5, I9, I12: every member of an ISR, and so whoever may be elected, holds all that is committed; with
        durability sync, on the platter."""
        if not self._isrs_due:
            return
        self._isrs_due = False
        for stream in self.latest.streams.values():
            for number, partition in enumerate(stream.partitions):
                log_id = LogId(stream.stream_id, number)
                history = self._histories[log_id]
                if not history.excused:
                    for server_id in partition.isr:
                        self._check_member(log_id, history, server_id)

    def _check_member(self, log_id: LogId, history: _PartitionHistory, server_id: str) -> None:
        if server_id in self.lossy:
            return
        disk = self.disks[server_id]
        end_offset = disk.end_offset(log_id)
        if end_offset < history.committed_end:
            self.fail("I9", f"{server_id} is in the ISR of {log_id}, ends at {end_offset}, not {history.committed_end}")
        if self.synced and disk.synced[log_id] < history.committed_end:
            self.fail(
                "I12",
                f"{server_id} {log_id}: {history.committed_end} is committed, and {disk.synced[log_id]} synced",
            )

    def check_log(self, server_id: str, log_id: LogId) -> None:
        """I1, I5, I11: a log holds what was committed, but for what retention removed, here or at a leader before."""
        history = self._histories[log_id]
        if history.excused:
            return
        log = self.disks[server_id].peek(log_id)
        start_offset = max(disk.peek(log_id).start_offset for disk in self.disks.values())
        held = {
            offset: record
            for batch in decode_batches(log.read(log.start_offset, stop=log.end_offset, max_bytes=1 << 30))
            for offset, record in _records(batch)
        }
        for offset, record in history.committed.items():
            if offset >= start_offset and held.get(offset) != record:
                self.fail("I1", f"{server_id} {log_id}: {held.get(offset)} at {offset}, {record} was committed")
                return

    # --- clients ------------------------------------------------------------------------------------------------------

    def log_id(self, stream: str, partition: int) -> LogId | None:
        known = self.latest.streams.get(stream)
        return None if known is None else LogId(known.stream_id, partition)

    def published(self, stream: str, message: "Published") -> None:
        self._messages[message.value] = message

    def refused(self, stream: str, message: "Published", server: "SimulatedServer") -> None:
        """I17: what was definitely not stored is nowhere."""
        log_id = self.log_id(stream, message.partition)
        if message.refused and log_id is not None and not self.is_excused(log_id):
            for offset, record in self._histories[log_id].committed.items():
                if record.value == message.value:
                    self.fail("I17", f"{log_id}: {message.value!r} was refused by {server.server_id}, is at {offset}")

    def acked(self, stream: str, message: "Published", server: "SimulatedServer") -> None:
        """I1, I7: an ack of policy ALL means committed, at that offset; acks of a session have ascending offsets, in so far as
        it heard them before it sent more."""
        self.acks += 1
        self.check_server(server)  # its turn isn't over
        log_id = self.log_id(stream, message.partition)
        if log_id is None or self.is_excused(log_id) or message.offset is None:
            return
        where = f"{server.server_id} {log_id}"
        if message.offset <= message.after:
            self.fail("I7", f"{where}: {message.value!r} is at {message.offset}, sent after the ack of {message.after}")
        known = self._histories[log_id].committed.get(message.offset)
        if known is not None and known.value != message.value and message.policy == api.ALL:
            self.fail("I1", f"{where}: {message.value!r} acked at {message.offset}, where {known} is committed")
        if known is None and message.policy == api.ALL:
            self.fail("I1", f"{where}: {message.value!r} acked at {message.offset}, which isn't committed")

    def delivered(self, reader: "Reader", message: api.Message, server: "SimulatedServer") -> None:
        """I3, I4: each offset once, in order, with the content that was committed."""
        self.check_server(server)
        log_id = self.log_id(reader.stream, reader.partition)
        if log_id is None or self.is_excused(log_id):
            return
        where = f"{reader.name} at {server.server_id} {log_id}"
        if message.offset < reader.next_offset:
            self.fail("I4", f"{where}: got offset {message.offset} and waited for {reader.next_offset}")
        known = self._histories[log_id].committed.get(message.offset)
        if known is None or known.value != message.value:
            self.fail("I3", f"{where}: read {message.value!r} at {message.offset}, where {known} is committed")
        start_offset = max((disk.peek(log_id).start_offset for disk in self.disks.values()), default=0)
        if message.offset > reader.next_offset and reader.next_offset >= start_offset:
            self.fail("I4", f"{where}: got offset {message.offset} after {reader.next_offset - 1}, and nothing between")

    def messages(self) -> "list[Published]":
        """All that were published."""
        return list(self._messages.values())

    def unanswered(self) -> "list[Published]":
        """Messages that want an ack and have no answer."""
        return [one for one in self._messages.values() if not one.answered and one.policy != api.NONE]


def _records(batch: RecordBatch) -> "list[tuple[int, Record]]":
    body: Any = batch.data[HEADER_BYTES:]
    return [
        (record.offset, Record(batch.leader_epoch, bytes(body[record.start + 5 : record.end])))
        for record in iter_records(body)
    ]
