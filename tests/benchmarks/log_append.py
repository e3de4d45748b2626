"""What a log storage costs: ``python tests/benchmarks/log_append.py [segments | sqlite] [directory]``.

Prints microseconds per append and per read, and what opening costs. Figures depend on the machine and on who else
uses it; run it twice.
"""

import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from liftbridge.interfaces.log import LogId, LogSettings, LogStorage, PartitionLog
from liftbridge.interfaces.records import RecordBatch
from liftbridge.testing.batches import make_batch
from liftbridge_storage_lmdb.index import LmdbIndexStorage
from liftbridge_storage_segments.storage import SegmentStorage
from liftbridge_storage_sqlite.storage import SqliteStorage

UNBOUNDED = 1 << 62


def open_segments(directory: Path) -> LogStorage:
    return SegmentStorage(directory, LmdbIndexStorage(directory / "index", max_bytes=1 << 30))


def open_sqlite(directory: Path) -> LogStorage:
    return SqliteStorage(directory / "sqlite")


STORAGES = {"segments": open_segments, "sqlite": open_sqlite}


def main(name: str, directory: Path) -> None:
    open_storage = STORAGES[name]
    storage = open_storage(directory)
    measure_appends(storage, stream_id=1, count=100_000, records=3)
    measure_appends(storage, stream_id=2, count=5_000, records=500)
    measure_tail(storage, stream_id=3, count=50_000)
    measure_many_segments(storage, stream_id=4, count=1_000)
    storage.close()
    measure_many_logs(lambda: open_storage(directory), count=300)


def measure_appends(storage: LogStorage, *, stream_id: int, count: int, records: int) -> None:
    log = storage.open(LogId(stream_id, 0), LogSettings())
    batches = [make_batch(number * records, records, value=b"v" * 100) for number in range(count)]
    size = len(batches[0].data)
    report(f"append a batch of {size:,} bytes", count, lambda: append_each(log, batches))
    reads = 0

    def read_all() -> None:
        nonlocal reads
        offset = 0
        while data := log.read(offset, stop=UNBOUNDED, max_bytes=256 * 1024):
            reads += 1
            offset += len(data) // size * records

    seconds = timed(read_all)
    print(f"read on, {log.size_bytes // reads:,} bytes at once: {seconds / reads * 1e6:.1f} us per read")


def measure_tail(storage: LogStorage, *, stream_id: int, count: int) -> None:
    log = storage.open(LogId(stream_id, 0), LogSettings())
    batches = [make_batch(number, value=b"v" * 100) for number in range(count)]

    def append_and_read() -> None:
        for batch in batches:
            log.append([batch])
            log.read(batch.base_offset, stop=batch.end_offset, max_bytes=64 * 1024)

    report("append one record and read it at the tail", count, append_and_read)


def measure_many_segments(storage: LogStorage, *, stream_id: int, count: int) -> None:
    log_id, settings = LogId(stream_id, 0), LogSettings(segment_max_bytes=1)
    log = storage.open(log_id, settings)
    append_each(log, [make_batch(number * 10, 10, value=b"v" * 100) for number in range(count)])
    log.close()
    seconds = timed(lambda: storage.open(log_id, settings))
    print(f"open a log of {count:,} segments: {seconds * 1e3:.0f} ms")


def measure_many_logs(open_storage: Callable[[], LogStorage], *, count: int) -> None:
    storage = open_storage()
    ids = [LogId(10, partition) for partition in range(count)]
    for log_id in ids:
        storage.open(log_id, LogSettings()).append([make_batch(0)])
    storage.close()
    storage = open_storage()
    before = resident_bytes()
    seconds = timed(lambda: [storage.open(log_id, LogSettings()) for log_id in ids])
    grown = (resident_bytes() - before) / count / 1024
    print(f"open {count:,} logs that were closed: {seconds * 1e3:.0f} ms, {grown:.1f} KiB of memory each")
    storage.close()


def append_each(log: PartitionLog, batches: list[RecordBatch]) -> None:
    for batch in batches:
        log.append([batch])


def report(what: str, count: int, run: Callable[[], None]) -> None:
    print(f"{what}: {timed(run) / count * 1e6:.1f} us")


def timed(run: Callable[[], object]) -> float:
    """Seconds."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    chosen = sys.argv[1] if len(sys.argv) > 1 else "segments"
    if len(sys.argv) > 2:
        main(chosen, Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(chosen, Path(temporary))
