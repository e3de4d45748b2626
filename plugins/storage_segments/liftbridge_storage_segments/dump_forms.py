"""How what is in a segment file is written down: for people, and for programs."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Protocol

from liftbridge.interfaces.records import RecordBatch
from liftbridge.protocol.generated import api_pb2 as api
from liftbridge.protocol.json_text import bytes_entry, header_value
from liftbridge_storage_segments.summary import Summary

_PREVIEW_BYTES = 40


class Form(Protocol):
    """Is told what stands in a file, in that order."""

    def segment(self, path: Path, size_bytes: int) -> None:
        """A file begins."""

    def batch(self, batch: RecordBatch, position: int, *, encrypted: bool) -> None:
        """A batch that is whole; its messages follow, unless it is encrypted."""

    def message(self, offset: int, message: api.Message) -> None: ...

    def no_message(self, offset: int) -> None:
        """A record that can't be decoded."""

    def removed(self, offset: int, end_offset: int) -> None:
        """From ``offset`` up to before ``end_offset`` there is nothing: it was compacted away."""

    def damage(self, position: int, size_bytes: int, reason: str) -> None:
        """From here to the end of the file nothing can be read."""

    def summary(self, summary: Summary | None) -> None:
        """What the file beside says; None when it is damaged."""


class AsText:
    """Lines; ``whole``: keys and values aren't cut to previews."""

    def __init__(self, out: IO[str], *, whole: bool) -> None:
        self._out = out
        self._whole = whole

    def segment(self, path: Path, size_bytes: int) -> None:
        self._out.write(f"{path.name}: {size_bytes:,} bytes\n")

    def batch(self, batch: RecordBatch, position: int, *, encrypted: bool) -> None:
        left = "left of " if batch.record_count < batch.end_offset - batch.base_offset else ""
        self._out.write(
            f"  byte {position}: batch of {batch.record_count}, {left}offsets {batch.base_offset} to "
            f"{batch.end_offset - 1}, epoch {batch.leader_epoch}, {_time(batch.timestamp_ns)}, {len(batch.data):,} bytes, "
            "checksum ok\n"
        )
        if encrypted:
            self._out.write("    encrypted: a server that has the key shows what is in it\n")

    def message(self, offset: int, message: api.Message) -> None:
        key = f" key {self._preview(message.key)}" if message.key else ""
        self._out.write(f"    {offset}:{key} value {self._preview(message.value)} on {message.subject}\n")

    def no_message(self, offset: int) -> None:
        self._out.write(f"    {offset}: not a message\n")

    def removed(self, offset: int, end_offset: int) -> None:
        self._out.write(f"  offsets {offset} to {end_offset - 1} were removed\n")

    def damage(self, position: int, size_bytes: int, reason: str) -> None:
        self._out.write(f"  byte {position}: BAD, {size_bytes} bytes to the end of the file: {reason}\n")

    def summary(self, summary: Summary | None) -> None:
        if summary is None:
            self._out.write("  summary: BAD (it is a cache, and is made again)\n")
        else:
            self._out.write(
                f"  summary: vouches for {summary.size_bytes:,} bytes, up to offset {summary.end_offset - 1}\n"
            )

    def _preview(self, data: bytes) -> str:
        if self._whole or len(data) <= _PREVIEW_BYTES:
            return repr(data)[1:]
        return f"{data[:_PREVIEW_BYTES]!r}"[1:] + f"... ({len(data):,} bytes)"


class AsJson:
    """An object on each line, with whole keys and values; ``kind`` says what it is."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out

    def segment(self, path: Path, size_bytes: int) -> None:
        self._write("segment", path=str(path), size_bytes=size_bytes)

    def batch(self, batch: RecordBatch, position: int, *, encrypted: bool) -> None:
        self._write(
            "batch",
            position=position,
            size_bytes=len(batch.data),
            records=batch.record_count,
            base_offset=batch.base_offset,
            end_offset=batch.end_offset,
            leader_epoch=batch.leader_epoch,
            timestamp_ns=batch.timestamp_ns,
            encrypted=encrypted,
        )

    def message(self, offset: int, message: api.Message) -> None:
        self._write(
            "message",
            stream=message.stream,
            partition=message.partition,
            offset=offset,
            timestamp_ns=message.timestamp,
            subject=message.subject,
            reply_subject=message.replySubject,
            **bytes_entry("key", message.key),
            **bytes_entry("value", message.value),
            headers={name: header_value(value) for name, value in message.headers.items()},
        )

    def no_message(self, offset: int) -> None:
        self._write("damaged message", offset=offset)

    def removed(self, offset: int, end_offset: int) -> None:
        self._write("removed", base_offset=offset, end_offset=end_offset)

    def damage(self, position: int, size_bytes: int, reason: str) -> None:
        self._write("damage", position=position, size_bytes=size_bytes, reason=reason)

    def summary(self, summary: Summary | None) -> None:
        if summary is None:
            self._write("damaged summary")
        else:
            self._write("summary", size_bytes=summary.size_bytes, end_offset=summary.end_offset)

    def _write(self, kind: str, **fields: Any) -> None:
        self._out.write(json.dumps({"kind": kind, **fields}) + "\n")


def _time(timestamp_ns: int) -> str:
    return datetime.fromtimestamp(timestamp_ns / 1e9, UTC).isoformat(timespec="milliseconds")
