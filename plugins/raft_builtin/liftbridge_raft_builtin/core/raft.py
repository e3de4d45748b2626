"""One member of a Raft group: what it does with ticks, messages and requests, and the work that follows."""

from collections.abc import Callable, Sequence
from enum import Enum

from liftbridge.errors import NotLeader
from liftbridge_raft_builtin.core.campaign import Campaign
from liftbridge_raft_builtin.core.entries import EntryKind, HardState, Snapshot
from liftbridge_raft_builtin.core.errors import SafetyViolated
from liftbridge_raft_builtin.core.following import SnapshotAssembly, take_entries
from liftbridge_raft_builtin.core.leadership import Leadership
from liftbridge_raft_builtin.core.log import RaftLog
from liftbridge_raft_builtin.core.membership import Membership
from liftbridge_raft_builtin.core.messages import (
    AppendReply,
    AppendRequest,
    Message,
    SnapshotReply,
    SnapshotRequest,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)
from liftbridge_raft_builtin.core.ready import CoreSettings, Ready, StoredState


class Role(Enum):
    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


class RaftCore:
    """Pure state: every method returns at once and only notes what is to be done; ``ready`` hands that out.

    One ``Ready`` at a time: ``advance`` reports it done before the next is taken. In between, ticks, messages and
    requests may go on. ``random(n)`` returns an integer with 0 <= integer < n.
    """

    def __init__(
        self, server_id: str, stored: StoredState, settings: CoreSettings, random: Callable[[int], int]
    ) -> None:
        self.server_id = server_id
        self.term = stored.hard_state.term
        self.vote = stored.hard_state.vote
        self.leader = ""
        self.log = RaftLog(stored.snapshot, stored.entries, stored.hard_state.commit)
        self._settings = settings
        self._random = random
        self._campaign: Campaign | None = None
        self._leadership: Leadership | None = None
        self._assembly = SnapshotAssembly()
        self._installing: Snapshot | None = None
        self._outbox: list[Message] = []
        self._durable_vote = (self.term, self.vote)
        self._reset_election_timeout()

    # --- looking ------------------------------------------------------------------------------------------------------

    @property
    def role(self) -> Role:
        if self._leadership is not None:
            return Role.LEADER
        if self._campaign is not None:
            return Role.PRE_CANDIDATE if self._campaign.pre else Role.CANDIDATE
        return Role.FOLLOWER

    @property
    def membership(self) -> Membership:
        return self.log.membership

    @property
    def needs_ticks(self) -> bool:
        """False while time changes nothing: alone, or not yet in any group."""
        return self.leader not in {"", self.server_id} or any(
            member != self.server_id for member in self.membership.members
        )

    @property
    def transferee(self) -> str:
        """Who is about to take over from this leader; until then nothing can be proposed."""
        return self._leadership.transferee if self._leadership is not None else ""

    # --- requests -----------------------------------------------------------------------------------------------------

    def propose(self, commands: Sequence[bytes]) -> int:
        """Appends commands and returns the index of the first. Raises NotLeader, or while handing over names nobody."""
        leadership = self._leading()
        if leadership.transferee:
            raise NotLeader
        return leadership.append(EntryKind.COMMAND, list(commands))

    def read(self, token: int) -> None:
        """Asks for an index that a read is fresh at: ``Ready.reads`` answers with the token, unless leadership is
        lost."""
        self._leading().reads.ask(token)

    def change_membership(self, change: Callable[[Membership], Membership]) -> int | None:
        """Changes the latest membership and returns the index of the change, or None while another one is on its
        way. A change must add or take away no more than one voter."""
        leadership = self._leading()
        if not leadership.may_change_membership or leadership.transferee:
            return None
        return leadership.change_membership(change(self.membership))

    def promote(self, server_id: str) -> None:
        """Makes a learner a voter once it has caught up, if this server leads until then."""
        self._leading().promote(server_id)

    def transfer(self, server_id: str) -> None:
        """Begins to hand leadership to a voter; ``transferee`` is empty again when it didn't take it."""
        leadership = self._leading()
        if server_id != self.server_id and server_id in self.membership.voters:
            leadership.transfer(server_id)

    def _leading(self) -> Leadership:
        if self._leadership is None:
            raise NotLeader(self.leader)
        return self._leadership

    # --- time ---------------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Passes one tick of time."""
        if self._leadership is not None:
            if not self._leadership.tick():
                self._follow(self.term, "")
            return
        self._election_elapsed += 1
        if self._election_elapsed >= self._election_timeout:
            self.campaign()

    def campaign(self) -> None:
        """Begins an election without waiting. A sole voter leads at once."""
        self.leader = ""
        self._begin(pre=not self.membership.is_sole_voter(self.server_id))

    def _reset_election_timeout(self) -> None:
        self._election_elapsed = 0
        self._election_timeout = self._settings.election_ticks + self._random(self._settings.election_ticks)

    # --- elections ----------------------------------------------------------------------------------------------------

    def _begin(self, *, pre: bool, transfer: bool = False) -> None:
        self._reset_election_timeout()
        if self.server_id not in self.membership.voters:
            return
        if not pre:
            self.term += 1
            self.vote = self.server_id
        self._campaign = Campaign(self.term + pre, pre)
        for voter in self.membership.voters:
            if voter != self.server_id:
                last_index, last_term = self.log.last_index, self.log.last_term
                term = self._campaign.term
                self._send(VoteRequest(self.server_id, voter, term, last_index, last_term, pre, transfer))
        self._count_vote(self.server_id, granted=True)

    def _count_vote(self, voter: str, *, granted: bool) -> None:
        campaign = self._campaign
        assert campaign is not None
        campaign.record(voter, granted)
        if campaign.is_lost(self.membership):
            self._campaign = None
        elif campaign.is_won(self.membership):
            if campaign.pre:
                self._begin(pre=False)
            else:
                self._lead()

    def _lead(self) -> None:
        self._campaign = None
        self.leader = self.server_id
        self._leadership = self.start_leadership()

    def start_leadership(self) -> Leadership:
        return Leadership(self.server_id, self.term, self.log, self._settings, self._send)

    def _follow(self, term: int, leader: str) -> None:
        if term > self.term:
            self.term = term
            self.vote = ""
        self.leader = leader
        self._campaign = None
        self._leadership = None
        self._reset_election_timeout()

    def _on_vote_request(self, request: VoteRequest) -> None:
        if request.term > self.term and self._has_live_leader() and not request.transfer:
            return  # whoever asks can't hear the leader; we can, so its lease holds
        if request.term > self.term and not request.pre:
            self._follow(request.term, "")
        granted = self.may_vote_for(request)
        if granted and not request.pre:
            self.vote = request.sender
            self._reset_election_timeout()
        term = request.term if granted else self.term
        self._send(VoteReply(self.server_id, request.sender, term, granted, request.pre))

    def may_vote_for(self, request: VoteRequest) -> bool:
        if not self.log.is_up_to_date(request.last_index, request.last_term):
            return False
        if request.pre:
            return request.term > self.term
        return request.term == self.term and self.vote in {"", request.sender}

    def _has_live_leader(self) -> bool:
        return self.leader != "" and self._election_elapsed < self._settings.election_ticks

    def _on_vote_reply(self, reply: VoteReply) -> None:
        campaign = self._campaign
        if campaign is None or campaign.pre != reply.pre:
            return
        if not reply.granted or reply.term == campaign.term:
            self._count_vote(reply.sender, granted=reply.granted)

    # --- messages -----------------------------------------------------------------------------------------------------

    def step(self, message: Message) -> None:
        """Takes one message from another member."""
        if isinstance(message, VoteRequest):
            self._on_vote_request(message)
        elif message.term < self.term:
            self._answer_outdated(message)
        else:
            self._learn_term(message)
            self._dispatch(message)

    def _answer_outdated(self, message: Message) -> None:
        if isinstance(message, AppendRequest | SnapshotRequest):
            # Tells an old leader of the new term, or it would never let a member back in that is ahead in terms.
            self._send(AppendReply(self.server_id, message.sender, self.term, index=0, accepted=False))

    def _learn_term(self, message: Message) -> None:
        is_pre_vote = isinstance(message, VoteReply) and message.pre and message.granted
        from_leader = isinstance(message, AppendRequest | SnapshotRequest)
        if message.term > self.term and not is_pre_vote:
            self._follow(message.term, message.sender if from_leader else "")
        elif from_leader and message.term == self.term:
            if self._leadership is not None:
                raise SafetyViolated(f"{message.sender} leads in term {self.term}, as {self.server_id} does")
            self._follow(self.term, message.sender)

    def _dispatch(self, message: Message) -> None:
        match message:
            case VoteReply():
                self._on_vote_reply(message)
            case AppendRequest():
                self._send(take_entries(self.log, message))
            case SnapshotRequest():
                self._on_snapshot_request(message)
            case AppendReply():
                if self._leadership is not None:
                    self._leadership.on_append_reply(message)
            case SnapshotReply():
                if self._leadership is not None:
                    self._leadership.on_snapshot_reply(message)
            case TimeoutNow():
                if self._leadership is None:
                    self._begin(pre=False, transfer=True)

    def _on_snapshot_request(self, request: SnapshotRequest) -> None:
        reply: Message | None = None
        if request.index > self.log.commit:
            reply = self._assembly.take(request, self._install)
        if reply is None:
            index = self.log.commit
            reply = AppendReply(self.server_id, request.sender, self.term, index, accepted=True, round=request.round)
        self._send(reply)

    def _install(self, snapshot: Snapshot) -> None:
        self.log.restore(snapshot)
        self._installing = snapshot

    def _send(self, message: Message) -> None:
        self._outbox.append(message)

    # --- work ---------------------------------------------------------------------------------------------------------

    def ready(self) -> Ready | None:
        """The work that has come up, or None."""
        reads: tuple[tuple[int, int], ...] = ()
        if self._leadership is not None:
            self._leadership.advance_commit()
            self._leadership.replicate()
            reads = self._leadership.confirmed_reads()
        messages, self._outbox = tuple(self._outbox), []
        entries = self.log.unstable()
        committed = self.log.to_apply(self._settings.max_apply_entries)
        hard_state = self._changed_hard_state(must_write=bool(entries) or self._installing is not None)
        ready = Ready(self._installing, hard_state, entries, messages, committed, reads)
        self._installing = None
        return None if ready == _NOTHING else ready

    def _changed_hard_state(self, *, must_write: bool) -> HardState | None:
        """Only when something else is written, the commit index is worth a write."""
        if (self.term, self.vote) == self._durable_vote and not must_write:
            return None
        return HardState(self.term, self.vote, self.log.commit)

    def advance(self, ready: Ready) -> None:
        """The work is done: its entries are durable, its committed entries applied."""
        if ready.hard_state is not None:
            self._durable_vote = (ready.hard_state.term, ready.hard_state.vote)
        if ready.entries:
            self.log.stabilized(ready.entries[-1].index, ready.entries[-1].term)
        if ready.committed:
            self.log.applied = max(self.log.applied, ready.committed[-1].index)
            self._membership_applied(ready)

    def _membership_applied(self, ready: Ready) -> None:
        leadership = self._leadership
        if leadership is None or not any(entry.kind is EntryKind.MEMBERSHIP for entry in ready.committed):
            return
        if self.log.applied < self.log.membership_index:
            return
        leadership.forget_gone()
        if self.server_id not in self.membership.voters:
            successor = leadership.best_successor()
            if successor:
                self._send(TimeoutNow(self.server_id, successor, self.term))
            self._follow(self.term, "")

    # --- snapshots ----------------------------------------------------------------------------------------------------

    def snapshot_of(self, data: bytes) -> Snapshot:
        """The snapshot of a state machine that has applied everything up to ``log.applied``."""
        applied = self.log.applied
        term = self.log.term_at(applied)
        assert term is not None
        return Snapshot(applied, term, self.log.membership_at(applied), data)

    def compact(self, snapshot: Snapshot, trailing_entries: int) -> None:
        """Forgets what a durable snapshot covers, but for the last entries before it."""
        self.log.compact(snapshot, trailing_entries)


_NOTHING = Ready()
