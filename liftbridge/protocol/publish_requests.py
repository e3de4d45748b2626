"""Publish requests from the wire to what the log needs, a run at a time.

The fields of ``PublishRequest`` have the same types as those of ``Message``, which the log stores and NATS carries, and
differ only in their one-byte tags. So a request is turned into a message by writing other tags over its own, and
where a client sends many requests of one layout back to back, that happens for all of them at once. A client that sends
one at a time sends the same layout again and again, so it is remembered. Anything out of the ordinary (unknown fields,
text that isn't ASCII where it varies) goes through the protobuf library.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from google.protobuf.message import DecodeError

from liftbridge.errors import ProtocolError
from liftbridge.protocol.generated import api_pb2 as api
from liftbridge.protocol.record_batch import RECORD_PREFIX, RECORD_PREFIX_BYTES
from liftbridge.protocol.record_encoding import (
    KEY_TAG,
    REPLY_HEADER,
    SUBJECT_HEADER,
    VALUE_TAG,
    encode_header,
)
from liftbridge.protocol.strides import count_repeats
from liftbridge.protocol.varint import decode_varint, encode_text

#: Fewer messages of one layout than this aren't worth the search for more.
_SHORTEST_RUN = 4
_MAX_PATTERNS = 16

# Tags of PublishRequest -> tags of Message: key, value, stream, partition, headers, ack inbox, correlation ID, ack
# policy, expected offset.
_RETAG = {0x0A: 0x12, 0x12: 0x1A, 0x1A: 0x2A, 0x20: 0x30, 0x2A: 0x4A, 0x32: 0x52, 0x3A: 0x5A, 0x40: 0x60, 0x48: 0x08}
_KEY, _VALUE, _STREAM, _HEADERS, _ACK_INBOX, _CORRELATION_ID = 0x0A, 0x12, 0x1A, 0x2A, 0x32, 0x3A
_STORED = (_KEY, _VALUE, _HEADERS)
_LENGTH_DELIMITED = 2


@dataclass(slots=True)
class PublishRun:
    """Consecutive publish requests of one client to one partition, with one ack policy.

    ``fields`` are the stored fields of each message (key, value, headers), already as fields of ``Message``;
    ``messages`` the whole requests as ``Message``, for other readers of the subject. ``field_bytes`` and
    ``correlation_id_bytes`` are the lengths that all share, None when they differ.
    """

    stream: str
    partition: int
    ack_policy: int
    expected_offset: int
    fields: Sequence[bytes]
    field_bytes: int | None
    messages: Sequence[bytes]
    correlation_ids: Sequence[bytes]
    correlation_id_bytes: int | None
    longest_message_bytes: int
    ack_inbox: str = ""


class RequestParser:
    """Parses what one client sends, and remembers how its requests are laid out."""

    def __init__(self) -> None:
        self._patterns: dict[int, _Pattern] = {}
        self._last_length = 0

    def parse(self, framed: bytes) -> list[PublishRun]:
        """Splits whole framed PublishRequests into runs, in order. Raises ProtocolError for bytes that aren't."""
        length = _frame_length(framed, 0) if framed else 0
        if length + RECORD_PREFIX_BYTES == len(framed):
            return [_run_of_one(self._parse_one(framed[RECORD_PREFIX_BYTES:]))]
        runs: list[PublishRun] = []
        singles: list[_Request] = []
        position = 0
        while position < len(framed):
            length = _frame_length(framed, position)
            stride = RECORD_PREFIX_BYTES + length
            limit = (len(framed) - position) // stride
            if limit >= _SHORTEST_RUN:
                count = count_repeats(framed, position, stride, range(RECORD_PREFIX_BYTES), limit)
                run, count = _parse_run(framed, position, length, count) if count >= _SHORTEST_RUN else (None, 1)
                if run is not None:
                    _add_singles(runs, singles)
                    runs.append(run)
                    position += count * stride
                    continue
            singles.append(self._parse_one(framed[position + RECORD_PREFIX_BYTES : position + stride]))
            position += stride
        _add_singles(runs, singles)
        return runs

    def parse_one(self, request: bytes) -> PublishRun:
        """The run that one request, without its frame, makes. Raises ProtocolError for bytes that aren't one."""
        return _run_of_one(self._parse_one(request))

    def _parse_one(self, data: bytes) -> "_Request":
        pattern = self._patterns.get(len(data))
        request = pattern.split(data) if pattern is not None else None
        if request is None:
            self._learn(data)
            request = _split_request(data) or _request_of(_parse_request(data))
        return request

    def _learn(self, data: bytes) -> None:
        """Remembers the layout of a request whose length came twice in a row."""
        if len(data) == self._last_length:
            if len(self._patterns) >= _MAX_PATTERNS:
                self._patterns.clear()
            pattern = _find_pattern(data)
            if pattern is not None:
                self._patterns[len(data)] = pattern
        self._last_length = len(data)


def split_by_runs(framed: bytes, runs: Sequence[PublishRun]) -> list[bytes]:
    """The requests that each run was made from: ``framed`` in as many pieces."""
    if len(runs) == 1:
        return [framed]
    pieces = []
    start = 0
    for run in runs:
        position = start
        for _ in run.messages:
            position += RECORD_PREFIX_BYTES + _frame_length(framed, position)
        pieces.append(framed[start:position])
        start = position
    return pieces


