"""What the segment log promises (reference: the storage page, section 14), on real files."""

import errno
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import google_crc32c
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from liftbridge.errors import DiskFull, LogClosed, LogDamaged, LogDeleted, OffsetOutOfRange, ProtocolError, StorageError
from liftbridge.interfaces.index import IndexStorage
from liftbridge.interfaces.log import EpochStart, LogId, LogSettings, PartitionLog, RetentionLimits
from liftbridge.interfaces.records import RecordBatch
from liftbridge.protocol.record_batch import encode_batch, iter_batches
from liftbridge.protocol.record_encoding import encode_records, encode_trailer
from liftbridge_storage_lmdb.index import LmdbIndexStorage
from liftbridge_storage_segments import log as log_module
from liftbridge_storage_segments import summary as summary_module
from liftbridge_storage_segments.files import Files
from liftbridge_storage_segments.log import SegmentedLog
from liftbridge_storage_segments.storage import SegmentStorage

ID = LogId(7, 0)
SMALL = LogSettings(segment_max_bytes=1000)
LARGE = LogSettings(segment_max_bytes=1 << 30)
UNBOUNDED = 1 << 62


def batch(base: int, count: int = 1, *, epoch: int = 1, time: int | None = None) -> RecordBatch:
    now = 1000 + base if time is None else time
    trailer = encode_trailer(timestamp_ns=now, stream="s", partition=0, subject="s", reply="")
    body = encode_records([b"\x1a\x04%04d" % (base + i) for i in range(count)], 6, base_offset=base, trailer=trailer)
    return encode_batch(
        body, base_offset=base, end_offset=base + count, record_count=count, leader_epoch=epoch, timestamp_ns=now
    )


class Disk:
    """A data directory, opened again and again."""

    def __init__(self, path: Path, files: Files | None = None) -> None:
        self.path = path
        self.files = files
        self.index: IndexStorage | None = None
        self.storage: SegmentStorage | None = None

    def open(self, log_settings: LogSettings = SMALL) -> PartitionLog:
        self.crash()
        self.index = LmdbIndexStorage(self.path / "index", max_bytes=1 << 24)
        self.storage = SegmentStorage(self.path, self.index, index_interval_bytes=256, files=self.files)
        return self.storage.open(ID, log_settings)

    def crash(self) -> None:
        """Like a kill: nothing is closed but the lock."""
        if self.storage is not None:
            self.storage._logs.clear()
            self.storage.close()
            self.storage = None
            assert self.index is not None
            self.index.close()

    def segments(self) -> list[Path]:
        return sorted((self.path / "streams" / "7-0").glob("*.log"))


@pytest.fixture
def disk(tmp_path: Path):
    disk = Disk(tmp_path)
    yield disk
    disk.crash()


def fill(log: PartitionLog, count: int, *, start: int = 0) -> list[RecordBatch]:
    batches = [batch(offset) for offset in range(start, start + count)]
    for one in batches:
        log.append([one])
    return batches


def read_all(log: PartitionLog, offset: int | None = None) -> list[RecordBatch]:
    position = log.start_offset if offset is None else offset
    found: list[RecordBatch] = []
    while data := log.read(position, stop=UNBOUNDED, max_bytes=300):
        found += iter_batches(data)
        position = found[-1].end_offset
    return found


def test_what_was_appended_is_read_from_every_offset_and_after_a_crash(disk: Disk) -> None:
    log = disk.open()
    batches = [batch(0, 3), batch(3), batch(4, 10), *(batch(14 + i) for i in range(30))]
    log.append(batches[:2])
    for one in batches[2:]:
        log.append([one])
    assert len(disk.segments()) > 2
    for reopened in (log, disk.open()):
        assert (reopened.start_offset, reopened.end_offset) == (0, 44)
        for offset in range(44):
            assert read_all(reopened, offset) == [one for one in batches if one.end_offset > offset]
        assert reopened.read(44, stop=UNBOUNDED, max_bytes=100) == b""
        assert list(iter_batches(reopened.read(3, stop=4, max_bytes=10**6))) == [batches[1]]


def test_appends_must_be_contiguous(disk: Disk) -> None:
    log = disk.open()
    fill(log, 2)
    for wrong in (0, 1, 3):
        with pytest.raises(ValueError):
            log.append([batch(wrong)])
    log.append([batch(5)], after_gap=True)
    assert [one.base_offset for one in read_all(log, 2)] == [5]


def test_a_tail_torn_at_any_byte_is_cut_and_the_rest_is_there(disk: Disk) -> None:
    batches = fill(disk.open(LogSettings()), 3)
    disk.crash()
    (path,) = disk.segments()
    data = path.read_bytes()
    last = len(batches[2].data)
    for torn in range(1, last + 1):
        path.write_bytes(data[:-torn])
        log = disk.open(LogSettings())
        assert read_all(log) == batches[:2]
        log.append([batches[2]])
        assert read_all(log) == batches
        disk.crash()


