"""Protobuf's variable-length integers, for code that splices messages instead of building them."""

from functools import lru_cache

from liftbridge.errors import ProtocolError

_NINE_BYTES, _TEN_BYTES = 1 << 56, 1 << 63
_ONE_BYTE = tuple(bytes((value,)) for value in range(128))


def encode_varint(value: int) -> bytes:
    """Shortest encoding of a non-negative integer below 2**64; a negative int64 takes ten bytes, as protobuf has it."""
    if 0 <= value < 128:
        return _ONE_BYTE[value]
    if _NINE_BYTES <= value < _TEN_BYTES:  # a time in nanoseconds, which each message has three of
        return bytes(
            (
                value & 0x7F | 0x80,
                value >> 7 & 0x7F | 0x80,
                value >> 14 & 0x7F | 0x80,
                value >> 21 & 0x7F | 0x80,
                value >> 28 & 0x7F | 0x80,
                value >> 35 & 0x7F | 0x80,
                value >> 42 & 0x7F | 0x80,
                value >> 49 & 0x7F | 0x80,
                value >> 56,
            )
        )
    if value < 0:
        value += 1 << 64
    encoded = bytearray()
    while value >= 128:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def decode_varint(data: bytes | bytearray | memoryview, position: int, end: int) -> tuple[int, int]:
    """The value at ``position`` and the position behind it. Raises ProtocolError beyond ``end`` or ten bytes."""
    value = shift = 0
    for i in range(position, min(end, position + 10)):
        byte = data[i]
        value |= (byte & 0x7F) << shift
        if byte < 128:
            return value & 0xFFFF_FFFF_FFFF_FFFF, i + 1
        shift += 7
    raise ProtocolError("a varint is cut short or longer than ten bytes")


def encode_text(tag: int, value: str | bytes) -> bytes:
    """A length-delimited field whose tag is one byte; nothing for an empty value, as proto3 has it."""
    if not value:
        return b""
    data = value.encode() if isinstance(value, str) else value
    return _ONE_BYTE[tag] + encode_varint(len(data)) + data


@lru_cache(maxsize=128)
def encode_integer(tag: int, value: int) -> bytes:
    """A varint field whose tag is one byte; nothing for zero, as proto3 has it. Remembered, because the timestamps of
    a batch come again in each of its acks."""
    return _ONE_BYTE[tag] + encode_varint(value) if value else b""
