"""The segment log when the process, the disk or single bits fail: at every operation, at every bit."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from liftbridge.errors import DiskFull, LogClosed, LogDamaged, ProtocolError, StorageError
from liftbridge.interfaces.log import LogId, LogSettings, PartitionLog
from liftbridge.protocol.record_batch import iter_batches
from liftbridge.testing.batches import make_batch
from liftbridge.testing.faults import Crash, FaultyOs
from liftbridge.testing.log_suite import EVERYTHING, fill, limits, read_all
from liftbridge.testing.memory_index import MemoryIndexStorage
from liftbridge_storage_segments import files as files_module
from liftbridge_storage_segments import log as log_module
from liftbridge_storage_segments import summary as summary_module
from liftbridge_storage_segments.files import Files
from liftbridge_storage_segments.segment import SUMMARY_SUFFIX
from liftbridge_storage_segments.storage import SegmentStorage

ID = LogId(7, 0)
SMALL = LogSettings(segment_max_bytes=300, segment_max_age_ns=1)
ONE_SEGMENT = LogSettings()


@contextmanager
def opened(directory: Path, settings: LogSettings) -> Iterator[PartitionLog]:
    """The log, as after a start; at the end only the lock is let go, as by a kill."""
    storage = SegmentStorage(directory, MemoryIndexStorage(), index_interval_bytes=100)
    try:
        yield storage.open(ID, settings)
    finally:
        storage._logs.clear()
        storage.close()


@pytest.fixture(autouse=True)
def _frequent_marks_and_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary_module, "_MARK_BYTES", 100)
    monkeypatch.setattr(log_module, "_CHECKPOINT_BYTES", 100)


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("streams/7-0/*.log"))


# --- the process ends, or the disk refuses, at any operation ------------------------------------------------------


class Extent(NamedTuple):
    start: int
    end: int


class Step(NamedTuple):
    name: str
    run: Callable[[PartitionLog], object]


STEPS = [
    Step("append", lambda log: log.append([make_batch(log.end_offset, 3)])),
    Step("append several", lambda log: log.append([make_batch(log.end_offset, 2), make_batch(log.end_offset + 2, 1)])),
    Step("roll", lambda log: log.append([make_batch(log.end_offset + n * 3, 3) for n in range(4)])),
    Step("append after the roll", lambda log: log.append([make_batch(log.end_offset, 3)])),
    Step("roll by age", lambda log: log.roll_if_due(1 << 60)),
    Step("append after the roll by age", lambda log: log.append([make_batch(log.end_offset, 6)])),
    Step("sync", lambda log: log.sync()),
    Step("append before the checkpoint", lambda log: log.append([make_batch(log.end_offset, 3)])),
    Step("checkpoint", lambda log: log.checkpoint()),
    Step("truncate inside the first batch of a segment", lambda log: log.truncate(log.end_offset - 2)),
    Step("truncate at the edge of a batch", lambda log: log.truncate(15)),
    Step("truncate inside a batch", lambda log: log.truncate(10)),
    Step("grow", lambda log: fill(log, 12, count=3)),
    Step("retain", lambda log: log.apply_retention(limits(max_messages=20), 0)),
    Step("truncate several segments", lambda log: log.truncate(log.start_offset + 7)),
    Step("append at the end", lambda log: log.append([make_batch(log.end_offset, 3)])),
    Step("close", lambda log: log.close()),
]


def extents_of_the_steps(directory: Path) -> list[Extent]:
    """What the log holds before each step, and after the last."""
    extents = []
    with opened(directory, SMALL) as log:
        for step in STEPS:
            extents.append(Extent(log.start_offset, log.end_offset))
            step.run(log)
        extents.append(Extent(log.start_offset, log.end_offset))
    return extents


def run_steps(directory: Path, begun: list[Step]) -> None:
    """All of them; ``begun`` tells how far it came."""
    with opened(directory, SMALL) as log:
        for step in STEPS:
            begun.append(step)
            step.run(log)


def extents_around(extents: list[Extent], begun: list[Step]) -> tuple[Extent, Extent]:
    """Before and after the last step that was begun."""
    return extents[max(0, len(begun) - 1)], extents[len(begun)]


def check_between(directory: Path, before: Extent, after: Extent) -> None:
    """Opening shows what was there before the step, after it, or a state on the way; and the log goes on."""
    with opened(directory, SMALL) as log:
        assert before.start <= log.start_offset <= after.start
        assert min(before.end, after.end) <= log.end_offset <= max(before.end, after.end)
        assert read_all(log) == list(range(log.start_offset, log.end_offset))
        leftovers = [path.name for path in directory.glob("streams/7-0/*.new")]
        assert leftovers == []
        start, end = log.start_offset, log.end_offset
        fill(log, 2)
    with opened(directory, SMALL) as log:
        assert read_all(log) == list(range(start, end + 4))


def test_a_crash_at_any_operation_leaves_the_state_before_or_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extents = extents_of_the_steps(tmp_path / "plan")
    crashed_in: set[str] = set()
    for crash_at in range(10_000):
        directory = tmp_path / str(crash_at)
        faults = FaultyOs(crash_at=crash_at)
        begun: list[Step] = []
        with monkeypatch.context() as patch:
            patch.setattr(files_module, "os", faults)
            try:
                run_steps(directory, begun)
                break
            except Crash:
                pass
        crashed_in |= {step.name for step in begun[-1:]}
        check_between(directory, *extents_around(extents, begun))
    assert crashed_in == {step.name for step in STEPS}


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_an_error_at_any_operation_is_a_storage_error_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    extents = extents_of_the_steps(tmp_path / "plan")
    for fail_at in range(10_000):
        directory = tmp_path / str(fail_at)
        faults = FaultyOs(fail_at=fail_at, error=error)
        begun: list[Step] = []
        with monkeypatch.context() as patch:
            patch.setattr(files_module, "os", faults)
            try:
                run_steps(directory, begun)
            except StorageError as raised:
                assert str(directory) in str(raised)
                assert os.strerror(error) in str(raised)
        if len(faults.calls) <= fail_at:
            break
        check_between(directory, *extents_around(extents, begun))


def test_a_crash_at_any_operation_of_a_deletion_leaves_all_of_the_log_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = set()
    for crash_at in range(1000):
        directory = tmp_path / str(crash_at)
        with opened(directory, SMALL) as log:
            fill(log, 10)
        with opened(directory, SMALL) as log, monkeypatch.context() as patch:
            patch.setattr(files_module, "os", FaultyOs(crash_at=crash_at))
            try:
                log.delete()
            except Crash:
                pass
            else:
                break
        with opened(directory, SMALL) as log:
            outcomes.add(log.end_offset)
            assert read_all(log) == list(range(log.end_offset))
            assert [path.name for path in directory.glob("streams/deleted-*")] == []
    assert outcomes == {0, 20}


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_a_failed_append_leaves_the_log_as_it_was_and_usable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    with opened(tmp_path, ONE_SEGMENT) as log:
        fill(log, 2)
        with monkeypatch.context() as patch:
            patch.setattr(files_module, "os", FaultyOs(fail_at=0, error=error))
            with pytest.raises(DiskFull if error == errno.ENOSPC else StorageError):
                log.append([make_batch(4, 5)])
        assert (log.end_offset, read_all(log)) == (4, [0, 1, 2, 3])
        fill(log, 1)
        assert read_all(log) == list(range(6))


def test_after_a_short_write_of_any_length_the_rest_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = make_batch(0, 2)
    for length in range(1, len(batch.data)):

        class ShortOs(FaultyOs):
            def pwrite(self, descriptor: int, data: bytes, position: int, most: int = length) -> int:
                return os.pwrite(descriptor, data[:most], position)

        with opened(tmp_path / str(length), ONE_SEGMENT) as log, monkeypatch.context() as patch:
            patch.setattr(files_module, "os", ShortOs())
            log.append([batch])
            assert log.read(0, stop=2, max_bytes=1) == batch.data


def test_a_failed_sync_poisons_the_log_and_reading_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path, ONE_SEGMENT) as log:
        fill(log, 2)
        with monkeypatch.context() as patch:
            patch.setattr(files_module, "os", FaultyOs(fail_at=0, error=errno.EIO))
            with pytest.raises(StorageError):
                log.sync()
        with pytest.raises(StorageError, match="takes nothing more"):
            log.append([make_batch(4)])
        with pytest.raises(StorageError):
            log.sync()
        assert read_all(log) == [0, 1, 2, 3]


def test_a_failed_sync_while_rolling_poisons_the_log_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path, SMALL) as log:
        fill(log, 2)
        with monkeypatch.context() as patch:
            patch.setattr(files_module, "os", FaultyOs(fail_at=0, error=errno.EIO))
            with pytest.raises(StorageError):
                log.roll_if_due(1 << 60)
        with pytest.raises(StorageError, match="takes nothing more"):
            log.append([make_batch(4)])


def test_a_log_that_cannot_be_closed_cleanly_leaves_no_other_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = SegmentStorage(tmp_path, MemoryIndexStorage())
    logs = [storage.open(LogId(number, 0), ONE_SEGMENT) for number in range(3)]
    for log in logs:
        fill(log, 2)
    with monkeypatch.context() as patched:
        patched.setattr(files_module, "os", FaultyOs(fail_at=0, error=errno.EIO))
        with pytest.raises(StorageError, match="sync"):
            storage.close()
    for log in logs:
        with pytest.raises(LogClosed):
            log.append([make_batch(4)])
    again = SegmentStorage(tmp_path, MemoryIndexStorage())  # the lock is free
    assert all(read_all(again.open(LogId(number, 0), ONE_SEGMENT)) == [0, 1, 2, 3] for number in range(3))
    again.close()


def test_an_append_whose_failure_cannot_be_undone_closes_the_log_for_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class BrokenOs(FaultyOs):
        def ftruncate(self, descriptor: int, size: int) -> None:
            raise OSError(errno.EIO, "the disk is gone")

    with opened(tmp_path, ONE_SEGMENT) as log:
        fill(log, 2)
        with monkeypatch.context() as patch:
            patch.setattr(files_module, "os", BrokenOs(fail_at=0, error=errno.EIO))
            with pytest.raises(StorageError):
                log.append([make_batch(4)])
        with pytest.raises(StorageError, match="couldn't be undone"):
            log.append([make_batch(4)])
        assert read_all(log) == [0, 1, 2, 3]
    with opened(tmp_path, ONE_SEGMENT) as log:
        assert read_all(log) == [0, 1, 2, 3]


# --- bits flip ------------------------------------------------------------------------------------------------------


def _read_everywhere(log: PartitionLog, end_offset: int) -> None:
    """At each offset: records that verify and hold it, or an error of the two kinds that mean damage."""
    for offset in range(end_offset):
        with suppress(ProtocolError, LogDamaged):
            batches = list(iter_batches(log.read(offset, stop=EVERYTHING, max_bytes=1)))
            assert batches, f"nothing at offset {offset}, without an error"
            assert batches[0].base_offset <= offset < batches[0].end_offset
            assert batches[0] == make_batch(batches[0].base_offset, 3)


@pytest.mark.parametrize("clean", [True, False])
def test_any_flipped_bit_of_the_active_segment_is_noticed(tmp_path: Path, clean: bool) -> None:
    with opened(tmp_path, ONE_SEGMENT) as log:
        batches = fill(log, 3, count=3)
        if clean:
            log.close()
    (path,) = segments(tmp_path)
    data = path.read_bytes()
    summary = path.with_suffix(SUMMARY_SUFFIX)
    summary_data = summary.read_bytes() if clean else None
    last = len(data) - len(batches[-1].data)
    for bit in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            with opened(tmp_path, ONE_SEGMENT) as log:
                if not clean:
                    assert bit // 8 >= last
                    assert read_all(log) == list(range(6))
                    continue
                assert log.end_offset == 9
                with pytest.raises((ProtocolError, LogDamaged)):
                    read_all(log)
                _read_everywhere(log, 9)
        except LogDamaged:
            assert clean or bit // 8 < last
        assert path.read_bytes() == flipped, "damage changes nothing on the disk"
        assert (summary.read_bytes() if clean else None) == summary_data


def test_any_flipped_bit_of_a_sealed_segment_is_noticed_and_leaves_the_others_readable(tmp_path: Path) -> None:
    with opened(tmp_path, SMALL) as log:
        fill(log, 6, count=3)
        end_offset = log.end_offset
    path = segments(tmp_path)[0]
    data = path.read_bytes()
    for bit in range(0, len(data) * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with opened(tmp_path, SMALL) as log:
            _read_everywhere(log, end_offset)
            assert list(iter_batches(log.read(end_offset - 1, stop=EVERYTHING, max_bytes=1)))
        assert path.read_bytes() == flipped


# --- files go missing or are left over --------------------------------------------------------------------------------


@pytest.mark.parametrize("with_summaries", [True, False])
def test_a_missing_middle_segment_is_damage(tmp_path: Path, with_summaries: bool) -> None:
    with opened(tmp_path, SMALL) as log:
        fill(log, 20)
        log.close()
    segments(tmp_path)[1].unlink()
    if not with_summaries:
        for summary in tmp_path.glob("streams/7-0/*" + SUMMARY_SUFFIX):
            summary.unlink()
    with pytest.raises(LogDamaged, match="missing"), opened(tmp_path, SMALL):
        pass


@pytest.mark.parametrize("number", [0, -1])
def test_a_segment_that_is_shorter_than_what_was_vouched_for_is_damage(tmp_path: Path, number: int) -> None:
    with opened(tmp_path, SMALL) as log:
        fill(log, 20)
        log.close()
    path = segments(tmp_path)[number]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(LogDamaged, match="missing"), opened(tmp_path, SMALL):
        pass


class SyncedFiles(Files):
    """Remembers how much of each file a loss of power would leave for sure."""

    def __init__(self) -> None:
        super().__init__()
        self.synced_bytes: dict[Path, int] = {}

    def sync(self, path: Path) -> None:
        self.synced_bytes[path] = self.size(path)
        super().sync(path)


@pytest.mark.parametrize("kept_unsynced", [0, 1, 100, 1000])
def test_a_checkpoint_vouches_for_nothing_that_a_loss_of_power_takes(tmp_path: Path, kept_unsynced: int) -> None:
    files = SyncedFiles()
    storage = SegmentStorage(tmp_path, MemoryIndexStorage(), index_interval_bytes=100, files=files)
    log = storage.open(ID, ONE_SEGMENT)
    fill(log, 50)
    log.checkpoint()
    covered = log.end_offset
    fill(log, 50)
    storage._logs.clear()
    storage.close()
    (path,) = segments(tmp_path)
    os.truncate(path, files.synced_bytes[path] + kept_unsynced)
    with opened(tmp_path, ONE_SEGMENT) as again:
        assert again.end_offset >= covered
        assert read_all(again) == list(range(again.end_offset))


def test_leftovers_are_removed_and_strangers_left_alone(tmp_path: Path) -> None:
    with opened(tmp_path, SMALL) as log:
        fill(log, 3)
    directory = tmp_path / "streams" / "7-0"
    (directory / "00000000000000000002.log.new").write_bytes(b"half")
    (directory / "00000000000000009999.summary").write_bytes(b"of nothing")
    (directory / "notes.log").write_text("an operator's")
    (tmp_path / "streams" / "deleted-3-0").mkdir()
    (tmp_path / "streams" / "deleted-3-0" / "00000000000000000000.log").write_bytes(b"doomed")
    with opened(tmp_path, SMALL) as log:
        assert read_all(log) == list(range(6))
    assert not (tmp_path / "streams" / "deleted-3-0").exists()
    names = sorted(path.name for path in directory.iterdir())
    assert not [name for name in names if name.endswith(".new") or "9999" in name]
    assert "notes.log" in names


# --- a real process dies ----------------------------------------------------------------------------------------------

_CHILD = """
import sys
from pathlib import Path
from liftbridge.interfaces.log import LogId, LogSettings
from liftbridge.testing.batches import make_batch
from liftbridge.testing.memory_index import MemoryIndexStorage
from liftbridge_storage_segments.storage import SegmentStorage

storage = SegmentStorage(Path(sys.argv[1]), MemoryIndexStorage())
log = storage.open(LogId(7, 0), LogSettings(segment_max_bytes=20_000))
while True:
    log.append([make_batch(log.end_offset, 1 + log.end_offset % 7)])
    sys.stdout.write(f"{log.end_offset}\\n")
    sys.stdout.flush()
"""


@pytest.mark.slow
def test_nothing_acknowledged_is_lost_when_the_process_is_killed_again_and_again(tmp_path: Path) -> None:
    acknowledged = 0
    for kill_after in range(1, 400, 40):
        with subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            for _ in range(kill_after):
                acknowledged = int(child.stdout.readline())
            child.send_signal(signal.SIGKILL)
            for line in child.stdout:  # what it said before it died
                if line.endswith("\n"):
                    acknowledged = int(line)
        with opened(tmp_path, LogSettings(segment_max_bytes=20_000)) as log:
            assert log.end_offset >= acknowledged
            assert read_all(log) == list(range(log.end_offset))
