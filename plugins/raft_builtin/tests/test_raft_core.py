"""Transcripts: what goes into one member, and what comes out."""

import pytest

from liftbridge.errors import NotLeader
from liftbridge_raft_builtin.core import (
    CoreSettings,
    Entry,
    EntryKind,
    HardState,
    Membership,
    Message,
    RaftCore,
    Ready,
    Role,
    SafetyViolated,
    Snapshot,
    StoredState,
)
from liftbridge_raft_builtin.core.codec import encode_membership
from liftbridge_raft_builtin.core.messages import (
    AppendReply,
    AppendRequest,
    SnapshotReply,
    SnapshotRequest,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)

ABC = Membership.of("abc")
FIRST = Entry(1, 1, EntryKind.MEMBERSHIP, encode_membership(ABC))
SETTINGS = CoreSettings(heartbeat_ticks=1, election_ticks=3, max_message_bytes=100)


def member(*entries: Entry, term: int = 1, voters: Membership = ABC, settings: CoreSettings = SETTINGS) -> RaftCore:
    first = Entry(1, 1, EntryKind.MEMBERSHIP, encode_membership(voters))
    return RaftCore("a", StoredState(HardState(term), Snapshot(), (first, *entries)), settings, lambda _n: 0)


def work(core: RaftCore) -> Ready:
    """The next work, done."""
    ready = core.ready() or Ready()
    core.advance(ready)
    return ready


def drain(core: RaftCore) -> list[Ready]:
    done = []
    while (ready := core.ready()) is not None:
        core.advance(ready)
        done.append(ready)
    return done


def leader(*entries: Entry, settings: CoreSettings = SETTINGS) -> RaftCore:
    """Leads a, b and c in term 2, with nothing acknowledged yet."""
    core = member(*entries, settings=settings)
    core.step(TimeoutNow("b", "a", 1))
    core.step(VoteReply("b", "a", 2, granted=True))
    assert core.role is Role.LEADER
    drain(core)
    return core


def acknowledge(core: RaftCore, index: int, *senders: str) -> None:
    for sender in senders:
        core.step(AppendReply(sender, "a", core.term, index, accepted=True))


# --- elections --------------------------------------------------------------------------------------------------------


def test_a_silent_leader_is_replaced_in_two_rounds_of_votes() -> None:
    core = member()
    for _ in range(3):
        core.tick()
    assert work(core) == Ready(
        messages=(VoteRequest("a", "b", 2, 1, 1, pre=True), VoteRequest("a", "c", 2, 1, 1, pre=True))
    )
    assert core.term == 1
    core.step(VoteReply("c", "a", 2, granted=True, pre=True))
    assert work(core) == Ready(
        hard_state=HardState(2, "a"), messages=(VoteRequest("a", "b", 2, 1, 1), VoteRequest("a", "c", 2, 1, 1))
    )
    core.step(VoteReply("c", "a", 2, granted=True))
    noop = Entry(2, 2, EntryKind.NOOP)
    assert work(core) == Ready(
        hard_state=HardState(2, "a"),
        entries=(noop,),
        messages=(
            AppendRequest("a", "b", 2, 1, 1, 0, entries=(noop,)),
            AppendRequest("a", "c", 2, 1, 1, 0, entries=(noop,)),
        ),
    )


def test_a_sole_voter_leads_and_commits_with_one_write() -> None:
    core = member(voters=Membership.of("a"))
    core.campaign()
    assert core.propose([b"x"]) == 3
    first, *others = drain(core)
    assert [entry.data for entry in first.entries] == [b"", b"x"]
    assert first.hard_state == HardState(2, "a")
    assert not any(ready.must_persist for ready in others)
    assert [entry.index for ready in others for entry in ready.committed] == [1, 2, 3]
    assert not core.needs_ticks


def test_one_vote_a_term_and_only_for_a_log_that_has_everything() -> None:
    core = member(Entry(2, 1), term=4)
    core.step(VoteRequest("b", "a", 5, 1, 1))
    assert work(core).messages == (VoteReply("a", "b", 5, granted=False),)
    core.step(VoteRequest("c", "a", 5, 2, 1))
    assert work(core) == Ready(hard_state=HardState(5, "c"), messages=(VoteReply("a", "c", 5, granted=True),))
    core.step(VoteRequest("b", "a", 5, 9, 3))
    assert work(core).messages == (VoteReply("a", "b", 5, granted=False),)


def test_who_hears_a_leader_ignores_an_election_unless_the_leader_wants_it() -> None:
    core = member()
    core.step(AppendRequest("b", "a", 2, 1, 1, 0))
    drain(core)
    core.step(VoteRequest("c", "a", 9, 9, 9))
    core.step(VoteRequest("c", "a", 9, 9, 9, pre=True))
    assert core.ready() is None
    core.step(VoteRequest("c", "a", 3, 9, 9, transfer=True))
    assert work(core).messages == (VoteReply("a", "c", 3, granted=True),)


