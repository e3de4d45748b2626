"""How requests are laid out, so that others of the same layout are taken apart by slicing, not by reading.

A client that publishes in a loop sends requests that differ only in what they carry: :func:`find_layout` says where that is.
:func:`find_pattern` remembers it for requests that come one at a time.
"""

import struct
from dataclasses import dataclass

from liftbridge.errors import ProtocolError
from liftbridge.protocol.record_batch import RECORD_PREFIX_BYTES
from liftbridge.protocol.request_fields import (
    CORRELATION_ID,
    HEADERS,
    KEY,
    RETAG,
    VALUE,
    Request,
    Route,
    decode_request,
)
from liftbridge.protocol.varint import decode_varint

_STORED = (KEY, VALUE, HEADERS)
_LENGTH_DELIMITED = 2


@dataclass(slots=True)
class Layout:
    """Where the parts of a request are, relative to its frame. ``fixed`` are the bytes that must be equal in all."""

    fixed: list[int]
    tags: list[tuple[int, int]]
    stored: list[tuple[int, int]]
    correlation_id: tuple[int, int]


def find_layout(framed: bytes, begin: int, length: int) -> Layout | None:
    """The layout of the request at ``begin``; None when there is something in it that has to be read properly."""
    end = begin + length
    base = begin - RECORD_PREFIX_BYTES
    layout = Layout(fixed=[], tags=[], stored=[], correlation_id=(0, 0))
    seen: set[int] = set()
    position = begin
    try:
        while position < end:
            tag = framed[position]
            if tag not in RETAG or (tag in seen and tag != HEADERS):
                return None
            seen.add(tag)
            field_start = position
            value_start, value_end = _field_value(framed, position, end)
            layout.tags.append((field_start - base, RETAG[tag]))
            layout.fixed += range(field_start - base, value_start - base)
            if tag == HEADERS:
                content = _header_value_start(framed, value_start, value_end)
                if content is None:
                    return None
                layout.fixed += range(value_start - base, content - base)
            elif tag == CORRELATION_ID:
                layout.correlation_id = (value_start - base, value_end - base)
            elif tag not in (KEY, VALUE):
                layout.fixed += range(value_start - base, value_end - base)
            if tag in _STORED:
                _extend(layout.stored, field_start - base, value_end - base)
            position = value_end
    except ProtocolError:
        return None
    return layout


def _field_value(framed: bytes, position: int, end: int) -> tuple[int, int]:
    """Where the value of the field at ``position`` begins and ends; the tag is one byte."""
    if framed[position] & 7 != _LENGTH_DELIMITED:
        _, stop = decode_varint(framed, position + 1, end)
        return position + 1, stop
    size, start = decode_varint(framed, position + 1, end)
    if start + size > end:
        raise ProtocolError("a field is longer than its message")
    return start, start + size


def _header_value_start(framed: bytes, begin: int, end: int) -> int | None:
    """Where the value of a header entry begins, if the entry is a name and then a value, and not a reserved name."""
    if begin == end or framed[begin] != 0x0A:
        return None
    name_start, name_end = _field_value(framed, begin, end)
    if framed[name_start:name_end] in (b"subject", b"reply"):
        return None
    if name_end == end or framed[name_end] != 0x12:
        return None
    value_start, value_end = _field_value(framed, name_end, end)
    return value_start if value_end == end else None


def _extend(ranges: list[tuple[int, int]], start: int, end: int) -> None:
    if ranges and ranges[-1][1] == start:
        ranges[-1] = (ranges[-1][0], end)
    else:
        ranges.append((start, end))


@dataclass(frozen=True, slots=True)
class Pattern:
    """Requests of one length that differ only in what they carry. Places are relative to the request.

    ``fixed`` are the ranges that must be equal, with their bytes; ``tags`` what to write over the tags.
    """

    route: Route
    fixed: list[tuple[int, int, bytes]]
    tags: list[tuple[int, int]]
    stored: list[tuple[int, int]]
    correlation_id: tuple[int, int]

    def split(self, data: bytes) -> Request | None:
        """The parts of a request of the pattern's length, None if it isn't laid out like that."""
        for start, end, expected in self.fixed:
            if data[start:end] != expected:
                return None
        start, end = self.correlation_id
        correlation_id = data[start:end]
        if not correlation_id.isascii():
            return None
        block = bytearray(data)
        for position, tag in self.tags:
            block[position] = tag
        message = bytes(block)
        if len(self.stored) == 1:
            start, end = self.stored[0]
            fields = message[start:end]
        else:
            fields = b"".join([message[start:end] for start, end in self.stored])
        return Request(self.route, fields, message, correlation_id)


def find_pattern(data: bytes) -> Pattern | None:
    """The pattern that the request is one of; None as for ``find_layout``."""
    framed = bytes(RECORD_PREFIX_BYTES) + data
    layout = find_layout(framed, RECORD_PREFIX_BYTES, len(data))
    if layout is None:
        return None
    shift = RECORD_PREFIX_BYTES
    ranges: list[tuple[int, int]] = []
    for position in layout.fixed:
        _extend(ranges, position - shift, position - shift + 1)
    start, end = layout.correlation_id
    return Pattern(
        route=decode_request(data).route,
        fixed=[(start, end, data[start:end]) for start, end in ranges],
        tags=[(position - shift, tag) for position, tag in layout.tags],
        stored=[(start - shift, end - shift) for start, end in layout.stored],
        correlation_id=(start - shift, end - shift) if end else (0, 0),
    )


def column(block: bytearray, stride: int, part: tuple[int, int]) -> list[bytes]:
    """The same part of each of the requests in ``block``, which are ``stride`` bytes each."""
    start, end = part
    return [piece for (piece,) in struct.iter_unpack(f"{start}x{end - start}s{stride - end}x", block)]


def stored_columns(block: bytearray, stride: int, stored: list[tuple[int, int]]) -> list[bytes]:
    """The stored fields of each of the requests in ``block``."""
    if not stored:
        return [b""] * (len(block) // stride)
    columns = [column(block, stride, part) for part in stored]
    return columns[0] if len(columns) == 1 else [b"".join(pieces) for pieces in zip(*columns, strict=True)]
