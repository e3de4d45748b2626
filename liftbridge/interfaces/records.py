"""Record batches: the one unit that is appended, stored, replicated and sliced for subscribers."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RecordBatch:
    """Contiguous records of one partition, encoded once and never again.

    ``data`` is the whole encoded batch: the header described in :mod:`liftbridge.protocol.record_batch`, then the
    body, which is exactly what subscribers receive. The other fields repeat what the header says, so that a log need
    not decode it.

    ``end_offset`` is exclusive. ``record_count`` is smaller than ``end_offset - base_offset`` where compaction left gaps.
    """

    base_offset: int
    end_offset: int
    record_count: int
    leader_epoch: int
    timestamp_ns: int
    data: bytes