def test_a_leader_that_hears_no_majority_for_an_election_time_out_steps_down() -> None:
    core = leader()
    for _ in range(3):
        core.tick()
    assert (core.role, core.leader) == (Role.FOLLOWER, "")


def test_a_learner_never_asks_for_votes() -> None:
    core = member(voters=Membership.of("bc", "a"))
    for _ in range(20):
        core.tick()
    assert core.ready() is None
    assert core.term == 1


def test_a_second_leader_of_the_same_term_ends_this_member() -> None:
    core = leader()
    with pytest.raises(SafetyViolated, match="b leads in term 2"):
        core.step(AppendRequest("b", "a", 2, 1, 1, 0))


# --- replicating ------------------------------------------------------------------------------------------------------


def test_entries_count_for_the_leader_only_once_they_are_durable() -> None:
    core = leader()
    acknowledge(core, 2, "b")
    drain(core)
    core.propose([b"x"])
    ready = core.ready()
    assert ready is not None
    acknowledge(core, 3, "b")
    assert core.log.commit == 2
    core.advance(ready)
    assert [entry.data for entry in work(core).committed] == [b"x"]


def test_a_follower_acknowledges_with_the_write_that_makes_it_true() -> None:
    core = member()
    entries = (Entry(2, 2, EntryKind.NOOP), Entry(3, 2, data=b"x"))
    core.step(AppendRequest("b", "a", 2, 1, 1, 2, round=7, entries=entries))
    assert work(core) == Ready(
        hard_state=HardState(2, "", 2),
        entries=entries,
        messages=(AppendReply("a", "b", 2, 3, accepted=True, round=7),),
        committed=(FIRST, entries[0]),
    )


def test_a_follower_replaces_what_conflicts_and_keeps_what_does_not() -> None:
    core = member(Entry(2, 1, data=b"kept"), Entry(3, 1, data=b"lost"), Entry(4, 1, data=b"lost"))
    core.step(AppendRequest("b", "a", 2, 1, 1, 0, entries=(Entry(2, 1, data=b"kept"), Entry(3, 2, data=b"new"))))
    assert work(core).entries == (Entry(3, 2, data=b"new"),)
    assert core.log.last_index == 3


def test_a_late_repetition_of_an_old_message_takes_nothing_away() -> None:
    core = member()
    core.step(AppendRequest("b", "a", 2, 1, 1, 0, entries=(Entry(2, 2), Entry(3, 2))))
    core.step(AppendRequest("b", "a", 2, 1, 1, 0, entries=(Entry(2, 2),)))
    assert core.log.last_index == 3


def test_a_rejection_names_the_last_place_where_the_logs_can_agree() -> None:
    core = member(*(Entry(index, 3) for index in range(2, 6)), term=3)
    core.step(AppendRequest("b", "a", 4, 5, 2, 0))
    assert work(core).messages == (AppendReply("a", "b", 4, 5, accepted=False, hint_index=1, hint_term=1),)


def test_a_leader_finds_the_agreement_in_one_step_by_the_hint() -> None:
    core = leader(*(Entry(index, 1) for index in range(2, 8)))
    core.step(AppendReply("b", "a", 2, 7, accepted=False, hint_index=3, hint_term=1))
    request = work(core).messages[0]
    assert isinstance(request, AppendRequest)
    assert (request.to, request.prev_index) == ("b", 3)


def test_a_follower_that_conflicts_with_what_is_committed_stops() -> None:
    core = member(Entry(2, 1))
    core.step(AppendRequest("b", "a", 2, 2, 1, 2))
    drain(core)
    with pytest.raises(SafetyViolated):
        core.log.merge([Entry(2, 2)])


def test_batches_are_bounded_in_bytes_and_the_window_in_messages() -> None:
    settings = CoreSettings(heartbeat_ticks=1, election_ticks=3, max_message_bytes=100, max_inflight_messages=2)
    core = leader(settings=settings)
    acknowledge(core, 2, "b", "c")
    drain(core)
    core.propose([bytes(60)] * 5)
    sent = [message for message in work(core).messages if message.to == "b"]
    assert [len(message.entries) for message in sent if isinstance(message, AppendRequest)] == [1, 1]


# --- reads, hand-over, members ----------------------------------------------------------------------------------------


def test_a_read_waits_for_a_majority_that_was_asked_after_it() -> None:
    core = leader()
    acknowledge(core, 2, "b")
    drain(core)
    core.read(token=5)
    requests = [message for message in work(core).messages if isinstance(message, AppendRequest)]
    assert {message.round for message in requests} == {1}
    acknowledge(core, 2, "c")  # an answer to an older question
    assert work(core).reads == ()
    core.step(AppendReply("c", "a", 2, 2, accepted=True, round=1))
    assert work(core).reads == ((5, 2),)


def test_handing_over_waits_until_the_successor_has_everything() -> None:
    core = leader()
    core.transfer("b")
    with pytest.raises(NotLeader):
        core.propose([b"x"])
    assert not any(isinstance(message, TimeoutNow) for message in work(core).messages)
    acknowledge(core, 2, "b")
    assert TimeoutNow("a", "b", 2) in work(core).messages


