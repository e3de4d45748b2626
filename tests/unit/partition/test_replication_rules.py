"""The leader's and the follower's rules, one at a time. The simulation has them all at once."""

import pytest

from liftbridge.errors import ProtocolError
from liftbridge.interfaces.log import LogId, LogSettings, RetentionLimits
from liftbridge.partition.partition import Partition, PartitionKey
from liftbridge.partition.reading import read_backward, read_forward
from liftbridge.partition.replication.following import FollowerReplication
from liftbridge.partition.replication.leading import (
    Contact,
    Diverging,
    IsrChange,
    LeaderReplication,
    OutOfRange,
    SyncLimits,
)
from liftbridge.testing.batches import make_batch
from liftbridge.testing.memory_log import MemoryLogStorage

LIMITS = SyncLimits(max_silence_ns=100, max_lag_ns=1000)


def replica(*epochs: int, records: int = 1, segment_max_bytes: int = 1 << 20) -> Partition:
    """A partition that holds a batch of ``records`` records of each of the leader epochs."""
    log = MemoryLogStorage().open(LogId(1, 0), LogSettings(segment_max_bytes=segment_max_bytes))
    for epoch in epochs:
        log.append([make_batch(log.end_offset, records, leader_epoch=epoch)])
    return Partition(PartitionKey("s", 0, 1), log, "s")


def leader(partition: Partition, *, isr: str = "abc", min_isr: int = 1, epoch: int = 9) -> LeaderReplication:
    """Server "a" leads "a", "b" and "c"."""
    return LeaderReplication(
        partition,
        server_id="a",
        leader_epoch=epoch,
        replicas="abc",
        isr=isr,
        partition_epoch=1,
        min_isr=min_isr,
        now_ns=0,
        limits=LIMITS,
    )


def contact(name: str, heard_ns: int = 0) -> Contact:
    return Contact(name, f"{name}-1", heard_ns)


def append(partition: Partition, leading: LeaderReplication, records: int = 1) -> bool:
    batch = make_batch(partition.log.end_offset, records, leader_epoch=leading.leader_epoch)
    partition.log.append([batch])
    return leading.appended(batch.end_offset)


class TestHighWatermark:
    def test_is_the_end_at_once_for_a_leader_alone(self) -> None:
        partition = replica(1, 2)
        leading = leader(partition, isr="a")
        assert partition.high_watermark == 2
        assert append(partition, leading)
        assert partition.high_watermark == 3

    def test_waits_for_every_member_of_the_isr(self) -> None:
        partition = replica(1, 1)
        leading = leader(partition)
        assert not leading.fetched(contact("b"), 2)
        assert leading.fetched(contact("c"), 1)
        assert partition.high_watermark == 1

    def test_does_not_wait_for_replicas_outside_of_it(self) -> None:
        partition = replica(1, 1)
        leading = leader(partition, isr="ab")
        assert leading.fetched(contact("b"), 2)

    def test_stands_still_below_min_isr(self) -> None:
        partition = replica(1)
        leading = leader(partition, isr="a", min_isr=2)
        assert not append(partition, leading)
        assert partition.high_watermark == 0
        leading.fetched(contact("b"), 2)
        assert leading.apply_isr("ab", 2)
        assert partition.high_watermark == 2

    def test_lags_behind_by_what_the_slowest_known_follower_lacks(self) -> None:
        partition = replica(1, 1, 1)
        leading = leader(partition)
        assert leading.lag_messages() is None
        leading.fetched(contact("b"), 3)
        assert leading.lag_messages() == 0
        leading.fetched(contact("c"), 1)
        append(partition, leading)
        assert leading.lag_messages() == 3

    def test_moves_when_the_isr_shrinks(self) -> None:
        partition = replica(1)
        leading = leader(partition)
        leading.fetched(contact("b"), 1)
        assert leading.apply_isr("ab", 2)
        assert partition.high_watermark == 1

    def test_ignores_an_isr_that_is_older_than_the_known_one(self) -> None:
        leading = leader(replica(1))
        leading.apply_isr("ab", 5)
        assert not leading.apply_isr("a", 4)
        assert leading.isr == ("a", "b")

    def test_ignores_the_progress_of_an_earlier_session(self) -> None:
        partition = replica(1, 1)
        leading = leader(partition, isr="ab")
        leading.fetched(contact("b"), 1)
        leading.fetched(contact("b"), 0)
        append(partition, leading)
        assert partition.high_watermark == 1

    def test_is_settled_once_what_earlier_leaders_left_is_committed(self) -> None:
        partition = replica(1, 1)
        leading = leader(partition, isr="ab")
        assert not leading.settled
        leading.fetched(contact("b"), 2)
        assert leading.settled

    def test_counts_only_what_is_durable_here(self) -> None:
        partition = replica(1, 1)
        leading = LeaderReplication(
            partition,
            server_id="a",
            leader_epoch=9,
            replicas="a",
            isr="a",
            partition_epoch=1,
            min_isr=1,
            now_ns=0,
            durable_end=1,
        )
        assert partition.high_watermark == 1
        assert leading.appended(2)


