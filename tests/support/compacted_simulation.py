"""The simulated cluster with compaction: each replica compacts its own log whenever it likes, so replicas are equal by what they
must hold and not by their bytes."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any
from zlib import crc32

from replication_simulation import History, Violation, World

from liftbridge.interfaces.log import LogId
from liftbridge.interfaces.records import RecordBatch
from liftbridge.protocol.compaction import KeyCompactor
from liftbridge.protocol.generated import api_pb2 as api
from liftbridge.protocol.record_batch import HEADER_BYTES, RECORD_PREFIX_BYTES, iter_records
from liftbridge.testing.batches import make_keyed_batch

_KEYS = (b"", b"a", b"b", b"c", b"d")


@lru_cache(maxsize=10_000)
def records_of(data: bytes) -> dict[int, bytes]:
    body = data[HEADER_BYTES:]
    return {record.offset: body[record.start + RECORD_PREFIX_BYTES : record.end] for record in iter_records(body)}


class CompactedHistory(History):
    """Committed batches are remembered as they were when they were committed, so none of their records is missing."""

    def __init__(self) -> None:
        super().__init__()
        self.removed = 0

    def agrees(self, known: RecordBatch, batch: RecordBatch, offset: int) -> bool:
        """A record may be gone, but never another one."""
        left = records_of(batch.data).get(offset)
        same = (known.base_offset, known.leader_epoch, known.timestamp_ns)
        return same == (batch.base_offset, batch.leader_epoch, batch.timestamp_ns) and (
            left is None or left == records_of(known.data)[offset]
        )

    def check_holds_all(self, server_id: str, log_id: LogId, log: Any) -> None:
        """The last committed record of each key is here, and those without a key, unless retention took them."""
        super().check_holds_all(server_id, log_id, log)
        committed = self.committed[log_id]
        last: dict[object, int] = {}
        for offset in sorted(committed):
            key = api.Message.FromString(records_of(committed[offset].data)[offset]).key
            last[key or offset] = offset
        held: set[int] = set()
        position = log.start_offset
        while data := log.read(position, stop=log.end_offset, max_bytes=1):
            held |= records_of(data).keys()
            position = int.from_bytes(data[24:32], "big")
        missing = [offset for offset in last.values() if offset >= self.retained_from[log_id] and offset not in held]
        if missing:
            raise Violation(f"{server_id} {log_id}: {missing} are the last of their keys and not there")


class CompactedWorld(World):
    """``World`` with keys, and replicas that compact."""

    history: CompactedHistory

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.history = CompactedHistory()

    def make_batch(self, base_offset: int, count: int, *, value: bytes, leader_epoch: int) -> RecordBatch:
        keys = [_KEYS[(crc32(value) + number) % len(_KEYS)] for number in range(count)]
        return make_keyed_batch(base_offset, [(key, value) for key in keys], leader_epoch=leader_epoch)

    def _weights(self) -> dict[Callable[[str], None], float]:
        return super()._weights() | {self.compact: 3}

    def compact(self, server_id: str) -> None:
        server = self.servers.get(server_id)
        for local in server.replicas.values() if server is not None else ():
            partition = local.partition
            compactor = KeyCompactor(partition.high_watermark, max_keys=self.random.choice([2, 100]))
            report = partition.log.compact(compactor, min_dirty_percent=0, between=lambda: None)
            self.history.removed += report.records_removed if report is not None else 0
