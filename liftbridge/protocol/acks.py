"""Acks, a run at a time: framed PublishResponses for gRPC sessions and enveloped Acks for NATS inboxes.

All acks of a run differ only in offset and correlation ID, so they are one ``join`` with everything else as separator,
and the offsets are written in columns, as in :mod:`liftbridge.protocol.record_encoding`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import cast

from liftbridge.protocol.envelope import MessageType, envelope_header
from liftbridge.protocol.generated import api_pb2 as api
from liftbridge.protocol.record_batch import RECORD_PREFIX, RECORD_PREFIX_BYTES, encode_offset
from liftbridge.protocol.record_encoding import PERIOD, stamp_offsets
from liftbridge.protocol.varint import encode_integer, encode_text, encode_varint

_CORRELATION_ID_IN_ACK = b"\x32"
_ACK = b"\x0a"
_CORRELATION_ID = b"\x1a"
_OFFSET = b"\x20"


@dataclass(slots=True)
class AckTemplate:
    """What single acks are made from. Times are nanoseconds since the epoch."""

    stream: str
    partition_subject: str
    message_subject: str
    ack_inbox: str
    ack_policy: int
    reception_timestamp_ns: int
    commit_timestamp_ns: int

    def ack(self, offset: int, correlation_id: bytes, error: "api.Ack.Error" = api.Ack.OK) -> api.Ack:
        """One ack as a message."""
        return api.Ack(
            stream=self.stream,
            partitionSubject=self.partition_subject,
            msgSubject=self.message_subject,
            offset=offset,
            ackInbox=self.ack_inbox,
            correlationId=correlation_id.decode(),
            ackPolicy=cast("api.AckPolicy", self.ack_policy),  # an unknown one is given back as it came
            receptionTimestamp=self.reception_timestamp_ns,
            commitTimestamp=self.commit_timestamp_ns,
            ackError=error,
        )


def encode_ack_texts(stream: str, partition_subject: str, message_subject: str, ack_inbox: str) -> bytes:
    """The fields of ``Ack`` that are the same for all of a session's messages to one subject."""
    return (
        encode_text(0x0A, stream)
        + encode_text(0x12, partition_subject)
        + encode_text(0x1A, message_subject)
        + encode_text(0x2A, ack_inbox)
    )


@lru_cache(maxsize=16)
def encode_ack_times(ack_policy: int, reception_timestamp_ns: int, commit_timestamp_ns: int) -> bytes:
    """The fields of ``Ack`` that are the same for all messages that were appended together. They stand behind the
    texts; both together are every field but offset and correlation ID."""
    return (
        encode_integer(0x38, ack_policy)
        + encode_integer(0x40, reception_timestamp_ns)
        + encode_integer(0x48, commit_timestamp_ns)
    )


def encode_publish_responses(
    constant: bytes, correlation_ids: Sequence[bytes], correlation_id_bytes: int | None, base_offset: int
) -> bytes:
    """Framed PublishResponses for consecutive offsets from ``base_offset``, in order. ``constant`` are the fields of
    :func:`encode_ack_texts` and :func:`encode_ack_times`."""
    if len(correlation_ids) == 1:
        (id_,) = correlation_ids
        return _response_head(constant, len(id_), base_offset) + _correlation_id_twice(id_)
    if correlation_id_bytes is None:
        return b"".join(
            _response_head(constant, len(id_), offset) + _correlation_id_twice(id_)
            for offset, id_ in enumerate(correlation_ids, base_offset)
        )
    parts = []
    start = 0
    while start < len(correlation_ids):
        offset = base_offset + start
        count = min(len(correlation_ids) - start, PERIOD - offset % PERIOD)
        parts.append(_uniform_responses(constant, correlation_ids[start : start + count], correlation_id_bytes, offset))
        start += count
    return parts[0] if len(parts) == 1 else b"".join(parts)


def encode_ack_response(constant: bytes, correlation_id: bytes, offset: int) -> bytes:
    """A PublishResponse to a single call: the ack and nothing else."""
    id_field = encode_text(_CORRELATION_ID_IN_ACK[0], correlation_id)
    ack = b"".join((_OFFSET, encode_offset(offset), constant, id_field))
    return _ACK + encode_varint(len(ack)) + ack


def _uniform_responses(constant: bytes, correlation_ids: Sequence[bytes], id_bytes: int, base_offset: int) -> bytes:
    head = _response_head(constant, id_bytes, base_offset)
    if id_bytes:
        again = _CORRELATION_ID + encode_varint(id_bytes)
        items = [id_ + again + id_ for id_ in correlation_ids]
    else:
        items = [b""] * len(correlation_ids)
    block = bytearray(head + head.join(items))
    stamp_offsets(block, _offset_position(constant, id_bytes), len(block) // len(items), base_offset, len(items))
    return bytes(block)


def _response_head(constant: bytes, id_bytes: int, offset: int) -> bytes:
    """Everything of a response before the first of its two correlation IDs."""
    id_head = _CORRELATION_ID_IN_ACK + encode_varint(id_bytes) if id_bytes else b""
    ack_bytes = 9 + len(constant) + len(id_head) + id_bytes
    ack_head = _ACK + encode_varint(ack_bytes)
    length = len(ack_head) + ack_bytes
    if id_bytes:
        length += len(_CORRELATION_ID) + len(encode_varint(id_bytes)) + id_bytes
    return RECORD_PREFIX.pack(0, length) + ack_head + _OFFSET + encode_offset(offset) + constant + id_head


def _offset_position(constant: bytes, id_bytes: int) -> int:
    id_field = 1 + len(encode_varint(id_bytes)) + id_bytes if id_bytes else 0
    return RECORD_PREFIX_BYTES + 1 + len(encode_varint(9 + len(constant) + id_field)) + 1


def _correlation_id_twice(id_: bytes) -> bytes:
    return id_ + _CORRELATION_ID + encode_varint(len(id_)) + id_ if id_ else b""


def encode_error_response(correlation_id: bytes, code: "api.PublishAsyncError.Code", message: str) -> bytes:
    """A framed PublishResponse that says why a message was not stored. The ack beside it is there and empty, because
    old clients look into it unasked."""
    response = api.PublishResponse(
        ack=api.Ack(),
        asyncError=api.PublishAsyncError(code=code, message=message),
        correlationId=correlation_id.decode(errors="replace"),
    ).SerializeToString()
    return RECORD_PREFIX.pack(0, len(response)) + response


def encode_ack_envelope(ack: api.Ack) -> bytes:
    """What is published to an ack inbox."""
    return envelope_header(MessageType.ACK) + ack.SerializeToString()
