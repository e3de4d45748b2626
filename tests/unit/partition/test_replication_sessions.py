"""What two brokers say to each other: one leading, one following, and nothing in between but a list."""

from dataclasses import dataclass, field

import pytest

from liftbridge.errors import DiskFull
from liftbridge.interfaces.log import LogId, LogSettings, RetentionLimits
from liftbridge.interfaces.records import RecordBatch
from liftbridge.partition.partition import Partition, PartitionKey
from liftbridge.partition.replication.fetching import FetchingLimits, FollowedPartition, ReplicaFetcher
from liftbridge.partition.replication.following import FollowerReplication
from liftbridge.partition.replication.leading import LeaderReplication, SyncLimits
from liftbridge.partition.replication.serving import FetchServer, ServingLimits
from liftbridge.partition.replication.sessions import LedPartition
from liftbridge.protocol.record_batch import encode_batch
from liftbridge.protocol.record_encoding import encode_records
from liftbridge.protocol.replication import AnswerPart, Fetch, Reset, decode_message
from liftbridge.testing.batches import make_batch
from liftbridge.testing.memory_log import MemoryLogStorage

MS = 1_000_000
EPOCH = 3
MAX_PAYLOAD_BYTES = 2000


@dataclass
class Pair:
    """Server "a" leads, server "b" follows. ``fetches`` and ``answers`` are what was sent, decoded, for looking at."""

    now_ns: int = 0
    led: dict[LogId, LedPartition] = field(default_factory=dict)
    followed: dict[LogId, FollowedPartition] = field(default_factory=dict)
    fetches: list[Fetch] = field(default_factory=list)
    answers: list[AnswerPart | Reset] = field(default_factory=list)
    syncs: list[FollowedPartition] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.serving = FetchServer(
            max_payload_bytes=lambda: MAX_PAYLOAD_BYTES,
            limits=ServingLimits(poll_ns=500 * MS, high_watermark_delay_ns=20 * MS, answer_max_bytes=4000),
        )
        self.fetcher = ReplicaFetcher(
            server_id="b",
            incarnation="b-1",
            max_payload_bytes=lambda: MAX_PAYLOAD_BYTES,
            limits=FetchingLimits(answer_timeout_ns=1000 * MS, retry_ns=500 * MS),
            sync=self.syncs.append,
        )

    def lead(
        self, number: int = 0, *, isr: str = "ab", epoch: int = EPOCH, segment_max_bytes: int = 1 << 20
    ) -> Partition:
        partition = _partition(number, segment_max_bytes)
        log_id = LogId(1, number)
        replication = LeaderReplication(
            partition,
            server_id="a",
            leader_epoch=epoch,
            replicas="ab",
            isr=isr,
            partition_epoch=1,
            min_isr=1,
            now_ns=self.now_ns,
            limits=SyncLimits(),
        )
        self.led[log_id] = LedPartition(log_id, partition, replication, lambda: None)
        self.serving.lead(self.led[log_id])
        return partition

    def follow(self, number: int = 0, *, epoch: int = EPOCH, needs_sync: bool = False) -> Partition:
        partition = _partition(number, 1 << 20)
        log_id = LogId(1, number)
        replication = FollowerReplication(partition, epoch, f"p{number}")
        self.followed[log_id] = FollowedPartition(log_id, partition, replication, needs_sync)
        self.fetcher.follow(self.followed[log_id])
        return partition

    def append(self, *batches: RecordBatch, number: int = 0) -> None:
        led = self.led[LogId(1, number)]
        led.replica.log.append(batches)
        self.serving.appended(led)
        if led.replication.appended(led.replica.log.end_offset):
            self.serving.committed(led)

    def talk(self, rounds: int = 20) -> None:
        """Until nobody has anything to say."""
        for _round in range(rounds):
            payloads = self.fetcher.collect(self.now_ns)
            for payload in payloads:
                fetch = decode_message(payload)
                assert isinstance(fetch, Fetch)
                self.fetches.append(fetch)
                self.serving.receive(fetch, "b", self.now_ns)
            outgoing = self.serving.collect(self.now_ns)
            for payload in [payload for _subject, some in outgoing for payload in some]:
                self.hear(payload)
            if not payloads and not outgoing:
                return
        raise AssertionError(f"they still talk after {rounds} rounds")

    def hear(self, payload: bytes) -> None:
        assert len(payload) <= MAX_PAYLOAD_BYTES
        answer = decode_message(payload)
        assert isinstance(answer, AnswerPart | Reset)
        self.answers.append(answer)
        self.fetcher.receive(answer, self.now_ns)

    def pass_time(self, milliseconds: int) -> None:
        self.now_ns += milliseconds * MS
        self.serving.tick(self.now_ns)
        self.fetcher.tick(self.now_ns)
        self.talk()


