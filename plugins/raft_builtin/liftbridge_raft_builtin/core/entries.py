"""What Raft must not forget: entries, hard state, snapshots."""

from dataclasses import dataclass, field
from enum import IntEnum

from liftbridge_raft_builtin.core.membership import Membership


class EntryKind(IntEnum):
    """What an entry is for: the state machine, the first entry of a term, or a new membership."""

    COMMAND = 0
    NOOP = 1
    MEMBERSHIP = 2


@dataclass(frozen=True, slots=True)
class Entry:
    """One place in the log. The first index is 1; the payload of a membership is the whole new membership, encoded."""

    index: int
    term: int
    kind: EntryKind = EntryKind.COMMAND
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class HardState:
    """Term and vote must be durable before a message that tells of them is sent. ``commit`` is a hint: it may lag."""

    term: int = 0
    vote: str = ""
    commit: int = 0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state machine after the entry at ``index``, and the membership that holds there."""

    index: int = 0
    term: int = 0
    membership: Membership = field(default_factory=Membership)
    data: bytes = b""
