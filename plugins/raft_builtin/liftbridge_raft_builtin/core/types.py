"""What the core takes in and gives out. Index 0 and term 0 mean "nothing yet"."""

from dataclasses import dataclass, field
from enum import Enum, IntEnum


class EntryKind(IntEnum):
    """What a log entry holds."""

    COMMAND = 0
    NOOP = 1
    MEMBERSHIP = 2


class Role(Enum):
    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


@dataclass(frozen=True, slots=True)
class Membership:
    """Who takes part: voters decide, learners follow."""

    voters: tuple[str, ...] = ()
    learners: tuple[str, ...] = ()

    @property
    def members(self) -> tuple[str, ...]:
        return (*self.voters, *self.learners)

    @property
    def majority(self) -> int:
        return len(self.voters) // 2 + 1


@dataclass(frozen=True, slots=True)
class Entry:
    index: int
    term: int
    kind: EntryKind
    data: bytes = b""
    membership: Membership | None = None


@dataclass(frozen=True, slots=True)
class HardState:
    """What must be durable before a message that depends on it is sent."""

    term: int = 0
    vote: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state machine as of ``index``, and who took part then."""

    index: int = 0
    term: int = 0
    membership: Membership = field(default_factory=Membership)
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class VoteRequest:
    """``pre_vote`` asks whether a vote would be given, and changes nothing. ``transfer``: the leader wants it."""

    term: int
    last_index: int
    last_term: int
    pre_vote: bool = False
    transfer: bool = False


@dataclass(frozen=True, slots=True)
class VoteReply:
    term: int
    granted: bool
    pre_vote: bool


@dataclass(frozen=True, slots=True)
class AppendRequest:
    """Entries behind ``previous_index``; none of them make it a heartbeat."""

    term: int
    previous_index: int
    previous_term: int
    commit_index: int
    entries: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class AppendReply:
    """Accepted: the sender's log matches up to ``index``. Refused: try again from ``index``."""

    term: int
    accepted: bool
    index: int


@dataclass(frozen=True, slots=True)
class SnapshotRequest:
    """The leader's snapshot, for a follower whose next entries are compacted away."""

    term: int
    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class TimeoutNow:
    """Stand for election at once: the leader hands over."""

    term: int


Message = VoteRequest | VoteReply | AppendRequest | AppendReply | SnapshotRequest | TimeoutNow


@dataclass(slots=True)
class Ready:
    """Work for the driver, in this order: persist ``snapshot``, ``hard_state`` and ``entries`` (dropping stored entries
    from the first one's index on), call ``persisted``, send ``messages``, install ``snapshot``, apply ``committed``."""

    hard_state: HardState | None = None
    entries: list[Entry] = field(default_factory=list)
    snapshot: Snapshot | None = None
    messages: list[tuple[str, Message]] = field(default_factory=list)
    committed: list[Entry] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.hard_state or self.entries or self.snapshot or self.messages or self.committed)
