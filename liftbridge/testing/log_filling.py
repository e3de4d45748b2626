"""Filling logs and reading them back, for tests of log storages."""

from collections.abc import Callable

import pytest

from liftbridge.interfaces.log import LogId, LogSettings, LogStorage, PartitionLog, RetentionLimits
from liftbridge.interfaces.records import RecordBatch
from liftbridge.protocol.record_batch import HEADER_BYTES, iter_batches, iter_records
from liftbridge.testing.batches import make_batch

#: Opens the same storage again, once the one before is closed.
OpenStorage = Callable[[], LogStorage]

LOG = LogId(3, 1)
#: Makes a new segment begin about every third of the batches that the suite appends.
SMALL_SEGMENTS = LogSettings(segment_max_bytes=300)
EVERYTHING = 1 << 40
NO_LIMITS = RetentionLimits(max_bytes=0, max_messages=0, max_age_ns=0, keep_from_offset=EVERYTHING)


def fill(log: PartitionLog, batches: int, *, count: int = 2) -> list[RecordBatch]:
    """Appends that many batches of ``count`` records, one by one, and returns them."""
    appended = [make_batch(log.end_offset + number * count, count) for number in range(batches)]
    for batch in appended:
        log.append([batch])
    return appended


def limits(**given: int) -> RetentionLimits:
    """Retention limits of which all but the given ones are off."""
    fields = {"max_bytes": 0, "max_messages": 0, "max_age_ns": 0, "keep_from_offset": EVERYTHING} | given
    return RetentionLimits(**fields)


def offsets_in(data: bytes) -> list[int]:
    """The offsets of the records in what ``read`` returned."""
    return [record.offset for batch in iter_batches(data) for record in iter_records(batch.data[HEADER_BYTES:])]


def read_all(log: PartitionLog) -> list[int]:
    """Every offset, read in steps, as a subscriber from the start would."""
    offsets: list[int] = []
    offset = log.start_offset
    while data := log.read(offset, stop=EVERYTHING, max_bytes=200):
        batches = list(iter_batches(data))
        offsets += offsets_in(data)
        offset = batches[-1].end_offset
    return offsets


class OpeningStorage:
    """The fixtures that suites of log storages share. ``open_storage`` must be overridden."""

    @pytest.fixture
    def open_storage(self) -> OpenStorage:
        raise NotImplementedError("override the fixture open_storage")

    @pytest.fixture
    def storage(self, open_storage: OpenStorage) -> LogStorage:
        return open_storage()
