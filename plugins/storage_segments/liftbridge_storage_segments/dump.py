"""Shows segment files to people. Reads only."""

from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from google.protobuf.message import DecodeError

from liftbridge.errors import ProtocolError
from liftbridge.interfaces.records import RecordBatch
from liftbridge.protocol.generated import api_pb2 as api
from liftbridge.protocol.record_batch import (
    ATTRIBUTE_ENCRYPTED,
    ATTRIBUTES_POSITION,
    HEADER_BYTES,
    RECORD_PREFIX_BYTES,
    decode_batch,
    iter_records,
)
from liftbridge_storage_segments.segment import SEGMENT_SUFFIX, SUMMARY_SUFFIX
from liftbridge_storage_segments.summary import decode_summary

_PREVIEW_BYTES = 40


def dump_log(path: str, out: IO[str], *, values: bool = False) -> bool:
    """Prints a segment file, or every one in a log's directory; False when the path is neither."""
    target = Path(path)
    files = sorted(target.iterdir()) if target.is_dir() else [target]
    segments = [one for one in files if one.suffix == SEGMENT_SUFFIX and one.stem.isdecimal() and one.is_file()]
    for segment in segments:
        _dump_segment(segment, out, values)
    return bool(segments)


def _dump_segment(path: Path, out: IO[str], values: bool) -> None:
    data = path.read_bytes()
    out.write(f"{path.name}: {len(data):,} bytes\n")
    position, next_offset = 0, int(path.stem)
    while position < len(data):
        try:
            batch = decode_batch(data, position)
        except ProtocolError as error:
            out.write(f"  byte {position}: BAD, {len(data) - position} bytes to the end of the file: {error}\n")
            break
        if batch.base_offset > next_offset:
            out.write(f"  offsets {next_offset} to {batch.base_offset - 1} were removed\n")
        _dump_batch(batch, position, out, values)
        next_offset = batch.end_offset
        position += len(batch.data)
    _dump_summary(path.with_suffix(SUMMARY_SUFFIX), out)


def _dump_batch(batch: RecordBatch, position: int, out: IO[str], values: bool) -> None:
    left = "left of " if batch.record_count < batch.end_offset - batch.base_offset else ""
    out.write(
        f"  byte {position}: batch of {batch.record_count}, {left}offsets {batch.base_offset} to {batch.end_offset - 1}, "
        f"epoch {batch.leader_epoch}, {_time(batch.timestamp_ns)}, {len(batch.data):,} bytes, checksum ok\n"
    )
    if batch.data[ATTRIBUTES_POSITION] & ATTRIBUTE_ENCRYPTED:
        out.write("    encrypted: a server that has the key shows what is in it\n")
        return
    body = batch.data[HEADER_BYTES:]
    for record in iter_records(body):
        try:
            message = api.Message.FromString(body[record.start + RECORD_PREFIX_BYTES : record.end])
        except DecodeError:
            out.write(f"    {record.offset}: not a message\n")
            continue
        key = f" key {_preview(message.key, values)}" if message.key else ""
        out.write(f"    {record.offset}:{key} value {_preview(message.value, values)} on {message.subject}\n")


def _dump_summary(path: Path, out: IO[str]) -> None:
    if path.exists():
        summary = decode_summary(path.read_bytes())
        if summary is None:
            out.write("  summary: BAD (it is a cache, and is made again)\n")
        else:
            out.write(f"  summary: vouches for {summary.size_bytes:,} bytes, up to offset {summary.end_offset - 1}\n")


def _time(timestamp_ns: int) -> str:
    return datetime.fromtimestamp(timestamp_ns / 1e9, UTC).isoformat(timespec="milliseconds")


def _preview(data: bytes, whole: bool) -> str:
    if whole or len(data) <= _PREVIEW_BYTES:
        return repr(data)[1:]
    return f"{data[:_PREVIEW_BYTES]!r}"[1:] + f"... ({len(data):,} bytes)"
