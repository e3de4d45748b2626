"""What observers are told."""

from dataclasses import dataclass
from enum import StrEnum


class MetadataEventKind(StrEnum):
    STREAM_CREATED = "stream created"
    STREAM_DELETED = "stream deleted"


@dataclass(frozen=True, slots=True)
class MetadataEvent:
    """A committed change of metadata; ``index`` is its place in the consensus log."""

    index: int
    kind: MetadataEventKind
    stream: str
    partitions: tuple[int, ...] = ()
