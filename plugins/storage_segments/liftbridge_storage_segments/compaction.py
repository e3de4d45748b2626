"""Compaction of one log: sealed segments are rewritten without the records that may go, and small neighbours merged.

What takes the place of one or several segments is written beside them and synced. Then one rename,
``<base>.new`` to ``<first offset>-<end offset>.compacted``, decides: before it, nothing has happened; after it, opening
finishes what a crash interrupted (``finish_replacements``). So disk full and every other error before that rename leave the
segments as they were.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Protocol

from liftbridge.errors import LogDamaged, ProtocolError, StorageError
from liftbridge.interfaces.index import IndexEntry, OffsetIndex
from liftbridge.interfaces.log import CompactionReport, Compactor
from liftbridge.interfaces.records import RecordBatch
from liftbridge_storage_segments.files import Files, storage_errors
from liftbridge_storage_segments.segment import SEGMENT_PATTERN, SUMMARY_SUFFIX, Segment, segment_path

_REPLACEMENT_SUFFIX = ".compacted"
_WRITE_BYTES = 1024 * 1024
_MOST_MERGED = 256
#: Every attempt writes to a file of its own, so that one that is late can't write into another's.
_attempts = count()


class Interrupted(Exception):
    """Truncation or retention changed what was about to be replaced: the pass is over, and the next one goes on."""


class Row(Protocol):
    """A log's segments, as a pass sees them."""

    @property
    def segments(self) -> tuple[Segment, ...]:
        """As of now; the last one is the active one."""

    @property
    def truncations(self) -> int:
        """How many there were."""

    def may_merge(self, segments: Sequence[Segment]) -> bool:
        """Whether they are small enough together to be one."""

    def new_output(self, path: Path, index: OffsetIndex) -> Segment:
        """A segment to be written at ``path``, where there is an empty file."""

    def replace(
        self, group: Sequence[Segment], output: Segment, entries: Sequence[IndexEntry], *, truncations: int
    ) -> None:
        """Puts ``output``, with these index entries, in the place of ``group``. Raises Interrupted if that isn't there
        any more, or if there were more truncations: what made records go may be gone itself."""

    def mark_compacted(self, segment: Segment, *, truncations: int) -> None:
        """Remembers that nothing can go from it. Raises Interrupted as ``replace`` does."""


