"""What every log storage with compaction must do. Subclass :class:`LogCompactionSuite` in a test module and give it
``open_storage``; for a storage without compaction everything in it is skipped."""

import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from liftbridge.errors import LogClosed, LogDeleted
from liftbridge.interfaces.log import CompactionReport, EpochStart, LogId, LogSettings, LogStorage, PartitionLog
from liftbridge.protocol.compaction import KeyCompactor
from liftbridge.protocol.generated import api_pb2 as api
from liftbridge.protocol.record_batch import HEADER_BYTES, RECORD_PREFIX_BYTES, iter_batches, iter_records
from liftbridge.testing.batches import make_keyed_batch
from liftbridge.testing.log_filling import EVERYTHING, OpeningStorage, OpenStorage, limits

LOG = LogId(5, 0)
#: A segment for each batch that the suite appends.
ONE_BATCH_SEGMENTS = LogSettings(segment_max_bytes=1)
#: Neighbours are small enough to be merged once something was removed.
SMALL_SEGMENTS = LogSettings(segment_max_bytes=300)
_SUITE_IS_SUBCLASSED = (HealthCheck.differing_executors, HealthCheck.function_scoped_fixture, HealthCheck.too_slow)


class Kept(NamedTuple):
    """A record as a test sees it; an empty key is none."""

    offset: int
    key: bytes
    value: bytes
    timestamp_ns: int


def records_in(data: bytes) -> list[Kept]:
    """The records in what ``read`` returned."""
    return [
        Kept(record.offset, message.key, message.value, batch.timestamp_ns)
        for batch in iter_batches(data)
        for body in (batch.data[HEADER_BYTES:],)
        for record in iter_records(body)
        for message in (api.Message.FromString(body[record.start + RECORD_PREFIX_BYTES : record.end]),)
    ]


def read_records(log: PartitionLog, start: int | None = None, stop: int = EVERYTHING) -> list[Kept]:
    """Everything, or from ``start`` on and up to ``stop`` in whole batches; read in steps, as a subscriber would."""
    found: list[Kept] = []
    offset = log.start_offset if start is None else start
    while data := log.read(offset, stop=stop, max_bytes=200):
        found += records_in(data)
        offset = list(iter_batches(data))[-1].end_offset
    return found


def offsets(records: Sequence[Kept]) -> list[int]:
    return [record.offset for record in records]


def fill(log: PartitionLog, keys: str, *, batch: int = 1, epoch: int = 1) -> None:
    """Appends a record for each letter, a dot for none, in batches of ``batch``; the values tell the offsets. A letter
    in capitals is the key with an empty value."""
    for start in range(0, len(keys), batch):
        base = log.end_offset
        log.append(
            [
                make_keyed_batch(
                    base,
                    [_record(letter, base + i) for i, letter in enumerate(keys[start : start + batch])],
                    leader_epoch=epoch,
                )
            ]
        )


def _record(letter: str, offset: int) -> tuple[bytes, bytes]:
    key = b"" if letter == "." else letter.lower().encode()
    return key, b"" if letter.isupper() else b"%d" % offset


def compact(
    log: PartitionLog,
    upto: int | None = None,
    *,
    min_dirty_percent: int = 0,
    force: bool = False,
    drop_tombstones_before_ns: int = 0,
    max_keys: int = 1000,
    between: Callable[[], None] = lambda: None,
) -> CompactionReport | None:
    """One pass; without ``upto`` everything is committed."""
    compactor = KeyCompactor(
        log.end_offset if upto is None else upto,
        drop_tombstones_before_ns=drop_tombstones_before_ns,
        max_keys=max_keys,
    )
    return log.compact(compactor, min_dirty_percent=min_dirty_percent, force=force, between=between)


def last_of_each_key(records: Sequence[Kept], upto: int) -> list[Kept]:
    """What compaction must leave, if everything is in sealed segments."""
    last = {record.key: record.offset for record in records if record.key and record.offset < upto}
    return [one for one in records if not one.key or one.offset >= upto or last[one.key] == one.offset]