@pytest.mark.parametrize("tail", [bytes(5000), b"\xff" * 5000, b"\x01" * 47])
def test_garbage_behind_the_last_batch_is_cut(disk: Disk, tail: bytes) -> None:
    batches = fill(disk.open(LogSettings()), 3)
    disk.crash()
    (path,) = disk.segments()
    path.write_bytes(path.read_bytes() + tail)
    assert read_all(disk.open(LogSettings())) == batches
    disk.crash()
    assert path.stat().st_size == sum(len(one.data) for one in batches)


@pytest.mark.parametrize("clean", [True, False])
def test_no_flipped_bit_is_ever_read_as_data(disk: Disk, clean: bool) -> None:
    log = disk.open(LogSettings())
    batches = fill(log, 3)
    if clean:
        log.close()
    disk.crash()
    (path,) = disk.segments()
    data = path.read_bytes()
    last = len(data) - len(batches[-1].data)
    for byte in range(len(data)):
        path.write_bytes(data[:byte] + bytes((data[byte] ^ 1 << byte % 8,)) + data[byte + 1 :])
        try:
            found = read_all(disk.open(LogSettings()))
        except (LogDamaged, ProtocolError):
            assert path.read_bytes() != data, "nothing is repaired in silence"
        else:
            assert byte >= last, f"byte {byte}"
            assert not clean
            assert found == batches[:2]
        disk.crash()


def test_a_missing_segment_is_damage(disk: Disk) -> None:
    fill(disk.open(), 40)
    disk.crash()
    disk.segments()[1].unlink()
    for summary in disk.path.glob("streams/*/*.summary"):
        summary.unlink()
    with pytest.raises(LogDamaged, match="missing"):
        disk.open()


def test_summaries_and_index_are_only_caches(disk: Disk) -> None:
    log = disk.open()
    batches = fill(log, 40)
    times = [log.offset_for_time(1000 + offset) for offset in range(40)]
    log.close()
    disk.crash()
    for path in [*disk.path.glob("streams/*/*.summary"), *disk.path.glob("index/*")]:
        path.unlink()
    again = disk.open()
    assert read_all(again) == batches
    assert [again.offset_for_time(1000 + offset) for offset in range(40)] == times == list(range(40))


def valid(content: bytes) -> bytes:
    return google_crc32c.value(content).to_bytes(4, "big") + content


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"x",
        b"\0" * 4 + b"{}",
        valid(b"{}"),
        valid(b'{"base_offset": 0, "end_offset": 0, "epochs": [], "more": 1}'),
    ],
)
def test_a_summary_that_is_broken_or_of_another_version_is_ignored(disk: Disk, junk: bytes) -> None:
    log = disk.open()
    batches = fill(log, 40)
    log.close()
    disk.crash()
    for path in disk.path.glob("streams/*/*.summary"):
        path.write_bytes(junk)
    assert read_all(disk.open()) == batches


def test_time_lookups_with_equal_times_and_an_empty_active_segment(disk: Disk) -> None:
    log = disk.open(LogSettings(segment_max_age_ns=1))
    for offset, time in enumerate([10, 20, 20, 20, 30]):
        log.append([batch(offset, time=time)])
    assert log.roll_if_due(1000)
    assert [log.offset_for_time(time) for time in (0, 10, 11, 20, 21, 30, 31)] == [0, 0, 1, 1, 4, 4, None]
    assert log.last_timestamp_ns == 30
    assert not log.roll_if_due(1000), "an empty segment doesn't roll"


