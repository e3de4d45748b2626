"""The segments of a log at one moment, and what is asked about all of them together."""

from bisect import bisect_right
from collections.abc import Sequence

from liftbridge.errors import LogDamaged
from liftbridge.interfaces.log import EpochStart, RetentionLimits
from liftbridge_storage_segments.segment import Segment


class Segments:
    """Segments in order of their offsets; the last one is the active one, and grows. Which ones they are never changes:
    another moment has another object, and readers in other threads go on with the one they have."""

    __slots__ = ("_sealed_bytes", "all")

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.all = tuple(segments)
        self._sealed_bytes = sum(segment.size_bytes for segment in self.all[:-1])

    @property
    def active(self) -> Segment:
        return self.all[-1]

    @property
    def size_bytes(self) -> int:
        return self._sealed_bytes + self.all[-1].size_bytes

    @property
    def last_timestamp_ns(self) -> int:
        return next((one.last_timestamp_ns for one in reversed(self.all) if one.last_timestamp_ns), 0)

    def epochs(self) -> list[EpochStart]:
        starts: list[EpochStart] = []
        for segment in self.all:
            starts += [one for one in segment.epochs if not starts or one.leader_epoch > starts[-1].leader_epoch]
        return starts

    def place_of(self, offset: int) -> tuple[Segment, int]:
        """Segment and position of the batch that holds ``offset``, which is below the end, or of the next batch."""
        number = bisect_right(self.all, offset, key=lambda segment: segment.base_offset) - 1
        for segment in self.all[number:]:
            position = segment.find(offset)
            if position < segment.size_bytes:
                return segment, position
        raise LogDamaged(f"{self.all[number].path}: offset {offset} can't be found")

    def holding_time(self, timestamp_ns: int) -> Segment | None:
        """The first segment with a record of that time or later."""
        return next((one for one in self.all if one.size_bytes and one.last_timestamp_ns >= timestamp_ns), None)

    def expired(self, limits: RetentionLimits, now_ns: int) -> Sequence[Segment]:
        """The oldest ones that have to go: limits are upper bounds for what stays. Never the active one."""
        size_bytes = self.size_bytes
        record_count = sum(segment.record_count for segment in self.all)
        for number, segment in enumerate(self.all[:-1]):
            too_old = limits.max_age_ns and segment.last_timestamp_ns < now_ns - limits.max_age_ns
            too_many = limits.max_messages and record_count > limits.max_messages
            too_large = limits.max_bytes and size_bytes > limits.max_bytes
            if segment.end_offset > limits.keep_from_offset or not (too_old or too_many or too_large):
                return self.all[:number]
            size_bytes -= segment.size_bytes
            record_count -= segment.record_count
        return self.all[:-1]

    def around(self, group: Sequence[Segment]) -> tuple[tuple[Segment, ...], tuple[Segment, ...]] | None:
        """The segments before and after the group; None when it isn't here, whole and in a row."""
        if group[0] not in self.all:
            return None
        start = self.all.index(group[0])
        end = start + len(group)
        return (self.all[:start], self.all[end:]) if self.all[start:end] == tuple(group) else None


def first_at_or_after(segment: Segment, timestamp_ns: int) -> int:
    """The base offset of the segment's first batch of that time or later; there must be one. Binary search by offset:
    timestamps never go down."""
    low, high = segment.base_offset, segment.end_offset - 1
    while low < high:
        middle = (low + high) // 2
        _, end, batch_ns = segment.batch_at(middle)
        if batch_ns >= timestamp_ns:
            high = middle
        else:
            low = end
    base, _, _ = segment.batch_at(low)
    return base
