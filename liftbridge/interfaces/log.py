"""The seam of partition logs: an ordered log of opaque record batches.

Offsets are exclusive at the end everywhere: ``end_offset`` is the offset that the next record gets.

Threads: ``append``, ``truncate`` and ``roll_if_due`` are called by the event loop, ``close`` and ``delete`` by a worker thread
when the event loop doesn't use the log any more. ``read``, ``sync``, ``checkpoint``, ``apply_retention``, ``compact``,
``offset_for_time`` and the properties may be used in other threads at the same moment as these and as each other, and must be safe
against them.

Errors: what the disk refuses is a :class:`~liftbridge.errors.StorageError` (:class:`~liftbridge.errors.DiskFull` for want of
room), from any method that touches the disk.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from liftbridge.interfaces.records import RecordBatch


class LogId(NamedTuple):
    """Which log: ``stream_id`` is the consensus index at which the stream was created, so a stream that is deleted and
    made again under its old name never meets its predecessor's files."""

    stream_id: int
    partition: int


class EpochStart(NamedTuple):
    """The offset of the first record (or of the next one, if there is none yet) of a leader epoch."""

    leader_epoch: int
    start_offset: int


@dataclass(frozen=True, slots=True)
class LogSettings:
    """Limits of one partition's log."""

    segment_max_bytes: int = 268_435_456
    segment_max_age_ns: int = 604_800_000_000_000


@dataclass(frozen=True, slots=True)
class RetentionLimits:
    """What may be kept; 0 means no limit. Limits apply to whole segments, and the active segment always stays.

    ``keep_from_offset`` is the high watermark: records at or above it are never removed, whatever the limits say.
    """

    max_bytes: int
    max_messages: int
    max_age_ns: int
    keep_from_offset: int


class Compactor(Protocol):
    """Which records may go: what compaction has to know about records, which a log stores without understanding them.

    For one pass over one log, by one thread. A pass is one round, or several when there are more keys than the compactor
    can remember at once: ``learn`` from batches in ascending order, from the first that may hold news, until it refuses
    or ``upto`` is reached; then ``rewrite`` every sealed batch below ``learnt_end``, also in ascending order; then
    ``forget``, and learn on from where it refused.
    """

    @property
    def upto(self) -> int:
        """Records at or above this offset, the high watermark, are neither looked at nor removed."""

    @property
    def learnt_end(self) -> int:
        """How far this round learnt (exclusive), 0 before the first batch."""

    def learn(self, batch: RecordBatch) -> bool:
        """Remembers the keys below ``upto``. False, and nothing is remembered, when there is no room for more."""

    def rewrite(self, batch: RecordBatch) -> RecordBatch:
        """``batch`` itself if all of its records stay; otherwise one of the same offsets, epoch and timestamp without
        those that go, which may be all of them (then ``record_count`` is 0). Raises
        :class:`~liftbridge.errors.ProtocolError` where the records don't add up."""

    def forget(self) -> None:
        """Begins another round."""


class CompactionReport(NamedTuple):
    """What a pass came to. The bytes are those of the segments that it looked at."""

    records_removed: int
    bytes_before: int
    bytes_after: int


