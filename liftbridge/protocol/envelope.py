"""The envelope: eight or twelve bytes before every structured message on NATS (reference: the original's wire format).

======== ===== ===============================================
position bytes field
======== ===== ===============================================
0        4     magic, B9 0E 43 B4
4        1     version, 0
5        1     header length: where the payload begins
6        1     flags; bit 0: a CRC-32C of the payload follows
7        1     message type
8        4     CRC-32C, only with the flag
======== ===== ===============================================
"""

from enum import IntEnum

import google_crc32c

from liftbridge.errors import ProtocolError

MAGIC = b"\xb9\x0e\x43\xb4"
HEADER_BYTES = 8
HEADER_WITH_CRC_BYTES = 12
_CRC_FLAG = 0x01
#: Field 100, twelve bytes.
_MARK = b"\xa2\x06\x0c"
MARK_BYTES = len(_MARK) + 12


class MessageType(IntEnum):
    """What an envelope holds. Publish and ack are what clients see."""

    PUBLISH = 0
    ACK = 1


def envelope_header(kind: MessageType) -> bytes:
    """The header without checksum, as the original sends it."""
    return MAGIC + bytes((0, HEADER_BYTES, 0, kind))


def mirror_mark(stream_id: int, partition: int) -> bytes:
    """Behind a mirrored message: this partition has it already. A field of ``Message`` that clients don't know, and skip."""
    return _MARK + stream_id.to_bytes(8, "big") + partition.to_bytes(4, "big")


def has_mark(payload: bytes, mark: bytes) -> bool:
    """Whether ``mark`` is among those at the end of a message."""
    end = len(payload)
    while end >= MARK_BYTES and payload.startswith(_MARK, end - MARK_BYTES):
        if payload.endswith(mark, 0, end):
            return True
        end -= MARK_BYTES
    return False


def open_envelope(data: bytes, kind: MessageType) -> bytes:
    """The payload of an envelope of that type. Raises ProtocolError for everything else, whatever its bytes."""
    if len(data) < HEADER_BYTES or data[:4] != MAGIC:
        raise ProtocolError("not an envelope")
    version, header_bytes, flags, found = data[4:HEADER_BYTES]
    if version != 0 or found != kind:
        raise ProtocolError(f"envelope of version {version}, type {found}; expected version 0, type {int(kind)}")
    if not HEADER_BYTES <= header_bytes <= len(data):
        raise ProtocolError(f"envelope claims a header of {header_bytes} bytes in {len(data)}")
    payload = data[header_bytes:]
    if flags & _CRC_FLAG:
        if header_bytes != HEADER_WITH_CRC_BYTES:
            raise ProtocolError(f"envelope with a checksum has a header of {header_bytes} bytes, not 12")
        if int.from_bytes(data[HEADER_BYTES:HEADER_WITH_CRC_BYTES], "big") != google_crc32c.value(payload):
            raise ProtocolError("envelope fails its checksum")
    return payload
