"""What members tell each other. Any message may be lost, repeated, late or out of order.

``term`` is the sender's term, but for a pre-vote: its request and its granting reply carry the term that would begin.
"""

from dataclasses import dataclass

from liftbridge_raft_builtin.core.entries import Entry
from liftbridge_raft_builtin.core.membership import Membership


@dataclass(frozen=True, slots=True)
class VoteRequest:
    """Asks for a vote, or with ``pre`` whether there would be one. ``transfer``: the leader itself asked for this
    election, so its lease doesn't stand against it."""

    sender: str
    to: str
    term: int
    last_index: int
    last_term: int
    pre: bool = False
    transfer: bool = False


@dataclass(frozen=True, slots=True)
class VoteReply:
    sender: str
    to: str
    term: int
    granted: bool
    pre: bool = False


@dataclass(frozen=True, slots=True)
class AppendRequest:
    """Entries that follow ``prev_index``; without entries, a heartbeat. ``round`` comes back in the reply: it proves
    that the reply is younger than the question whether this leader still leads."""

    sender: str
    to: str
    term: int
    prev_index: int
    prev_term: int
    commit: int
    round: int = 0
    entries: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class AppendReply:
    """Accepted: the logs agree up to ``index``. Rejected: there is no such entry at ``index``; the logs can agree at
    most up to ``hint_index``, where this member has an entry of ``hint_term``."""

    sender: str
    to: str
    term: int
    index: int
    accepted: bool
    round: int = 0
    hint_index: int = 0
    hint_term: int = 0


@dataclass(frozen=True, slots=True)
class SnapshotRequest:
    """The bytes of a snapshot from ``offset`` on; ``total_bytes`` is the size of all of it."""

    sender: str
    to: str
    term: int
    index: int
    index_term: int
    membership: Membership
    offset: int
    total_bytes: int
    data: bytes
    round: int = 0


@dataclass(frozen=True, slots=True)
class SnapshotReply:
    """The offset at which the receiver wants the snapshot of ``index`` to go on."""

    sender: str
    to: str
    term: int
    index: int
    offset: int
    round: int = 0


@dataclass(frozen=True, slots=True)
class TimeoutNow:
    """The leader hands over: the receiver begins an election at once."""

    sender: str
    to: str
    term: int


Message = VoteRequest | VoteReply | AppendRequest | AppendReply | SnapshotRequest | SnapshotReply | TimeoutNow