class CompactionPass:
    """One pass over a log's sealed segments, in a worker thread. ``between`` is called again and again; it may raise."""

    def __init__(
        self, row: Row, directory: Path, files: Files, compactor: Compactor, between: Callable[[], None]
    ) -> None:
        self._row = row
        self._directory = directory
        self._files = files
        self._compactor = compactor
        self._between = between
        self._truncations, self._start_offset = row.truncations, row.segments[0].base_offset
        self._removed = 0

    def is_worthwhile(self, min_dirty_percent: int) -> bool:
        """Whether enough is new since the last pass. Segments that aren't wholly committed wait."""
        sealed = [one for one in self._row.segments[:-1] if one.end_offset <= self._compactor.upto]
        dirty = sealed[len(_clean_ones(sealed)) :]
        return bool(dirty) and _size(dirty) * 100 >= min_dirty_percent * _size(sealed)

    def run(self) -> CompactionReport:
        before = _size(self._sealed_below(self._compactor.upto))
        try:
            self._run_rounds()
        except Interrupted:
            pass
        except StorageError:
            if not self._is_overtaken():
                raise
        return CompactionReport(self._removed, before, _size(self._sealed_below(self._compactor.upto)))

    def _is_overtaken(self) -> bool:
        """Whether truncation or retention removed segments since the pass began."""
        return (self._row.truncations, self._row.segments[0].base_offset) != (self._truncations, self._start_offset)

    def _run_rounds(self) -> None:
        offset: int | None = self._first_dirty_offset()
        while offset is not None:
            offset = self._learn_from(offset)
            self._rewrite_all()
            self._compactor.forget()

    def _first_dirty_offset(self) -> int:
        segments = self._row.segments
        return segments[len(_clean_ones(segments[:-1]))].base_offset

    def _sealed_below(self, offset: int) -> list[Segment]:
        return [one for one in self._row.segments[:-1] if one.base_offset < offset]

    # --- learning -----------------------------------------------------------------------------------------------------

    def _learn_from(self, offset: int) -> int | None:
        """Where to go on in the next round, None when all was learnt."""
        for batch in self._batches_from(offset):
            if not self._compactor.learn(batch):
                return self._compactor.learnt_end
        return None

    def _batches_from(self, offset: int) -> Iterator[RecordBatch]:
        upto = self._compactor.upto
        for segment in self._row.segments:
            if segment.end_offset > offset and segment.base_offset < upto:
                yield from self._batches(segment, segment.find(max(offset, segment.base_offset)), stop=upto)

    def _batches(self, segment: Segment, position: int = 0, **limits: int) -> Iterator[RecordBatch]:
        for batches in segment.iter_batches(position, **limits):
            self._between()
            yield from batches

    # --- rewriting ----------------------------------------------------------------------------------------------------

    def _rewrite_all(self) -> None:
        learnt_end = self._compactor.learnt_end
        group: list[Segment] = []
        for segment in self._sealed_below(learnt_end):
            if group and not (
                segment.end_offset <= learnt_end
                and len(group) < _MOST_MERGED
                and self._row.may_merge([*group, segment])
            ):
                self._rewrite(group)
                group = []
            group.append(segment)
        if group:
            self._rewrite(group)

    def _rewrite(self, group: Sequence[Segment]) -> None:
        done = group[-1].end_offset <= self._compactor.learnt_end
        unchanged_bytes = 0
        if len(group) == 1:
            unchanged_bytes = self._unchanged_bytes(group[0])
            if unchanged_bytes == group[0].size_bytes:
                if done and not group[0].compacted:
                    self._row.mark_compacted(group[0], truncations=self._truncations)
                return
        path = self._directory / f"{group[0].path.stem}.{next(_attempts)}.new"
        index = _CollectedEntries()
        try:
            output = self._write(path, index, group, unchanged_bytes)
            if done:
                output.mark_compacted()
            self._row.replace(group, output, index.entries, truncations=self._truncations)
        finally:
            with storage_errors(f"{path}: remove"):
                self._files.remove(path)
        self._removed += sum(one.record_count for one in group) - output.record_count

    def _unchanged_bytes(self, segment: Segment) -> int:
        """How many bytes stand before the first batch that loses something."""
        position = 0
        for batch in self._batches(segment):
            if self._rewritten(batch, segment) is not batch:
                return position
            position += len(batch.data)
        return position

    def _write(self, path: Path, index: OffsetIndex, group: Sequence[Segment], unchanged_bytes: int) -> Segment:
        """What is left of the group, synced, at ``path``."""
        with storage_errors(f"{path}: write"):
            self._files.create(path)
        output = self._row.new_output(path, index)
        batches: list[RecordBatch] = []
        size = 0
        for batch in self._survivors(group, unchanged_bytes):
            batches.append(batch)
            size += len(batch.data)
            if size >= _WRITE_BYTES:
                output.append(batches, b"".join(one.data for one in batches))
                batches, size = [], 0
        output.append(batches, b"".join(one.data for one in batches))
        output.sync()
        return output

    def _survivors(self, group: Sequence[Segment], unchanged_bytes: int) -> Iterator[RecordBatch]:
        """Batches without records stay where an epoch begins, and at the end, where the next segment goes on."""
        epoch: int | None = None
        end_offset = group[-1].end_offset
        for segment in group:
            position = 0
            for batch in self._batches(segment):
                kept = self._rewritten(batch, segment) if position >= unchanged_bytes else batch
                if kept.record_count or kept.leader_epoch != epoch or kept.end_offset == end_offset:
                    yield kept
                    epoch = kept.leader_epoch
                position += len(batch.data)

    def _rewritten(self, batch: RecordBatch, segment: Segment) -> RecordBatch:
        try:
            return self._compactor.rewrite(batch)
        except ProtocolError as error:
            raise LogDamaged(f"{segment.path}: can't be compacted: {error}") from error


def _clean_ones(sealed: Sequence[Segment]) -> Sequence[Segment]:
    """Those at the beginning in which each key occurs only once."""
    dirty = next((number for number, one in enumerate(sealed) if not one.compacted), len(sealed))
    return sealed[:dirty]


def _size(segments: Sequence[Segment]) -> int:
    return sum(one.size_bytes for one in segments)


class _CollectedEntries(OffsetIndex):
    """Index entries of a file that isn't in its place yet."""

    def __init__(self) -> None:
        self.entries: list[IndexEntry] = []

    def add(self, entries: Sequence[IndexEntry]) -> None:
        self.entries += entries

    def find(self, offset: int, *, segment: int) -> IndexEntry | None:
        return None

    def drop_from(self, segment: int, position: int) -> None:
        pass

    def drop_before(self, segment: int) -> None:
        pass

    def delete(self) -> None:
        pass


# --- putting a file in the place of others ----------------------------------------------------------------------------


def replacement_path(output: Segment) -> Path:
    """Renaming ``output`` to this decides that it replaces the segments whose offsets it covers."""
    return output.path.with_name(f"{output.base_offset:020d}-{output.end_offset:020d}{_REPLACEMENT_SUFFIX}")


def finish_replacements(directory: Path, files: Files) -> None:
    """Finishes what a crash interrupted after it was decided."""
    for decided in directory.glob("*" + _REPLACEMENT_SUFFIX):
        finish_replacement(decided, files)


def finish_replacement(decided: Path, files: Files) -> Path:
    """Removes what is replaced, and returns where the file is in the end. Can be repeated from any point on."""
    base_offset, end_offset = map(int, decided.stem.split("-"))
    first = segment_path(decided.parent, base_offset)
    files.remove(first.with_suffix(SUMMARY_SUFFIX))
    for path in decided.parent.glob(SEGMENT_PATTERN):
        if base_offset < int(path.stem) < end_offset:
            files.remove(path)
            files.remove(path.with_suffix(SUMMARY_SUFFIX))
    files.sync_directory(decided.parent)
    files.rename(decided, first)
    return first
