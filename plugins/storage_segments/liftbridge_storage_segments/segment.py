"""One segment file: record batches back to back, named after the first offset it can hold."""

import struct
from pathlib import Path

from liftbridge.errors import LogDamaged
from liftbridge.interfaces.index import IndexEntry, OffsetIndex
from liftbridge.interfaces.log import EpochStart
from liftbridge.interfaces.records import RecordBatch
from liftbridge.protocol.record_batch import FORMAT_VERSION, HEADER, HEADER_BYTES
from liftbridge_storage_segments.files import Files, storage_errors
from liftbridge_storage_segments.summary import Summary, decode_summary

SEGMENT_SUFFIX = ".log"
SUMMARY_SUFFIX = ".summary"
_NAME_DIGITS = 20
_WALK_BYTES = 64 * 1024
#: Version, header length, body length, base offset, end offset: what walking from batch to batch needs.
_WALK = struct.Struct(">4xBxHI4xQQ")


def segment_path(directory: Path, base_offset: int) -> Path:
    return directory / f"{base_offset:0{_NAME_DIGITS}d}{SEGMENT_SUFFIX}"


class Segment:
    """A segment's file and what is known of it. Reading is safe from any thread; writing is for one at a time."""

    def __init__(self, path: Path, files: Files, index: OffsetIndex, index_interval_bytes: int) -> None:
        self.path = path
        self.base_offset = int(path.name.removesuffix(SEGMENT_SUFFIX))
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

    def note(self, batch: RecordBatch) -> None:
        """The batch stands at the end of the file now."""
        position = self._summary.size_bytes
        if position >= self._indexed_bytes:
            self._index.add([IndexEntry(batch.base_offset, self.base_offset, position)])
            self._indexed_bytes = position + self._index_interval_bytes
        self._summary.add(batch)

    def sync(self) -> None:
        with storage_errors(f"{self.path}: sync"):
            self._files.sync(self.path)

    def seal(self) -> None:
        """Everything here is durable and never changes again; says so beside the file."""
        self.sync()
        with storage_errors(f"{self.summary_path}: write"):
            self._files.replace(self.summary_path, self._summary.encode())
        self.vouched_bytes = self.size_bytes

    def cut(self, position: int, *, durable: bool) -> None:
        """Drops the bytes from ``position`` on, and all that is known; scan the segment again."""
        with storage_errors(f"{self.path}: truncate"):
            if position < self.vouched_bytes:
                self._files.remove(self.summary_path)
                self._files.sync_directory(self.path.parent)
            self._files.truncate(self.path, position)
            if durable:
                self._files.sync(self.path)
        self._index.drop_from(self.base_offset, position)
        if position < self.size_bytes:
            self._summary = Summary(self.base_offset, self.base_offset)
            self.vouched_bytes = self._indexed_bytes = 0

    def remove(self) -> None:
        with storage_errors(f"{self.path}: remove"):
            self._files.remove(self.path)
            self._files.remove(self.summary_path)

    # --- reading ------------------------------------------------------------------------------------------------------

    def file_size(self) -> int:
        with storage_errors(f"{self.path}: size"):
            return self._files.size(self.path)

    def read_bytes(self, size: int, position: int) -> bytes:
        with storage_errors(f"{self.path}: read at byte {position}"):
            return self._files.read(self.path, size, position)

    def read_batches(self, position: int, *, stop: int, max_bytes: int) -> tuple[bytes, int]:
        """Whole batches from ``position`` on whose base is below ``stop``, at least one; and the last one's end offset
        (the segment's, when there was none)."""
        data = self.read_bytes(min(max(max_bytes, HEADER_BYTES), self.size_bytes - position), position)
        length = self._batch_bytes(data, position)
        if length > len(data):
            data = self.read_bytes(length, position)
        cut, end_offset = 0, self.end_offset
        while cut + HEADER_BYTES <= len(data):
            version, header_bytes, body_bytes, base, end = _WALK.unpack_from(data, cut)
            if base >= stop and cut:
                break
            self._check(version, header_bytes, position + cut)
            next_cut = cut + HEADER_BYTES + body_bytes
            if next_cut > len(data):
                break
            cut, end_offset = next_cut, end
        if cut == 0:
            raise LogDamaged(f"{self.path}: no whole batch at byte {position}")
        return (data if cut == len(data) else data[:cut]), end_offset

    def find(self, offset: int) -> int:
        """The position of the batch that holds ``offset``, or of the next one; the size when there is none."""
        position = self._indexed_position(offset)
        while position < self.size_bytes:
            data = self.read_bytes(min(_WALK_BYTES, self.size_bytes - position), position)
            walked = 0
            while walked + HEADER_BYTES <= len(data):
                version, header_bytes, body_bytes, _, end = _WALK.unpack_from(data, walked)
                self._check(version, header_bytes, position + walked)
                if end > offset:
                    return position + walked
                walked += HEADER_BYTES + body_bytes
            if walked == 0:
                raise LogDamaged(f"{self.path}: no whole header at byte {position}")
            position += walked
        return self.size_bytes

    def batch_at(self, offset: int) -> tuple[int, int, int]:
        """Base offset, end offset and timestamp of the batch that holds ``offset`` or of the next one."""
        position = self.find(offset)
        fields = HEADER.unpack(self.read_bytes(HEADER_BYTES, position))
        return fields[6], fields[7], fields[9]

    def _indexed_position(self, offset: int) -> int:
        """Where to begin walking. An index entry counts only if a header with its offset stands there."""
        entry = self._index.find(offset, segment=self.base_offset)
        if entry is None or entry.position + HEADER_BYTES > self.size_bytes:
            return 0
        version, header_bytes, _, base, _ = _WALK.unpack(self.read_bytes(_WALK.size, entry.position))
        plausible = version == FORMAT_VERSION and header_bytes == HEADER_BYTES and base == entry.base_offset
        return entry.position if plausible and base <= offset else 0

    def _batch_bytes(self, data: bytes, position: int) -> int:
        version, header_bytes, body_bytes, _, _ = _WALK.unpack_from(data)
        self._check(version, header_bytes, position)
        return int(HEADER_BYTES + body_bytes)

    def _check(self, version: int, header_bytes: int, position: int) -> None:
        if version != FORMAT_VERSION or header_bytes != HEADER_BYTES:
            raise LogDamaged(f"{self.path}: no batch header at byte {position}")

    def _load_summary(self) -> Summary | None:
        try:
            summary = decode_summary(self.summary_path.read_bytes())
        except FileNotFoundError:
            return None
        if summary is None or summary.base_offset != self.base_offset:
            return None
        return summary
