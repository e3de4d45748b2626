"""The entries in memory: those after the last snapshot (and a few before it, for followers that are a little behind)."""

from liftbridge_raft_builtin.core.types import Entry, Membership, Snapshot


class RaftLog:
    """Entries with consecutive indexes from ``first_index`` on."""

    def __init__(self, snapshot: Snapshot, entries: list[Entry]) -> None:
        self.snapshot = snapshot
        self._entries = entries
        self._start_index = entries[0].index - 1 if entries else snapshot.index
        self._start_term = snapshot.term if self._start_index == snapshot.index else 0

    @property
    def first_index(self) -> int:
        return self._start_index + 1

    @property
    def last_index(self) -> int:
        return self._start_index + len(self._entries)

    @property
    def last_term(self) -> int:
        return self._entries[-1].term if self._entries else self._start_term

    def term_at(self, index: int) -> int | None:
        """The term of the entry at ``index``; None when that isn't known here."""
        if self._start_index < index <= self.last_index:
            return self._entries[index - self._start_index - 1].term
        if index == self.snapshot.index:
            return self.snapshot.term
        return self._start_term if index == self._start_index else None

    def entry(self, index: int) -> Entry:
        return self._entries[index - self._start_index - 1]

    def slice(self, start: int, max_entries: int, max_bytes: int) -> tuple[Entry, ...]:
        """Entries from ``start`` on, at least one if there is one."""
        taken: list[Entry] = []
        size = 0
        for entry in self._entries[start - self._start_index - 1 :][:max_entries]:
            size += len(entry.data) + 32
            if taken and size > max_bytes:
                break
            taken.append(entry)
        return tuple(taken)

    def between(self, start: int, stop: int) -> list[Entry]:
        """Entries in ``[start, stop)``."""
        return self._entries[start - self._start_index - 1 : stop - self._start_index - 1]

    def append(self, entry: Entry) -> None:
        self._entries.append(entry)

    def truncate(self, index: int) -> None:
        """Drops the entry at ``index`` and all behind it."""
        del self._entries[index - self._start_index - 1 :]

    def compact(self, snapshot: Snapshot, keep: int) -> int:
        """Drops entries that the snapshot covers, but for the last ``keep``; returns the new first index."""
        start = max(self._start_index, min(snapshot.index - keep, snapshot.index))
        term = self.term_at(start)
        self._entries = self._entries[start - self._start_index :]
        self._start_index, self._start_term = start, term or 0
        self.snapshot = snapshot
        return self.first_index

    def replace(self, snapshot: Snapshot) -> None:
        """Begins anew behind a snapshot that came from the leader."""
        self._entries = []
        self._start_index, self._start_term = snapshot.index, snapshot.term
        self.snapshot = snapshot

    def membership(self) -> tuple[int, Membership]:
        """The latest membership in the log, committed or not, and its index."""
        for entry in reversed(self._entries):
            if entry.membership is not None:
                return entry.index, entry.membership
        return self.snapshot.index, self.snapshot.membership
