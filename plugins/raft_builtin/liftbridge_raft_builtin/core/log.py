"""The log of one member: what is in memory of it, how far it is durable, committed and applied, and who is a member."""

from bisect import bisect_right
from collections.abc import Sequence

from liftbridge_raft_builtin.core.codec import decode_membership
from liftbridge_raft_builtin.core.entries import Entry, EntryKind, Snapshot
from liftbridge_raft_builtin.core.errors import SafetyViolated
from liftbridge_raft_builtin.core.membership import Membership

_ENTRY_OVERHEAD_BYTES = 24


class RaftLog:
    """Entries after ``base_index``, which is the last one forgotten (its term is still known).

    ``stable_index`` <= ``last_index`` is the last entry known to be durable here; ``applied`` <= ``commit``.
    """

    def __init__(self, snapshot: Snapshot, entries: Sequence[Entry], commit: int) -> None:
        self._restart_at(snapshot)
        if entries and entries[0].index <= snapshot.index:
            self.base_index, self.base_term = entries[0].index, entries[0].term
            entries = entries[1:]
        self.append(entries)
        self.stable_index = self.last_index
        self.commit = max(snapshot.index, min(commit, self.last_index))

    def _restart_at(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self.base_index, self.base_term = snapshot.index, snapshot.term
        self._entries: list[Entry] = []
        self._memberships = [(snapshot.index, snapshot.membership)]
        self.stable_index = self.commit = self.applied = snapshot.index

    # --- looking ------------------------------------------------------------------------------------------------------

    @property
    def last_index(self) -> int:
        return self.base_index + len(self._entries)

    @property
    def last_term(self) -> int:
        return self._entries[-1].term if self._entries else self.base_term

    def term_at(self, index: int) -> int | None:
        """The term of the entry, or None when it is forgotten or doesn't exist yet."""
        if index == self.base_index:
            return self.base_term
        if self.base_index < index <= self.last_index:
            return self._entries[index - self.base_index - 1].term
        return None

    def matches(self, index: int, term: int) -> bool:
        return self.term_at(index) == term

    def is_up_to_date(self, last_index: int, last_term: int) -> bool:
        """Whether a log that ends there has everything that this one may have committed (Raft 5.4.1)."""
        return (last_term, last_index) >= (self.last_term, self.last_index)

    def slice(self, start: int, end: int, max_bytes: int | None = None) -> tuple[Entry, ...]:
        """Entries with ``start <= index < end``, cut before ``max_bytes`` of payload, but never to nothing."""
        found = self._entries[start - self.base_index - 1 : end - self.base_index - 1]
        if max_bytes is None:
            return tuple(found)
        size_bytes = 0
        for count, entry in enumerate(found):
            size_bytes += len(entry.data) + _ENTRY_OVERHEAD_BYTES
            if size_bytes > max_bytes and count:
                return tuple(found[:count])
        return tuple(found)

    def unstable(self) -> tuple[Entry, ...]:
        return self.slice(self.stable_index + 1, self.last_index + 1)

    def to_apply(self, max_entries: int) -> tuple[Entry, ...]:
        return self.slice(self.applied + 1, min(self.commit, self.applied + max_entries) + 1)

    def last_agreement(self, index: int, term: int) -> tuple[int, int]:
        """The last (index, term) here that a log with an entry of ``term`` at ``index`` can share: skips whole terms
        that the other doesn't have."""
        index = min(index, self.last_index)
        while index > self.base_index:
            own_term = self._entries[index - self.base_index - 1].term
            if own_term <= term:
                return index, own_term
            index -= 1
        return self.base_index, self.base_term

    # --- membership ---------------------------------------------------------------------------------------------------

    @property
    def membership(self) -> Membership:
        """The latest one in the log, committed or not: it holds from the moment it is appended."""
        return self._memberships[-1][1]

    @property
    def membership_index(self) -> int:
        return self._memberships[-1][0]

    def membership_at(self, index: int) -> Membership:
        return self._memberships[self._membership_place(index)][1]

    def _membership_place(self, index: int) -> int:
        return max(0, bisect_right(self._memberships, index, key=lambda known: known[0]) - 1)

    # --- changing -----------------------------------------------------------------------------------------------------

    def append(self, entries: Sequence[Entry]) -> None:
        """Adds entries behind the last one."""
        self._entries.extend(entries)
        for entry in entries:
            if entry.kind is EntryKind.MEMBERSHIP and entry.index > self.snapshot.index:
                self._memberships.append((entry.index, decode_membership(entry.data)))

    def merge(self, entries: Sequence[Entry]) -> None:
        """Takes over a leader's entries: what is there already stays, what conflicts goes, with all behind it."""
        for place, entry in enumerate(entries):
            if not self.matches(entry.index, entry.term):
                if entry.index <= self.last_index:
                    self._truncate(entry.index)
                self.append(entries[place:])
                return

    def _truncate(self, end_index: int) -> None:
        """Drops entries from ``end_index`` on."""
        if end_index <= self.commit:
            raise SafetyViolated(f"the leader's log conflicts with entry {end_index}, committed up to {self.commit}")
        del self._entries[end_index - self.base_index - 1 :]
        self.stable_index = min(self.stable_index, end_index - 1)
        while self._memberships[-1][0] >= end_index:
            self._memberships.pop()

    def commit_to(self, index: int) -> None:
        self.commit = max(self.commit, min(index, self.last_index))

    def stabilized(self, index: int, term: int) -> None:
        """Everything up to that entry is durable, unless it was replaced meanwhile."""
        if index > self.stable_index and self.matches(index, term):
            self.stable_index = index

    def compact(self, snapshot: Snapshot, trailing_entries: int) -> None:
        """Forgets entries that the snapshot covers, but keeps the last ones for members that are a little behind. Does
        nothing when a leader's later snapshot has come in between."""
        if snapshot.index <= self.snapshot.index:
            return
        new_base = max(self.base_index, snapshot.index - trailing_entries)
        new_term = self.term_at(new_base)
        assert new_term is not None
        del self._entries[: new_base - self.base_index]
        self.base_index, self.base_term = new_base, new_term
        del self._memberships[: self._membership_place(snapshot.index)]
        self.snapshot = snapshot

    def restore(self, snapshot: Snapshot) -> None:
        """Replaces everything by a leader's snapshot."""
        self._restart_at(snapshot)
