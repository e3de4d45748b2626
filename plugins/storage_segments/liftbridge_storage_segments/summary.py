"""What is known of a segment's first bytes, so that opening need not read them again.

A summary vouches for the first ``size_bytes`` of its segment: they were verified, or written by this process, and
synced before the summary was written. It is a cache: without it the segment is scanned, with the same
result. It stands beside the segment as ``<base offset>.summary``: the CRC-32C of the rest in four bytes, then JSON.
"""

import json
from bisect import bisect_right
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

import google_crc32c

from liftbridge.interfaces.log import EpochStart
from liftbridge.interfaces.records import RecordBatch

#: How much of a segment is scanned again at most, after something was cut off its end.
_MARK_BYTES = 1024 * 1024


class Mark(NamedTuple):
    """What a summary was when its segment had ``size_bytes``, as far as it can't be told from what it is now."""

    size_bytes: int
    end_offset: int
    record_count: int
    last_timestamp_ns: int
    epoch_count: int


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
    marks: list[Mark] = field(default_factory=list)

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

    def mark_if_due(self) -> None:
        """For ``before``. To be called between batches, at least once in a while."""
        if self.size_bytes >= (self.marks[-1].size_bytes if self.marks else 0) + _MARK_BYTES:
            self.marks.append(
                Mark(self.size_bytes, self.end_offset, self.record_count, self.last_timestamp_ns, len(self.epochs))
            )

    def before(self, position: int) -> "Summary":
        """What it was at the last mark that isn't behind ``position``."""
        marks = self.marks  # once: another thread may put others there
        count = bisect_right(marks, position, key=lambda mark: mark.size_bytes)
        if count == 0:
            return Summary(self.base_offset, self.base_offset)
        mark = marks[count - 1]
        return Summary(
            self.base_offset,
            mark.end_offset,
            mark.size_bytes,
            mark.record_count,
            self.first_timestamp_ns,
            mark.last_timestamp_ns,
            epochs=self.epochs[: mark.epoch_count],
            marks=marks[:count],
        )

    def encode(self) -> bytes:
        content = json.dumps(asdict(self)).encode()
        crc: int = google_crc32c.value(content)
        return crc.to_bytes(4, "big") + content


def decode_summary(data: bytes) -> Summary | None:
    """None for anything that isn't exactly what ``encode`` wrote."""
    if len(data) < 4 or google_crc32c.value(data[4:]) != int.from_bytes(data[:4], "big"):
        return None
    fields = json.loads(data[4:])
    try:
        fields["epochs"] = [EpochStart(*one) for one in fields["epochs"]]
        fields["marks"] = [Mark(*one) for one in fields["marks"]]
        return Summary(**fields)
    except (KeyError, TypeError):  # of another version
        return None
