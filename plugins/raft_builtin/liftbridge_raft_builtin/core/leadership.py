"""What a leader does, for as long as one term of leading lasts: replicate, decide what is committed, confirm reads."""

from collections.abc import Callable, Iterable

from liftbridge_raft_builtin.core.codec import encode_membership
from liftbridge_raft_builtin.core.entries import Entry, EntryKind
from liftbridge_raft_builtin.core.log import RaftLog
from liftbridge_raft_builtin.core.membership import Membership
from liftbridge_raft_builtin.core.messages import (
    AppendReply,
    AppendRequest,
    Message,
    SnapshotReply,
    SnapshotRequest,
    TimeoutNow,
)
from liftbridge_raft_builtin.core.progress import Pace, Progress
from liftbridge_raft_builtin.core.reads import PendingReads
from liftbridge_raft_builtin.core.ready import CoreSettings


class Leadership:
    """Begins with an empty entry of its own term, because only with one of those older entries can be committed."""

    def __init__(
        self, server_id: str, term: int, log: RaftLog, settings: CoreSettings, send: Callable[[Message], None]
    ) -> None:
        self._server_id = server_id
        self._term = term
        self._log = log
        self._settings = settings
        self._send = send
        self._heartbeat_elapsed = 0
        self._quorum_elapsed = 0
        self._transfer_elapsed = 0
        self._promotions: set[str] = set()
        self.reads = PendingReads()
        self.transferee = ""
        self.progress: dict[str, Progress] = {}
        self._begin_with(log.membership.members)
        self.first_index = self.append(EntryKind.NOOP, [b""])

    # --- the log ------------------------------------------------------------------------------------------------------

    def append(self, kind: EntryKind, payloads: list[bytes]) -> int:
        """Adds entries of this term and returns the index of the first."""
        first_index = self._log.last_index + 1
        self._log.append([Entry(first_index + place, self._term, kind, data) for place, data in enumerate(payloads)])
        return first_index

    def advance_commit(self) -> None:
        """Commits what a majority holds durably, as soon as that reaches an entry of this term (Raft 5.4.2)."""
        index = self._log.membership.agreed(self._durable_index)
        if index > self._log.commit and self.may_commit(index):
            self._log.commit_to(index)

    def may_commit(self, index: int) -> bool:
        return self._log.matches(index, self._term)

    def _durable_index(self, server_id: str) -> int:
        if server_id == self._server_id:
            return self._log.stable_index
        return self.progress[server_id].match

    # --- time ---------------------------------------------------------------------------------------------------------

    def tick(self) -> bool:
        """Passes time; returns False when a majority hasn't been heard of for an election time-out."""
        self._heartbeat_elapsed += 1
        if self._heartbeat_elapsed >= self._settings.heartbeat_ticks:
            self._heartbeat_elapsed = 0
            self._heartbeat()
        self._age_transfer()
        self._quorum_elapsed += 1
        if self._quorum_elapsed < self._settings.election_ticks:
            return True
        self._quorum_elapsed = 0
        return self._still_has_quorum()

    def _still_has_quorum(self) -> bool:
        active = {server_id for server_id, progress in self.progress.items() if progress.active} | {self._server_id}
        for progress in self.progress.values():
            progress.active = False
        membership = self._log.membership
        return len(active.intersection(membership.voters)) >= membership.majority

    def _heartbeat(self) -> None:
        for server_id, progress in self.progress.items():
            progress.heartbeats_since_chunk += 1
            self._send_append(server_id, progress, entries=())

    # --- replicating --------------------------------------------------------------------------------------------------

    def replicate(self) -> None:
        """Sends what the others lack, as far as their pace allows."""
        self._promote_caught_up()
        if self.reads.begin_round(self._log.commit, may_read=self._log.commit >= self.first_index):
            for server_id, progress in self.progress.items():
                self._send_append(server_id, progress, entries=())
        for server_id, progress in self.progress.items():
            self._replicate_to(server_id, progress)

    def _replicate_to(self, server_id: str, progress: Progress) -> None:
        while progress.may_send(self._settings.max_inflight_messages):
            if progress.next > self._log.last_index and progress.sent_commit >= self._log.commit:
                return
            if progress.next <= self._log.base_index:
                self._begin_snapshot(server_id, progress)
                return
            entries = self._log.slice(progress.next, self._log.last_index + 1, self._settings.max_message_bytes)
            self._send_append(server_id, progress, entries)
            progress.sent(progress.next - 1 + len(entries))

    def _send_append(self, server_id: str, progress: Progress, entries: tuple[Entry, ...]) -> None:
        prev_index = progress.next - 1
        prev_term = self._log.term_at(prev_index)
        if prev_term is None:
            # Forgotten meanwhile: any agreement suffices for a heartbeat, and a rejection leads to the snapshot.
            prev_index, prev_term = self._log.base_index, self._log.base_term
        commit = self._log.commit
        if progress.pace is Pace.REPLICATE:
            progress.sent_commit = commit
        message = AppendRequest(
            self._server_id, server_id, self._term, prev_index, prev_term, commit, self.reads.round, entries
        )
        self._send(message)

    def _begin_snapshot(self, server_id: str, progress: Progress) -> None:
        progress.send_snapshot(self._log.snapshot)
        self._send_chunk(server_id, progress)

    def _send_chunk(self, server_id: str, progress: Progress) -> None:
        snapshot, offset = progress.snapshot, progress.snapshot_offset
        progress.heartbeats_since_chunk = 0
        self._send(
            SnapshotRequest(
                self._server_id,
                server_id,
                self._term,
                snapshot.index,
                snapshot.term,
                snapshot.membership,
                offset,
                len(snapshot.data),
                snapshot.data[offset : offset + self._settings.max_message_bytes],
                self.reads.round,
            )
        )

    def on_append_reply(self, reply: AppendReply) -> None:
        progress = self._heard_from(reply)
        if progress is None:
            return
        if reply.accepted:
            progress.accepted(min(reply.index, self._log.last_index))
            self.advance_commit()
            self._finish_transfer_to(reply.sender)
        elif progress.pace is not Pace.SNAPSHOT and progress.next <= self._log.base_index:
            self._begin_snapshot(reply.sender, progress)
        elif progress.pace is not Pace.SNAPSHOT:
            agreement, _term = self._log.last_agreement(reply.hint_index, reply.hint_term)
            progress.rejected(reply.index, agreement)
        elif progress.heartbeats_since_chunk > 1:
            self._send_chunk(reply.sender, progress)  # it, or the answer to it, was lost

    def on_snapshot_reply(self, reply: SnapshotReply) -> None:
        progress = self._heard_from(reply)
        if progress is None or progress.pace is not Pace.SNAPSHOT or reply.index != progress.snapshot.index:
            return
        if reply.offset <= len(progress.snapshot.data):
            progress.snapshot_offset = reply.offset
            self._send_chunk(reply.sender, progress)

    def _heard_from(self, reply: AppendReply | SnapshotReply) -> Progress | None:
        progress = self.progress.get(reply.sender)
        if progress is not None:
            progress.active = True
            progress.acked_round = max(progress.acked_round, reply.round)
        return progress

    # --- reads --------------------------------------------------------------------------------------------------------

    def confirmed_reads(self) -> tuple[tuple[int, int], ...]:
        """Reads (token, index) for which a majority has said, after they were asked, that this leader still leads."""
        return self.reads.confirmed(self._confirmed_round())

    def _confirmed_round(self) -> int:
        return self._log.membership.agreed(self._acked_round)

    def _acked_round(self, server_id: str) -> int:
        return self.reads.round if server_id == self._server_id else self.progress[server_id].acked_round

    # --- membership ---------------------------------------------------------------------------------------------------

    @property
    def may_change_membership(self) -> bool:
        """One change at a time, and none before an entry of this term is committed: then majorities overlap. A leader
        that is leaving makes no more changes."""
        return (
            self._log.membership_index <= self._log.commit
            and self._log.commit >= self.first_index
            and self._server_id in self._log.membership.voters
        )

    def change_membership(self, membership: Membership) -> int:
        """Appends the new membership, which holds at once, and returns its index."""
        self._begin_with(set(membership.members) - set(self._log.membership.members))
        return self.append(EntryKind.MEMBERSHIP, [encode_membership(membership)])

    def promote(self, server_id: str) -> None:
        """Makes a learner a voter once it has caught up."""
        self._promotions.add(server_id)

    def _promote_caught_up(self) -> None:
        membership = self._log.membership
        self._promotions.intersection_update(membership.learners)
        for server_id in sorted(self._promotions):
            if self.may_change_membership and self.progress[server_id].match >= self._log.commit:
                self.change_membership(membership.with_voter(server_id))
                return

    def _begin_with(self, server_ids: Iterable[str]) -> None:
        """Whoever comes, or comes back, may know nothing. Who leaves is sent to until that is committed."""
        for server_id in server_ids:
            if server_id != self._server_id:
                self.progress[server_id] = Progress(next=self._log.last_index + 1)

    def forget_gone(self) -> None:
        """The latest membership is committed: tells those that left, once, and forgets them."""
        for server_id in self.progress.keys() - set(self._log.membership.members):
            self._send_append(server_id, self.progress.pop(server_id), entries=())

    # --- handing over -------------------------------------------------------------------------------------------------

    def transfer(self, server_id: str) -> None:
        """Asks a voter to take over as soon as it has everything; until then, and for at most an election time-out,
        nothing may be proposed."""
        self.transferee = server_id
        self._transfer_elapsed = 0
        self._finish_transfer_to(server_id)

    def best_successor(self) -> str:
        """The voter that has most, or nobody."""
        voters = [server_id for server_id in self._log.membership.voters if server_id in self.progress]
        return max(voters, key=lambda server_id: self.progress[server_id].match, default="")

    def _finish_transfer_to(self, server_id: str) -> None:
        if server_id == self.transferee and self.progress[server_id].match == self._log.last_index:
            self._send(TimeoutNow(self._server_id, server_id, self._term))

    def _age_transfer(self) -> None:
        if self.transferee:
            self._transfer_elapsed += 1
            if self._transfer_elapsed >= self._settings.election_ticks:
                self.transferee = ""
