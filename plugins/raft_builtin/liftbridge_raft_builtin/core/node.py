"""One member of a Raft group (Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm"; the thesis
for pre-vote, check-quorum, membership changes and leadership transfer).

Time is counted in ticks. A member that hears nothing for its election time-out first asks whether it could win
(pre-vote), so that one that was cut off doesn't disturb a working group when it comes back. A leader that doesn't hear
from a majority for an election time-out steps down.
"""

from collections.abc import Callable
from dataclasses import dataclass

from liftbridge_raft_builtin.core.log import RaftLog
from liftbridge_raft_builtin.core.types import (
    AppendReply,
    AppendRequest,
    Entry,
    EntryKind,
    HardState,
    Membership,
    Message,
    Ready,
    Role,
    Snapshot,
    SnapshotRequest,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)

_MAX_ENTRIES = 256
_MAX_BYTES = 256 * 1024


@dataclass(slots=True)
class Progress:
    """What a leader knows of another member."""

    next_index: int
    match_index: int = 0
    heard_at_tick: int = 0
    snapshot_index: int = 0


class RaftNode:
    """The algorithm. ``random_ticks(n)`` returns a number in [0, n)."""

    def __init__(
        self,
        node_id: str,
        log: RaftLog,
        hard_state: HardState,
        *,
        election_ticks: int,
        heartbeat_ticks: int,
        random_ticks: Callable[[int], int],
    ) -> None:
        self.node_id = node_id
        self.log = log
        self.term = hard_state.term
        self.vote = hard_state.vote
        self.role = Role.FOLLOWER
        self.leader = ""
        self.commit_index = log.snapshot.index
        self.applied_index = log.snapshot.index
        self.progress: dict[str, Progress] = {}
        self.membership_index, self.membership = log.membership()
        self._saved = hard_state
        self._persisted_index = log.last_index
        self._election_ticks = election_ticks
        self._heartbeat_ticks = heartbeat_ticks
        self._random_ticks = random_ticks
        self._ticks = 0
        self._heard_at_tick = -election_ticks
        self._votes: set[str] = set()
        self._transfer_to = ""
        self._ready = Ready()
        self._reset_election_timer()

    # --- what the driver calls ----------------------------------------------------------------------------------------

    def tick(self) -> None:
        """One tick passed."""
        self._ticks += 1
        if self.role is Role.LEADER:
            self._tick_leader()
        elif self._ticks >= self._election_at_tick:
            self._reset_election_timer()
            self.campaign()

    def step(self, sender: str, message: Message) -> None:
        """A message arrived."""
        if self._concerns_pre_vote(message):
            self._step_any_term(sender, message)
            return
        if message.term > self.term:
            if isinstance(message, VoteRequest) and self._has_live_leader() and not message.transfer:
                return
            self._become_follower(message.term, "")
        if message.term < self.term:
            self._answer_stale(sender, message)
            return
        self._step_any_term(sender, message)

    def propose(self, kind: EntryKind, data: bytes = b"", membership: Membership | None = None) -> int:
        """Appends an entry and returns its index. Leaders only."""
        assert self.role is Role.LEADER
        entry = Entry(self.log.last_index + 1, self.term, kind, data, membership)
        self._append(entry)
        self._send_to_all()
        return entry.index

    def change_membership(self, membership: Membership) -> int | None:
        """Proposes a membership that differs by one member; None while another change is not committed yet."""
        if self.membership_index > self.commit_index or self.log.term_at(self.commit_index) != self.term:
            return None
        return self.propose(EntryKind.MEMBERSHIP, membership=membership)

    def transfer_leadership(self, target: str) -> None:
        """Hands over to ``target`` as soon as it has everything."""
        self._transfer_to = target
        self._transfer_if_ready()

    def campaign(self, *, transfer: bool = False) -> None:
        """Stands for election, if this member may."""
        if self.node_id not in self.membership.voters:
            return
        if self.membership.majority == 1 or transfer:
            self._become_candidate(transfer=transfer)
        else:
            self._become_pre_candidate()

    def take_ready(self) -> Ready:
        """What there is to do since the last call; falsy if nothing."""
        ready, self._ready = self._ready, Ready()
        hard_state = HardState(self.term, self.vote)
        if hard_state != self._saved:
            ready.hard_state = self._saved = hard_state
        stop = self.commit_index + 1
        if stop > self.applied_index + 1 and ready.snapshot is None:
            ready.committed = self.log.between(self.applied_index + 1, stop)
            self.applied_index = self.commit_index
        return ready

    def persisted(self, ready: Ready) -> None:
        """The hard state, entries and snapshot of ``ready`` are durable."""
        if ready.entries:
            last = ready.entries[-1]
            if self.log.term_at(last.index) == last.term:
                self._persisted_index = max(self._persisted_index, last.index)
        if self.role is Role.LEADER:
            self._advance_commit()

    def compact(self, data: bytes, keep: int) -> tuple[Snapshot, int]:
        """Makes a snapshot of what is applied; returns it and the first index that is still in the log."""
        index = self.applied_index
        term = self.log.term_at(index)
        assert term is not None
        snapshot = Snapshot(index, term, self._membership_at(index), data)
        return snapshot, self.log.compact(snapshot, keep)

    # --- roles --------------------------------------------------------------------------------------------------------

    def _become_follower(self, term: int, leader: str) -> None:
        if term > self.term:
            self.term, self.vote = term, ""
        self.role = Role.FOLLOWER
        self.leader = leader
        self._transfer_to = ""
        self._reset_election_timer()

    def _become_pre_candidate(self) -> None:
        self.role, self.leader = Role.PRE_CANDIDATE, ""
        self._votes = {self.node_id}
        self._ask_for_votes(VoteRequest(self.term + 1, self.log.last_index, self.log.last_term, pre_vote=True))

    def _become_candidate(self, *, transfer: bool = False) -> None:
        self.role, self.leader = Role.CANDIDATE, ""
        self.term, self.vote = self.term + 1, self.node_id
        self._votes = {self.node_id}
        self._reset_election_timer()
        if self.membership.majority == 1:
            self._become_leader()
        else:
            self._ask_for_votes(VoteRequest(self.term, self.log.last_index, self.log.last_term, transfer=transfer))

    def _become_leader(self) -> None:
        """Nothing of an earlier term is committed by counting; the empty entry of this term commits it all."""
        self.role, self.leader = Role.LEADER, self.node_id
        self.progress = {
            member: Progress(self.log.last_index + 1, heard_at_tick=self._ticks)
            for member in self.membership.members
            if member != self.node_id
        }
        self.propose(EntryKind.NOOP)

    def _tick_leader(self) -> None:
        if self._ticks % self._election_ticks == 0:
            self._transfer_to = ""
            if not self._hears_majority():
                self._become_follower(self.term, "")
                return
        if self._ticks % self._heartbeat_ticks == 0:
            for progress in self.progress.values():
                progress.snapshot_index = 0  # send it again, should it have been lost
            self._send_to_all(heartbeat=True)

    def _hears_majority(self) -> bool:
        oldest = self._ticks - self._election_ticks
        heard = sum(
            member == self.node_id or self.progress[member].heard_at_tick >= oldest for member in self.membership.voters
        )
        return heard >= self.membership.majority

    def _has_live_leader(self) -> bool:
        if self.role is Role.LEADER:
            return True
        return bool(self.leader) and self._ticks - self._heard_at_tick < self._election_ticks

    def _reset_election_timer(self) -> None:
        self._election_at_tick = self._ticks + self._election_ticks + self._random_ticks(self._election_ticks)

    # --- messages -----------------------------------------------------------------------------------------------------

    @staticmethod
    def _concerns_pre_vote(message: Message) -> bool:
        """Those carry the term that an election would have, which nobody adopts."""
        return isinstance(message, VoteRequest) and message.pre_vote

    def _step_any_term(self, sender: str, message: Message) -> None:
        match message:
            case VoteRequest():
                self._on_vote_request(sender, message)
            case VoteReply():
                self._on_vote_reply(sender, message)
            case AppendRequest():
                self._on_append(sender, message)
            case AppendReply():
                self._on_append_reply(sender, message)
            case SnapshotRequest():
                self._on_snapshot(sender, message)
            case TimeoutNow():
                if self.role is not Role.LEADER:
                    self.campaign(transfer=True)

    def _answer_stale(self, sender: str, message: Message) -> None:
        """Tells a leader or candidate of an old term which one it is now."""
        match message:
            case AppendRequest() | SnapshotRequest():
                self._send(sender, AppendReply(self.term, False, self.log.last_index + 1))
            case VoteRequest():
                self._send(sender, VoteReply(self.term, False, message.pre_vote))

    def _on_vote_request(self, sender: str, message: VoteRequest) -> None:
        up_to_date = (message.last_term, message.last_index) >= (self.log.last_term, self.log.last_index)
        if message.pre_vote:
            granted = up_to_date and message.term > self.term and not self._has_live_leader()
            self._send(sender, VoteReply(message.term if granted else self.term, granted, True))
            return
        granted = up_to_date and self.vote in ("", sender) and self.role is Role.FOLLOWER
        if granted:
            self.vote = sender
            self._reset_election_timer()
        self._send(sender, VoteReply(self.term, granted, False))

    def _on_vote_reply(self, sender: str, message: VoteReply) -> None:
        wanted = Role.PRE_CANDIDATE if message.pre_vote else Role.CANDIDATE
        if self.role is not wanted or not message.granted:
            return
        self._votes.add(sender)
        if len(self._votes & set(self.membership.voters)) < self.membership.majority:
            return
        if message.pre_vote:
            self._become_candidate()
        else:
            self._become_leader()

    def _on_append(self, sender: str, message: AppendRequest) -> None:
        self._follow(sender)
        known_term = self.log.term_at(message.previous_index)
        if known_term != message.previous_term:
            hint = min(message.previous_index, self.log.last_index + 1)
            if known_term is not None:
                hint = self._first_index_of_term(known_term, message.previous_index)
            self._send(sender, AppendReply(self.term, False, max(hint, self.commit_index + 1)))
            return
        for entry in message.entries:
            if self.log.term_at(entry.index) == entry.term or entry.index <= self.commit_index:
                continue
            if entry.index <= self.log.last_index:
                self._truncate(entry.index)
            self._append(entry)
        matched = message.previous_index + len(message.entries)
        self.commit_index = max(self.commit_index, min(message.commit_index, matched))
        self._send(sender, AppendReply(self.term, True, matched))

    def _first_index_of_term(self, term: int, index: int) -> int:
        while index > self.commit_index + 1 and self.log.term_at(index - 1) == term:
            index -= 1
        return index

    def _on_snapshot(self, sender: str, message: SnapshotRequest) -> None:
        self._follow(sender)
        snapshot = message.snapshot
        if snapshot.index > self.commit_index:
            self.log.replace(snapshot)
            self.commit_index = self.applied_index = self._persisted_index = snapshot.index
            self.membership_index, self.membership = snapshot.index, snapshot.membership
            self._ready.entries.clear()
            self._ready.snapshot = snapshot
        self._send(sender, AppendReply(self.term, True, self.commit_index))

    def _follow(self, leader: str) -> None:
        self.role, self.leader = Role.FOLLOWER, leader
        self._heard_at_tick = self._ticks
        self._reset_election_timer()

    def _on_append_reply(self, sender: str, message: AppendReply) -> None:
        progress = self.progress.get(sender)
        if self.role is not Role.LEADER or progress is None:
            return
        progress.heard_at_tick = self._ticks
        if not message.accepted:
            progress.next_index = max(progress.match_index + 1, min(message.index, progress.next_index))
            self._send_entries(sender)
            return
        if message.index > progress.match_index:
            progress.match_index = message.index
            progress.next_index = max(progress.next_index, message.index + 1)
            self._advance_commit()
        if progress.next_index <= self.log.last_index:
            self._send_entries(sender)
        self._transfer_if_ready()

    # --- the leader's work --------------------------------------------------------------------------------------------

    def _advance_commit(self) -> None:
        """Commits what a majority has stored, if it ends with an entry of this term."""
        matches = sorted(
            self._persisted_index if member == self.node_id else self.progress[member].match_index
            for member in self.membership.voters
        )
        index = matches[len(matches) - self.membership.majority]
        if index > self.commit_index and self.log.term_at(index) == self.term:
            self.commit_index = index
            self._send_to_all(heartbeat=True)
            if self.node_id not in self.membership.voters and self.membership_index <= index:
                self._become_follower(self.term, "")

    def _send_to_all(self, *, heartbeat: bool = False) -> None:
        for member in self.progress:
            self._send_entries(member, heartbeat=heartbeat)

    def _send_entries(self, member: str, *, heartbeat: bool = False) -> None:
        progress = self.progress[member]
        previous = progress.next_index - 1
        previous_term = self.log.term_at(previous)
        if previous_term is None:
            self._send_snapshot(member, progress)
            return
        entries = self.log.slice(progress.next_index, _MAX_ENTRIES, _MAX_BYTES)
        if entries or heartbeat:
            self._send(member, AppendRequest(self.term, previous, previous_term, self.commit_index, entries))
            progress.next_index += len(entries)
            if heartbeat and not entries and progress.match_index < previous:
                progress.next_index = progress.match_index + 1  # what was sent may be lost; go back next time

    def _send_snapshot(self, member: str, progress: Progress) -> None:
        snapshot = self.log.snapshot
        if progress.snapshot_index != snapshot.index:
            progress.snapshot_index = snapshot.index
            self._send(member, SnapshotRequest(self.term, snapshot))

    def _transfer_if_ready(self) -> None:
        progress = self.progress.get(self._transfer_to)
        if self._transfer_to and progress and progress.match_index == self.log.last_index:
            self._send(self._transfer_to, TimeoutNow(self.term))
            self._transfer_to = ""

    # --- the log ------------------------------------------------------------------------------------------------------

    def _append(self, entry: Entry) -> None:
        self.log.append(entry)
        self._ready.entries.append(entry)
        if entry.membership is not None:
            self._adopt(entry.index, entry.membership)

    def _truncate(self, index: int) -> None:
        self.log.truncate(index)
        self._persisted_index = min(self._persisted_index, index - 1)
        self._ready.entries = [entry for entry in self._ready.entries if entry.index < index]
        if self.membership_index >= index:
            self._adopt(*self.log.membership())

    def _adopt(self, index: int, membership: Membership) -> None:
        """A membership counts as soon as it is in the log."""
        self.membership_index, self.membership = index, membership
        if self.role is Role.LEADER:
            self.progress = {
                member: self.progress.get(member) or Progress(self.log.last_index + 1, heard_at_tick=self._ticks)
                for member in membership.members
                if member != self.node_id
            }

    def _membership_at(self, index: int) -> Membership:
        found = self.log.snapshot.membership
        for entry in self.log.between(self.log.first_index, index + 1):
            found = entry.membership or found
        return found

    def _ask_for_votes(self, request: VoteRequest) -> None:
        for member in self.membership.voters:
            if member != self.node_id:
                self._send(member, request)

    def _send(self, member: str, message: Message) -> None:
        self._ready.messages.append((member, message))