def parse_publish_requests(framed: bytes) -> list[PublishRun]:
    """Like :meth:`RequestParser.parse`, for requests that stand alone."""
    return RequestParser().parse(framed)


def _frame_length(framed: bytes, position: int) -> int:
    try:
        compressed, length = RECORD_PREFIX.unpack_from(framed, position)
    except struct.error:
        raise ProtocolError("a frame of the publish stream is cut short") from None
    if compressed or position + RECORD_PREFIX_BYTES + length > len(framed):
        raise ProtocolError("a frame of the publish stream is compressed or cut short")
    return int(length)


def _parse_request(data: bytes) -> api.PublishRequest:
    try:
        return api.PublishRequest.FromString(data)
    except DecodeError as error:
        raise ProtocolError(f"not a PublishRequest: {error}") from None


# --- many requests of one layout --------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Layout:
    """Where the parts of a request are, relative to its frame. ``fixed`` are the bytes that must be equal in all."""

    fixed: list[int]
    tags: list[tuple[int, int]]
    stored: list[tuple[int, int]]
    correlation_id: tuple[int, int]


def _parse_run(framed: bytes, start: int, length: int, limit: int) -> tuple[PublishRun | None, int]:
    layout = _find_layout(framed, start + RECORD_PREFIX_BYTES, length)
    if layout is None:
        return None, 1
    stride = RECORD_PREFIX_BYTES + length
    count = count_repeats(framed, start, stride, layout.fixed, limit)
    if count < _SHORTEST_RUN:
        return None, 1
    first = _parse_request(framed[start + RECORD_PREFIX_BYTES : start + stride])
    block = bytearray(framed[start : start + count * stride])
    for position, tag in layout.tags:
        block[position::stride] = bytes((tag,)) * count
    correlation_ids = _column(block, stride, layout.correlation_id)
    if not b"".join(correlation_ids).isascii():
        return None, 1
    begin, end = layout.correlation_id
    run = PublishRun(
        stream=first.stream,
        partition=first.partition,
        ack_policy=first.ackPolicy,
        expected_offset=first.expectedOffset,
        ack_inbox=first.ackInbox,
        fields=_stored_columns(block, stride, layout.stored),
        field_bytes=sum(stop - start for start, stop in layout.stored),
        messages=_column(block, stride, (RECORD_PREFIX_BYTES, stride)),
        correlation_ids=correlation_ids,
        correlation_id_bytes=end - begin,
        longest_message_bytes=length,
    )
    return run, count


def _find_layout(framed: bytes, begin: int, length: int) -> _Layout | None:
    """The layout of the request at ``begin``; None when there is something in it that has to be read properly."""
    end = begin + length
    base = begin - RECORD_PREFIX_BYTES
    layout = _Layout(fixed=[], tags=[], stored=[], correlation_id=(0, 0))
    seen: set[int] = set()
    position = begin
    try:
        while position < end:
            tag = framed[position]
            if tag not in _RETAG or (tag in seen and tag != _HEADERS):
                return None
            seen.add(tag)
            field_start = position
            value_start, value_end = _field_value(framed, position, end)
            layout.tags.append((field_start - base, _RETAG[tag]))
            layout.fixed += range(field_start - base, value_start - base)
            if tag == _HEADERS:
                content = _header_value_start(framed, value_start, value_end)
                if content is None:
                    return None
                layout.fixed += range(value_start - base, content - base)
            elif tag == _CORRELATION_ID:
                layout.correlation_id = (value_start - base, value_end - base)
            elif tag not in (_KEY, _VALUE):
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


def _column(block: bytearray, stride: int, part: tuple[int, int]) -> list[bytes]:
    start, end = part
    return [piece for (piece,) in struct.iter_unpack(f"{start}x{end - start}s{stride - end}x", block)]


