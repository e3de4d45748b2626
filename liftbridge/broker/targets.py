"""Where a publish goes: which local partitions take it, and whether others have to be reached over the transport."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from liftbridge.interfaces.routing import SubjectRouter
from liftbridge.metadata.state import MetadataState, StreamState
from liftbridge.partition.local import LocalPartition
from liftbridge.partition.manager import PartitionManager
from liftbridge.partition.partition import PartitionKey
from liftbridge.partition.pending import ACK_LEADER, ACK_NONE, PendingRun
from liftbridge.partition.refusal import Refusal, RefusalKind
from liftbridge.protocol.acks import AckTemplate

INVALID_ACK_POLICY = "Invalid ackPolicy {}: must be 0 (LEADER), 1 (ALL) or 2 (NONE)"
#: Of a name that a client made up, so much is told back.
_TOLD_CHARACTERS = 80


@dataclass(frozen=True, slots=True)
class AckTarget:
    """What acks say about the stream they come from."""

    stream: str
    base_subject: str

    def template(self, run: PendingRun, inbox: str, reception_ns: int, commit_ns: int) -> AckTemplate:
        """What the acks of one run have in common."""
        return AckTemplate(
            stream=self.stream,
            partition_subject=self.base_subject,
            message_subject=run.subject,
            ack_inbox=inbox,
            ack_policy=run.ack_policy,
            reception_timestamp_ns=reception_ns,
            commit_timestamp_ns=commit_ns,
        )


@dataclass(frozen=True, slots=True)
class RemoteLeader:
    """Who leads a partition, as metadata says, wherever that is."""

    server_id: str
    stream_id: int
    leader_epoch: int


@dataclass(frozen=True, slots=True)
class Target:
    """One partition as a publisher's goal.

    ``local`` is the partition itself, if this server leads it and its stream is in no load-balance group. ``leader``
    is who leads it, None if nobody does, while this server hands it over, or for a stream in a group: ``grouped`` means
    that the partition gets the message, and acks it, only through the transport. ``paused`` says what is to be resumed
    first, by whoever publishes: until then there is no leader either. ``attached`` are this server's other
    partitions that listen on the same subject.
    """

    acks: AckTarget
    subject: str
    local: LocalPartition | None
    leader: RemoteLeader | None
    grouped: bool
    attached: tuple[LocalPartition, ...]
    checks_expected_offsets: bool
    paused: PartitionKey | None = None


class Targets(Protocol):
    """Where a client's messages may go."""

    def find(self, stream: str, partition: int, ack_policy: int) -> Target | Refusal:
        """The target, or why there is none."""


class TargetTable:
    """Looks targets up, and remembers them until metadata or roles change."""

    def __init__(self, state: MetadataState, partitions: PartitionManager, router: SubjectRouter) -> None:
        self._state = state
        self._partitions = partitions
        self._router = router
        self._version = (-1, -1)
        self._targets: dict[tuple[str, int], Target] = {}

    def find(self, stream: str, partition: int, ack_policy: int) -> Target | Refusal:
        """The target, or why there is none."""
        version = (self._state.version, self._partitions.version)
        if version != self._version:
            self._version = version
            self._targets.clear()
        if not ACK_LEADER <= ack_policy <= ACK_NONE:
            return Refusal(RefusalKind.BAD_REQUEST, INVALID_ACK_POLICY.format(ack_policy))
        found: Target | Refusal | None = self._targets.get((stream, partition))
        if found is None:
            found = self._resolve(stream, partition)
            if isinstance(found, Target):  # refusals aren't remembered: anybody can think of names that don't exist
                self._targets[stream, partition] = found
        if isinstance(found, Target) and found.checks_expected_offsets and ack_policy == ACK_NONE:
            return Refusal(RefusalKind.BAD_REQUEST, "stream with concurrency control must have AckPolicy set")
        return found

    def find_by_id(self, stream_id: int, partition: int) -> Target | Refusal | None:
        """The target in a stream that is known by its ID, or why there is none; None if there is no such stream."""
        stream = self._state.stream_by_id(stream_id)
        return None if stream is None else self.find(stream.name, partition, ACK_LEADER)

    def leader_epoch_here(self, stream_id: int, partition: int) -> int | None:
        """The leader epoch in which this server leads the partition at present, whether messages can go there or not."""
        stream = self._state.stream_by_id(stream_id)
        local = None if stream is None else self._partitions.get(stream.name, partition)
        return None if local is None or local.leader is None else local.leader.leader_epoch

    def listeners(self, subject: str) -> tuple[LocalPartition, ...]:
        """The partitions led here, in no load-balance group, that hear what is published on ``subject``. A paused one is
        resumed by what it is given."""
        return tuple(
            local
            for local in self._partitions
            if local.intake is not None
            and not local.assignment.group
            and self._router.matches(local.assignment.subject, subject)
        )

    def _resolve(self, stream: str, partition: int) -> Target | Refusal:
        streams: Mapping[str, StreamState] = self._state.streams
        state = streams.get(stream)
        if state is None:
            return Refusal(RefusalKind.NO_SUCH_PARTITION, f"no such stream: {stream[:_TOLD_CHARACTERS]}")
        if not 0 <= partition < len(state.partitions):
            return Refusal(RefusalKind.NO_SUCH_PARTITION, f"no such partition: {partition}")
        local = self._partitions.get(stream, partition)
        leads = local is not None and local.assignment.leads
        paused = _paused(state, partition)
        if state.partitions[partition].readonly and (leads or paused or state.group):
            # Elsewhere the leader says so: this server may not know yet that the partition was opened again.
            return Refusal(RefusalKind.READONLY, f"readonly partition: {partition}")
        if local is not None and leads and local.damage is not None:
            return Refusal(RefusalKind.STORAGE, f"partition {partition} of stream {stream} is offline: {local.damage}")
        subject = self._router.partition_subject(state.subject, partition)
        if state.group and not self._router.is_literal(subject):
            return Refusal(
                RefusalKind.BAD_REQUEST,
                f'stream {stream} shares the subject "{subject}" with its group, and nobody can publish to a wildcard: '
                "publish to one of the subjects that it stands for",
            )
        waits = paused or (local is not None and local.handing_over)
        direct = local if local is not None and local.is_leader and not (waits or state.group) else None
        return Target(
            acks=AckTarget(stream, state.subject),
            subject=subject,
            local=direct,
            leader=None if waits or state.group else _leader(state, partition),
            grouped=bool(state.group),
            attached=tuple(other for other in self.listeners(subject) if other is not direct),
            checks_expected_offsets=bool(state.config.optimistic_concurrency_control),
            paused=PartitionKey(stream, partition, state.stream_id) if paused else None,
        )


def _paused(stream: StreamState, partition: int) -> bool:
    """Whether something is to be resumed before a message can go to the partition."""
    return stream.partitions[partition].paused or (stream.resume_all and any(one.paused for one in stream.partitions))


def _leader(stream: StreamState, partition: int) -> RemoteLeader | None:
    state = stream.partitions[partition]
    return RemoteLeader(state.leader, stream.stream_id, state.leader_epoch) if state.leader else None