class PartitionLog(ABC):
    """One partition's records on one server.

    The file (or whatever stands in its place) is the only truth: opening checks the tail, cuts what a crash tore off
    and never shows a record whose checksum fails.

    Once it is closed, every method but ``close`` and ``delete`` raises :class:`~liftbridge.errors.LogClosed`, and once it is
    deleted, :class:`~liftbridge.errors.LogDeleted`. Properties keep their last values.
    """

    @property
    @abstractmethod
    def start_offset(self) -> int:
        """The first retained offset; equal to ``end_offset`` when the log is empty. O(1)."""

    @property
    @abstractmethod
    def end_offset(self) -> int:
        """The offset of the next record. Never goes back except by ``truncate``. O(1)."""

    @property
    @abstractmethod
    def size_bytes(self) -> int:
        """Bytes that the records take in storage. O(1)."""

    @property
    @abstractmethod
    def last_timestamp_ns(self) -> int:
        """Timestamp of the last batch, 0 when there never was one. O(1)."""

    @property
    @abstractmethod
    def epochs(self) -> Sequence[EpochStart]:
        """Where each leader epoch present in the log begins, ascending in both fields. Doesn't touch the disk."""

    @abstractmethod
    def append(self, batches: Sequence[RecordBatch], *, after_gap: bool = False) -> None:
        """Adds batches at the end, all or none.

        The first ``base_offset`` must equal ``end_offset`` (or be larger, with ``after_gap``: a follower told of a gap by
        its leader), and the batches must be contiguous unless ``after_gap``; otherwise ``ValueError``. On return the
        bytes are in the operating system's hands (they survive a kill of the process); ``sync`` makes them survive
        the loss of power. After a StorageError nothing was added and the log is as before.
        """

    def check_room(self, size_bytes: int) -> None:  # noqa: B027  (optional on purpose)
        """Raises what an append of so many bytes would raise now: :class:`~liftbridge.errors.DiskFull` or another
        :class:`~liftbridge.errors.StorageError`. Nothing changes, also when there is a crash in the middle. The kernel
        asks after an append failed, at most a few times a second, in the place of an append. Optional: a storage that
        doesn't know it returns, and the next append shows how it is.
        """

    @abstractmethod
    def read(self, offset: int, *, stop: int, max_bytes: int) -> bytes:
        """Whole encoded batches, back to back, that cover ``[offset, stop)`` from ``offset`` on.

        Begins with the batch that holds ``offset`` (or, where compaction left a gap, the next one), ends before a batch
        whose base is ``stop`` or more, and stops before exceeding ``max_bytes`` except that one batch is always
        returned whole. Empty when ``offset >= min(stop, end_offset)``. The bytes are as stored: the reader checks the
        checksums. Raises :class:`~liftbridge.errors.OffsetOutOfRange` below ``start_offset`` and
        :class:`~liftbridge.errors.LogDamaged` where batch edges can't be found.
        """

    @abstractmethod
    def offset_for_time(self, timestamp_ns: int) -> int | None:
        """The base offset of the first batch whose timestamp is ``timestamp_ns`` or later; None when all are earlier.
        Raises :class:`~liftbridge.errors.LogDamaged` where it can't be looked up."""

    @abstractmethod
    def sync(self) -> int:
        """Makes every record appended before the call durable and returns the ``end_offset`` that this covers.

        Blocks on the disk, so the kernel calls it in a worker thread. After a StorageError the log refuses appends with
        another one, because nobody can know what the disk kept; reading goes on.
        """

    def checkpoint(self) -> None:  # noqa: B027  (optional on purpose)
        """Sees to it that an opening after a kill or a loss of power has little to check. The kernel calls it now and
        then, in a worker thread, for logs that grew; whether enough came to be worth a sync is for the storage to
        say. After a StorageError as after one of ``sync``. Optional: a storage whose openings never check much has
        nothing to do.
        """

    @abstractmethod
    def truncate(self, end_offset: int) -> None:
        """Drops every record at ``end_offset`` and above, durably, from the tail backward. ``end_offset`` may fall
        inside a batch: then that batch is rewritten without its tail. A no-op at or above the end. Raises
        :class:`~liftbridge.errors.OffsetOutOfRange` below ``start_offset``, and then nothing is dropped."""

    @abstractmethod
    def roll_if_due(self, now_ns: int) -> bool:
        """Seals the active segment if its first record is older than ``segment_max_age_ns``; True if it did."""

    @abstractmethod
    def apply_retention(self, limits: RetentionLimits, now_ns: int) -> int:
        """Removes whole old segments that exceed the limits and returns the new ``start_offset``."""

    @property
    def can_compact(self) -> bool:
        """Whether ``compact`` is there: not every storage has it."""
        return type(self).compact is not PartitionLog.compact

    def compact(
        self, compactor: Compactor, *, min_dirty_percent: int, force: bool = False, between: Callable[[], None]
    ) -> CompactionReport | None:
        """Removes the records that ``compactor`` lets go, from all segments but the active one. Optional.

        None, and nothing is done, when nothing came since the pass before that could be compacted, or less of all that
        could be than ``min_dirty_percent``; with ``force`` there always is a pass.

        Offsets, epochs and timestamps stay: gaps appear, between batches and inside them. ``start_offset``,
        ``end_offset`` and ``epochs`` stay too, and where they need it a batch stays without records. Records are removed
        in ascending order of offset, those of some batches (up to a segment) at once: readers in other threads see them
        as they were or as they are, and a crash leaves the one or the other. An error ends the pass, and what it didn't
        get to is as before. So does the log's end (:class:`~liftbridge.errors.LogClosed`,
        :class:`~liftbridge.errors.LogDeleted`), and a truncation or retention that gets in its way (then there is a
        report).

        Runs long, so the kernel calls it in a worker thread, one pass at a time. ``between`` is called again and
        again from that thread, with no lock held; it may sleep, and ends the pass by raising.
        """
        raise NotImplementedError(f"{type(self).__name__} has no compaction")

    @abstractmethod
    def close(self) -> None:
        """Leaves the log clean, so that the next opening need not check it. Idempotent. It is closed after an error, too:
        then the next opening checks."""

    @abstractmethod
    def delete(self) -> None:
        """Closes and removes the log for good. Idempotent, so that it can be tried again after an error."""


class LogStorage(ABC):
    """Opens the logs of one server. Its methods block on the disk and are called by one thread at a time, as a rule a
    worker, while other threads use the logs that are open. A log that was closed or deleted is let go."""

    @abstractmethod
    def open(self, log_id: LogId, settings: LogSettings) -> PartitionLog:
        """Opens or creates a log, which must not be open. Raises :class:`~liftbridge.errors.LogDamaged` for damage that
        isn't a torn tail, and :class:`~liftbridge.errors.StorageError` also when another process has the storage."""

    @abstractmethod
    def list_logs(self) -> Sequence[LogId]:
        """Every log that exists, open or not, so that the kernel can remove those whose stream is gone."""

    @abstractmethod
    def remove(self, log_id: LogId) -> None:
        """Removes a log that isn't open. A no-op when it doesn't exist."""

    @abstractmethod
    def close(self) -> None:
        """Closes every log that is still open, also when one of them can't be closed cleanly. Idempotent."""