class TestPositions:
    def test_an_end_above_the_leaders_is_divergence(self) -> None:
        assert leader(replica(1)).check("b", 5, 1) == Diverging(1, 1)

    def test_an_epoch_that_the_leader_has_not_is_answered_with_the_one_before(self) -> None:
        leading = leader(replica(1, 1, 3))
        assert leading.check("b", 4, 2) == Diverging(1, 2)

    def test_an_epoch_without_records_changes_nothing(self) -> None:
        leading = leader(replica(1, 3), epoch=5)
        assert leading.check("b", 2, 3) is None
        assert leading.check("b", 2, 4) == Diverging(3, 2)

    def test_below_the_start_is_out_of_range(self) -> None:
        partition = replica(1, 1, 1, segment_max_bytes=1)
        partition.log.apply_retention(RetentionLimits(0, 1, 0, 3), 0)
        assert leader(partition).check("b", 1, 1) == OutOfRange(2)

    def test_what_retention_left_nothing_to_compare_with_is_believed_of_the_isr_only(self) -> None:
        partition = replica(1, 1, 2, segment_max_bytes=1)
        partition.log.apply_retention(RetentionLimits(0, 1, 0, 3), 0)
        leading = leader(partition, isr="ab")
        assert leading.check("b", 2, 1) is None
        assert leading.check("c", 2, 1) == OutOfRange(2)


