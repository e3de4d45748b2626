"""What is known of a segment's first bytes, so that opening need not read them again.

A summary vouches for the first ``size_bytes`` of its segment: they were verified, or written by this process, and
synced before the summary was written. It is a cache: without it the segment is scanned, with the same
result. It stands beside the segment as ``<base offset>.summary``: the CRC-32C of the rest in four bytes, then JSON.
"""

import json
from dataclasses import asdict, dataclass, field

import google_crc32c

from liftbridge.interfaces.log import EpochStart
from liftbridge.interfaces.records import RecordBatch


@dataclass(slots=True)
class Summary:
    """Of the batches in a segment's first ``size_bytes``. Times are 0 while there is none."""

    base_offset: int
    end_offset: int
    size_bytes: int = 0
    record_count: int = 0
    first_timestamp_ns: int = 0
    last_timestamp_ns: int = 0
    #: Whether each key of these batches, and of those in earlier segments, occurs only once.
    compacted: bool = False
    epochs: list[EpochStart] = field(default_factory=list)

    def add(self, batch: RecordBatch) -> None:
        """One more batch stands at the end. The end offset is last, because readers in other threads go by it."""
        self.size_bytes += len(batch.data)
        self.compacted = False
        self.record_count += batch.record_count
        self.first_timestamp_ns = self.first_timestamp_ns or batch.timestamp_ns
        self.last_timestamp_ns = batch.timestamp_ns
        if not self.epochs or self.epochs[-1].leader_epoch != batch.leader_epoch:
            self.epochs.append(EpochStart(batch.leader_epoch, batch.base_offset))
        self.end_offset = batch.end_offset

    def encode(self) -> bytes:
        content = json.dumps(asdict(self)).encode()
        crc: int = google_crc32c.value(content)
        return crc.to_bytes(4, "big") + content


def decode_summary(data: bytes) -> Summary | None:
    """None for anything that isn't exactly what ``encode`` wrote."""
    if len(data) < 4 or google_crc32c.value(data[4:]) != int.from_bytes(data[:4], "big"):
        return None
    fields = json.loads(data[4:])
    fields["epochs"] = [EpochStart(*one) for one in fields["epochs"]]
    return Summary(**fields)