def _partition(number: int, segment_max_bytes: int) -> Partition:
    log = MemoryLogStorage().open(LogId(1, number), LogSettings(segment_max_bytes=segment_max_bytes))
    return Partition(PartitionKey("s", number, 1), log, "s")


@pytest.fixture
def pair() -> Pair:
    return Pair()


def test_what_is_appended_is_copied_and_committed_in_one_round(pair: Pair) -> None:
    leading, following = pair.lead(), pair.follow()
    pair.talk()
    pair.append(make_batch(0, 3, leader_epoch=EPOCH))
    pair.talk()
    assert following.log.end_offset == leading.high_watermark == 3
    assert len(pair.answers) == 1


def test_the_copy_is_the_same_bytes(pair: Pair) -> None:
    leading, following = pair.lead(), pair.follow()
    pair.append(make_batch(0, 3, leader_epoch=EPOCH), make_batch(3, 1, leader_epoch=EPOCH))
    pair.talk()
    assert following.log.read(0, stop=4, max_bytes=1000) == leading.log.read(0, stop=4, max_bytes=1000)


def test_a_new_high_watermark_follows_within_its_delay_and_not_at_once(pair: Pair) -> None:
    pair.lead()
    following = pair.follow()
    pair.append(make_batch(0, 1, leader_epoch=EPOCH))
    pair.talk()
    assert following.high_watermark == 0
    assert pair.serving.due_ns() == pair.now_ns + 20 * MS
    pair.pass_time(20)
    assert following.high_watermark == 1
    pair.pass_time(20)
    assert pair.serving.due_ns() is None, "nobody has to be told twice"


def test_a_high_watermark_travels_with_records_of_another_partition(pair: Pair) -> None:
    for number in (0, 1):
        pair.lead(number)
    following = pair.follow(0)
    pair.follow(1)
    pair.append(make_batch(0, 1, leader_epoch=EPOCH), number=0)
    pair.talk()
    pair.append(make_batch(0, 1, leader_epoch=EPOCH), number=1)
    pair.talk()
    assert following.high_watermark == 1


def test_partitions_in_which_nothing_happens_are_listed_once(pair: Pair) -> None:
    for number in range(10):
        pair.lead(number)
        pair.follow(number)
    pair.talk()
    pair.append(make_batch(0, 1, leader_epoch=EPOCH), number=4)
    pair.talk()
    assert [len(fetch.entries) for fetch in pair.fetches] == [10, 1]


def test_an_idle_conversation_is_one_fetch_and_one_answer_in_a_poll_time(pair: Pair) -> None:
    for number in range(10):
        pair.lead(number)
        pair.follow(number)
    pair.talk()
    fetches, answers = len(pair.fetches), len(pair.answers)
    for _tick in range(40):
        pair.pass_time(250)
    assert len(pair.fetches) - fetches == len(pair.answers) - answers == 20
    assert not any(fetch.entries for fetch in pair.fetches[fetches:])


def test_a_batch_larger_than_a_payload_and_an_answer_gets_through(pair: Pair) -> None:
    pair.lead()
    following = pair.follow()
    record = encode_records([b"\x1a\xc0\x3e" + bytes(8000)], 8003, base_offset=0, trailer=b"")
    batch = encode_batch(record, base_offset=0, end_offset=1, record_count=1, leader_epoch=EPOCH, timestamp_ns=1)
    pair.append(batch)
    pair.talk()
    assert following.log.end_offset == 1
    assert len(pair.answers) > 4


def test_a_partition_far_behind_does_not_hold_up_the_others(pair: Pair) -> None:
    pair.lead(0)
    pair.lead(1)
    pair.append(*(make_batch(offset, 1, value=bytes(100), leader_epoch=EPOCH) for offset in range(200)), number=0)
    pair.append(make_batch(0, 1, leader_epoch=EPOCH), number=1)
    slow, quick = pair.follow(0), pair.follow(1)
    for _round in range(2):
        (payload,) = pair.fetcher.collect(pair.now_ns)
        fetch = decode_message(payload)
        assert isinstance(fetch, Fetch)
        pair.serving.receive(fetch, "b", pair.now_ns)
        for _subject, payloads in pair.serving.collect(pair.now_ns):
            for answer in payloads:
                pair.hear(answer)
    assert quick.log.end_offset == 1
    assert slow.log.end_offset < 200
    pair.talk(rounds=50)
    assert slow.log.end_offset == 200