def test_truncation_at_every_offset_survives_reopening(disk: Disk) -> None:
    for end in range(0, 21, 1):
        log = disk.open()
        while log.end_offset < 20:
            log.append([batch(log.end_offset, min(4, 20 - log.end_offset), epoch=1 + log.end_offset // 8)])
        log.truncate(end)
        assert log.end_offset == end
        reopened = disk.open()
        assert reopened.end_offset == end
        assert [one.end_offset for one in read_all(reopened)][-1:] == ([end] if end else [])
        assert all(one.start_offset <= end for one in reopened.epochs)


@pytest.mark.parametrize("reopen", [False, True], ids=["same log", "closed before"])
def test_what_is_known_after_a_truncation_is_what_a_scan_of_everything_finds(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reopen: bool
) -> None:
    monkeypatch.setattr(summary_module, "_MARK_BYTES", 300)
    one_segment = LogSettings(segment_max_bytes=1 << 20)
    log = disk.open(one_segment)
    while log.end_offset < 60:
        log.append([batch(log.end_offset, 3, epoch=1 + log.end_offset // 7, time=1000 + log.end_offset)])
    for end in (57, 53, 38, 37, 22, 21, 20, 3, 1):
        if reopen:
            log.close()
            log = disk.open(one_segment)
        log.truncate(end)
        copy = Disk(tmp_path / f"copy{end}")
        shutil.copytree(tmp_path / "streams", copy.path / "streams")
        for summary in (copy.path / "streams").glob("*/*.summary"):
            summary.unlink()
        assert known(log) == known(copy.open(one_segment))
        copy.crash()


def known(log: PartitionLog) -> list[object]:
    assert isinstance(log, SegmentedLog)
    return [
        (one.base_offset, one.end_offset, one.size_bytes, one.record_count, one.first_timestamp_ns,
         one.last_timestamp_ns, one.epochs)
        for one in log.segments
    ]  # fmt: skip


class CountingFiles(Files):
    read_bytes = 0

    def read(self, path: Path, size: int, position: int) -> bytes:
        data = super().read(path, size, position)
        self.read_bytes += len(data)
        return data


def large_segment(
    path: Path, monkeypatch: pytest.MonkeyPatch, *, each: Callable[[PartitionLog], None] = lambda _: None
) -> tuple[CountingFiles, Disk, PartitionLog]:
    """9,000 records in one segment with a mark every 10,000 bytes; ``each`` is done after each append."""
    monkeypatch.setattr(summary_module, "_MARK_BYTES", 10_000)
    files = CountingFiles()
    disk = Disk(path, files)
    log = disk.open(LARGE)
    while log.end_offset < 9000:
        log.append([batch(log.end_offset, 50)])
        each(log)
    return files, disk, log


def test_a_truncation_reads_little_of_a_large_segment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each failover some replica drops records, and its event loop waits for it."""
    files, disk, log = large_segment(tmp_path, monkeypatch)
    assert log.size_bytes > 300_000
    for _ in range(2):
        files.read_bytes = 0
        log.truncate(log.end_offset - 75)
        assert 0 < files.read_bytes < 40_000
        log.close()
        log = disk.open(LARGE)
    disk.crash()


def test_a_log_that_is_made_again_is_written_to_its_own_file(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when a reader in another thread opened the old one at the last moment."""
    files = disk.files = Files()
    log = disk.open()
    fill(log, 5)
    (path,) = disk.segments()
    assert disk.storage is not None
    assert isinstance(log, SegmentedLog)
    delete = log._index.delete

    def delete_while_it_is_read() -> None:
        delete()
        files.open(path)

    monkeypatch.setattr(log._index, "delete", delete_while_it_is_read)
    log.delete()
    again = disk.storage.open(ID, SMALL)
    fill(again, 5)
    assert path.stat().st_size == again.size_bytes > 0


def test_marks_are_kept_only_where_a_truncation_is_likely(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary_module, "_MARK_BYTES", 300)
    log = disk.open(SMALL)

    def counts() -> list[int]:
        assert isinstance(log, SegmentedLog)
        return [len(one._summary.marks) for one in log.segments]

    while len(disk.segments()) < 4 or counts()[-1] == 0:
        log.append([batch(log.end_offset)])
    assert [bool(count) for count in counts()] == [False, False, True, True]
    log.close()
    log = disk.open(SMALL)
    assert [bool(count) for count in counts()] == [False, False, False, True]


def test_after_a_checkpoint_a_crash_leaves_little_to_scan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "_CHECKPOINT_BYTES", 100_000)
    files, disk, log = large_segment(tmp_path, monkeypatch, each=lambda log: log.checkpoint())
    before = known(log)
    files.read_bytes = 0
    log = disk.open(LARGE)
    assert 0 < files.read_bytes < 140_000
    assert known(log) == before
    assert [one.base_offset for one in read_all(log)] == list(range(0, 9000, 50))
    disk.crash()


def test_checkpoints_meet_appends_rolls_truncations_and_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summary_module, "_MARK_BYTES", 100)
    monkeypatch.setattr(log_module, "_CHECKPOINT_BYTES", 200)
    disk = Disk(tmp_path)
    log = disk.open(LogSettings(segment_max_bytes=2000))

    def checkpoint_on_and_on() -> None:
        with pytest.raises(LogClosed):
            while True:
                log.checkpoint()

    with ThreadPoolExecutor(1) as pool:
        checkpoints = pool.submit(checkpoint_on_and_on)
        for turn in range(300):
            for _ in range(5):
                log.append([batch(log.end_offset, 3)])
            log.truncate(log.end_offset - turn % 14)
            if turn % 10 == 9:
                expected = known(log)
                log.close()
                checkpoints.result(timeout=10)
                log = disk.open(LogSettings(segment_max_bytes=2000))
                assert known(log) == expected
                checkpoints = pool.submit(checkpoint_on_and_on)
        log.close()
        checkpoints.result(timeout=10)
    disk.crash()


def test_epochs_are_kept_from_the_batches(disk: Disk) -> None:
    log = disk.open()
    for offset, epoch in enumerate([3, 3, 5, 5, 5, 9] * 1):
        log.append([batch(offset, epoch=epoch)])
    expected = [EpochStart(3, 0), EpochStart(5, 2), EpochStart(9, 5)]
    assert list(log.epochs) == expected
    log.close()
    assert list(disk.open().epochs) == expected


def test_retention_drops_whole_old_segments_and_never_uncommitted_ones(disk: Disk) -> None:
    log = disk.open(LogSettings(segment_max_bytes=1))
    fill(log, 10)

    def limits(**given_limits: int) -> RetentionLimits:
        return RetentionLimits(
            **{"max_bytes": 0, "max_messages": 0, "max_age_ns": 0, "keep_from_offset": 10} | given_limits
        )

    assert log.apply_retention(limits(), 10**18) == 0
    assert log.apply_retention(limits(max_messages=8), 0) == 2
    assert log.apply_retention(limits(max_bytes=log.size_bytes - 1), 0) == 3
    assert log.apply_retention(limits(max_age_ns=1000), 2005) == 5
    assert log.apply_retention(limits(max_messages=1, keep_from_offset=7), 0) == 7
    assert log.apply_retention(limits(max_age_ns=1), 10**18) == 9, "the active segment stays"
    with pytest.raises(OffsetOutOfRange):
        log.read(8, stop=UNBOUNDED, max_bytes=100)
    assert disk.open().start_offset == 9


class FaultyFiles(Files):
    """Writes stop after ``room`` bytes."""

    room: int | None = None

    def write(self, path: Path, data: bytes, position: int) -> None:
        if self.room is not None and len(data) > self.room:
            super().write(path, data[: self.room], position)
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write(path, data, position)


def test_a_full_disk_refuses_and_leaves_the_log_as_it_was(tmp_path: Path) -> None:
    files = FaultyFiles()
    disk = Disk(tmp_path, files)
    log = disk.open(LogSettings())
    batches = fill(log, 2)
    for room in range(0, len(batches[0].data), 7):
        files.room = room
        with pytest.raises(DiskFull):
            log.append([batch(2)])
        assert read_all(log) == batches
    files.room = None
    log.append([batch(2)])
    assert len(read_all(disk.open(LogSettings()))) == 3
    disk.crash()


def test_whether_there_is_room_is_found_out_without_storing_anything(tmp_path: Path) -> None:
    files = FaultyFiles()
    disk = Disk(tmp_path, files)
    log = disk.open(LogSettings())
    batches = fill(log, 2)
    log.check_room(5000)
    files.room = 4999
    with pytest.raises(DiskFull):
        log.check_room(5000)
    files.room = None
    assert read_all(log) == batches
    log.append([batch(2)])
    assert len(read_all(disk.open(LogSettings()))) == 3
    disk.crash()


def test_closed_and_deleted_logs_say_so(disk: Disk) -> None:
    log = disk.open()
    fill(log, 2)
    log.close()
    for call in (lambda: log.read(0, stop=1, max_bytes=1), lambda: log.append([batch(2)])):
        with pytest.raises(LogClosed):
            call()
    again = disk.open()
    again.delete()
    with pytest.raises(LogDeleted):
        again.read(0, stop=1, max_bytes=1)
    assert disk.storage is not None
    assert disk.storage.list_logs() == []


def test_a_second_server_on_the_same_directory_is_refused(disk: Disk, tmp_path: Path) -> None:
    disk.open()
    other = SegmentStorage(tmp_path, LmdbIndexStorage(tmp_path / "other", max_bytes=1 << 20))
    with pytest.raises(StorageError, match="in use by another server"):
        other.open(ID, SMALL)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("append"), st.integers(1, 5)),
            st.tuples(st.just("truncate"), st.integers(0, 40)),
            st.tuples(st.just("close"), st.just(0)),
            st.tuples(st.just("crash"), st.just(0)),
        ),
        max_size=25,
    )
)
def test_any_history_reads_like_the_model(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    disk = Disk(tmp_path_factory.mktemp("model"))
    log, end = disk.open(LogSettings(segment_max_bytes=400)), 0
    for step, number in steps:
        if step == "append":
            log.append([batch(end, number)])
            end += number
        elif step == "truncate":
            log.truncate(number)
            end = min(end, number)
        else:
            if step == "close":
                log.close()
            log = disk.open(LogSettings(segment_max_bytes=400))
        assert log.end_offset == end
        found = read_all(log)
        assert [one.base_offset for one in found] == [0, *(one.end_offset for one in found[:-1])][: len(found)]
        assert (found[-1].end_offset if found else 0) == end
    disk.crash()
