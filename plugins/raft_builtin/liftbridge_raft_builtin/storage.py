"""How a member's state lies in the stable store.

========================================= ===================================================
key                                       value
========================================= ===================================================
``raft_builtin/group``                    the name of the group
``raft_builtin/hard_state``               term, vote, and the commit index as far as noted
``raft_builtin/snapshot``                 the latest snapshot
``raft_builtin/entry/`` + index (8 bytes) one entry, without its index
========================================= ===================================================
"""

from collections.abc import Sequence

from liftbridge.errors import ProtocolError, StorageError
from liftbridge.interfaces.stable import StableStore
from liftbridge_raft_builtin.core import Entry, EntryKind, HardState, Membership, Ready, Snapshot, StoredState
from liftbridge_raft_builtin.core.codec import (
    decode_entry,
    decode_hard_state,
    decode_snapshot,
    encode_entry,
    encode_hard_state,
    encode_membership,
    encode_snapshot,
)

_PREFIX = b"raft_builtin/"
_GROUP = _PREFIX + b"group"
_HARD_STATE = _PREFIX + b"hard_state"
_SNAPSHOT = _PREFIX + b"snapshot"
_ENTRY = _PREFIX + b"entry/"
_ENTRIES_END = _PREFIX + b"entry0"  # "0" follows "/"


def first_work(voters: Sequence[str]) -> Ready:
    """What the first voters of a group store before they start: everyone the same first entry."""
    membership = Membership.of(voters)
    entry = Entry(index=1, term=1, kind=EntryKind.MEMBERSHIP, data=encode_membership(membership))
    return Ready(hard_state=HardState(term=1), entries=(entry,))


class RaftStorage:
    """Blocks on the disk; one call at a time. A write is atomic, and durable on return."""

    def __init__(self, store: StableStore) -> None:
        self._store = store

    def is_empty(self) -> bool:
        return self._store.get(_HARD_STATE) is None and self._store.get(_SNAPSHOT) is None

    def enter_group(self, group: str) -> None:
        """Notes the group's name, once. Raises StorageError when it is another one."""
        stored = self._store.get(_GROUP)
        if stored is None:
            self._store.write({_GROUP: group.encode()})
        elif stored.decode() != group:
            raise StorageError(f'the stored Raft state belongs to the group "{stored.decode()}", not "{group}"')

    def load(self) -> StoredState:
        """Raises StorageError when what is stored isn't a member's state."""
        try:
            return self._load()
        except ProtocolError as error:
            raise StorageError(f"the stored Raft state is damaged: {error}") from error

    def _load(self) -> StoredState:
        hard_state = self._store.get(_HARD_STATE)
        snapshot = self._store.get(_SNAPSHOT)
        stored = StoredState(
            HardState() if hard_state is None else decode_hard_state(hard_state),
            Snapshot() if snapshot is None else decode_snapshot(snapshot),
            tuple(
                decode_entry(int.from_bytes(key[len(_ENTRY) :], "big"), value)
                for key, value in self._store.scan(_ENTRY, _ENTRIES_END)
            ),
        )
        _check(stored)
        return stored

    def write(self, work: Ready) -> None:
        """Everything of ``work`` that must be durable."""
        puts: dict[bytes, bytes] = {}
        delete_range: tuple[bytes, bytes] | None = None
        if work.hard_state is not None:
            puts[_HARD_STATE] = encode_hard_state(work.hard_state)
        if work.entries:
            delete_range = (_entry_key(work.entries[0].index), _ENTRIES_END)
            puts.update((_entry_key(entry.index), encode_entry(entry)) for entry in work.entries)
        if work.snapshot is not None:
            delete_range = (_ENTRY, _ENTRIES_END)
            puts[_SNAPSHOT] = encode_snapshot(work.snapshot)
        self._store.write(puts, delete_range=delete_range)

    def write_snapshot(self, snapshot: Snapshot, trailing_entries: int) -> None:
        """A snapshot of this member's own; drops the entries that nobody needs any more."""
        # The entry right before those that are kept stays too, for its term.
        kept_index = max(0, snapshot.index - trailing_entries)
        self._store.write({_SNAPSHOT: encode_snapshot(snapshot)}, delete_range=(_ENTRY, _entry_key(kept_index)))


def _entry_key(index: int) -> bytes:
    return _ENTRY + index.to_bytes(8, "big")


def _check(stored: StoredState) -> None:
    if not stored.entries:
        return
    first_index, last_index = stored.entries[0].index, stored.entries[-1].index
    if last_index - first_index + 1 != len(stored.entries):
        raise StorageError(f"the stored Raft log has gaps between the entries {first_index} and {last_index}")
    if not first_index - 1 <= stored.snapshot.index <= last_index:
        raise StorageError(
            f"the stored Raft log has the entries {first_index} to {last_index}, which don't follow on the snapshot of "
            f"entry {stored.snapshot.index}"
        )
