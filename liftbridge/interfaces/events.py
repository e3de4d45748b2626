"""What observers are told."""

from dataclasses import dataclass
from enum import StrEnum


class MetadataEventKind(StrEnum):
    STREAM_CREATED = "stream created"
    STREAM_DELETED = "stream deleted"
    LEADER_ELECTED = "leader elected"
    PARTITION_OFFLINE = "partition offline"
    ISR_CHANGED = "ISR changed"
    PAUSED = "paused"
    RESUMED = "resumed"
    READONLY_CHANGED = "readonly changed"
    SERVER_UP = "server up"
    SERVER_DOWN = "server down"
    SERVER_DRAINING = "server draining"
    SERVER_REMOVED = "server removed"
    CONSUMER_JOINED = "consumer joined"
    CONSUMER_LEFT = "consumer left"


@dataclass(frozen=True, slots=True)
class MetadataEvent:
    """A committed change of metadata; ``index`` is its place in the consensus log. It is about some partitions of a
    stream, about a server, or about a consumer of a group; the others are empty.

    ``streams`` are those that a consumer joined for. ``expired``: it left because nothing was heard of it.
    ``resume_all``: what wakes one paused partition of the stream wakes all. ``readonly`` is the new state.
    """

    index: int
    kind: MetadataEventKind
    stream: str
    partitions: tuple[int, ...] = ()
    server: str = ""
    group: str = ""
    consumer: str = ""
    streams: tuple[str, ...] = ()
    expired: bool = False
    resume_all: bool = False
    readonly: bool = False
