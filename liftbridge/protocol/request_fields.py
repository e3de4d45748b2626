"""One publish request, taken apart: where it goes, and its fields as those of a stored message.

The fields of ``PublishRequest`` have the same types as those of ``Message`` and differ only in their one-byte tags.
"""

from collections.abc import Mapping
from typing import NamedTuple

from google.protobuf.message import DecodeError

from liftbridge.errors import ProtocolError
from liftbridge.protocol.generated import api_pb2 as api
from liftbridge.protocol.record_encoding import KEY_TAG, REPLY_HEADER, SUBJECT_HEADER, VALUE_TAG, encode_header
from liftbridge.protocol.varint import decode_varint, encode_text

# Tags of PublishRequest, in the order in which libraries write them.
KEY, VALUE, STREAM, PARTITION, HEADERS = 0x0A, 0x12, 0x1A, 0x20, 0x2A
ACK_INBOX, CORRELATION_ID, ACK_POLICY, EXPECTED_OFFSET = 0x32, 0x3A, 0x40, 0x48
#: The tag of the same field in Message.
RETAG = {
    KEY: 0x12,
    VALUE: 0x1A,
    STREAM: 0x2A,
    PARTITION: 0x30,
    HEADERS: 0x4A,
    ACK_INBOX: 0x52,
    CORRELATION_ID: 0x5A,
    ACK_POLICY: 0x60,
    EXPECTED_OFFSET: 0x08,
}


class Route(NamedTuple):
    """Where a request goes and how it is answered: what requests must have in common to stand in one run."""

    stream: str
    partition: int
    ack_policy: int
    expected_offset: int
    ack_inbox: str


class Request(NamedTuple):
    """One request, taken apart: what goes into a run. ``fields`` are the stored ones, ``message`` is all of it; both as
    fields of ``Message``."""

    route: Route
    fields: bytes
    message: bytes
    correlation_id: bytes


def split_request(data: bytes) -> Request | None:
    """Takes a plain request apart without building an object of it; None when it has to be read properly: unknown or
    repeated fields, headers, text that isn't ASCII, fields of 16 KiB or more."""
    message = bytearray(data)
    fields = stream = ack_inbox = correlation_id = b""
    numbers = {PARTITION: 0, ACK_POLICY: 0, EXPECTED_OFFSET: 0}
    last_tag = position = 0
    try:
        while position < len(data):
            tag = data[position]
            if tag <= last_tag or tag == HEADERS:
                return None
            message[position] = RETAG[tag]
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
            if tag <= VALUE:
                fields += message[position:end]
            elif tag == STREAM:
                stream = data[start:end]
            elif tag == CORRELATION_ID:
                correlation_id = data[start:end]
            else:
                ack_inbox = data[start:end]
            position = end
    except (IndexError, KeyError, ProtocolError):
        return None
    if position != len(data) or not (stream + ack_inbox + correlation_id).isascii():
        return None
    partition, ack_policy, expected_offset = map(_signed, numbers.values())
    route = Route(stream.decode(), partition, ack_policy, expected_offset, ack_inbox.decode())
    return Request(route, bytes(fields), bytes(message), correlation_id)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def decode_request(data: bytes) -> Request:
    """Reads any request, at the cost of an object of it. Raises ProtocolError for bytes that aren't one."""
    request = parse_request(data)
    fields = stored_fields(request.key, request.value, request.headers)
    rest = api.Message(
        offset=request.expectedOffset,
        stream=request.stream,
        partition=request.partition,
        ackInbox=request.ackInbox,
        correlationId=request.correlationId,
        ackPolicy=request.ackPolicy,
    )
    return Request(
        Route(request.stream, request.partition, request.ackPolicy, request.expectedOffset, request.ackInbox),
        fields,
        fields + rest.SerializeToString(),
        request.correlationId.encode(),
    )


def parse_request(data: bytes) -> api.PublishRequest:
    """The request as protobuf has it. Raises ProtocolError."""
    try:
        return api.PublishRequest.FromString(data)
    except DecodeError as error:
        raise ProtocolError(f"not a PublishRequest: {error}") from None


def stored_fields(key: bytes, value: bytes, headers: Mapping[str, bytes]) -> bytes:
    """Key, value and headers as fields of ``Message``, without the headers that the leader sets itself."""
    fields = encode_text(KEY_TAG[0], key) + encode_text(VALUE_TAG[0], value)
    for name in headers:
        if name not in (SUBJECT_HEADER, REPLY_HEADER):
            fields += encode_header(name, headers[name])
    return fields
