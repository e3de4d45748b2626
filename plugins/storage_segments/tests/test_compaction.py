"""Compaction of segment files when the process or the disk fails, when readers are in the middle, and what it leaves."""

import errno
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from liftbridge.errors import DiskFull, LogDamaged, StorageError
from liftbridge.interfaces.log import LogId, LogSettings, PartitionLog
from liftbridge.testing.batches import make_keyed_batch
from liftbridge.testing.compaction_suite import compact, fill, last_of_each_key, offsets, read_records
from liftbridge.testing.faults import Crash, FaultyOs
from liftbridge.testing.log_suite import EVERYTHING
from liftbridge.testing.memory_index import MemoryIndexStorage
from liftbridge_storage_segments import files as files_module
from liftbridge_storage_segments.dump import dump_log
from liftbridge_storage_segments.segment import Segment
from liftbridge_storage_segments.storage import SegmentStorage

ID = LogId(7, 0)
#: Some segments are rewritten alone, others merged.
SMALL = LogSettings(segment_max_bytes=400)
ONE_SEGMENT = LogSettings()
_KEYS = "abcab.aaaaaaab.ccaadefaa"


@contextmanager
def opened(directory: Path, settings: LogSettings = SMALL) -> Iterator[PartitionLog]:
    """The log, as after a start; at the end only the lock is let go, as by a kill."""
    storage = SegmentStorage(directory, MemoryIndexStorage(), index_interval_bytes=100)
    try:
        yield storage.open(ID, settings)
    finally:
        storage._logs.clear()
        storage.close()


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "streams" / "7-0").iterdir())


@pytest.fixture
def filled(tmp_path: Path) -> Callable[[int], Path]:
    """Makes copies of a log with some small segments next to larger ones, all to be compacted."""
    with opened(tmp_path / "filled") as log:
        fill(log, _KEYS[:12])
        compact(log, force=True)
        fill(log, _KEYS[12:])

    def copy(number: int) -> Path:
        return Path(shutil.copytree(tmp_path / "filled", tmp_path / str(number)))

    return copy


def check_after_a_failure(directory: Path) -> None:
    """All that must be there is, nothing else than what was, and another pass finishes the work."""
    with opened(directory) as log:
        end_offset = log.end_offset
        found = read_records(log)
        everything = [offset for offset, _ in enumerate(_KEYS)]
        assert set(offsets(found)) <= set(everything)
        assert [name for name in names(directory) if not name.endswith((".log", ".summary"))] == []
        compact(log, force=True)
        assert log.end_offset == end_offset == len(_KEYS)
        assert {one.key: one.offset for one in read_records(log) if one.key} == {
            letter.encode(): _KEYS.rindex(letter) for letter in set(_KEYS) - {"."}
        }
        assert {one.offset for one in found if not one.key} == {5, 14}
        fill(log, "xyz")
    with opened(directory) as log:
        assert log.end_offset == len(_KEYS) + 3


