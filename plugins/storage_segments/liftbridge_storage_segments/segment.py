"""One segment file: record batches back to back, named after the first offset it can hold."""

import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from liftbridge.errors import LogDamaged, ProtocolError
from liftbridge.interfaces.index import IndexEntry, OffsetIndex
from liftbridge.interfaces.log import EpochStart
from liftbridge.interfaces.records import RecordBatch
from liftbridge.protocol.record_batch import FORMAT_VERSION, HEADER, HEADER_BYTES, decode_batch, iter_batches
from liftbridge_storage_segments.files import Files, storage_errors
from liftbridge_storage_segments.summary import Summary, decode_summary

SEGMENT_SUFFIX = ".log"
SUMMARY_SUFFIX = ".summary"
_NAME_DIGITS = 20
#: For glob: other files in a log's directory are none of ours.
SEGMENT_PATTERN = "[0-9]" * _NAME_DIGITS + SEGMENT_SUFFIX
_WALK_BYTES = 64 * 1024
_NO_STOP = 1 << 64
#: Version, header length, body length, base offset, end offset: what walking from batch to batch needs.
_WALK = struct.Struct(">4xBxHI4xQQ")


def segment_path(directory: Path, base_offset: int) -> Path:
    return directory / f"{base_offset:0{_NAME_DIGITS}d}{SEGMENT_SUFFIX}"


