"""What a log keeps in memory of its segments: sums, so that its size, its ends and its limits cost no query.

A segment is a range of rows; nothing on the disk tells it from the next one but its row of sums.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from liftbridge.interfaces.log import RetentionLimits
from liftbridge.interfaces.records import RecordBatch


class Segment(NamedTuple):
    """The sums over the batches from ``base_offset`` on, below the next segment. ``last_timestamp_ns`` of an empty one
    is that of the segment before."""

    base_offset: int
    end_offset: int
    record_count: int = 0
    size_bytes: int = 0
    first_timestamp_ns: int = 0
    last_timestamp_ns: int = 0

    def plus(self, batches: Sequence[RecordBatch]) -> "Segment":
        """With batches added at the end."""
        if not batches:
            return self
        if len(batches) == 1:
            count, size = batches[0].record_count, len(batches[0].data)
        else:
            count = sum(batch.record_count for batch in batches)
            size = sum(len(batch.data) for batch in batches)
        return Segment(
            self.base_offset,
            batches[-1].end_offset,
            self.record_count + count,
            self.size_bytes + size,
            self.first_timestamp_ns if self.size_bytes else batches[0].timestamp_ns,
            batches[-1].timestamp_ns,
        )


@dataclass(frozen=True, slots=True)
class Segments:
    """The segments of a log: sealed ones, oldest first, and the one that is written to. Never changed in place, so that
    any thread can look."""

    sealed: tuple[Segment, ...]
    active: Segment
    sealed_bytes: int

    @classmethod
    def of(cls, segments: Sequence[Segment]) -> "Segments":
        *sealed, active = segments
        return cls(tuple(sealed), active, sum(one.size_bytes for one in sealed))

    def __iter__(self) -> Iterator[Segment]:
        yield from self.sealed
        yield self.active

    @property
    def first(self) -> Segment:
        return self.sealed[0] if self.sealed else self.active

    def with_active(self, active: Segment) -> "Segments":
        return replace(self, active=active)

    def rolled(self) -> "Segments":
        """The active segment sealed, and an empty one begun."""
        active = self.active
        fresh = Segment(active.end_offset, active.end_offset, last_timestamp_ns=active.last_timestamp_ns)
        return Segments((*self.sealed, active), fresh, self.sealed_bytes + active.size_bytes)

    def with_sealed(self, changed: Segment) -> "Segments":
        """With the sealed segment of that base offset replaced."""
        sealed = [changed if one.base_offset == changed.base_offset else one for one in self.sealed]
        return Segments.of([*sealed, self.active])

    def within(self, limits: RetentionLimits, now_ns: int) -> "Segments":
        """Without the oldest ones that exceed the limits."""
        kept = [*self.sealed, self.active]
        records = sum(one.record_count for one in kept)
        size_bytes = sum(one.size_bytes for one in kept)
        dropped = 0
        for oldest in self.sealed:
            too_old = limits.max_age_ns and oldest.last_timestamp_ns < now_ns - limits.max_age_ns
            too_many = limits.max_messages and records > limits.max_messages
            too_large = limits.max_bytes and size_bytes > limits.max_bytes
            if oldest.end_offset > limits.keep_from_offset or not (too_old or too_many or too_large):
                break
            records -= oldest.record_count
            size_bytes -= oldest.size_bytes
            dropped += 1
        return Segments.of(kept[dropped:]) if dropped else self