def test_a_crash_at_any_operation_leaves_each_segment_as_it_was_or_as_it_is(
    filled: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    crashed_in: set[str] = set()
    for crash_at in range(1000):
        directory = filled(crash_at)
        with opened(directory) as log:
            must_stay = set(last_of_each_key(read_records(log), log.end_offset))
            faults = FaultyOs(crash_at=crash_at)
            with monkeypatch.context() as patch:
                patch.setattr(files_module, "os", faults)
                try:
                    compact(log, max_keys=5)
                except Crash:
                    crashed_in.add(faults.calls[crash_at])
                else:
                    break
        with opened(directory) as log:
            assert must_stay <= set(read_records(log))
        check_after_a_failure(directory)
    assert {"rename", "unlink", "pwrite", "fsync", "fdatasync"} <= crashed_in
    assert crash_at > 30


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_an_error_at_any_operation_ends_the_pass_and_loses_nothing(
    filled: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    for fail_at in range(1000):
        directory = filled(fail_at)
        with opened(directory) as log:
            must_stay = set(last_of_each_key(read_records(log), log.end_offset))
            faults = FaultyOs(fail_at=fail_at, error=error)
            with monkeypatch.context() as patch:
                patch.setattr(files_module, "os", faults)
                with suppress(StorageError):
                    compact(log)
            if len(faults.calls) <= fail_at:
                break
            with suppress(StorageError):
                assert must_stay <= set(read_records(log)), "what is read is right, even if the log wants a restart"
        with opened(directory) as log:
            assert must_stay <= set(read_records(log))
        check_after_a_failure(directory)


def test_a_full_disk_leaves_the_log_as_it_was_and_usable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class FullOs(FaultyOs):
        def pwrite(self, descriptor: int, data: bytes, position: int) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with opened(tmp_path) as log:
        fill(log, _KEYS)
        before, files = read_records(log), names(tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(files_module, "os", FullOs())
            with pytest.raises(DiskFull):
                compact(log)
        assert (read_records(log), names(tmp_path)) == (before, files)
        fill(log, "z")
        compact(log)
        assert len(read_records(log)) < len(before)


def test_a_reader_between_lookup_and_read_skips_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All batches are of one length and the first one stays, so a position that was looked up in the old file is the edge
    of a later batch in the new one."""
    plain_find = Segment.find
    keys = "z" + "a" * 20 + "bcdefghijklmnopqrstuvwxy" * 2
    for offset in range(0, len(keys), 5):
        with opened(tmp_path / str(offset), ONE_SEGMENT) as log, monkeypatch.context() as patch:
            log.append([make_keyed_batch(offset, [(key.encode(), b"v")]) for offset, key in enumerate(keys)])
            assert log.roll_if_due(1 << 62)
            expected = [one for one in offsets(last_of_each_key(read_records(log), len(keys))) if one >= offset]

            def find_and_compact(segment: Segment, wanted: int, log: PartitionLog = log) -> int:
                found = plain_find(segment, wanted)
                patch.setattr(Segment, "find", plain_find)
                compact(log)
                return found

            log._places.clear()  # type: ignore[attr-defined]
            patch.setattr(Segment, "find", find_and_compact)
            assert offsets(read_records(log, offset)) == expected
            assert Segment.find is plain_find


def test_small_neighbours_are_merged_within_the_limits_of_a_segment(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        fill(log, "a" * 120)
        assert len(list(tmp_path.glob("streams/7-0/*.log"))) > 15
        compact(log)
        compact(log, force=True)
        assert len(list(tmp_path.glob("streams/7-0/*.log"))) < 12
        assert all(path.stat().st_size <= 400 + 100 for path in tmp_path.glob("streams/7-0/*.log"))
    with opened(tmp_path) as log:
        assert read_records(log)[-1].offset == 119
        assert log.start_offset == 0


def test_segments_of_different_ages_stay_apart_so_that_retention_by_age_still_works(tmp_path: Path) -> None:
    with opened(tmp_path, LogSettings(segment_max_bytes=400, segment_max_age_ns=2)) as log:
        fill(log, "abcdefghijkl" * 2)
        compact(log)
        assert len(list(tmp_path.glob("streams/7-0/*.log"))) > 3


def test_what_is_compacted_is_found_by_the_index_and_nothing_old_is(tmp_path: Path) -> None:
    index = MemoryIndexStorage()
    storage = SegmentStorage(tmp_path, index, index_interval_bytes=100)
    log = storage.open(ID, LogSettings(segment_max_bytes=3000))
    fill(log, "a" * 100 + "bcdefghijklmnop" * 3)
    compact(log)
    entries = [entry for entry in index.open(ID)._entries if entry.segment == 0]  # type: ignore[attr-defined]
    assert entries
    data = (tmp_path / "streams" / "7-0" / f"{0:020d}.log").read_bytes()
    for entry in entries:
        assert int.from_bytes(data[entry.position + 16 : entry.position + 24], "big") == entry.base_offset
    storage.close()


def test_damage_ends_the_pass_before_anything_is_replaced(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        fill(log, _KEYS)
        path = sorted(tmp_path.glob("streams/7-0/*.log"))[2]
        data = bytearray(path.read_bytes())
        data[60] ^= 1
        path.write_bytes(data)
        files = {one: one.read_bytes() for one in tmp_path.glob("streams/7-0/*")}
        with pytest.raises(LogDamaged, match=path.name):
            compact(log)
        assert {one: one.read_bytes() for one in tmp_path.glob("streams/7-0/*")} == files


def test_a_missing_segment_is_still_noticed_after_a_compaction(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        fill(log, "abcdefghijklmnopqrstuvwxyz" * 3)
        compact(log)
    paths = sorted(tmp_path.glob("streams/7-0/*.log"))
    for summary in tmp_path.glob("streams/7-0/*.summary"):
        summary.unlink()
    with opened(tmp_path) as log:
        assert log.end_offset == 78
    paths[len(paths) // 2].unlink()
    with pytest.raises(LogDamaged, match="missing"), opened(tmp_path):
        pass


def test_dump_shows_gaps_and_batches_without_records(tmp_path: Path) -> None:
    with opened(tmp_path) as log:
        fill(log, "aab.", batch=4)
        fill(log, "aaa" * 20, batch=3, epoch=2)
        compact(log)
        assert log.read(0, stop=EVERYTHING, max_bytes=EVERYTHING)
    out = io.StringIO()
    assert dump_log(str(tmp_path / "streams" / "7-0"), out)
    assert "batch of 2, left of offsets 0 to 3" in out.getvalue()
    assert "batch of 0, left of offsets 4 to 6" in out.getvalue()
    assert re.search("offsets 7 to [0-9]+ were removed", out.getvalue())


# --- a real process dies ----------------------------------------------------------------------------------------------

_CHILD = """
import sys
from pathlib import Path
from liftbridge.interfaces.log import LogId, LogSettings
from liftbridge.testing.batches import make_keyed_batch
from liftbridge.testing.compaction_suite import compact
from liftbridge.testing.memory_index import MemoryIndexStorage
from liftbridge_storage_segments.storage import SegmentStorage

storage = SegmentStorage(Path(sys.argv[1]), MemoryIndexStorage())
log = storage.open(LogId(7, 0), LogSettings(segment_max_bytes=2000))
while True:
    for _ in range(40):
        base = log.end_offset
        log.append([make_keyed_batch(base, [(b"%d" % (n % 10), b"%d" % n) for n in range(base, base + 5)])])
    sys.stdout.write(f"{log.end_offset}\\n")
    sys.stdout.flush()
    compact(log, max_keys=4)
"""


@pytest.mark.slow
def test_the_last_of_each_key_is_there_when_the_process_is_killed_again_and_again(tmp_path: Path) -> None:
    settings = LogSettings(segment_max_bytes=2000)
    for kill_after in range(1, 20):
        with subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            acknowledged = [int(child.stdout.readline()) for _ in range(1 + kill_after % 5)][-1]
            time.sleep(kill_after / 1000)  # somewhere in the middle of a pass
            child.send_signal(signal.SIGKILL)
        with opened(tmp_path, settings) as log:
            assert log.end_offset >= acknowledged
            found = read_records(log)
            last = range(log.end_offset - 10, log.end_offset)
            assert {int(one.key): one.offset for one in found} == {number % 10: number for number in last}
            assert all(one.value == b"%d" % one.offset for one in found)
