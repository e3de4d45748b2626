"""What servers say to each other so that clients can publish through any of them.

A *lane* carries one publisher's messages to one partition, in order. A chunk is the client's own bytes (framed
PublishRequests, all to that partition); an answer carries the bytes for the client (framed PublishResponses). An
*attempt* begins with a chunk that says so; in it, the partition's leader takes chunks only in sequence, so what it didn't
take, it took nothing behind either, and all of that can be sent again without a doubt.

Big endian. Chunk: version, flags, lane, attempt, sequence, stream ID, partition, leader epoch, length of the ack inbox,
ack inbox, requests. Answer: version, 1 if the chunk was taken, lane, attempt, sequence, length of the responses, the
responses, and then for each message that was refused: length and bytes of the correlation ID, of the refusal's kind and of
its text. There is one answer to a chunk, when all its messages have one.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from liftbridge.errors import ProtocolError

_VERSION = 1
_CHUNK = struct.Struct(">BBQIQQIQH")
_ANSWER = struct.Struct(">BBQIQI")
_LENGTH = struct.Struct(">H")
_STARTS = 0x01
_MAX_TEXT_BYTES = 0xFFFF

#: A chunk is larger than the requests in it by at most this much, with ack inboxes as we name them.
CHUNK_OVERHEAD_BYTES = _CHUNK.size + 256


@dataclass(frozen=True, slots=True)
class Chunk:
    """Requests of one publisher to one partition. ``starts``: an attempt begins with it."""

    lane: int
    attempt: int
    sequence: int
    stream_id: int
    partition: int
    leader_epoch: int
    starts: bool
    ack_inbox: str
    requests: bytes


class RefusedMessage(NamedTuple):
    """A message that was not stored; ``kind`` is the name of a RefusalKind."""

    correlation_id: bytes
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a chunk. Not ``taken``: the receiver doesn't lead the partition in that epoch, or misses what
    stands before, and nothing was stored. ``responses`` are those to the messages that are stored and want an ack."""

    lane: int
    attempt: int
    sequence: int
    taken: bool
    responses: bytes = b""
    refused: tuple[RefusedMessage, ...] = ()


def encode_chunk(chunk: Chunk) -> bytes:
    """Raises ValueError for an ack inbox beyond 64 KiB."""
    inbox = _short(chunk.ack_inbox.encode())
    head = _CHUNK.pack(
        _VERSION,
        _STARTS if chunk.starts else 0,
        chunk.lane,
        chunk.attempt,
        chunk.sequence,
        chunk.stream_id,
        chunk.partition,
        chunk.leader_epoch,
        len(inbox),
    )
    return b"".join((head, inbox, chunk.requests))


def decode_chunk(data: bytes) -> Chunk:
    """Raises ProtocolError; says nothing about the requests."""
    try:
        version, flags, lane, attempt, sequence, stream_id, partition, leader_epoch, size = _CHUNK.unpack_from(data)
        if version != _VERSION:
            raise ProtocolError(f"a forwarded chunk of version {version}; this server knows {_VERSION}")
        inbox, position = _take(data, _CHUNK.size, size)
        return Chunk(
            lane=lane,
            attempt=attempt,
            sequence=sequence,
            stream_id=stream_id,
            partition=partition,
            leader_epoch=leader_epoch,
            starts=bool(flags & _STARTS),
            ack_inbox=inbox.decode(),
            requests=data[position:],
        )
    except (struct.error, UnicodeDecodeError) as error:
        raise ProtocolError(f"not a forwarded chunk: {error}") from None


def encode_answer(answer: Answer) -> bytes:
    """The answer's bytes; texts are cut at 64 KiB."""
    responses = answer.responses
    head = _ANSWER.pack(_VERSION, answer.taken, answer.lane, answer.attempt, answer.sequence, len(responses))
    refused = [_length_and_text(text) for one in answer.refused for text in _fields(one)]
    return b"".join((head, responses, *refused))


def _fields(refused: RefusedMessage) -> Sequence[bytes]:
    return refused.correlation_id, refused.kind.encode(), refused.text.encode()


def _length_and_text(text: bytes) -> bytes:
    text = text[:_MAX_TEXT_BYTES]
    return _LENGTH.pack(len(text)) + text


def decode_answer(data: bytes) -> Answer:
    """Raises ProtocolError."""
    try:
        version, taken, lane, attempt, sequence, size = _ANSWER.unpack_from(data)
        if version != _VERSION:
            raise ProtocolError(f"an answer of version {version}; this server knows {_VERSION}")
        responses, position = _take(data, _ANSWER.size, size)
        texts = iter(_texts(data, position))
        refused = tuple(
            RefusedMessage(id_, kind.decode(), text.decode(errors="replace"))
            for id_, kind, text in zip(texts, texts, texts, strict=True)
        )
        return Answer(lane, attempt, sequence, bool(taken), responses, refused)
    except (struct.error, ValueError) as error:
        raise ProtocolError(f"not an answer to a forwarded chunk: {error}") from None


def _texts(data: bytes, position: int) -> Sequence[bytes]:
    texts = []
    while position < len(data):
        (size,) = _LENGTH.unpack_from(data, position)
        text, position = _take(data, position + _LENGTH.size, size)
        texts.append(text)
    return texts


def _take(data: bytes, position: int, size: int) -> tuple[bytes, int]:
    end = position + size
    if end > len(data):
        raise ProtocolError(f"{end - len(data)} bytes are missing")
    return data[position:end], end


def _short(data: bytes) -> bytes:
    if len(data) > _MAX_TEXT_BYTES:
        raise ValueError(f"{len(data)} bytes are too many for an ack inbox")
    return data
