"""What every log storage must do. Subclass :class:`LogStorageSuite` in a test module and give it ``open_storage``."""

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from liftbridge.errors import OffsetOutOfRange
from liftbridge.interfaces.log import EpochStart, LogId, LogSettings, LogStorage, PartitionLog
from liftbridge.protocol.record_batch import decode_batch, iter_batches
from liftbridge.testing.batches import make_batch
from liftbridge.testing.log_filling import (
    EVERYTHING,
    LOG,
    NO_LIMITS,
    SMALL_SEGMENTS,
    OpenStorage,
    fill,
    limits,
    offsets_in,
    read_all,
)
from liftbridge.testing.log_life_suite import LogLifeSuite

#: What tests of a storage's own need is here as well.
__all__ = [
    "EVERYTHING",
    "LOG",
    "NO_LIMITS",
    "SMALL_SEGMENTS",
    "LogStorageSuite",
    "OpenStorage",
    "fill",
    "limits",
    "offsets_in",
    "read_all",
]

_HOUR_NS = 3_600_000_000_000

#: A step of a random history, and two numbers for it.
_STEPS = st.one_of(
    st.tuples(st.just("append"), st.integers(1, 5), st.sampled_from((0, 0, 0, 4))),
    st.tuples(st.just("truncate"), st.integers(0, 30), st.integers(0, 30)),
    st.tuples(st.just("retain"), st.integers(1, 30), st.integers(0, 30)),
    st.tuples(st.just("reopen"), st.just(0), st.just(0)),
)


#: Each subclass runs the test for itself, and each example removes what the one before left.
_SUITE_IS_SUBCLASSED = (HealthCheck.differing_executors, HealthCheck.function_scoped_fixture, HealthCheck.too_slow)