class TestInSync:
    def test_a_silent_member_leaves(self) -> None:
        leading = leader(replica(1))
        leading.fetched(contact("b", heard_ns=150), 1)
        leading.fetched(contact("c", heard_ns=50), 1)
        assert leading.wanted_change(200) == IsrChange(1, ("a", "b"))
        assert leading.wanted_change(300) is None, "one request at a time"

    def test_a_member_that_never_came_leaves(self) -> None:
        leading = leader(replica(1), isr="ab")
        assert leading.wanted_change(100) is None
        assert leading.wanted_change(101) == IsrChange(1, ("a",))

    def test_a_member_that_does_not_get_to_where_the_end_was_leaves(self) -> None:
        partition = replica(1)
        leading = leader(partition, isr="ab")
        slow = contact("b")
        leading.fetched(slow, 0)
        for now_ns in range(0, 1001, 100):
            slow.last_heard_ns = now_ns
            assert leading.wanted_change(now_ns) is None
        slow.last_heard_ns = 1100
        assert leading.wanted_change(1100) == IsrChange(1, ("a",))

    def test_a_member_that_follows_at_a_distance_stays(self) -> None:
        partition = replica(1)
        leading = leader(partition, isr="ab")
        busy = contact("b")
        for now_ns in range(0, 10_000, 100):
            busy.last_heard_ns = now_ns
            leading.fetched(busy, partition.log.end_offset)
            append(partition, leading)
            assert leading.wanted_change(now_ns) is None

    def test_a_replica_that_holds_what_is_committed_comes_in_and_counts_from_the_request_on(self) -> None:
        partition = replica(1)
        leading = leader(partition, isr="a")
        joiner = contact("b")
        leading.fetched(joiner, 0)
        assert leading.wanted_change(0) is None
        leading.fetched(joiner, 1)
        assert leading.wanted_change(0) == IsrChange(1, ("a", "b"))
        assert not append(partition, leading), "it could be a member by now, without this record"
        assert leading.fetched(joiner, 2)

    def test_one_who_is_a_message_behind_a_leader_that_commits_alone_is_waited_for(self) -> None:
        partition = replica(1)
        leading = leader(partition, isr="a")
        joiner = contact("b")
        leading.fetched(joiner, 0)
        append(partition, leading)
        leading.fetched(joiner, 1)
        assert not append(partition, leading), "it has what the leader had when it was heard of last"
        assert leading.wanted_change(0) is None
        leading.fetched(joiner, 2)
        assert leading.wanted_change(0) == IsrChange(1, ("a", "b"))

    def test_nobody_is_waited_for_who_takes_too_long(self) -> None:
        partition = replica(1)
        leading = leader(partition, isr="a")
        joiner = contact("b")
        leading.fetched(joiner, 0)
        append(partition, leading)
        leading.fetched(joiner, 1)
        append(partition, leading)
        assert not leading.stop_waiting(LIMITS.max_wait_ns)
        assert leading.stop_waiting(LIMITS.max_wait_ns + 1)
        assert partition.high_watermark == 3
        leading.fetched(joiner, 2)
        leading.fetched(joiner, 2)
        assert append(partition, leading), "not again so soon"

    def test_a_refused_change_may_be_asked_for_again_and_counts_no_longer(self) -> None:
        partition = replica(1)
        leading = leader(partition, isr="a")
        leading.fetched(contact("b"), 1)
        change = leading.wanted_change(0)
        assert change is not None
        append(partition, leading)
        assert leading.change_refused(change)
        assert partition.high_watermark == 2

    def test_a_change_without_an_answer_counts_until_metadata_moves_on(self) -> None:
        partition = replica(1)
        leading = leader(partition, isr="a")
        joiner = contact("b")
        leading.fetched(joiner, 1)
        change = leading.wanted_change(0)
        assert change is not None
        leading.change_unknown(change)
        assert not append(partition, leading)
        assert leading.wanted_change(500) == IsrChange(1, ("a",)), "asks for what makes the earlier request void"
        assert leading.apply_isr("a", 2)
        assert partition.high_watermark == 2

    def test_a_member_that_the_controller_lost_leaves_at_once(self) -> None:
        leading = LeaderReplication(
            replica(1),
            server_id="a",
            leader_epoch=9,
            replicas="abc",
            isr="abc",
            partition_epoch=1,
            min_isr=1,
            now_ns=0,
            limits=LIMITS,
            is_down=lambda server_id: server_id == "c",
        )
        assert leading.wanted_change(0) == IsrChange(1, ("a", "b"))

    def test_what_an_earlier_start_held_brings_nobody_in(self) -> None:
        current = {"b-1"}
        leading = LeaderReplication(
            replica(1),
            server_id="a",
            leader_epoch=9,
            replicas="ab",
            isr="a",
            partition_epoch=1,
            min_isr=1,
            now_ns=0,
            limits=LIMITS,
            may_serve=lambda _server, incarnation: incarnation in current,
        )
        leading.fetched(contact("b"), 1)
        current.clear()
        assert leading.wanted_change(0) is None