def test_handing_over_ends_after_an_election_time_out() -> None:
    core = leader()
    core.transfer("b")
    for _ in range(3):
        acknowledge(core, 2, "c")
        core.tick()
    assert core.transferee == ""
    assert core.propose([b"x"]) == 3


def test_members_change_one_at_a_time_and_learners_are_promoted_when_they_have_caught_up() -> None:
    core = leader()
    assert core.change_membership(lambda now: now.with_learner("d")) is None  # nothing of this term is committed
    acknowledge(core, 2, "b")
    assert core.change_membership(lambda now: now.with_learner("d")) == 3
    assert core.change_membership(lambda now: now.without("c")) is None
    drain(core)
    acknowledge(core, 3, "b")
    core.promote("d")
    drain(core)
    assert core.membership.learners == ("d",)
    acknowledge(core, 3, "d")
    drain(core)
    assert core.membership.voters == ("a", "b", "c", "d")


def test_a_membership_that_is_overwritten_never_was() -> None:
    core = member(Entry(2, 1, EntryKind.MEMBERSHIP, encode_membership(Membership.of("ab"))))
    assert core.membership == Membership.of("ab")
    core.step(AppendRequest("b", "a", 2, 1, 1, 0, entries=(Entry(2, 2),)))
    assert core.membership == ABC


def test_a_leader_that_was_removed_names_a_successor_and_follows() -> None:
    core = leader()
    acknowledge(core, 2, "b", "c")
    drain(core)
    assert core.change_membership(lambda now: now.without("a")) == 3
    drain(core)
    acknowledge(core, 3, "b")
    assert core.role is Role.LEADER  # one of two voters is no majority, whatever the leader has itself
    acknowledge(core, 3, "c")
    sent = [message for ready in drain(core) for message in ready.messages]
    assert core.leader == ""
    assert any(isinstance(message, TimeoutNow) for message in sent)


# --- snapshots --------------------------------------------------------------------------------------------------------


def test_a_follower_that_needs_what_is_forgotten_gets_the_snapshot_in_chunks() -> None:
    core = leader()
    acknowledge(core, 2, "b")
    core.propose([b"x", b"y"])
    drain(core)
    acknowledge(core, 4, "b")
    drain(core)
    core.compact(core.snapshot_of(bytes(250)), trailing_entries=0)
    core.step(AppendReply("c", "a", 2, 1, accepted=False, hint_index=0, hint_term=0))
    receiver = RaftCore("c", StoredState(), SETTINGS, lambda _n: 0)
    offsets = exchange_until_quiet(core, receiver)
    assert offsets == [0, 100, 200]
    assert (receiver.log.snapshot, receiver.log.commit) == (core.log.snapshot, 4)
    assert receiver.membership == ABC


def exchange_until_quiet(one: RaftCore, other: RaftCore) -> list[int]:
    """Hands messages back and forth; returns the offsets of the chunks."""
    offsets = []
    while messages := [message for core in (one, other) for ready in drain(core) for message in ready.messages]:
        for message in messages:
            if isinstance(message, SnapshotRequest):
                offsets.append(message.offset)
            for core in (one, other):
                if message.to == core.server_id:
                    core.step(message)
    return offsets


def test_a_chunk_out_of_place_is_asked_for_again() -> None:
    core = RaftCore("a", StoredState(), SETTINGS, lambda _n: 0)

    def chunk(offset: int, data: bytes) -> Message:
        return SnapshotRequest("b", "a", 2, 9, 1, ABC, offset, 6, data)

    core.step(chunk(3, b"def"))
    assert work(core).messages == (SnapshotReply("a", "b", 2, 9, offset=0),)
    core.step(chunk(0, b"abc"))
    core.step(chunk(0, b"abc"))
    assert work(core).messages == (SnapshotReply("a", "b", 2, 9, offset=3),) * 2
    core.step(chunk(3, b"def"))
    ready = work(core)
    assert ready.snapshot == Snapshot(9, 1, ABC, b"abcdef")
    assert ready.messages == (AppendReply("a", "b", 2, 9, accepted=True),)


def test_a_snapshot_older_than_what_is_committed_is_not_installed() -> None:
    core = member(Entry(2, 1))
    core.step(AppendRequest("b", "a", 2, 2, 1, 2))
    drain(core)
    core.step(SnapshotRequest("b", "a", 2, 1, 1, ABC, 0, 3, b"old"))
    ready = work(core)
    assert ready.snapshot is None
    assert ready.messages == (AppendReply("a", "b", 2, 2, accepted=True),)


def test_a_leaders_snapshot_that_came_while_an_own_one_was_written_stays() -> None:
    core = member()
    core.step(AppendRequest("b", "a", 2, 1, 1, 1))
    drain(core)
    own = core.snapshot_of(b"own")
    core.step(SnapshotRequest("b", "a", 2, 9, 2, ABC, 0, 4, b"late"))
    drain(core)
    core.compact(own, trailing_entries=0)
    assert (core.log.snapshot.data, core.log.last_index) == (b"late", 9)