class LogStorageSuite(LogLifeSuite):
    """The tests. ``open_storage`` must be overridden: it opens the same storage again once the one before is closed."""

    # --- appending ----------------------------------------------------------------------------------------------------

    def test_a_new_log_is_empty(self, log: PartitionLog) -> None:
        assert (log.start_offset, log.end_offset, log.size_bytes, log.last_timestamp_ns) == (0, 0, 0, 0)
        assert list(log.epochs) == []
        assert log.read(0, stop=EVERYTHING, max_bytes=100) == b""
        assert log.offset_for_time(0) is None
        assert log.sync() == 0

    def test_appending_moves_the_end_and_counts_the_bytes(self, log: PartitionLog) -> None:
        batch = make_batch(0, 3, timestamp_ns=77)
        log.append([batch])
        assert (log.start_offset, log.end_offset) == (0, 3)
        assert (log.size_bytes, log.last_timestamp_ns) == (len(batch.data), 77)

    def test_what_was_appended_is_read_byte_for_byte(self, log: PartitionLog) -> None:
        batches = [make_batch(0, 2), make_batch(2, 1), make_batch(3, 4)]
        log.append(batches)
        assert log.read(0, stop=EVERYTHING, max_bytes=EVERYTHING) == b"".join(batch.data for batch in batches)

    @pytest.mark.parametrize("bases", [[1], [4], [6], [5, 5], [5, 7], [5, 4]])
    def test_batches_that_do_not_follow_are_refused_as_a_whole(self, log: PartitionLog, bases: list[int]) -> None:
        log.append([make_batch(0, 5)])
        before = (log.end_offset, log.size_bytes)
        with pytest.raises(ValueError, match="offset"):
            log.append([make_batch(base) for base in bases])
        assert (log.end_offset, log.size_bytes) == before
        assert read_all(log) == list(range(5))

    def test_a_gap_is_accepted_when_it_is_announced_and_never_a_step_back(self, log: PartitionLog) -> None:
        log.append([make_batch(0, 2)])
        log.append([make_batch(10, 2), make_batch(20, 1)], after_gap=True)
        assert log.end_offset == 21
        assert read_all(log) == [0, 1, 10, 11, 20]
        with pytest.raises(ValueError, match="offset"):
            log.append([make_batch(20, 2)], after_gap=True)

    def test_asking_for_room_changes_nothing(self, open_storage: OpenStorage) -> None:
        storage = open_storage()
        log = storage.open(LOG, SMALL_SEGMENTS)
        fill(log, 3)
        before = log.size_bytes, log.end_offset, log.read(0, stop=EVERYTHING, max_bytes=EVERYTHING)
        log.check_room(100_000)
        assert (log.size_bytes, log.end_offset, log.read(0, stop=EVERYTHING, max_bytes=EVERYTHING)) == before
        fill(log, 1)
        log.check_room(100_000)
        log.close()
        storage.close()
        assert read_all(open_storage().open(LOG, SMALL_SEGMENTS)) == list(range(8))

    # --- reading ------------------------------------------------------------------------------------------------------

    def test_a_read_begins_with_the_batch_that_holds_the_offset(self, log: PartitionLog) -> None:
        fill(log, 20, count=3)
        for offset in range(60):
            first = decode_batch(log.read(offset, stop=EVERYTHING, max_bytes=1))
            assert first.base_offset <= offset < first.end_offset

    def test_a_read_in_a_gap_begins_with_the_next_batch(self, log: PartitionLog) -> None:
        log.append([make_batch(0), make_batch(10), make_batch(30)], after_gap=True)
        assert [offsets_in(log.read(o, stop=EVERYTHING, max_bytes=1)) for o in (1, 9, 11, 29)] == [
            [10], [10], [30], [30],
        ]  # fmt: skip

    def test_a_read_gives_no_batch_from_stop_on(self, log: PartitionLog) -> None:
        fill(log, 20, count=3)
        for offset in range(60):
            for stop in range(offset, min(offset + 9, 61)):
                bases = [batch.base_offset for batch in iter_batches(log.read(offset, stop=stop, max_bytes=EVERYTHING))]
                assert all(base < stop for base in bases)
                assert bool(bases) == (stop > offset)

    def test_a_stop_inside_a_gap_gives_nothing_however_one_got_there(self, log: PartitionLog) -> None:
        log.append([make_batch(0, 2), make_batch(10, 2)], after_gap=True)
        assert offsets_in(log.read(0, stop=5, max_bytes=EVERYTHING)) == [0, 1]
        assert log.read(2, stop=5, max_bytes=EVERYTHING) == b""
        assert offsets_in(log.read(2, stop=11, max_bytes=EVERYTHING)) == [10, 11]

    def test_max_bytes_bounds_a_read_but_one_batch_is_always_whole(self, log: PartitionLog) -> None:
        batches = fill(log, 4)
        size = len(batches[0].data)
        for max_bytes in (0, 1, size - 1, size, 2 * size - 1, 2 * size):
            data = log.read(0, stop=EVERYTHING, max_bytes=max_bytes)
            assert size <= len(data) <= max(size, max_bytes)
            assert data == b"".join(batch.data for batch in batches)[: len(data)]

    def test_reading_on_gives_each_record_once(self, log: PartitionLog) -> None:
        fill(log, 50, count=3)
        assert read_all(log) == list(range(150))

    def test_a_tail_reader_sees_each_append(self, log: PartitionLog) -> None:
        for offset in range(50):
            log.append([make_batch(offset)])
            assert offsets_in(log.read(offset, stop=offset + 1, max_bytes=EVERYTHING)) == [offset]
            assert log.read(offset + 1, stop=EVERYTHING, max_bytes=EVERYTHING) == b""

    def test_readers_in_threads_see_whole_batches_while_the_log_grows(self, log: PartitionLog) -> None:
        total = 400

        def follow(seed: int) -> list[int]:
            seen: list[int] = []
            chance = random.Random(seed)
            while len(seen) < total:
                data = log.read(len(seen), stop=EVERYTHING, max_bytes=chance.choice((1, 200, 4000)))
                seen += offsets_in(data)
            return seen

        with ThreadPoolExecutor(3) as pool:
            readers = [pool.submit(follow, seed) for seed in range(3)]
            fill(log, total // 2)
            assert all(reader.result(timeout=60) == list(range(total)) for reader in readers)

    # --- times and epochs ---------------------------------------------------------------------------------------------

    def test_offset_for_time_is_the_first_batch_at_or_after(self, log: PartitionLog) -> None:
        times = [100, 100, 200, 200, 200, 300, 400, 400, 500]
        for number, timestamp_ns in enumerate(times):
            log.append([make_batch(number * 2, 2, timestamp_ns=timestamp_ns)])
        for asked in (0, 99, 100, 101, 200, 201, 300, 399, 400, 500):
            assert log.offset_for_time(asked) == next(2 * i for i, time in enumerate(times) if time >= asked)
        assert log.offset_for_time(501) is None

    def test_offset_for_time_with_an_empty_active_segment(self, storage: LogStorage) -> None:
        log = storage.open(LOG, LogSettings(segment_max_age_ns=10))
        log.append([make_batch(0, timestamp_ns=100)])
        assert log.roll_if_due(1000)
        assert log.offset_for_time(50) == 0
        assert log.offset_for_time(101) is None
        assert log.last_timestamp_ns == 100

    def test_offset_for_time_with_gaps(self, log: PartitionLog) -> None:
        batches = [make_batch(base, 2, timestamp_ns=base * 10) for base in (10, 20, 50, 90, 91 + 40, 1000)]
        log.append(batches, after_gap=True)
        for timestamp_ns in range(0, 10_001, 50):
            expected = next(b.base_offset for b in batches if b.timestamp_ns >= timestamp_ns)
            assert log.offset_for_time(timestamp_ns) == expected

    def test_epochs_begin_where_their_first_record_is(self, open_storage: OpenStorage) -> None:
        storage = open_storage()
        log = storage.open(LOG, SMALL_SEGMENTS)
        for base, epoch in enumerate([1] * 8 + [2] + [5] * 8):
            log.append([make_batch(base, leader_epoch=epoch)])
        expected = [EpochStart(1, 0), EpochStart(2, 8), EpochStart(5, 9)]
        assert list(log.epochs) == expected
        storage.close()
        log = open_storage().open(LOG, SMALL_SEGMENTS)
        assert list(log.epochs) == expected
        log.truncate(9)
        assert list(log.epochs) == expected[:2]

    # --- truncation ---------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("reopened", [False, True])
    def test_truncation_at_every_offset(self, open_storage: OpenStorage, reopened: bool) -> None:
        for end_offset in range(25):
            storage = open_storage()
            log = storage.open(LogId(end_offset, 0), SMALL_SEGMENTS)
            fill(log, 8, count=3)
            log.truncate(end_offset)
            if reopened:
                storage.close()
                storage = open_storage()
                log = storage.open(LogId(end_offset, 0), SMALL_SEGMENTS)
            assert log.end_offset == min(end_offset, 24)
            assert read_all(log) == list(range(min(end_offset, 24)))
            fill(log, 3)
            assert read_all(log) == list(range(min(end_offset, 24) + 6))
            storage.close()

    def test_truncation_around_a_gap(self, open_storage: OpenStorage) -> None:
        for end_offset in range(31):
            storage = open_storage()
            log = storage.open(LogId(end_offset, 0), SMALL_SEGMENTS)
            log.append([make_batch(0, 5), make_batch(10, 10), make_batch(25, 5)], after_gap=True)
            log.truncate(end_offset)
            kept = [o for o in (*range(5), *range(10, 20), *range(25, 30)) if o < end_offset]
            assert read_all(log) == kept
            storage.close()
            storage = open_storage()
            log = storage.open(LogId(end_offset, 0), SMALL_SEGMENTS)
            assert read_all(log) == kept
            assert log.end_offset == (kept[-1] + 1 if kept else 0)
            storage.close()

    def test_truncation_forgets_what_was_remembered_of_the_tail(self, log: PartitionLog) -> None:
        fill(log, 10)
        assert read_all(log) == list(range(20))
        log.truncate(7)
        log.append([make_batch(7, 30)])
        for offset in range(7, 37):
            assert offsets_in(log.read(offset, stop=EVERYTHING, max_bytes=1))[0] == 7

    def test_truncation_below_the_start_is_refused(self, log: PartitionLog) -> None:
        fill(log, 20)
        start = log.apply_retention(limits(max_messages=5), now_ns=0)
        with pytest.raises(OffsetOutOfRange):
            log.truncate(start - 1)
        assert log.end_offset == 40

    # --- retention ----------------------------------------------------------------------------------------------------

    def test_without_limits_everything_stays(self, log: PartitionLog) -> None:
        fill(log, 20)
        assert log.apply_retention(NO_LIMITS, now_ns=EVERYTHING * EVERYTHING) == 0
        assert read_all(log) == list(range(40))

    @pytest.mark.parametrize("max_messages", [1, 5, 10, 17, 39, 40, 41])
    def test_at_most_the_allowed_messages_stay_but_for_the_active_segment(
        self, log: PartitionLog, max_messages: int
    ) -> None:
        fill(log, 20)
        start = log.apply_retention(limits(max_messages=max_messages), now_ns=0)
        kept = read_all(log)
        assert kept == list(range(start, 40))
        assert log.start_offset == start
        assert len(kept) <= max(max_messages, 8)

    @pytest.mark.parametrize("max_bytes", [1, 500, 1000, 2000])
    def test_at_most_the_allowed_bytes_stay_but_for_the_active_segment(self, log: PartitionLog, max_bytes: int) -> None:
        fill(log, 20)
        log.apply_retention(limits(max_bytes=max_bytes), now_ns=0)
        assert log.size_bytes <= max(max_bytes, 2 * SMALL_SEGMENTS.segment_max_bytes)

    def test_segments_whose_last_record_is_too_old_go(self, log: PartitionLog) -> None:
        for number in range(20):
            log.append([make_batch(number * 2, 2, timestamp_ns=(number + 1) * _HOUR_NS)])
        start = log.apply_retention(limits(max_age_ns=5 * _HOUR_NS), now_ns=20 * _HOUR_NS)
        assert 0 < start <= 28
        assert read_all(log) == list(range(start, 40))

    def test_the_active_segment_stays_whatever_the_limits(self, log: PartitionLog) -> None:
        fill(log, 20)
        start = log.apply_retention(limits(max_bytes=1, max_messages=1, max_age_ns=1), now_ns=1 << 62)
        assert start < 40
        assert read_all(log) == list(range(start, 40))

    @pytest.mark.parametrize("keep_from_offset", [0, 1, 7, 20, 33])
    def test_nothing_from_the_high_watermark_on_goes(self, log: PartitionLog, keep_from_offset: int) -> None:
        fill(log, 20)
        start = log.apply_retention(limits(max_messages=1, keep_from_offset=keep_from_offset), now_ns=0)
        assert start <= keep_from_offset

    def test_reading_below_the_start_is_out_of_range(self, log: PartitionLog) -> None:
        fill(log, 20)
        start = log.apply_retention(limits(max_messages=5), now_ns=0)
        with pytest.raises(OffsetOutOfRange, match=str(start)):
            log.read(start - 1, stop=EVERYTHING, max_bytes=100)

    def test_a_rolled_log_whose_records_all_expired_keeps_its_end(self, open_storage: OpenStorage) -> None:
        settings = LogSettings(segment_max_age_ns=10)
        storage = open_storage()
        log = storage.open(LOG, settings)
        fill(log, 3)
        assert log.roll_if_due(1 << 60)
        assert log.apply_retention(limits(max_age_ns=1), now_ns=1 << 60) == 6
        assert (log.start_offset, log.end_offset, log.size_bytes) == (6, 6, 0)
        storage.close()
        log = open_storage().open(LOG, settings)
        assert (log.start_offset, log.end_offset) == (6, 6)
        fill(log, 1)
        assert read_all(log) == [6, 7]

    def test_readers_meet_retention_with_records_or_out_of_range(self, log: PartitionLog) -> None:
        fill(log, 100)

        def read_everywhere() -> None:
            for offset in range(200):
                try:
                    data = log.read(offset, stop=EVERYTHING, max_bytes=300)
                except OffsetOutOfRange:
                    continue
                assert offset in offsets_in(data)

        with ThreadPoolExecutor(3) as pool:
            readers = [pool.submit(read_everywhere) for _ in range(3)]
            for kept in range(190, 0, -10):
                log.apply_retention(limits(max_messages=kept), now_ns=0)
            for reader in readers:
                reader.result(timeout=60)

    def test_readers_meet_truncation_with_what_was_there_before_or_after(self, log: PartitionLog) -> None:
        fill(log, 100)

        def read_everywhere() -> None:
            for offset in range(200):
                data = log.read(offset, stop=EVERYTHING, max_bytes=300)
                assert not data or offset in offsets_in(data)

        with ThreadPoolExecutor(3) as pool:
            readers = [pool.submit(read_everywhere) for _ in range(3)]
            for end_offset in range(199, 1, -3):
                log.truncate(end_offset)
                log.append([make_batch(end_offset, 1)])
            for reader in readers:
                reader.result(timeout=60)

    # --- rolling ------------------------------------------------------------------------------------------------------

    def test_only_a_segment_with_old_records_is_due(self, storage: LogStorage) -> None:
        log = storage.open(LOG, LogSettings(segment_max_age_ns=100))
        assert not log.roll_if_due(1 << 60)
        log.append([make_batch(0, timestamp_ns=1000)])
        assert not log.roll_if_due(1099)
        assert log.roll_if_due(1100)
        assert not log.roll_if_due(1 << 60)
        fill(log, 2)
        assert read_all(log) == list(range(5))

    @settings(deadline=None, suppress_health_check=_SUITE_IS_SUBCLASSED)
    @given(steps=st.lists(_STEPS, max_size=30))
    def test_any_history_reads_like_a_list(self, open_storage: OpenStorage, steps: list[tuple[str, int, int]]) -> None:
        storage = open_storage()
        for log_id in storage.list_logs():
            storage.remove(log_id)
        log = storage.open(LOG, SMALL_SEGMENTS)
        start, end, expected = 0, 0, list[int]()
        for step, number, other in steps:
            if step == "append":
                log.append([make_batch(end + other, number)], after_gap=bool(other))
                expected += range(end + other, end + other + number)
                end += other + number
            elif step == "truncate" and start <= number + other < end:
                log.truncate(number + other)
                expected = [offset for offset in expected if offset < number + other]
                end = log.end_offset
                assert max(expected, default=start - 1) < end <= number + other
            elif step == "retain":
                start = log.apply_retention(limits(max_messages=number, keep_from_offset=end - other), now_ns=0)
                dropped = [offset for offset in expected if offset < start]
                assert start <= max(end - other, 0) or not dropped
                expected = expected[len(dropped) :]
            elif step == "reopen":
                storage.close()
                storage = open_storage()
                log = storage.open(LOG, SMALL_SEGMENTS)
            assert (log.start_offset, log.end_offset) == (start, end)
            assert read_all(log) == expected
        for offset in expected:
            first = next(iter_batches(log.read(offset, stop=EVERYTHING, max_bytes=1)))
            assert first.base_offset <= offset < first.end_offset
        log.close()
        storage.close()
