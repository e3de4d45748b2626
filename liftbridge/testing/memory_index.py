"""An offset index in memory."""

from collections.abc import Sequence

from liftbridge.interfaces.index import IndexEntry, IndexStorage, OffsetIndex
from liftbridge.interfaces.log import LogId


class MemoryIndexStorage(IndexStorage):
    """See :class:`liftbridge.interfaces.index.IndexStorage`. Ends with this object, which an index may do."""

    def __init__(self) -> None:
        self._indexes: dict[LogId, MemoryIndex] = {}

    def open(self, log_id: LogId) -> OffsetIndex:
        return self._indexes.setdefault(log_id, MemoryIndex())

    def close(self) -> None:
        """Nothing is held."""


class MemoryIndex(OffsetIndex):
    """See :class:`liftbridge.interfaces.index.OffsetIndex`. The set is replaced as a whole, never changed in place."""

    def __init__(self) -> None:
        self._entries: frozenset[IndexEntry] = frozenset()

    def add(self, entries: Sequence[IndexEntry]) -> None:
        self._entries |= frozenset(entries)

    def find(self, offset: int, *, segment: int) -> IndexEntry | None:
        below = (entry for entry in self._entries if entry.segment == segment and entry.base_offset <= offset)
        return max(below, default=None)

    def drop_from(self, segment: int, position: int) -> None:
        self._entries = frozenset(
            entry for entry in self._entries if (entry.segment, entry.position) < (segment, position)
        )

    def drop_before(self, segment: int) -> None:
        self._entries = frozenset(entry for entry in self._entries if entry.segment >= segment)

    def drop_segments(self, first: int, last: int) -> None:
        self._entries = frozenset(entry for entry in self._entries if not first <= entry.segment <= last)

    def delete(self) -> None:
        self._entries = frozenset()
