"""Compaction of a partition on this server: when there is a pass, what ends it, and what subscribers then read."""

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest

from liftbridge.errors import LogDeleted, ResourceExhausted
from liftbridge.interfaces.log import Compactor, LogId, LogSettings, PartitionLog
from liftbridge.partition.assignment import Assignment, CompactionSettings, RetentionSettings
from liftbridge.partition.compacting import Compactions
from liftbridge.partition.leader import LeaderSettings
from liftbridge.partition.local import LocalPartition
from liftbridge.partition.partition import Partition, PartitionKey
from liftbridge.partition.subscription import START_REACHED, STOP_REACHED, PartitionSubscription, resolve_range
from liftbridge.protocol.generated import api_pb2 as api
from liftbridge.protocol.record_batch import RECORD_PREFIX_BYTES, iter_records
from liftbridge.testing.compaction_suite import fill, offsets, read_records
from liftbridge.testing.memory_log import MemoryLog, MemoryLogStorage
from liftbridge.testing.virtual_clock import VirtualClock

KEY = PartitionKey("s", 0, 1)
DAY_S = 86_400


def local_partition(
    keys: str, *, batch: int = 1, segment_max_bytes: int = 1, compaction: CompactionSettings | None = None
) -> LocalPartition:
    """Everything in it is committed."""
    log = MemoryLogStorage().open(LogId(1, 0), LogSettings(segment_max_bytes=segment_max_bytes))
    fill(log, keys, batch=batch)
    partition = Partition(KEY, log, "s")
    partition.high_watermark = log.end_offset
    assignment = Assignment(
        key=KEY,
        base_subject="s",
        subject="s",
        group="",
        replicas=("a",),
        isr=("a",),
        leader="a",
        leader_epoch=1,
        partition_epoch=1,
        leads=True,
        leader_settings=LeaderSettings(),
        log_settings=LogSettings(),
        retention=RetentionSettings(0, 0, 0, 1),
        compaction=compaction or CompactionSettings(enabled=True),
    )
    return LocalPartition(assignment, partition)


def log_of(local: LocalPartition) -> PartitionLog:
    assert local.partition is not None
    return local.partition.log


async def test_only_streams_that_ask_for_it_are_compacted() -> None:
    compactions = Compactions(VirtualClock())
    plain = local_partition("aab.", compaction=CompactionSettings())
    assert await compactions.compact(plain) is None
    assert offsets(read_records(log_of(plain))) == [0, 1, 2, 3]
    compacted = local_partition("aab.")
    report = await compactions.compact(compacted)
    assert report is not None
    assert report.records_removed == 1
    assert offsets(read_records(log_of(compacted))) == [1, 2, 3]


async def test_nothing_above_the_high_watermark_counts() -> None:
    local = local_partition("aaaa")
    assert local.partition is not None
    local.partition.high_watermark = 2
    await Compactions(VirtualClock()).compact(local)
    assert offsets(read_records(log_of(local))) == [1, 2, 3]


