"""Many records at once: the body of a batch from the fields that publishers sent.

A record is ``prefix | offset | fields | trailer``. ``fields`` (key, value, headers) are the publisher's own bytes; the
trailer (timestamp, stream, partition, subject, reply subject and the reserved headers) is the same for all records that
arrived together. So a body of equally long records is one ``join`` with the constant parts as separator, and their
offsets are filled in by writing whole columns of bytes.
"""

from collections.abc import Sequence
from functools import lru_cache

from liftbridge.protocol.record_batch import (
    MAX_OFFSET,
    OFFSET_BYTES,
    RECORD_OFFSET_POSITION,
    RECORD_PREFIX,
    encode_offset,
)
from liftbridge.protocol.varint import encode_integer, encode_text, encode_varint

# Fields of proto.Message, by their tags.
OFFSET_TAG = b"\x08"
KEY_TAG = b"\x12"
VALUE_TAG = b"\x1a"
HEADER_TAG = b"\x4a"
SUBJECT_HEADER = "subject"
REPLY_HEADER = "reply"

#: The two low bytes of an offset repeat every 2**14 offsets; these are their columns over one such period.
PERIOD = 1 << 14
_LOW_BYTES = bytes((i & 0x7F) | 0x80 for i in range(PERIOD))
_NEXT_BYTES = bytes((i >> 7) | 0x80 for i in range(PERIOD))


def encode_trailer(*, timestamp_ns: int, stream: str, partition: int, subject: str, reply: str) -> bytes:
    """The fields that the leader adds to every record, behind the publisher's. The reserved headers come last, so that
    they win over headers of the same names that a publisher set."""
    return encode_integer(0x20, timestamp_ns) + _origin(stream, partition, subject, reply)


@lru_cache(maxsize=256)
def _origin(stream: str, partition: int, subject: str, reply: str) -> bytes:
    return b"".join(
        (
            encode_text(0x2A, stream),
            encode_integer(0x30, partition),
            encode_text(0x3A, subject),
            encode_text(0x42, reply),
            encode_header(SUBJECT_HEADER, subject.encode()),
            encode_header(REPLY_HEADER, reply.encode()),
        )
    )


def encode_header(name: str, value: bytes) -> bytes:
    """One entry of the headers map; an empty value is written out, so that every decoder sees the entry."""
    entry = encode_text(0x0A, name) + b"\x12" + encode_varint(len(value)) + value
    return HEADER_TAG + encode_varint(len(entry)) + entry


def encode_value(value: bytes) -> bytes:
    """The value field of a message that is nothing but a value."""
    return encode_text(VALUE_TAG[0], value)


def encode_record(item: bytes, offset: int, *, trailer: bytes, lead: bytes = b"") -> bytes:
    """One record: ``lead`` + item + ``trailer``."""
    return b"".join((_head(len(lead) + len(item) + len(trailer), offset), lead, item, trailer))


def encode_records(
    items: Sequence[bytes], item_bytes: int | None, *, base_offset: int, trailer: bytes, lead: bytes = b""
) -> bytes:
    """Records with consecutive offsets from ``base_offset``, each ``lead`` + item + ``trailer``.

    ``item_bytes`` is the length that all items share, None when they differ.
    """
    if base_offset + len(items) > MAX_OFFSET:
        raise ValueError(f"offset {base_offset + len(items)} is beyond what a record can hold")
    if item_bytes is None:
        return _encode_mixed(items, base_offset, trailer, lead)
    parts = []
    start = 0
    while start < len(items):
        offset = base_offset + start
        count = min(len(items) - start, PERIOD - offset % PERIOD)
        some = items[start : start + count] if count < len(items) else items
        parts.append(_encode_uniform(some, item_bytes, offset, trailer, lead))
        start += count
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _encode_uniform(items: Sequence[bytes], item_bytes: int, base_offset: int, trailer: bytes, lead: bytes) -> bytes:
    head = _head(len(lead) + item_bytes + len(trailer), base_offset) + lead
    if len(items) == 1:
        return head + items[0] + trailer
    body = bytearray().join((head, (trailer + head).join(items), trailer))
    stamp_offsets(body, RECORD_OFFSET_POSITION, len(body) // len(items), base_offset, len(items))
    return bytes(body)


def _encode_mixed(items: Sequence[bytes], base_offset: int, trailer: bytes, lead: bytes) -> bytes:
    extra = len(lead) + len(trailer)
    parts: list[bytes] = []
    for offset, item in enumerate(items, base_offset):
        parts += (_head(extra + len(item), offset), lead, item, trailer)
    return b"".join(parts)


def _head(rest_bytes: int, offset: int) -> bytes:
    return RECORD_PREFIX.pack(0, 1 + OFFSET_BYTES + rest_bytes) + OFFSET_TAG + encode_offset(offset)


def stamp_offsets(block: bytearray, position: int, stride: int, base_offset: int, count: int) -> None:
    """Writes the low bytes of consecutive offsets, one each ``stride`` bytes from ``position`` on. The higher bytes
    must be there already, and the offsets must lie in one period of 2**14."""
    first = base_offset % PERIOD
    block[position::stride] = _LOW_BYTES[first : first + count]
    block[position + 1 :: stride] = _NEXT_BYTES[first : first + count]
