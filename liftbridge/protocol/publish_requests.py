"""Publish requests from the wire to what the log needs, a run at a time.

The fields of ``PublishRequest`` have the same types as those of ``Message``, which the log stores and NATS carries, and
differ only in their one-byte tags. So a request is turned into a message by writing other tags over its own, and
where a client sends many requests of one layout back to back, that happens for all of them at once. A client that sends
one at a time sends the same layout again and again, so it is remembered. Anything out of the ordinary (unknown fields,
text that isn't ASCII where it varies) goes through the protobuf library.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from liftbridge.errors import ProtocolError
from liftbridge.protocol.record_batch import RECORD_PREFIX, RECORD_PREFIX_BYTES
from liftbridge.protocol.request_fields import Request, decode_request, parse_request, split_request
from liftbridge.protocol.request_layouts import Pattern, column, find_layout, find_pattern, stored_columns
from liftbridge.protocol.strides import count_repeats

#: Fewer messages of one layout than this aren't worth the search for more.
_SHORTEST_RUN = 4
_MAX_PATTERNS = 16


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
        self._patterns: dict[int, Pattern] = {}
        self._last_length = 0

    def parse(self, framed: bytes) -> list[PublishRun]:
        """Splits whole framed PublishRequests into runs, in order. Raises ProtocolError for bytes that aren't."""
        length = _frame_length(framed, 0) if framed else 0
        if length + RECORD_PREFIX_BYTES == len(framed):
            return [_run_of_one(self._parse_one(framed[RECORD_PREFIX_BYTES:]))]
        runs: list[PublishRun] = []
        singles: list[Request] = []
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

    def _parse_one(self, data: bytes) -> Request:
        pattern = self._patterns.get(len(data))
        request = pattern.split(data) if pattern is not None else None
        if request is None:
            self._learn(data)
            request = split_request(data) or decode_request(data)
        return request

    def _learn(self, data: bytes) -> None:
        """Remembers the layout of a request whose length came twice in a row."""
        if len(data) == self._last_length:
            if len(self._patterns) >= _MAX_PATTERNS:
                self._patterns.clear()
            pattern = find_pattern(data)
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


def _frame_length(framed: bytes, position: int) -> int:
    try:
        compressed, length = RECORD_PREFIX.unpack_from(framed, position)
    except struct.error:
        raise ProtocolError("a frame of the publish stream is cut short") from None
    if compressed or position + RECORD_PREFIX_BYTES + length > len(framed):
        raise ProtocolError("a frame of the publish stream is compressed or cut short")
    return int(length)


def _parse_run(framed: bytes, start: int, length: int, limit: int) -> tuple[PublishRun | None, int]:
    layout = find_layout(framed, start + RECORD_PREFIX_BYTES, length)
    if layout is None:
        return None, 1
    stride = RECORD_PREFIX_BYTES + length
    count = count_repeats(framed, start, stride, layout.fixed, limit)
    if count < _SHORTEST_RUN:
        return None, 1
    first = parse_request(framed[start + RECORD_PREFIX_BYTES : start + stride])
    block = bytearray(framed[start : start + count * stride])
    for position, tag in layout.tags:
        block[position::stride] = bytes((tag,)) * count
    correlation_ids = column(block, stride, layout.correlation_id)
    if not b"".join(correlation_ids).isascii():
        return None, 1
    begin, end = layout.correlation_id
    run = PublishRun(
        stream=first.stream,
        partition=first.partition,
        ack_policy=first.ackPolicy,
        expected_offset=first.expectedOffset,
        ack_inbox=first.ackInbox,
        fields=stored_columns(block, stride, layout.stored),
        field_bytes=sum(stop - start for start, stop in layout.stored),
        messages=column(block, stride, (RECORD_PREFIX_BYTES, stride)),
        correlation_ids=correlation_ids,
        correlation_id_bytes=end - begin,
        longest_message_bytes=length,
    )
    return run, count


def _add_singles(runs: list[PublishRun], singles: list[Request]) -> None:
    """Turns single requests into runs of those that stand together and go the same way; empties ``singles``."""
    start = 0
    for i in range(1, len(singles) + 1):
        if i == len(singles) or singles[i].route != singles[start].route:
            runs.append(_run_of(singles[start:i]))
            start = i
    singles.clear()


def _run_of(requests: Sequence[Request]) -> PublishRun:
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


def _run_of_one(request: Request) -> PublishRun:
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
