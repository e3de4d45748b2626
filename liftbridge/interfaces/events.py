"""What observers are told."""

from dataclasses import dataclass
from enum import StrEnum


class MetadataEventKind(StrEnum):
    STREAM_CREATED = "stream created"
    STREAM_DELETED = "stream deleted"
    LEADER_ELECTED = "leader elected"
    PARTITION_OFFLINE = "partition offline"
    ISR_CHANGED = "ISR changed"
    SERVER_UP = "server up"
    SERVER_DOWN = "server down"
    SERVER_DRAINING = "server draining"
    SERVER_REMOVED = "server removed"


@dataclass(frozen=True, slots=True)
class MetadataEvent:
    """A committed change of metadata; ``index`` is its place in the consensus log. It is about some partitions of a
    stream, or about a server; the other is empty."""

    index: int
    kind: MetadataEventKind
    stream: str
    partitions: tuple[int, ...] = ()
    server: str = ""
