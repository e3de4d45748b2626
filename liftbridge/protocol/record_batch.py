"""The record batch: one format from the socket to the disk to the subscriber.

A batch is a header and a body. The body is exactly what a subscriber receives: records back to back, each a
length-prefixed ``Message``::

    1 byte 0 | 4 bytes length | 0x08 | 8 bytes offset | the other fields of the Message

The offset is a varint padded to eight bytes, which every protobuf decoder accepts, so that it sits at the same place
in every record and can be written in bulk. Header, big endian, 48 bytes:

======== ===== ==========================================================================
position bytes field
======== ===== ==========================================================================
0        4     CRC-32C of everything that follows, body included
4        1     format version, 1
5        1     attributes: bit 3 the body is encrypted, bit 4 control batch (no client sees its records)
6        2     header length, 48
8        4     body length
12       4     record count
16       8     base offset
24       8     end offset (exclusive)
32       8     leader epoch
40       8     timestamp of every record in it, nanoseconds
======== ===== ==========================================================================
"""

import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import google_crc32c

from liftbridge.errors import ProtocolError
from liftbridge.interfaces.records import RecordBatch

FORMAT_VERSION = 1
HEADER = struct.Struct(">IBBHIIQQQQ")
HEADER_BYTES = HEADER.size
#: The fields of it that subscribers' readers need, which is cheaper than all.
_READ = struct.Struct(">IBBHI4xQQ16x")
CRC = struct.Struct(">I")

ATTRIBUTES_POSITION = 5

ATTRIBUTE_ENCRYPTED = 0x08
ATTRIBUTE_CONTROL = 0x10

RECORD_PREFIX = struct.Struct(">BI")
RECORD_PREFIX_BYTES = RECORD_PREFIX.size
#: The offset's first byte in a record: after the prefix and the field's tag.
RECORD_OFFSET_POSITION = RECORD_PREFIX_BYTES + 1
OFFSET_BYTES = 8
#: The first offset that doesn't fit eight varint bytes.
MAX_OFFSET = 1 << 56


class BatchHeader(NamedTuple):
    """The header's fields in their order on disk."""

    crc: int
    version: int
    attributes: int
    header_bytes: int
    body_bytes: int
    record_count: int
    base_offset: int
    end_offset: int
    leader_epoch: int
    timestamp_ns: int


def encode_batch(
    body: bytes | bytearray,
    *,
    base_offset: int,
    end_offset: int,
    record_count: int,
    leader_epoch: int,
    timestamp_ns: int,
    attributes: int = 0,
) -> RecordBatch:
    """Puts the header before ``body``, which must hold ``record_count`` finished records."""
    header = HEADER.pack(
        0,
        FORMAT_VERSION,
        attributes,
        HEADER_BYTES,
        len(body),
        record_count,
        base_offset,
        end_offset,
        leader_epoch,
        timestamp_ns,
    )
    crc = google_crc32c.extend(google_crc32c.value(header[4:]), bytes(body))
    return RecordBatch(
        base_offset, end_offset, record_count, leader_epoch, timestamp_ns, b"".join((CRC.pack(crc), header[4:], body))
    )


def decode_header(data: bytes | memoryview, position: int = 0) -> BatchHeader:
    """The header at ``position``. Raises ProtocolError when it can't be one; says nothing about the checksum."""
    try:
        header = BatchHeader._make(HEADER.unpack_from(data, position))
    except struct.error:
        raise ProtocolError(f"{len(data) - position} bytes are too few for a batch header") from None
    if header.version != FORMAT_VERSION or header.header_bytes != HEADER_BYTES:
        raise ProtocolError(
            f"no batch of format {FORMAT_VERSION}: version {header.version}, header length {header.header_bytes}"
        )
    return header


def decode_batch(data: bytes | memoryview, position: int = 0) -> RecordBatch:
    """The whole batch at ``position``, its checksum verified. Raises ProtocolError for anything short or damaged."""
    header = decode_header(data, position)
    end = position + HEADER_BYTES + header.body_bytes
    if end > len(data):
        raise ProtocolError(f"batch at offset {header.base_offset} is cut short by {end - len(data)} bytes")
    encoded = bytes(data[position:end])
    crc = google_crc32c.value(encoded[4:])
    if crc != header.crc:
        raise ProtocolError(
            f"batch at offset {header.base_offset}: checksum {crc:08x} of its bytes isn't the stored {header.crc:08x}"
        )
    return RecordBatch(
        header.base_offset, header.end_offset, header.record_count, header.leader_epoch, header.timestamp_ns, encoded
    )