def test_a_follower_that_asks_before_the_leader_knows_of_its_role_is_served_then(pair: Pair) -> None:
    following = pair.follow()
    pair.talk()
    pair.lead()
    pair.append(make_batch(0, 1, leader_epoch=EPOCH))
    pair.talk()
    assert following.log.end_offset == 1


def test_a_follower_with_an_older_epoch_is_told_and_rests(pair: Pair) -> None:
    pair.lead(epoch=EPOCH + 1)
    following = pair.follow()
    pair.talk()
    assert following.log.end_offset == 0
    assert len(pair.answers) == 1
    pair.follow(epoch=EPOCH + 1)
    pair.append(make_batch(0, 1, leader_epoch=EPOCH + 1))
    pair.talk()
    assert pair.followed[LogId(1, 0)].replica.log.end_offset == 1


def test_somebody_who_is_no_replica_gets_no_records(pair: Pair) -> None:
    pair.lead()
    pair.append(make_batch(0, 1, leader_epoch=EPOCH))
    stranger = ReplicaFetcher(server_id="x", incarnation="x", max_payload_bytes=lambda: MAX_PAYLOAD_BYTES)
    stranger.follow(
        FollowedPartition(LogId(1, 0), _partition(0, 100), FollowerReplication(_partition(0, 100), EPOCH, ""))
    )
    (payload,) = stranger.collect(0)
    fetch = decode_message(payload)
    assert isinstance(fetch, Fetch)
    pair.serving.receive(fetch, "x", 0)
    ((_subject, payloads),) = pair.serving.collect(0)
    assert b"value 0" not in b"".join(payloads)


def test_a_rest_during_a_sync_starts_no_second_one(pair: Pair) -> None:
    """That would vouch, when it ends, for what was appended after it began."""
    pair.lead(epoch=EPOCH + 1)
    pair.follow(needs_sync=True)
    pair.fetcher.synced(pair.syncs.pop())
    (fetch,) = pair.fetcher.collect(pair.now_ns)
    pair.serving.receive(decode_message(fetch), "b", pair.now_ns)  # type: ignore[arg-type]
    pair.follow(epoch=EPOCH + 1, needs_sync=True)
    ((_, (not_leader,)),) = pair.serving.collect(pair.now_ns)
    pair.hear(not_leader)
    pair.pass_time(1000)
    assert len(pair.syncs) == 1


def test_a_sync_that_failed_is_tried_again_and_nothing_is_reported_before(pair: Pair) -> None:
    pair.lead()
    pair.follow(needs_sync=True)
    pair.fetcher.sync_failed(pair.syncs.pop(), pair.now_ns)
    pair.talk()
    assert [entry for fetch in pair.fetches for entry in fetch.entries] == []
    pair.pass_time(1000)
    pair.fetcher.synced(pair.syncs.pop())
    pair.talk()
    assert len([entry for fetch in pair.fetches for entry in fetch.entries]) == 1


def test_records_count_only_once_they_are_synced_where_the_stream_asks_for_it(pair: Pair) -> None:
    leading = pair.lead()
    following = pair.follow(needs_sync=True)
    pair.fetcher.synced(pair.syncs.pop())
    pair.append(make_batch(0, 1, leader_epoch=EPOCH))
    pair.talk()
    assert (following.log.end_offset, leading.high_watermark) == (1, 0)
    pair.fetcher.synced(pair.syncs.pop())
    pair.talk()
    assert leading.high_watermark == 1


