"""Shows segment files to people and to programs. Reads only."""

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
from liftbridge_storage_segments.dump_forms import AsJson, AsText, Form
from liftbridge_storage_segments.segment import SEGMENT_SUFFIX, SUMMARY_SUFFIX
from liftbridge_storage_segments.summary import decode_summary


def dump_log(path: str, out: IO[str], *, values: bool = False, as_json: bool = False) -> bool:
    """Prints a segment file, or every one in a log's directory; False when the path is neither."""
    target = Path(path)
    files = sorted(target.iterdir()) if target.is_dir() else [target]
    segments = [one for one in files if one.suffix == SEGMENT_SUFFIX and one.stem.isdecimal() and one.is_file()]
    form: Form = AsJson(out) if as_json else AsText(out, whole=values)
    for segment in segments:
        _dump_segment(segment, form)
    return bool(segments)


def _dump_segment(path: Path, form: Form) -> None:
    data = path.read_bytes()
    form.segment(path, len(data))
    position, next_offset = 0, int(path.stem)
    while position < len(data):
        try:
            batch = decode_batch(data, position)
        except ProtocolError as error:
            form.damage(position, len(data) - position, str(error))
            break
        if batch.base_offset > next_offset:
            form.removed(next_offset, batch.base_offset)
        _dump_batch(batch, position, form)
        next_offset = batch.end_offset
        position += len(batch.data)
    _dump_summary(path.with_suffix(SUMMARY_SUFFIX), form)


def _dump_batch(batch: RecordBatch, position: int, form: Form) -> None:
    encrypted = bool(batch.data[ATTRIBUTES_POSITION] & ATTRIBUTE_ENCRYPTED)
    form.batch(batch, position, encrypted=encrypted)
    if encrypted:
        return
    body = batch.data[HEADER_BYTES:]
    for record in iter_records(body):
        try:
            message = api.Message.FromString(body[record.start + RECORD_PREFIX_BYTES : record.end])
        except DecodeError:
            form.no_message(record.offset)
        else:
            form.message(record.offset, message)


def _dump_summary(path: Path, form: Form) -> None:
    if path.exists():
        form.summary(decode_summary(path.read_bytes()))
