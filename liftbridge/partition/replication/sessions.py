"""What a leader's server remembers of its followers' brokers and of the partitions that it leads."""

from collections.abc import Callable
from dataclasses import dataclass, field

from liftbridge.interfaces.log import LogId
from liftbridge.partition.replication.leading import Contact, LeaderReplication
from liftbridge.partition.replication.replica import Replica
from liftbridge.protocol.replication import FetchEntry, Section


@dataclass(eq=False, slots=True)
class LedPartition:
    """One partition that this server leads. ``committed`` is called when its high watermark moved."""

    log_id: LogId
    replica: Replica
    replication: LeaderReplication
    committed: Callable[[], None]
    #: Positions that agree with the leader's log.
    followers: dict[str, "Position"] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class Position:
    """What a session knows of one partition. ``problem`` is to be told before anything else; ``answered`` means that the
    follower has something to do before there can be more for it."""

    session: "Session"
    entry: FetchEntry
    problem: Section | None = None
    answered: bool = False
    told_high_watermark: int = -1


@dataclass(eq=False, slots=True)
class Session:
    """One follower's broker. ``waiting`` is a fetch that may be answered."""

    number: int
    contact: Contact
    reply_subject: str = ""
    next_fetch: int = 0
    next_answer: int = 0
    waiting_since_ns: int | None = None
    high_watermarks_due_ns: int | None = None
    positions: dict[LogId, Position] = field(default_factory=dict)
    #: Partitions with records or a problem to tell, and with nothing but a new high watermark; in order of arrival.
    ready: dict[LogId, None] = field(default_factory=dict)
    moved: dict[LogId, None] = field(default_factory=dict)
