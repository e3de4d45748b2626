"""The group's durable state in the stable store: hard state, entries, the last snapshot."""

import struct

from liftbridge.interfaces.stable import StableStore
from liftbridge_raft_builtin.codec import (
    encode_entry,
    entry_from_bytes,
    hard_state_from_bytes,
    hard_state_to_bytes,
    snapshot_from_bytes,
    snapshot_to_bytes,
)
from liftbridge_raft_builtin.core.log import RaftLog
from liftbridge_raft_builtin.core.types import HardState, Ready, Snapshot

_HARD_STATE = b"raft/hard-state"
_SNAPSHOT = b"raft/snapshot"
_ENTRY = b"raft/entry/"
_INDEX = struct.Struct(">Q")
_MAX_INDEX = (1 << 64) - 1


def _key(index: int) -> bytes:
    return _ENTRY + _INDEX.pack(index)


class RaftStore:
    """All methods block on the disk."""

    def __init__(self, store: StableStore) -> None:
        self._store = store

    def load(self) -> tuple[HardState, RaftLog]:
        """What was stored; empty for a new server."""
        hard_state = self._store.get(_HARD_STATE)
        snapshot = self._store.get(_SNAPSHOT)
        entries = [entry_from_bytes(value) for _, value in self._store.scan(_key(0), _key(_MAX_INDEX))]
        return (
            hard_state_from_bytes(hard_state) if hard_state else HardState(),
            RaftLog(snapshot_from_bytes(snapshot) if snapshot else Snapshot(), entries),
        )

    def save(self, ready: Ready) -> None:
        """Durable on return. Entries that conflict with the new ones are dropped in the same transaction."""
        puts = {_key(entry.index): encode_entry(entry).SerializeToString() for entry in ready.entries}
        if ready.hard_state is not None:
            puts[_HARD_STATE] = hard_state_to_bytes(ready.hard_state)
        dropped = None
        if ready.snapshot is not None:
            puts[_SNAPSHOT] = snapshot_to_bytes(ready.snapshot)
            dropped = (_key(0), _key(_MAX_INDEX))
        elif ready.entries:
            dropped = (_key(ready.entries[0].index), _key(_MAX_INDEX))
        if puts:
            self._store.write(puts, delete_range=dropped)

    def save_snapshot(self, snapshot: Snapshot, first_index: int) -> None:
        """Replaces the snapshot and drops the entries below ``first_index``."""
        self._store.write({_SNAPSHOT: snapshot_to_bytes(snapshot)}, delete_range=(_key(0), _key(first_index)))