@pytest.mark.parametrize("is_small", [True, False])
async def test_a_large_log_waits_until_enough_is_new(is_small: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    compactions = Compactions(VirtualClock())
    local = local_partition("abcdefgha")
    if not is_small:
        monkeypatch.setattr(MemoryLog, "size_bytes", 1 << 30)
    assert await compactions.compact(local) is not None
    fill(log_of(local), "a")
    assert local.partition is not None
    local.partition.high_watermark = log_of(local).end_offset
    assert (await compactions.compact(local) is not None) == is_small
    assert await compactions.compact(local) is None, "nothing is new"


async def test_tombstones_go_when_they_are_old_enough_though_nothing_is_new() -> None:
    clock = VirtualClock(time_ns=1_000_000_000)
    settings = CompactionSettings(enabled=True, tombstone_max_age_ns=DAY_S * 1_000_000_000)
    local = local_partition("aA..", compaction=settings)
    compactions = Compactions(clock)
    assert await compactions.compact(local) is not None
    assert offsets(read_records(log_of(local))) == [1, 2, 3]
    clock.advance(DAY_S - 1)
    assert await compactions.compact(local) is None
    clock.advance(2)
    assert await compactions.compact(local) is not None
    assert offsets(read_records(log_of(local))) == [2, 3]
    clock.advance(DAY_S)
    assert await compactions.compact(local) is None, "no tombstone is left"


async def test_tombstones_are_found_again_after_a_restart() -> None:
    clock = VirtualClock(time_ns=1_000_000_000)
    settings = CompactionSettings(enabled=True, tombstone_max_age_ns=DAY_S * 1_000_000_000)
    local = local_partition("aA..", compaction=settings)
    await Compactions(clock).compact(local)
    clock.advance(DAY_S + 1)
    await Compactions(clock).compact(local)
    assert offsets(read_records(log_of(local))) == [2, 3]


async def test_a_storage_without_compaction_keeps_everything_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(MemoryLog, "compact", PartitionLog.compact)
    local = local_partition("aa..")
    assert await Compactions(VirtualClock()).compact(local) is None
    assert "has no compaction" in caplog.text
    assert len(read_records(log_of(local))) == 4


class Passes:
    """Stands in for a log's ``compact``: goes on until it is ended from outside."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.ended = threading.Event()

    def compact(
        self, compactor: Compactor, *, min_dirty_percent: int, force: bool, between: Callable[[], None]
    ) -> None:
        self.began.set()
        try:
            while True:
                between()
        finally:
            self.ended.set()


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Passes]:
    passes = Passes()
    monkeypatch.setattr(MemoryLog, "compact", lambda _log, *args, **options: passes.compact(*args, **options))
    yield passes
    assert passes.ended.wait(5)


async def test_the_end_of_the_partition_ends_the_pass(passes: Passes) -> None:
    local = local_partition("aa..")
    running = asyncio.create_task(Compactions(VirtualClock()).compact(local))
    await asyncio.to_thread(passes.began.wait, 5)
    assert local.partition is not None
    local.partition.end(LogDeleted("gone"))
    assert await asyncio.wait_for(running, 5) is None


async def test_cancelling_ends_the_pass(passes: Passes) -> None:
    compactions = Compactions(VirtualClock())
    running = asyncio.create_task(compactions.run())
    compactions.request(local_partition("aa.."))
    await asyncio.to_thread(passes.began.wait, 5)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await asyncio.to_thread(passes.ended.wait, 5)


# --- what subscribers read --------------------------------------------------------------------------------------------

_KEYS = "abcabcabc.aaaaaaabbb.ccaaaaAAbx"


@pytest.fixture(params=[(1, 1), (4, 1), (4, 400)], ids=["one by one", "batches", "segments"])
async def compacted(request: pytest.FixtureRequest) -> Partition:
    batch, segment_max_bytes = request.param
    local = local_partition(_KEYS, batch=batch, segment_max_bytes=segment_max_bytes)
    await Compactions(VirtualClock()).compact(local)
    assert local.partition is not None
    assert len(read_records(local.partition.log)) < 20
    return local.partition


async def read_to_the_end(partition: Partition, **fields: object) -> tuple[list[int], str]:
    """The offsets, and how it ended."""
    subscription = PartitionSubscription(partition, resolve_range(partition, api.SubscribeRequest(**fields)))
    found: list[int] = []
    while True:
        try:
            framed = await asyncio.wait_for(subscription.read(100), 5)
        except ResourceExhausted as error:
            return found, str(error)
        for record in iter_records(framed):
            message = api.Message.FromString(framed[record.start + RECORD_PREFIX_BYTES : record.end])
            found.append(message.offset)


async def test_forward_from_any_offset_to_any_stop(compacted: Partition) -> None:
    left = offsets(read_records(compacted.log))
    for start in range(len(_KEYS)):
        for stop in range(start, len(_KEYS)):
            found = await read_to_the_end(
                compacted,
                startPosition=api.OFFSET,
                startOffset=start,
                stopPosition=api.STOP_OFFSET,
                stopOffset=stop,
            )
            assert found == ([one for one in left if start <= one <= stop], STOP_REACHED)


async def test_backward_from_any_offset_to_any_stop(compacted: Partition) -> None:
    left = offsets(read_records(compacted.log))
    for start in range(len(_KEYS)):
        for stop in range(start + 1):
            found, end = await read_to_the_end(
                compacted,
                reverse=True,
                startPosition=api.OFFSET,
                startOffset=start,
                stopPosition=api.STOP_OFFSET,
                stopOffset=stop,
            )
            assert found == [one for one in reversed(left) if stop <= one <= start]
            assert end == (STOP_REACHED if stop else START_REACHED)


async def test_the_named_positions(compacted: Partition) -> None:
    left = offsets(read_records(compacted.log))
    latest = {"stopPosition": api.STOP_LATEST}
    assert await read_to_the_end(compacted, startPosition=api.EARLIEST, **latest) == (left, STOP_REACHED)
    assert (await read_to_the_end(compacted, startPosition=api.LATEST, **latest))[0] == left[-1:]
    assert (await read_to_the_end(compacted, startPosition=api.LATEST, reverse=True))[0] == left[::-1]


async def test_by_time_from_and_to_every_message_that_is_left(compacted: Partition) -> None:
    records = read_records(compacted.log)
    for time_ns in {record.timestamp_ns for record in records}:
        found, _ = await read_to_the_end(
            compacted, startPosition=api.TIMESTAMP, startTimestamp=time_ns, stopPosition=api.STOP_LATEST
        )
        assert found == offsets([one for one in records if one.timestamp_ns >= time_ns])
        found, end = await read_to_the_end(
            compacted, startPosition=api.EARLIEST, stopPosition=api.STOP_TIMESTAMP, stopTimestamp=time_ns
        )
        assert found == offsets([one for one in records if one.timestamp_ns <= time_ns])
        assert end == STOP_REACHED