class TestFollower:
    def test_appends_what_continues_its_log_and_believes_the_high_watermark_up_to_its_end(self) -> None:
        partition = replica(1)
        following = FollowerReplication(partition, 2, "p")
        assert following.take_slice(1, 100, make_batch(1, 2, leader_epoch=2).data)
        assert (following.next_offset, following.last_epoch, partition.high_watermark) == (3, 2, 3)

    def test_ignores_the_answer_to_an_older_question(self) -> None:
        partition = replica(1, 1)
        following = FollowerReplication(partition, 2, "p")
        assert not following.take_slice(1, 5, make_batch(1, 2, leader_epoch=2).data)
        assert (partition.log.end_offset, partition.high_watermark) == (2, 0)

    def test_appends_nothing_of_a_damaged_slice(self) -> None:
        partition = replica()
        following = FollowerReplication(partition, 2, "p")
        data = make_batch(0, 2, leader_epoch=2).data + make_batch(2, 1, leader_epoch=2).data[:-1] + b"x"
        with pytest.raises(ProtocolError, match="checksum"):
            following.take_slice(0, 0, data)
        assert partition.log.end_offset == 0

    def test_refuses_epochs_that_go_back(self) -> None:
        following = FollowerReplication(replica(3), 4, "p")
        with pytest.raises(ProtocolError, match="epoch 2 after 3"):
            following.take_slice(1, 0, make_batch(1, 1, leader_epoch=2).data)

    def test_takes_the_part_of_a_batch_that_it_lacks(self) -> None:
        partition = replica(1)
        following = FollowerReplication(partition, 1, "p")
        assert following.take_slice(1, 0, make_batch(0, 3, leader_epoch=1).data)
        assert partition.log.end_offset == 3

    def test_drops_what_the_leader_can_not_have(self) -> None:
        partition = replica(1, 2, 2)
        following = FollowerReplication(partition, 5, "p")
        assert following.take_diverging(1, 7)
        assert (following.next_offset, following.last_epoch) == (1, 1)

    def test_says_so_when_nothing_is_left_to_drop(self) -> None:
        following = FollowerReplication(replica(), 5, "p")
        assert not following.take_diverging(0, 0)

    def test_raises_an_alarm_when_committed_records_go(self, caplog: pytest.LogCaptureFixture) -> None:
        partition = replica(1, 2)
        partition.advance_high_watermark(2)
        following = FollowerReplication(partition, 5, "p")
        following.take_diverging(1, 1)
        assert following.lost_records == 1
        assert partition.lost_messages == 1
        assert "DATA LOSS" in caplog.text
        assert partition.high_watermark == 1

    def test_goes_on_behind_a_gap_and_keeps_what_is_committed(self) -> None:
        partition = replica(1, 1)
        partition.advance_high_watermark(1)
        following = FollowerReplication(partition, 5, "p")
        following.take_out_of_range(10)
        assert (partition.log.end_offset, following.next_offset, following.last_epoch) == (1, 10, 0)
        assert following.take_slice(10, 11, make_batch(10, 1, leader_epoch=5).data)
        assert (partition.log.end_offset, following.last_epoch, partition.high_watermark) == (11, 5, 11)

    def test_ends_where_the_leader_does_though_nothing_is_left_right_below(self) -> None:
        """It went on behind what a leader had removed, and all it got there was never committed. As a leader it must not
        give the offsets in between away again, and it is in the ISR at once."""
        partition = replica(1, 1)
        partition.advance_high_watermark(2)
        following = FollowerReplication(partition, 5, "p")
        following.take_out_of_range(10)
        following.take_slice(10, 10, make_batch(10, 3, leader_epoch=5).data)
        assert partition.high_watermark == 10
        later = FollowerReplication(partition, 9, "p")
        assert later.take_diverging(4, 10)
        assert (partition.log.end_offset, partition.high_watermark) == (10, 10)
        assert (later.next_offset, later.last_epoch, later.lost_records) == (10, 4, 0)
        assert read_forward(partition, 0, 10, 1 << 20)[1] == 10
        assert len(read_backward(partition, 10, 0, 1 << 20)[0]) == len(read_forward(partition, 0, 10, 1 << 20)[0])
        assert later.take_slice(10, 11, make_batch(10, 1, leader_epoch=9).data)

    def test_claims_nothing_inside_a_gap(self) -> None:
        """A leader that ends there has lost what was committed, and may hold what this one lacks."""
        partition = replica(1, 1)
        partition.advance_high_watermark(2)
        following = FollowerReplication(partition, 5, "p")
        following.take_out_of_range(10)
        following.take_slice(10, 0, make_batch(10, 3, leader_epoch=5).data)
        assert FollowerReplication(partition, 9, "p").take_diverging(4, 7)
        assert partition.log.end_offset == 2

    def test_believes_no_high_watermark_before_the_logs_are_known_to_agree(self) -> None:
        partition = replica(1, 2)
        following = FollowerReplication(partition, 5, "p")
        following.take_slice(7, 2, b"")
        assert partition.high_watermark == 0
        following.take_slice(2, 2, b"")
        assert partition.high_watermark == 2

    def test_counts_with_a_log_that_retention_and_divergence_emptied(self) -> None:
        """Else it would be in no ISR, and with min ISR accept nothing of policy ALL, before the next record."""
        partition = replica(3, 3, segment_max_bytes=1)
        partition.advance_high_watermark(1)
        partition.log.apply_retention(RetentionLimits(0, 1, 0, keep_from_offset=1), 0)
        following = FollowerReplication(partition, 5, "p")
        assert following.take_diverging(3, 1)
        assert (partition.log.start_offset, partition.log.end_offset) == (1, 1)
        assert (following.next_offset, following.last_epoch) == (1, 5)
        leading = leader(replica(3), isr="ac", epoch=5)
        assert leading.check("b", following.next_offset, following.last_epoch) is None
