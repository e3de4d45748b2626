"""The seam of the offset index: a sparse, disposable cache of where batches lie in segment files.

Losing an index, or part of it, costs a moment of scanning and changes no result. It is never on the path
to an ack: ``add`` only remembers, and the write happens later.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from liftbridge.interfaces.log import LogId


class IndexEntry(NamedTuple):
    """A batch with ``base_offset`` begins at byte ``position`` of the segment whose base offset is ``segment``."""

    base_offset: int
    segment: int
    position: int


class OffsetIndex(ABC):
    """The index of one log. ``add``, ``find`` and ``flush`` may be called from any thread at any moment; the others by one
    thread at a time, while these go on. Nothing here raises: a store that refuses only makes the index forget."""

    @abstractmethod
    def add(self, entries: Sequence[IndexEntry]) -> None:
        """Remembers entries. Cheap, doesn't block on the disk, never raises for a full or broken store."""

    @abstractmethod
    def find(self, offset: int, *, segment: int) -> IndexEntry | None:
        """The entry with the largest base offset that is not above ``offset``, in that segment; None when unknown."""

    @abstractmethod
    def drop_from(self, segment: int, position: int) -> None:
        """Forgets the entries of ``segment`` at ``position`` or beyond and of every later segment (truncation)."""

    @abstractmethod
    def drop_before(self, segment: int) -> None:
        """Forgets the entries of segments whose base offset is below ``segment`` (retention)."""

    def drop_segments(self, first: int, last: int) -> None:
        """Forgets the entries of the segments whose base offsets are in [``first``, ``last``] (compaction). An index
        that can't forget so little may forget more."""
        self.drop_from(first, 0)

    def flush(self) -> None:  # noqa: B027  (optional on purpose)
        """Writes what ``add`` remembered, so that a kill of the process leaves it. Blocks; from any thread."""

    @abstractmethod
    def delete(self) -> None:
        """Forgets everything about this log."""


class IndexStorage(ABC):
    """Opens the indexes of one server."""

    @abstractmethod
    def open(self, log_id: LogId) -> OffsetIndex:
        """The index of a log; empty when there was none. Never raises because of what the store holds: a store that
        can't be read is thrown away and begun anew."""

    @abstractmethod
    def close(self) -> None:
        """Writes what is remembered and closes. Idempotent."""