def _stored_columns(block: bytearray, stride: int, stored: list[tuple[int, int]]) -> list[bytes]:
    if not stored:
        return [b""] * (len(block) // stride)
    columns = [_column(block, stride, part) for part in stored]
    return columns[0] if len(columns) == 1 else [b"".join(pieces) for pieces in zip(*columns, strict=True)]


# --- one request at a time --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Pattern:
    """Requests of one length that differ only in what they carry. Places are relative to the request.

    ``fixed`` are the ranges that must be equal, with their bytes; ``tags`` what to write over the tags.
    """

    route: "_Route"
    fixed: list[tuple[int, int, bytes]]
    tags: list[tuple[int, int]]
    stored: list[tuple[int, int]]
    correlation_id: tuple[int, int]

    def split(self, data: bytes) -> "_Request | None":
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
        return _Request(self.route, fields, message, correlation_id)


def _find_pattern(data: bytes) -> _Pattern | None:
    framed = bytes(RECORD_PREFIX_BYTES) + data
    layout = _find_layout(framed, RECORD_PREFIX_BYTES, len(data))
    if layout is None:
        return None
    shift = RECORD_PREFIX_BYTES
    ranges: list[tuple[int, int]] = []
    for position in layout.fixed:
        _extend(ranges, position - shift, position - shift + 1)
    start, end = layout.correlation_id
    return _Pattern(
        route=_request_of(_parse_request(data)).route,
        fixed=[(start, end, data[start:end]) for start, end in ranges],
        tags=[(position - shift, tag) for position, tag in layout.tags],
        stored=[(start - shift, end - shift) for start, end in layout.stored],
        correlation_id=(start - shift, end - shift) if end else (0, 0),
    )


class _Route(NamedTuple):
    """What requests must have in common to stand in one run."""

    stream: str
    partition: int
    ack_policy: int
    expected_offset: int
    ack_inbox: str


class _Request(NamedTuple):
    """One request, taken apart: what goes into a run."""

    route: _Route
    fields: bytes
    message: bytes
    correlation_id: bytes


def _split_request(data: bytes) -> _Request | None:
    """Takes a plain request apart without building an object of it; None when it has to be read properly: unknown or
    repeated fields, headers, text that isn't ASCII, fields of 16 KiB or more."""
    message = bytearray(data)
    fields = stream = ack_inbox = correlation_id = b""
    numbers = {0x20: 0, 0x40: 0, 0x48: 0}
    last_tag = position = 0
    try:
        while position < len(data):
            tag = data[position]
            if tag <= last_tag or tag == _HEADERS:
                return None
            message[position] = _RETAG[tag]
            last_tag = tag
            if tag in numbers:
                numbers[tag], position = decode_varint(data, position + 1, len(data))
                continue
            size, start = data[position + 1], position + 2
            if size >= 128:
                if data[start] >= 128:
                    return None
                size, start = size & 0x7F | data[start] << 7, start + 1
            end = start + size
            if tag <= _VALUE:
                fields += message[position:end]
            elif tag == _STREAM:
                stream = data[start:end]
            elif tag == _CORRELATION_ID:
                correlation_id = data[start:end]
            else:
                ack_inbox = data[start:end]
            position = end
    except (IndexError, KeyError, ProtocolError):
        return None
    if position != len(data) or not (stream + ack_inbox + correlation_id).isascii():
        return None
    partition, ack_policy, expected_offset = map(_signed, numbers.values())
    route = _Route(stream.decode(), partition, ack_policy, expected_offset, ack_inbox.decode())
    return _Request(route, bytes(fields), bytes(message), correlation_id)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _request_of(request: api.PublishRequest) -> _Request:
    fields = stored_fields(request.key, request.value, request.headers)
    rest = api.Message(
        offset=request.expectedOffset,
        stream=request.stream,
        partition=request.partition,
        ackInbox=request.ackInbox,
        correlationId=request.correlationId,
        ackPolicy=request.ackPolicy,
    )
    return _Request(
        _Route(request.stream, request.partition, request.ackPolicy, request.expectedOffset, request.ackInbox),
        fields,
        fields + rest.SerializeToString(),
        request.correlationId.encode(),
    )


def _add_singles(runs: list[PublishRun], singles: list[_Request]) -> None:
    """Turns single requests into runs of those that stand together and go the same way; empties ``singles``."""
    start = 0
    for i in range(1, len(singles) + 1):
        if i == len(singles) or singles[i].route != singles[start].route:
            runs.append(_run_of(singles[start:i]))
            start = i
    singles.clear()


def _run_of(requests: Sequence[_Request]) -> PublishRun:
    if len(requests) == 1:
        return _run_of_one(requests[0])
    fields = [request.fields for request in requests]
    messages = [request.message for request in requests]
    correlation_ids = [request.correlation_id for request in requests]
    stream, partition, ack_policy, expected_offset, ack_inbox = requests[0].route
    return PublishRun(
        stream,
        partition,
        ack_policy,
        expected_offset,
        ack_inbox=ack_inbox,
        fields=fields,
        field_bytes=common_length(fields),
        messages=messages,
        correlation_ids=correlation_ids,
        correlation_id_bytes=common_length(correlation_ids),
        longest_message_bytes=max(map(len, messages)),
    )


def _run_of_one(request: _Request) -> PublishRun:
    (stream, partition, ack_policy, expected_offset, ack_inbox), fields, message, id_ = request
    return PublishRun(
        stream,
        partition,
        ack_policy,
        expected_offset,
        [fields],
        len(fields),
        [message],
        [id_],
        len(id_),
        len(message),
        ack_inbox,
    )


def common_length(items: Sequence[bytes]) -> int | None:
    """The length that all items share, None when they differ."""
    lengths = set(map(len, items))
    return lengths.pop() if len(lengths) == 1 else None


def stored_fields(key: bytes, value: bytes, headers: Mapping[str, bytes]) -> bytes:
    """Key, value and headers as fields of ``Message``, without the headers that the leader sets itself."""
    fields = encode_text(KEY_TAG[0], key) + encode_text(VALUE_TAG[0], value)
    for name in headers:
        if name not in (SUBJECT_HEADER, REPLY_HEADER):
            fields += encode_header(name, headers[name])
    return fields