class Segment:
    """A segment's file and what is known of it. Reading is safe from any thread; writing is for one at a time."""

    def __init__(self, path: Path, files: Files, index: OffsetIndex, index_interval_bytes: int) -> None:
        self.path = path
        self.base_offset = int(path.name[:_NAME_DIGITS])
        #: Another file is taking this one's place: what was read from now on may be of that one.
        self.replaced = False
        self._files = files
        self._index = index
        self._index_interval_bytes = index_interval_bytes
        self._indexed_bytes = 0
        self._summary = self._load_summary() or Summary(self.base_offset, self.base_offset)
        self.vouched_bytes = self._summary.size_bytes

    @property
    def summary_path(self) -> Path:
        return self.path.with_suffix(SUMMARY_SUFFIX)

    @property
    def end_offset(self) -> int:
        return self._summary.end_offset

    @property
    def size_bytes(self) -> int:
        return self._summary.size_bytes

    @property
    def record_count(self) -> int:
        return self._summary.record_count

    @property
    def first_timestamp_ns(self) -> int:
        return self._summary.first_timestamp_ns

    @property
    def last_timestamp_ns(self) -> int:
        return self._summary.last_timestamp_ns

    @property
    def compacted(self) -> bool:
        return self._summary.compacted

    @property
    def epochs(self) -> list[EpochStart]:
        return self._summary.epochs

    # --- writing ------------------------------------------------------------------------------------------------------

    def append(self, batches: list[RecordBatch] | tuple[RecordBatch, ...], data: bytes) -> None:
        """Writes ``data``, the batches' bytes, at the end. On an error the file is as before."""
        with storage_errors(f"{self.path}: append"):
            try:
                self._files.write(self.path, data, self.size_bytes)
            except OSError:
                self._files.truncate(self.path, self.size_bytes)
                raise
        for batch in batches:
            self.note(batch)

    def check_room(self, size_bytes: int) -> None:
        """Raises what an append would. What a crash leaves of it is cut when the segment is opened, as a torn append is."""
        with storage_errors(f"{self.path}: append"):
            try:
                self._files.write(self.path, bytes(size_bytes), self.size_bytes)
            finally:
                self._files.truncate(self.path, self.size_bytes)

    def note(self, batch: RecordBatch) -> None:
        """The batch stands at the end of the file now."""
        position = self._summary.size_bytes
        if position >= self._indexed_bytes:
            self._index.add([IndexEntry(batch.base_offset, self.base_offset, position)])
            self._indexed_bytes = position + self._index_interval_bytes
            self._summary.mark_if_due()
        self._summary.add(batch)

    def sync(self) -> None:
        with storage_errors(f"{self.path}: sync"):
            self._files.sync(self.path)

    def last_mark(self) -> Summary:
        """What was known a moment ago; unlike what is known now, it doesn't change while somebody appends."""
        return self._summary.before(self.size_bytes)

    def vouch(self, summary: Summary) -> None:
        """Says beside the file that the bytes which the summary is of can be relied on. They must have been synced."""
        with storage_errors(f"{self.summary_path}: write"):
            self._files.replace(self.summary_path, summary.encode())
        self.vouched_bytes = summary.size_bytes

    def seal(self, *, may_grow: bool = False) -> None:
        """Vouches for all of the file, which must have been synced. The marks are saved only where a truncation is
        likely: there are too many for each segment of a large log."""
        self.vouch(self._summary if may_grow else replace(self._summary, marks=[]))

    def forget_marks(self) -> None:
        self._summary.marks = []

    def mark_compacted(self) -> None:
        """Remembers it as long as nothing is appended; ``seal`` makes that last."""
        self._summary.compacted = True

    def renamed(self, path: Path, index: OffsetIndex) -> "Segment":
        """The same segment, now that its file is at ``path``. This object, which readers in other threads may hold, is empty
        from now on."""
        segment = Segment(path, self._files, index, self._index_interval_bytes)
        segment._summary, self._summary = self._summary, Summary(self.base_offset, self.base_offset)
        return segment

    def cut(self, position: int) -> None:
        """Drops the bytes from ``position`` on, durably. Scan the segment again: a part of what was known is
        forgotten, not much as a rule."""
        with storage_errors(f"{self.path}: truncate"):
            if position < self.vouched_bytes:
                self._files.remove(self.summary_path)
                self._files.sync_directory(self.path.parent)
            self._files.truncate(self.path, position)
            self._files.sync(self.path)
        self._index.drop_from(self.base_offset, position)
        if position < self.size_bytes:
            self._summary = self._summary.before(position)
            self._indexed_bytes = 0
            self.vouched_bytes = self.vouched_bytes if self.vouched_bytes <= position else 0

    def remove(self) -> None:
        """Durably, so that segments which are removed one after the other never leave a hole."""
        with storage_errors(f"{self.path}: remove"):
            self._files.remove(self.path)
            self._files.remove(self.summary_path)
            self._files.sync_directory(self.path.parent)

    # --- reading ------------------------------------------------------------------------------------------------------

    def iter_batches(self, position: int = 0, *, stop: int = _NO_STOP) -> Iterator[list[RecordBatch]]:
        """The batches from ``position`` on whose base is below ``stop``, verified, some at a time."""
        while position < self.size_bytes:
            data, _ = self.read_batches(position, stop=stop, max_bytes=_WALK_BYTES)
            if not data:
                return
            try:
                yield list(iter_batches(data))
            except ProtocolError as error:
                raise LogDamaged(f"{self.path}: damaged behind byte {position}: {error}") from error
            position += len(data)

    def file_size(self) -> int:
        with storage_errors(f"{self.path}: size"):
            return self._files.size(self.path)

    def read_bytes(self, size: int, position: int) -> bytes:
        with storage_errors(f"{self.path}: read at byte {position}"):
            return self._files.read(self.path, size, position)

    def read_batches(self, position: int, *, stop: int, max_bytes: int) -> tuple[bytes, int]:
        """Whole batches from ``position`` on whose base is below ``stop``, at least one unless the first isn't; and the
        end offset of the last one."""
        data = self.read_bytes(min(max(max_bytes, HEADER_BYTES), self.size_bytes - position), position)
        length = self._batch_bytes(data, position)
        if length > len(data):
            data = self.read_bytes(length, position)
        cut = end_offset = 0
        while cut + HEADER_BYTES <= len(data):
            version, header_bytes, body_bytes, base, end = _WALK.unpack_from(data, cut)
            if base >= stop:
                break
            self._check(version, header_bytes, position + cut)
            next_cut = cut + HEADER_BYTES + body_bytes
            if next_cut > len(data):
                break
            cut, end_offset = next_cut, end
        if cut == 0:
            self.read_batch(position)  # which raises, unless the batch really begins at stop or later
        return (data if cut == len(data) else data[:cut]), end_offset

    def read_batch(self, position: int) -> RecordBatch:
        """The batch at ``position``, verified."""
        length = self._batch_bytes(self.read_bytes(HEADER_BYTES, position), position)
        try:
            return decode_batch(self.read_bytes(length, position))
        except ProtocolError as error:
            raise LogDamaged(f"{self.path}: damaged at byte {position}: {error}") from error

    def find(self, offset: int) -> int:
        """The position of the batch that holds ``offset``, or of the next one; the size when there is none.

        Headers are believed without their checksum, because whoever asks reads the batch that is found and verifies it.
        So a batch is verified here before it makes an offset fall into a gap.
        """
        end_offset, size = self.end_offset, self.size_bytes
        position = self._indexed_position(offset)
        previous: int | None = None
        while position < size:
            data = self.read_bytes(min(_WALK_BYTES, size - position), position)
            walked = 0
            while walked + HEADER_BYTES <= len(data):
                version, header_bytes, body_bytes, base, end = _WALK.unpack_from(data, walked)
                self._check(version, header_bytes, position + walked)
                if end > offset:
                    if base > offset and previous is not None:
                        self.read_batch(previous)
                    return position + walked
                previous = position + walked
                walked += HEADER_BYTES + body_bytes
            if walked == 0:
                raise LogDamaged(f"{self.path}: no whole batch header at byte {position}")
            position += walked
        if offset < end_offset:
            raise LogDamaged(f"{self.path}: offset {offset} isn't in it, though it ends at {end_offset}")
        return size

    def end_offset_before(self, position: int) -> int:
        """Where the batches before ``position`` end."""
        known = self._summary.before(position)
        walked, end_offset = known.size_bytes, known.end_offset
        while walked < position:
            data, end_offset = self.read_batches(walked, stop=_NO_STOP, max_bytes=min(_WALK_BYTES, position - walked))
            walked += len(data)
        return end_offset

    def batch_at(self, offset: int) -> tuple[int, int, int]:
        """Base offset, end offset and timestamp of the batch that holds ``offset`` or of the next one."""
        position = self.find(offset)
        data = self.read_bytes(HEADER_BYTES, position)
        self._batch_bytes(data, position)
        fields = HEADER.unpack(data)
        return fields[6], fields[7], fields[9]

    def _indexed_position(self, offset: int) -> int:
        """Where to begin walking. An index entry counts only if a header with its offset stands there."""
        entry = self._index.find(offset, segment=self.base_offset)
        if entry is None or entry.position + HEADER_BYTES > self.size_bytes:
            return 0
        header = self.read_bytes(_WALK.size, entry.position)
        if len(header) < _WALK.size:
            return 0
        version, header_bytes, _, base, _ = _WALK.unpack(header)
        plausible = version == FORMAT_VERSION and header_bytes == HEADER_BYTES and base == entry.base_offset
        return entry.position if plausible and base <= offset else 0

    def _batch_bytes(self, data: bytes, position: int) -> int:
        if len(data) < HEADER_BYTES:
            raise LogDamaged(f"{self.path}: no whole batch header at byte {position}")
        version, header_bytes, body_bytes, _, _ = _WALK.unpack_from(data)
        self._check(version, header_bytes, position)
        return int(HEADER_BYTES + body_bytes)

    def _check(self, version: int, header_bytes: int, position: int) -> None:
        if version != FORMAT_VERSION or header_bytes != HEADER_BYTES:
            raise LogDamaged(f"{self.path}: no batch header at byte {position}")

    def _load_summary(self) -> Summary | None:
        with storage_errors(f"{self.summary_path}: read"):
            try:
                summary = decode_summary(self.summary_path.read_bytes())
            except FileNotFoundError:
                return None
        if summary is None or summary.base_offset != self.base_offset:
            return None
        return summary