_KEYS = st.lists(
    st.sampled_from([b"", b"a", b"b", b"c", b"a key that is longer than what is remembered of it"]), max_size=5
)
_STEPS = st.one_of(
    st.tuples(st.just("append"), _KEYS, st.integers(0, 3)),
    st.tuples(st.just("append"), _KEYS, st.integers(0, 3)),
    st.tuples(st.just("compact"), st.integers(0, 12), st.integers(1, 4)),
    st.tuples(st.just("truncate"), st.integers(0, 12), st.just(0)),
    st.tuples(st.just("retain"), st.integers(5, 30), st.just(0)),
    st.tuples(st.just("reopen"), st.just(0), st.just(0)),
)


class LogCompactionSuite(OpeningStorage):
    """The tests. ``open_storage`` must be overridden: it opens the same storage again once the one before is closed."""

    @pytest.fixture
    def log(self, storage: LogStorage) -> PartitionLog:
        return _open(storage, ONE_BATCH_SEGMENTS)

    # --- what stays ---------------------------------------------------------------------------------------------------

    def test_the_last_record_of_each_key_stays_and_so_do_those_without_a_key(self, log: PartitionLog) -> None:
        fill(log, "ab.a.bcaZ.z.")
        before = read_records(log)
        report = compact(log)
        assert report is not None
        assert report.records_removed == 4
        assert report.bytes_after < report.bytes_before
        assert read_records(log) == [one for one in before if one.offset not in (0, 1, 3, 8)]

    def test_batches_lose_records_inside(self, log: PartitionLog) -> None:
        fill(log, "aab.ba.caa.", batch=4)
        before = read_records(log)
        compact(log)
        assert offsets(read_records(log)) == [3, 4, 6, 7, 8, 9, 10]
        assert set(read_records(log)) <= set(before)

    @pytest.mark.parametrize("upto", range(0, 13))
    def test_nothing_from_the_high_watermark_on_counts_or_goes(self, log: PartitionLog, upto: int) -> None:
        fill(log, "ab.abbaca.b.", batch=3)
        fill(log, ".")
        before = read_records(log)
        compact(log, upto)
        assert read_records(log) == last_of_each_key(before, upto)

    def test_the_active_segment_stays_as_it_is_and_its_keys_count(self, storage: LogStorage) -> None:
        log = _open(storage, LogSettings())
        fill(log, "abab")
        compact(log, force=True)
        assert offsets(read_records(log)) == [0, 1, 2, 3]
        assert log.roll_if_due(1 << 62)
        fill(log, "aca")
        compact(log)
        assert offsets(read_records(log)) == [3, 4, 5, 6]

    def test_long_keys_are_told_apart(self, log: PartitionLog) -> None:
        keys = [b"k" * 40 + b"%d" % (number % 3) for number in range(9)]
        for offset, key in enumerate(keys):
            log.append([make_keyed_batch(offset, [(key, b"v")])])
        fill(log, ".")
        compact(log)
        assert offsets(read_records(log)) == [6, 7, 8, 9]

    def test_ends_epochs_and_times_stay(self, open_storage: OpenStorage) -> None:
        storage = open_storage()
        log = _open(storage, SMALL_SEGMENTS)
        for epoch in range(1, 6):
            fill(log, "aaaaaaa", epoch=epoch)
        before = _outline(log)
        compact(log)
        assert len(read_records(log)) < 8
        assert _outline(log) == before
        assert list(log.epochs) == [EpochStart(epoch, (epoch - 1) * 7) for epoch in range(1, 6)]
        log.close()
        storage.close()
        assert _outline(open_storage().open(LOG, SMALL_SEGMENTS)) == before

    # --- tombstones ---------------------------------------------------------------------------------------------------

    def test_an_empty_value_is_a_value_unless_tombstones_are_asked_for(self, log: PartitionLog) -> None:
        fill(log, "abA.")
        compact(log)
        assert offsets(read_records(log)) == [1, 2, 3]

    def test_tombstones_go_once_they_are_old_enough(self, log: PartitionLog) -> None:
        fill(log, "abAB..")
        time_ns = [record.timestamp_ns for record in read_records(log)]
        compact(log, drop_tombstones_before_ns=time_ns[3])
        assert offsets(read_records(log)) == [3, 4, 5]
        compact(log, force=True, drop_tombstones_before_ns=time_ns[3] + 1)
        assert offsets(read_records(log)) == [4, 5]

    def test_a_tombstone_stays_while_it_is_the_last_committed_record(self, log: PartitionLog) -> None:
        fill(log, "aA")
        assert log.roll_if_due(1 << 62)
        compact(log, drop_tombstones_before_ns=EVERYTHING * EVERYTHING)
        assert offsets(read_records(log)) == [1]

    @pytest.mark.parametrize("max_keys", [1, 2, 100])
    def test_a_tombstone_never_goes_before_what_it_deleted(self, log: PartitionLog, max_keys: int) -> None:
        fill(log, "abcdABCD..")

        def look() -> None:
            present = {record.offset for record in read_records(log)}
            assert all(offset + 4 in present for offset in range(4) if offset in present)

        for _ in range(8):  # a pass that is stopped after each of its steps, and one that isn't
            look()
            compact(log, force=True, drop_tombstones_before_ns=1 << 60, max_keys=max_keys)
        look()
        assert offsets(read_records(log)) == [8, 9]

    # --- reading over gaps --------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("batch", [1, 3, 7])
    def test_a_read_at_any_offset_gives_what_is_left_from_there_on(self, log: PartitionLog, batch: int) -> None:
        fill(log, "abcabcabc.aaaaaaabbb.ccaaaa" * 2, batch=batch)
        compact(log)
        left = offsets(read_records(log))
        for offset in range(log.end_offset + 1):
            for stop in (offset + 1, offset + 5, EVERYTHING):
                found = offsets(read_records(log, offset, stop))
                assert [one for one in found if offset <= one < stop] == [one for one in left if offset <= one < stop]

    def test_offset_for_time_finds_no_later_batch_than_the_first_that_is_left(self, log: PartitionLog) -> None:
        fill(log, "abcabcabc.aaaaaaabbb.ccaaaa", batch=2)
        compact(log)
        for record in read_records(log):
            found = log.offset_for_time(record.timestamp_ns)
            assert found is not None
            assert found <= record.offset
            between = [one for one in read_records(log) if found <= one.offset < record.offset]
            assert all(one.timestamp_ns == record.timestamp_ns for one in between)

    def test_readers_in_threads_miss_nothing_while_segments_are_replaced(self, storage: LogStorage) -> None:
        log = _open(storage, SMALL_SEGMENTS)
        keys = "".join(random.Random(5).choices("abcdefghij.", k=120))
        fill(log, keys)
        never_removed = set(offsets(last_of_each_key(read_records(log), log.end_offset)))
        done = False

        def follow(seed: int) -> int:
            chance = random.Random(seed)
            rounds = 0
            while not done or not rounds:
                seen: list[int] = []
                offset = 0
                while data := log.read(offset, stop=120, max_bytes=chance.choice((1, 200, 4000))):
                    seen += [one for one in offsets(records_in(data)) if one >= offset]
                    offset = list(iter_batches(data))[-1].end_offset
                assert seen == sorted(set(seen))
                assert never_removed <= set(seen)
                found = log.offset_for_time(1_000_000_000 + 60)
                assert found is not None
                assert found <= min(one for one in never_removed if one >= 60)
                rounds += 1
            return rounds

        with ThreadPoolExecutor(3) as pool:
            readers = [pool.submit(follow, seed) for seed in range(3)]
            for upto in range(40, 121, 40):
                compact(log, upto, max_keys=4)
            done = True
            assert all(reader.result(timeout=60) for reader in readers)

    # --- with truncation, retention and appends -----------------------------------------------------------------------

    @pytest.mark.parametrize("batch", [1, 4])
    def test_truncation_at_every_offset_of_a_compacted_log(self, open_storage: OpenStorage, batch: int) -> None:
        for end_offset in range(28):
            storage = open_storage()
            log = storage.open(LogId(end_offset, batch), SMALL_SEGMENTS)
            _skip_without_compaction(log)
            fill(log, "abcabcaab.aaaaaaabbb.ccaaaa", batch=batch)
            compact(log)
            left = read_records(log)
            log.truncate(end_offset)
            kept = [one for one in left if one.offset < end_offset]
            assert read_records(log) == kept
            assert log.end_offset <= end_offset or not end_offset
            storage.close()
            storage = open_storage()
            log = storage.open(LogId(end_offset, batch), SMALL_SEGMENTS)
            assert read_records(log) == kept
            fill(log, "ab.")
            compact(log, force=True)
            assert {one.key for one in read_records(log)} == {one.key for one in kept} | {b"a", b"b", b""}
            storage.close()

    def test_an_appended_segment_that_was_compacted_is_looked_at_again(self, storage: LogStorage) -> None:
        log = _open(storage, SMALL_SEGMENTS)
        fill(log, "abababababababab")
        compact(log)
        log.truncate(log.end_offset - 3)
        fill(log, "ab" * 8)
        compact(log)
        fill(log, "c" * 8)
        assert log.roll_if_due(1 << 62)
        compact(log)
        assert [one.key for one in read_records(log)] == [b"a", b"b", b"c"]

    def test_retention_counts_what_is_left(self, log: PartitionLog) -> None:
        fill(log, "aaaaaaaabcdefgh", batch=2)
        compact(log)
        left = offsets(read_records(log))
        assert len(left) == 8
        assert log.apply_retention(limits(max_messages=8), now_ns=0) == 0
        log.apply_retention(limits(max_messages=4), now_ns=0)
        assert offsets(read_records(log)) == left[-4:] or offsets(read_records(log)) == left[-3:]

    def test_the_log_goes_on_while_a_pass_runs(self, storage: LogStorage) -> None:
        log = _open(storage, SMALL_SEGMENTS)
        fill(log, "abc" * 40)
        compact(log, 120, between=lambda: fill(log, "x."), max_keys=2)
        left = read_records(log)
        assert [one.key for one in left if one.offset < 117] == []
        assert offsets([one for one in left if one.offset >= 117]) == list(range(117, log.end_offset))

    def test_a_pass_that_retention_overtakes_removes_nothing_wrong(self, storage: LogStorage) -> None:
        log = _open(storage, SMALL_SEGMENTS)
        fill(log, "abcdefgh" * 10)
        kept = iter(range(70, 18, -2))
        compact(log, between=lambda: void(log.apply_retention(limits(max_messages=next(kept, 20)), 0)))
        last = {one.key: one.offset for one in read_records(log)}
        assert last == {bytes((97 + number,)): 72 + number for number in range(8)}

    def test_a_pass_that_a_truncation_overtakes_keeps_what_is_the_last_again(self, storage: LogStorage) -> None:
        log = _open(storage, SMALL_SEGMENTS)
        fill(log, "abcdefgh" * 4)
        fill(log, "abcdefgh" * 4)
        steps = iter(range(1000))

        def truncate_once() -> None:
            if next(steps) == 12:
                log.truncate(32)

        compact(log, between=truncate_once)
        if log.end_offset == 32:
            present = set(offsets(read_records(log)))
            assert set(range(24, 32)) <= present or len(present) == 32

    # --- passes -------------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("max_keys", [1, 2, 3, 7])
    def test_several_rounds_come_to_the_same_as_one(self, storage: LogStorage, max_keys: int) -> None:
        keys = "".join(random.Random(max_keys).choices("abcdefghijkl.", k=200))
        found = []
        for partition, most in enumerate((max_keys, 1000)):
            log = storage.open(LogId(9, partition), SMALL_SEGMENTS)
            _skip_without_compaction(log)
            fill(log, keys, batch=3)
            compact(log, 180, max_keys=most)
            found.append(read_records(log))
        assert found[0] == found[1]

    def test_a_pass_needs_enough_that_is_new(self, open_storage: OpenStorage) -> None:
        storage = open_storage()
        log = _open(storage, ONE_BATCH_SEGMENTS)
        fill(log, "abcdefgha")
        assert compact(log, min_dirty_percent=100) is not None
        assert compact(log) is None, "nothing is new"
        assert compact(log, force=True) is not None
        fill(log, "b")
        assert compact(log, min_dirty_percent=50) is None, "one record in nine"
        log.close()
        storage.close()
        log = open_storage().open(LOG, ONE_BATCH_SEGMENTS)
        assert compact(log, min_dirty_percent=50) is None, "it is known after a restart, too"
        assert compact(log, min_dirty_percent=10) is not None
        assert offsets(read_records(log)) == [2, 3, 4, 5, 6, 7, 8, 9]

    def test_what_is_not_committed_does_not_call_for_a_pass(self, log: PartitionLog) -> None:
        fill(log, "abab")
        assert compact(log, 0) is None
        assert compact(log, 2) is not None
        assert compact(log, 2) is None

    def test_a_pass_on_an_empty_log_does_nothing(self, log: PartitionLog) -> None:
        assert compact(log) is None
        assert compact(log, force=True) == CompactionReport(0, 0, 0)

    def test_whoever_is_called_in_between_can_end_the_pass(self, log: PartitionLog) -> None:
        fill(log, "ab" * 30)

        class Enough(Exception):
            pass

        for allowed in range(0, 60, 7):
            left = iter(range(allowed))

            def step(left: Iterator[int] = left) -> None:
                if next(left, None) is None:
                    raise Enough

            with pytest.raises(Enough):
                compact(log, between=step)
            assert {58, 59} <= set(offsets(read_records(log)))
        compact(log)
        assert offsets(read_records(log)) == [58, 59]

    def test_closing_and_deleting_end_the_pass(self, storage: LogStorage) -> None:
        for partition, end, error in ((0, "close", LogClosed), (1, "delete", LogDeleted)):
            log = storage.open(LogId(11, partition), SMALL_SEGMENTS)
            _skip_without_compaction(log)
            fill(log, "ab" * 30)
            with pytest.raises(error):
                compact(log, between=getattr(log, end))

    @settings(deadline=None, suppress_health_check=_SUITE_IS_SUBCLASSED, max_examples=60)
    @given(steps=st.lists(_STEPS, max_size=25))
    def test_any_history_keeps_the_last_of_each_key(
        self, open_storage: OpenStorage, steps: list[tuple[str, object, int]]
    ) -> None:
        storage = open_storage()
        for log_id in storage.list_logs():
            storage.remove(log_id)
        log = _open(storage, SMALL_SEGMENTS)
        expected: list[Kept] = []
        for step, what, number in steps:
            if step == "append" and what:
                assert isinstance(what, list)
                base = log.end_offset
                batch = make_keyed_batch(base, [(key, b"%d" % number) for key in what], timestamp_ns=1000 + base)
                log.append([batch])
                expected += records_in(batch.data)
            elif step == "compact":
                assert isinstance(what, int)
                upto, end_offset = max(log.end_offset - what, log.start_offset), log.end_offset
                compact(log, upto, max_keys=number)
                found = read_records(log)
                assert set(last_of_each_key(expected, upto)) <= set(found) <= set(expected)
                assert log.end_offset == end_offset
                expected = found
            elif step == "truncate" and isinstance(what, int) and log.end_offset - what > log.start_offset:
                end_offset = log.end_offset - what
                log.truncate(end_offset)
                expected = [one for one in expected if one.offset < end_offset]
            elif step == "retain":
                assert isinstance(what, int)
                start = log.apply_retention(limits(max_messages=what, keep_from_offset=log.end_offset), now_ns=0)
                expected = [one for one in expected if one.offset >= start]
            elif step == "reopen":
                storage.close()
                storage = open_storage()
                log = storage.open(LOG, SMALL_SEGMENTS)
            assert read_records(log) == expected
        storage.close()


def void(_: object) -> None:
    """For lambdas that return something."""


def _open(storage: LogStorage, log_settings: LogSettings) -> PartitionLog:
    log = storage.open(LOG, log_settings)
    _skip_without_compaction(log)
    return log


def _skip_without_compaction(log: PartitionLog) -> None:
    if not log.can_compact:
        pytest.skip(f"{type(log).__name__} has no compaction")


def _outline(log: PartitionLog) -> tuple[object, ...]:
    return log.start_offset, log.end_offset, log.last_timestamp_ns, tuple(log.epochs)