def iter_batches(data: bytes | memoryview) -> Iterator[RecordBatch]:
    """The batches that stand back to back in ``data``, each verified. Raises ProtocolError at the first bad one."""
    position = 0
    while position < len(data):
        batch = decode_batch(data, position)
        yield batch
        position += len(batch.data)


#: A verified batch, as a subscriber's reader wants it: base offset, end offset, attributes, body.
BatchBody = tuple[int, int, int, memoryview]


def iter_bodies(data: bytes) -> Iterator[BatchBody]:
    """The bodies of the batches that stand back to back in ``data``, each verified. Raises ProtocolError at the first
    bad one."""
    position, size, view = 0, len(data), memoryview(data)
    while position < size:
        start = position + HEADER_BYTES
        if start > size:
            decode_header(data, position)  # which says so
        crc, version, attributes, header_bytes, body_bytes, base_offset, end_offset = _READ.unpack_from(data, position)
        if version != FORMAT_VERSION or header_bytes != HEADER_BYTES:
            decode_header(data, position)
        end = start + body_bytes
        if google_crc32c.value(data[position + CRC.size : end]) != crc:
            raise ProtocolError(f"batch at offset {base_offset} fails its checksum")
        yield base_offset, end_offset, attributes, view[start:end]
        position = end


def encode_offset(offset: int) -> bytes:
    """The offset as a varint padded to eight bytes."""
    return bytes((offset & 0x7F | 0x80, offset >> 7 & 0x7F | 0x80)) + _high_offset_bytes(offset >> 14)


@lru_cache(maxsize=64)
def _high_offset_bytes(high: int) -> bytes:
    """The last six bytes, which change once in 2**14 offsets."""
    if not 0 <= high < MAX_OFFSET >> 14:
        raise ValueError(f"offset {high << 14} is outside [0, 2**56)")
    return bytes((high >> shift & 0x7F) | 0x80 for shift in range(0, 35, 7)) + bytes((high >> 35,))


def decode_offset(data: bytes | memoryview, position: int) -> int:
    """The offset whose eight bytes begin at ``position``."""
    offset = 0
    for i in range(OFFSET_BYTES):
        offset |= (data[position + i] & 0x7F) << (7 * i)
    return offset


class RecordSlice(NamedTuple):
    """Where one record stands in a body: bytes ``[start, end)``, its length prefix included."""

    offset: int
    start: int
    end: int


def iter_records(body: bytes | memoryview) -> Iterator[RecordSlice]:
    """The records of a body, in order. Raises ProtocolError where the prefixes don't add up."""
    position = 0
    while position < len(body):
        try:
            _, length = RECORD_PREFIX.unpack_from(body, position)
            end = position + RECORD_PREFIX_BYTES + length
            if end > len(body) or length <= OFFSET_BYTES:
                raise ProtocolError(f"record at byte {position} of a batch claims {length} bytes")
        except struct.error:
            raise ProtocolError(f"{len(body) - position} stray bytes at the end of a batch") from None
        yield RecordSlice(decode_offset(body, position + RECORD_OFFSET_POSITION), position, end)
        position = end


def cut_batch(batch: RecordBatch, end_offset: int) -> RecordBatch:
    """The batch without its records at ``end_offset`` and above. Of an encrypted one only the header can say so: whoever
    decrypts it leaves the others out."""
    body = batch.data[HEADER_BYTES:]
    attributes = batch.data[ATTRIBUTES_POSITION]
    if attributes & ATTRIBUTE_ENCRYPTED:
        return encode_batch(
            body,
            base_offset=batch.base_offset,
            end_offset=end_offset,
            record_count=min(batch.record_count, end_offset - batch.base_offset),
            leader_epoch=batch.leader_epoch,
            timestamp_ns=batch.timestamp_ns,
            attributes=attributes,
        )
    kept = [record for record in iter_records(body) if record.offset < end_offset]
    return encode_batch(
        body[: kept[-1].end] if kept else b"",
        base_offset=batch.base_offset,
        end_offset=end_offset,
        record_count=len(kept),
        leader_epoch=batch.leader_epoch,
        timestamp_ns=batch.timestamp_ns,
        attributes=attributes,
    )
