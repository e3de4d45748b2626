"""What a server says of itself to whoever watches over it: numbers as of now, read when they are asked for.

Endpoints get them by :meth:`liftbridge.broker.api.BrokerApi.figures` and ``replica_figures``. Ends are exclusive here, as
everywhere inside: ``end_offset`` is the offset that the next message gets. What is counted is counted since the object
that counts was made (``since`` in the texts), so it may begin at 0 again, and never goes back otherwise.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from liftbridge.interfaces.events import MetadataEventKind


class ReplicaRole(StrEnum):
    """What this server is doing for a partition of which it has a replica."""

    LEADER = "leader"
    FOLLOWER = "follower"
    PAUSED = "paused"
    #: Nothing: nobody leads the partition, its role just begins, or ``ReplicaProblem.DAMAGED`` says why.
    NONE = "none"


class ReplicaProblem(StrEnum):
    """Why a replica is no use. The log of the server has the whole story."""

    #: Its log can't be opened: it is damaged, or its encryption key is missing.
    DAMAGED = "damaged"
    #: The disk took nothing when it was asked last.
    CANNOT_STORE = "cannot store"


@dataclass(frozen=True, slots=True)
class LogFigures:
    """The log of a replica. ``size_bytes`` is what its records take in storage. ``lost_messages``: counted as committed and
    dropped all the same, because the leader doesn't have them, since the log was opened."""

    start_offset: int
    end_offset: int
    high_watermark: int
    size_bytes: int
    lost_messages: int = 0


@dataclass(frozen=True, slots=True)
class LeaderFigures:
    """What only a leader knows. ``in_sync`` of ``replicas`` are, this server included, and ack policy ALL needs
    ``min_in_sync``. ``lag_messages`` is what the slowest of the followers that were heard of in this leader epoch lacks, None
    when none was. ``dropped_messages`` came over the transport, asked for no ack and were not stored, since this server
    listens to the partition's subject: nobody else knows of them."""

    replicas: int
    in_sync: int
    min_in_sync: int
    lag_messages: int | None = None
    dropped_messages: int = 0


@dataclass(frozen=True, slots=True)
class ReplicaFigures:
    """One replica on this server. ``log`` is None while it is closed (paused or damaged), ``leader`` is None unless this
    server leads. ``subscriptions`` run here. ``refused_messages`` were refused by this server as the leader, by reason
    ("storage", "too few replicas"...), since the log was opened; what no partition was found for, or was too large for
    any, isn't counted."""

    stream: str
    partition: int
    role: ReplicaRole
    problem: ReplicaProblem | None = None
    subscriptions: int = 0
    log: LogFigures | None = None
    leader: LeaderFigures | None = None
    refused_messages: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class GroupFigures:
    """A consumer group that this server coordinates."""

    group_id: str
    members: int


@dataclass(frozen=True, slots=True)
class GroupPosition:
    """Where a consumer group stands in a partition, by its cursor: everything below ``next_offset`` is processed."""

    group_id: str
    stream: str
    partition: int
    next_offset: int


@dataclass(frozen=True, slots=True)
class ClusterFigures:
    """The cluster as the metadata says that this server has applied: the same on all servers that are up to date.

    ``servers`` counts them by status ("live", "down", "draining"; those that were removed are left out).
    ``offline_partitions`` have no leader; ``under_replicated_partitions`` have fewer replicas in sync than they should.
    """

    servers: Mapping[str, int]
    streams: int
    partitions: int
    offline_partitions: int
    under_replicated_partitions: int


@dataclass(frozen=True, slots=True)
class ServerFigures:
    """This server in its cluster.

    ``connected``: to the transport. ``holds_lease``: the cluster has heard of this server lately; if not, others may lead by
    now what it leads. ``metadata_leader`` is a server ID, "" while none is known. ``commit_index`` and
    ``applied_index`` are of metadata. ``events`` counts, by kind, the changes of metadata that were applied since the
    start; one that is about partitions counts once for each.
    """

    connected: bool
    holds_lease: bool
    metadata_leader: str
    is_metadata_leader: bool
    term: int
    commit_index: int
    applied_index: int
    cluster: ClusterFigures
    groups: tuple[GroupFigures, ...]
    events: Mapping[MetadataEventKind, int]
