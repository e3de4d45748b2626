"""What every log storage must do when logs end and begin again: the part of the log suite about opening, closing, deleting
and listing. Subclass :class:`~liftbridge.testing.log_suite.LogStorageSuite`, which has all of it."""

import gc
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count, pairwise

import pytest

from liftbridge.errors import LogClosed, LogDeleted
from liftbridge.interfaces.log import LogId, LogStorage, PartitionLog
from liftbridge.testing.batches import make_batch
from liftbridge.testing.log_filling import (
    EVERYTHING,
    LOG,
    NO_LIMITS,
    SMALL_SEGMENTS,
    OpeningStorage,
    OpenStorage,
    fill,
    limits,
    read_all,
)

#: Whatever can be done with an open log.
USES: dict[str, Callable[[PartitionLog], object]] = {
    "append": lambda log: log.append([make_batch(log.end_offset)]),
    "append nothing new": lambda log: log.append([]),
    "read": lambda log: log.read(0, stop=1, max_bytes=1),
    "read at the end": lambda log: log.read(log.end_offset, stop=EVERYTHING, max_bytes=1),
    "offset_for_time": lambda log: log.offset_for_time(0),
    "sync": lambda log: log.sync(),
    "truncate": lambda log: log.truncate(0),
    "truncate nothing": lambda log: log.truncate(EVERYTHING),
    "roll_if_due": lambda log: log.roll_if_due(1 << 60),
    "apply_retention": lambda log: log.apply_retention(NO_LIMITS, now_ns=0),
}


class LogLifeSuite(OpeningStorage):
    """The tests."""

    @pytest.fixture
    def log(self, storage: LogStorage) -> PartitionLog:
        return storage.open(LOG, SMALL_SEGMENTS)

    def test_sync_returns_the_end_that_it_covers(self, log: PartitionLog) -> None:
        fill(log, 10)
        assert log.sync() == 20

    def test_other_logs_are_used_while_logs_are_opened_closed_and_deleted_in_another_thread(
        self, storage: LogStorage
    ) -> None:
        log = storage.open(LOG, SMALL_SEGMENTS)

        def come_and_go() -> list[LogId]:
            for number in range(20):
                other = LogId(LOG.stream_id + 1, number)
                for _ in range(2):
                    opened = storage.open(other, SMALL_SEGMENTS)
                    fill(opened, 3)
                    opened.close()
                if number % 2:
                    storage.open(other, SMALL_SEGMENTS).delete()
                else:
                    storage.remove(other)
            return list(storage.list_logs())

        with ThreadPoolExecutor(1) as pool:
            coming_and_going = pool.submit(come_and_go)
            for turn in count():
                log.append([make_batch(log.end_offset)])
                if turn % 100 == 99:
                    log.truncate(40)
                if coming_and_going.done():
                    break
            assert coming_and_going.result() == [LOG]
        assert len(read_all(log)) == log.end_offset

    def test_a_log_that_is_opened_again_is_the_same(self, open_storage: OpenStorage) -> None:
        storage = open_storage()
        log = storage.open(LOG, SMALL_SEGMENTS)
        fill(log, 30)
        log.apply_retention(limits(max_messages=40), now_ns=0)
        before = _state(log)
        storage.close()
        assert _state(open_storage().open(LOG, SMALL_SEGMENTS)) == before

    @pytest.mark.parametrize("use", USES)
    def test_a_closed_log_refuses_everything(self, log: PartitionLog, use: str) -> None:
        fill(log, 1)
        log.close()
        log.close()
        with pytest.raises(LogClosed):
            USES[use](log)

    @pytest.mark.parametrize("use", USES)
    def test_a_deleted_log_refuses_everything_also_when_it_is_closed_then(self, log: PartitionLog, use: str) -> None:
        fill(log, 1)
        log.delete()
        log.delete()
        log.close()
        with pytest.raises(LogDeleted):
            USES[use](log)

    def test_a_deleted_log_is_gone_and_begins_anew(self, open_storage: OpenStorage) -> None:
        storage = open_storage()
        log = storage.open(LOG, SMALL_SEGMENTS)
        other = storage.open(LogId(LOG.stream_id, 2), SMALL_SEGMENTS)
        fill(log, 10)
        fill(other, 1)
        log.delete()
        assert list(storage.list_logs()) == [LogId(LOG.stream_id, 2)]
        again = storage.open(LOG, SMALL_SEGMENTS)
        assert again.end_offset == 0
        assert read_all(other) == [0, 1]

    def test_logs_are_listed_and_removed(self, open_storage: OpenStorage) -> None:
        storage = open_storage()
        assert list(storage.list_logs()) == []
        ids = [LogId(1, 0), LogId(1, 1), LogId(20, 0)]
        for log_id in ids:
            fill(storage.open(log_id, SMALL_SEGMENTS), 5)
        storage.close()
        storage = open_storage()
        assert sorted(storage.list_logs()) == ids
        storage.remove(ids[1])
        storage.remove(ids[1])
        assert sorted(storage.list_logs()) == [ids[0], ids[2]]
        assert storage.open(ids[1], SMALL_SEGMENTS).end_offset == 0
        assert read_all(storage.open(ids[2], SMALL_SEGMENTS)) == list(range(10))

    @pytest.mark.parametrize("deleted", [False, True])
    def test_a_log_that_ended_is_let_go(self, storage: LogStorage, deleted: bool) -> None:
        """A server runs long, and streams come and go meanwhile."""
        log = storage.open(LOG, SMALL_SEGMENTS)
        fill(log, 5)
        log.delete() if deleted else log.close()
        held = weakref.ref(log)
        del log
        gc.collect()
        assert held() is None

    def test_closing_the_storage_closes_its_logs(self, storage: LogStorage) -> None:
        logs = [storage.open(LogId(number, 0), SMALL_SEGMENTS) for number in range(3)]
        logs[1].close()
        storage.close()
        storage.close()
        for log in logs:
            with pytest.raises(LogClosed):
                log.append([make_batch(0)])


def _state(log: PartitionLog) -> tuple[object, ...]:
    assert all(one < following for one, following in pairwise(read_all(log)))
    content = log.read(log.start_offset, stop=EVERYTHING, max_bytes=EVERYTHING)
    whole = (log.start_offset, log.end_offset, log.size_bytes, log.last_timestamp_ns, tuple(log.epochs), content)
    return (*whole, tuple(read_all(log)))
