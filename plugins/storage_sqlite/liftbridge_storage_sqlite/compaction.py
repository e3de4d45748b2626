"""Compaction of one log: sealed segments lose the records that may go, a MiB at a time, in ascending order."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Protocol

from liftbridge.errors import LogDamaged, OffsetOutOfRange, ProtocolError
from liftbridge.interfaces.log import CompactionReport, Compactor
from liftbridge.interfaces.records import RecordBatch
from liftbridge.protocol.record_batch import iter_batches
from liftbridge_storage_sqlite.segments import Segment, Segments

_STEP_BYTES = 1024 * 1024


class Overtaken(Exception):
    """A truncation or retention got in the way: the pass is over, and the next one goes on."""


class Rows(Protocol):
    """A log, as a pass sees it."""

    @property
    def segments(self) -> Segments:
        """As of now."""

    @property
    def truncations(self) -> int:
        """How many there were."""

    @property
    def compacted_end(self) -> int:
        """Up to where the passes before came to (exclusive)."""

    def read(self, offset: int, *, stop: int, max_bytes: int) -> bytes:
        """As of ``PartitionLog``."""

    def replace(
        self, segment: Segment, before: list[RecordBatch], after: list[RecordBatch], *, truncations: int
    ) -> Segment:
        """Puts batches of a sealed segment in the place of others, in one transaction; returns the segment as it is
        then. Raises Overtaken when it isn't there any more, or when there were more truncations: what made records go
        may be gone itself."""

    def mark_compacted(self, end_offset: int, *, truncations: int) -> None:
        """Remembers how far this pass came. Raises Overtaken as ``replace`` does."""


class CompactionPass:
    """One pass, in a worker thread."""

    def __init__(self, rows: Rows, compactor: Compactor, between: Callable[[], None]) -> None:
        self._rows = rows
        self._compactor = compactor
        self._between = between
        self._truncations = rows.truncations
        self._removed = 0

    def run(self, min_dirty_percent: int, *, force: bool) -> CompactionReport | None:
        before = self._committed()
        dirty_bytes = sum(one.size_bytes for one in before if one.end_offset > self._rows.compacted_end)
        size_bytes = sum(one.size_bytes for one in before)
        if not force and (not dirty_bytes or dirty_bytes * 100 < min_dirty_percent * size_bytes):
            return None
        with suppress(Overtaken, OffsetOutOfRange):  # the report tells what was done
            self._run_rounds()
        return CompactionReport(self._removed, size_bytes, sum(one.size_bytes for one in self._committed()))

    def _committed(self) -> list[Segment]:
        return [one for one in self._rows.segments.sealed if one.end_offset <= self._compactor.upto]

    def _run_rounds(self) -> None:
        offset: int | None = max(self._rows.compacted_end, self._rows.segments.first.base_offset)
        while offset is not None:
            offset = self._learn_from(offset)
            for segment in self._rows.segments.sealed:
                if segment.base_offset < self._compactor.learnt_end:
                    self._rewrite(segment)
            self._compactor.forget()

    def _learn_from(self, offset: int) -> int | None:
        """Where to go on in the next round, None when all was learnt."""
        for batches in self._steps(offset, self._compactor.upto):
            for batch in batches:
                self._between()
                if not self._compactor.learn(batch):
                    return self._compactor.learnt_end
        return None

    def _rewrite(self, segment: Segment) -> None:
        """Batches without records stay where an epoch begins, and at the end, where the next segment goes on."""
        epoch = None
        for batches in self._steps(segment.base_offset, segment.end_offset):
            kept = []
            for batch in batches:
                rewritten = self._rewritten(batch)
                is_needed = batch.leader_epoch != epoch or batch.end_offset == segment.end_offset
                if rewritten.record_count or is_needed:
                    kept.append(rewritten)
                    epoch = batch.leader_epoch
            if kept != batches:
                after = self._rows.replace(segment, batches, kept, truncations=self._truncations)
                self._removed += segment.record_count - after.record_count
                segment = after
        if segment.end_offset <= self._compactor.learnt_end:
            self._rows.mark_compacted(segment.end_offset, truncations=self._truncations)

    def _rewritten(self, batch: RecordBatch) -> RecordBatch:
        try:
            return self._compactor.rewrite(batch) if batch.base_offset < self._compactor.learnt_end else batch
        except ProtocolError as error:
            raise LogDamaged(f"batch at offset {batch.base_offset}: {error}") from error

    def _steps(self, offset: int, stop: int) -> Iterator[list[RecordBatch]]:
        """The batches in ``[offset, stop)``, about a MiB at a time."""
        while True:
            self._between()
            data = self._rows.read(offset, stop=stop, max_bytes=_STEP_BYTES)
            if not data:
                return
            try:
                batches = list(iter_batches(data))
            except ProtocolError as error:
                raise LogDamaged(f"from offset {offset} on: {error}") from error
            yield batches
            offset = batches[-1].end_offset
