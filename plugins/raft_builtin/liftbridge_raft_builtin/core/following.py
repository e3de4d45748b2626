"""What a follower does with what its leader sends."""

from collections.abc import Callable

from liftbridge_raft_builtin.core.entries import Snapshot
from liftbridge_raft_builtin.core.log import RaftLog
from liftbridge_raft_builtin.core.messages import AppendReply, AppendRequest, SnapshotReply, SnapshotRequest


def take_entries(log: RaftLog, request: AppendRequest) -> AppendReply:
    """Merges the entries if they fit, and says how far the logs agree, or where they may."""
    if request.prev_index < log.commit:
        # What is committed is equal everywhere, and may be forgotten here: nothing to compare, nothing to take. The
        # entries beyond, if any, come again.
        return _accepted(request, log.commit)
    if not log.matches(request.prev_index, request.prev_term):
        hint_index, hint_term = log.last_agreement(request.prev_index, request.prev_term)
        index = request.prev_index
        sender, to = request.to, request.sender
        return AppendReply(sender, to, request.term, index, False, request.round, hint_index, hint_term)
    log.merge(request.entries)
    agreed_index = request.prev_index + len(request.entries)
    log.commit_to(min(request.commit, agreed_index))
    return _accepted(request, agreed_index)


def _accepted(request: AppendRequest, index: int) -> AppendReply:
    return AppendReply(request.to, request.sender, request.term, index, True, request.round)


class SnapshotAssembly:
    """Puts the chunks of one snapshot together; a chunk of another one begins anew."""

    def __init__(self) -> None:
        self._identity: tuple[object, ...] = ()
        self._received = bytearray()

    def take(self, request: SnapshotRequest, install: Callable[[Snapshot], None]) -> SnapshotReply | None:
        """Adds a chunk. Calls ``install`` with the snapshot when it is complete; else returns what to ask for."""
        identity = (request.sender, request.term, request.index, request.index_term, request.total_bytes)
        if identity != self._identity:
            self._identity = identity
            self._received = bytearray()
        if request.offset == len(self._received):
            self._received += request.data
        if len(self._received) < request.total_bytes:
            wanted = len(self._received)
            return SnapshotReply(request.to, request.sender, request.term, request.index, wanted, request.round)
        snapshot = Snapshot(request.index, request.index_term, request.membership, bytes(self._received))
        self._identity, self._received = (), bytearray()
        install(snapshot)
        return None