def test_a_follower_whose_disk_is_full_says_so_and_is_not_waited_for_until_it_takes_records_again(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    leading, following = pair.lead(), pair.follow()
    pair.talk()
    led = pair.led[LogId(1, 0)]

    def refuse(*_batches: object, **_options: object) -> None:
        raise DiskFull("no room")

    monkeypatch.setattr(following.log, "append", refuse)
    pair.append(make_batch(0, 3, leader_epoch=EPOCH))
    pair.talk()
    ((_, change),) = pair.serving.wanted_changes(pair.now_ns)
    assert change.isr == ("a",)
    pair.serving.isr_changed(led, change.isr, 2)
    assert leading.high_watermark == 3
    pair.pass_time(600)
    assert following.log.end_offset == 0
    assert pair.serving.wanted_changes(pair.now_ns) == [], "it is no nearer than before"
    monkeypatch.undo()
    pair.pass_time(600)
    assert following.log.end_offset == 3
    ((_, change),) = pair.serving.wanted_changes(pair.now_ns)
    assert change.isr == ("a", "b")


def test_a_follower_without_room_says_so_from_the_beginning_and_asks_for_nothing(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It led until now, and holds all that the others have: it would be in sync as long as nothing comes."""
    leading, following = pair.lead(), pair.follow()

    def refuse(_size_bytes: int) -> None:
        raise DiskFull("no room")

    monkeypatch.setattr(following.log, "check_room", refuse)
    following.append_failed(DiskFull("no room"), 10)
    pair.talk()
    pair.pass_time(2000)
    ((_, change),) = pair.serving.wanted_changes(pair.now_ns)
    assert change.isr == ("a",)
    pair.serving.isr_changed(pair.led[LogId(1, 0)], change.isr, 2)
    assert pair.serving.wanted_changes(pair.now_ns) == []
    monkeypatch.undo()
    pair.pass_time(600)
    ((_, change),) = pair.serving.wanted_changes(pair.now_ns)
    assert change.isr == ("a", "b")
    assert leading.high_watermark == 0


def test_a_lost_answer_costs_a_time_out_and_nothing_else(pair: Pair) -> None:
    pair.lead()
    following = pair.follow()
    pair.talk()
    pair.append(make_batch(0, 1, leader_epoch=EPOCH))
    assert pair.serving.collect(pair.now_ns), "and nobody hears it"
    pair.pass_time(1001)
    assert following.log.end_offset == 1


def test_a_lost_fetch_is_noticed_when_the_next_one_comes(pair: Pair) -> None:
    pair.lead(0)
    pair.lead(1)
    pair.follow(0)
    pair.talk()
    following = pair.follow(1)
    assert pair.fetcher.collect(pair.now_ns), "and nobody hears it"
    pair.follow(0)
    pair.talk()
    assert any(isinstance(answer, Reset) for answer in pair.answers)
    pair.append(make_batch(0, 1, leader_epoch=EPOCH), number=1)
    pair.talk()
    assert following.log.end_offset == 1


def test_retention_between_question_and_answer_sends_the_follower_to_the_new_start(pair: Pair) -> None:
    leading = pair.lead(isr="a", segment_max_bytes=1)
    following = pair.follow()
    pair.append(*(make_batch(offset, 1, leader_epoch=EPOCH) for offset in range(5)))
    (payload,) = pair.fetcher.collect(pair.now_ns)
    fetch = decode_message(payload)
    assert isinstance(fetch, Fetch)
    for offset in range(5, 8):
        pair.append(make_batch(offset, 1, leader_epoch=EPOCH))
    pair.serving.receive(fetch, "b", pair.now_ns)
    leading.log.apply_retention(RetentionLimits(0, 2, 0, 8), 0)
    leading.last_body = (-1, b"")
    for _subject, payloads in pair.serving.collect(pair.now_ns):
        for answer in payloads:
            pair.hear(answer)
    pair.talk()
    assert following.log.end_offset == 8
    assert following.log.read(0, stop=8, max_bytes=1) == leading.log.read(leading.log.start_offset, stop=8, max_bytes=1)


def test_a_partition_that_is_no_longer_followed_gets_nothing(pair: Pair) -> None:
    pair.lead()
    following = pair.follow()
    pair.talk()
    pair.fetcher.unfollow(LogId(1, 0))
    pair.talk()
    pair.append(make_batch(0, 1, leader_epoch=EPOCH))
    pair.talk()
    assert following.log.end_offset == 0


def test_a_partition_at_rest_is_looked_at_again_when_its_follower_falls_silent(pair: Pair) -> None:
    pair.lead()
    pair.follow()
    pair.talk()
    assert pair.serving.wanted_changes(pair.now_ns) == []
    pair.now_ns += 1900 * MS
    assert pair.serving.wanted_changes(pair.now_ns) == []
    pair.now_ns += 200 * MS
    ((_led, change),) = pair.serving.wanted_changes(pair.now_ns)
    assert change.isr == ("a",)
