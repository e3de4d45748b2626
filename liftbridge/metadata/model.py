"""The records that metadata consists of, and what may become of a command."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from liftbridge.metadata.config import StreamConfig

#: Streams that the cluster keeps for itself.
ACTIVITY_STREAM, CURSORS_STREAM = "__activity", "__cursors"


class ServerStatus(IntEnum):
    """What the cluster expects of a server; numbers are those of internal.proto.

    Only live servers become leaders or come into an ISR. A server in the consensus group that has no record yet is
    joining.
    """

    LIVE = 0
    DOWN = 1
    DRAINING = 2
    GONE = 3


class RefusalReason(IntEnum):
    """Why a command changed nothing. Numbers are stored: never reuse one."""

    STREAM_EXISTS = 1
    NO_SUCH_STREAM = 2
    BAD_PLACEMENT = 3
    UNKNOWN_COMMAND = 4
    SERVER_REMOVED = 5
    NO_SUCH_SERVER = 6
    OTHER_START = 7
    STILL_IN_USE = 8
    NO_SUCH_PARTITION = 9
    NO_SUCH_STREAM_TO_CONSUME = 30
    ALREADY_A_MEMBER = 31
    NO_SUCH_GROUP = 32
    NOT_A_MEMBER = 33
    GROUP_CHANGED = 34


@dataclass(frozen=True, slots=True)
class Refused:
    """The command at this index changed nothing."""

    reason: RefusalReason
    message: str


@dataclass(frozen=True, slots=True)
class Applied:
    """The command at ``index`` took effect; of several changes, those that are ``accepted``."""

    index: int
    accepted: tuple[bool, ...] = ()


@dataclass(frozen=True, slots=True)
class ServerState:
    """A server and its present start."""

    server_id: str
    host: str
    port: int
    incarnation: str
    status: ServerStatus = ServerStatus.LIVE


class EventTimes(NamedTuple):
    """When something happened first and last, on the clocks of those who asked for it; 0 for never."""

    first_ns: int = 0
    latest_ns: int = 0

    def again(self, now_ns: int) -> "EventTimes":
        """It happened once more. Clocks differ, but the latest time never goes back."""
        return EventTimes(self.first_ns or now_ns, max(self.latest_ns, now_ns))


NEVER = EventTimes()


@dataclass(frozen=True, slots=True)
class PartitionState:
    """One partition. Epochs are consensus indexes: of the last leader change or resume, and of the last change of replicas,
    ISR, leader or pause. ``leader`` is "" while the partition is offline; one that is paused has a leader, who does nothing."""

    replicas: tuple[str, ...]
    isr: tuple[str, ...]
    leader: str
    leader_epoch: int
    partition_epoch: int
    paused: bool = False
    readonly: bool = False
    pause_times: EventTimes = NEVER
    readonly_times: EventTimes = NEVER


@dataclass(frozen=True, slots=True)
class StreamState:
    """One stream. ``stream_id`` is the index of its creation; a partition's ID is its place in ``partitions``, and
    ``replication_factor`` the number of replicas that it should have. ``resume_all``: what resumes one partition resumes all."""

    stream_id: int
    name: str
    subject: str
    group: str
    config: StreamConfig
    creation_timestamp_ns: int
    partitions: tuple[PartitionState, ...]
    replication_factor: int
    resume_all: bool = False


@dataclass(frozen=True, slots=True)
class MemberState:
    """A consumer in a group: since which index, the streams that it consumes, in order, and its partitions of them,
    ascending. A stream of which it has none is not in ``assigned``."""

    consumer_id: str
    joined_index: int
    streams: tuple[str, ...]
    assigned: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class GroupState:
    """A consumer group, with at least one member. ``coordinator`` is the server that expires members, "" while none is
    live; ``coordinator_index`` is where it was chosen."""

    group_id: str
    created_index: int
    changed_index: int
    coordinator: str
    coordinator_index: int
    members: Mapping[str, MemberState]

    @property
    def epoch(self) -> int:
        """What clients know the present assignments by: 0 until something changes, and then the index of the change."""
        return 0 if self.changed_index == self.created_index else self.changed_index

    def assigns(self, consumer_id: str, stream: str, partition: int) -> bool:
        """Whether the partition is the consumer's."""
        member = self.members.get(consumer_id)
        return member is not None and partition in member.assigned.get(stream, ())
