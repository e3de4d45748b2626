"""What servers say to each other so that clients can publish through any of them.

A *lane* carries one publisher's messages to one partition, in order. A chunk is the client's own bytes (framed
PublishRequests, all to that partition); an answer carries the bytes for the client (framed PublishResponses). An
*attempt* is a lane's way to one leader in one leader epoch, and has a number of its own among all of the sender's. In it,
the leader takes chunks only in sequence, each once, however often it comes; so what it didn't take, it took nothing
behind either, and all of that can be sent again without a doubt. A sender that waits for too long asks with a *question*
what became of its chunks.

Big endian. Chunk: version, 0, lane, attempt, sequence, lowest sequence that the sender waits for, stream ID, partition,
leader epoch, length of the ack inbox, ack inbox, requests. Question: version, 1, lane, attempt, stream ID, partition,
leader epoch, and then ranges of sequences: first, behind the last. Answer: version, verdict, lane, attempt, sequence, length
of the responses, the responses, and then for each message that was refused: length and bytes of the correlation ID, of the
refusal's kind and of its text.
"""

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from liftbridge.errors import ProtocolError

_VERSION = 2
_CHUNK = struct.Struct(">BBQQQQQIQH")
_QUESTION = struct.Struct(">BBQQQIQ")
_RANGE = struct.Struct(">QQ")
_ANSWER = struct.Struct(">BBQQQI")
_LENGTH = struct.Struct(">H")
_IS_CHUNK, _IS_QUESTION = 0, 1
_MAX_TEXT_BYTES = 0xFFFF

#: A chunk is larger than the requests in it by at most this much, with ack inboxes as we name them.
CHUNK_OVERHEAD_BYTES = _CHUNK.size + 256


class Chunk(NamedTuple):
    """Requests of one publisher to one partition. ``lowest``: the sender waits for no answer to any chunk of the attempt
    before that, whether it had one or gave up."""

    lane: int
    attempt: int
    sequence: int
    lowest: int
    stream_id: int
    partition: int
    leader_epoch: int
    ack_inbox: str
    requests: bytes


class Question(NamedTuple):
    """What became of these chunks? ``awaited`` are ranges of sequences, ascending, at least one, none of them empty."""

    lane: int
    attempt: int
    stream_id: int
    partition: int
    leader_epoch: int
    awaited: tuple[tuple[int, int], ...]

    @property
    def lowest(self) -> int:
        """As in a chunk."""
        return self.awaited[0][0]

    @property
    def last(self) -> int:
        """The highest sequence that is asked about."""
        return self.awaited[-1][1] - 1


class RefusedMessage(NamedTuple):
    """A message that was not stored; ``kind`` is the name of a RefusalKind."""

    correlation_id: bytes
    kind: str
    text: str


class Verdict(IntEnum):
    """What an answer says of its sequence, in its attempt."""

    #: Nothing from it on was taken, and nothing will be.
    NOT_TAKEN = 0
    #: Every message of the chunk has an outcome, which is in the answer.
    DONE = 1
    #: All chunks before it were taken, unless the sender no longer waits for them; it is the next one.
    EXPECTED = 2
    #: The chunk was taken, and what became of it can't be told any more.
    FORGOTTEN = 3
    #: This copy of the chunk isn't taken, nor is anything of the attempt from now on. Whoever answers doesn't lead in that
    #: epoch, and can't know whether a former life of it took another copy, or what stands before.
    STRANGE = 4


_VERDICTS = tuple(Verdict)


class Answer(NamedTuple):
    """What became of a chunk, or of a lane. ``responses`` are those to the messages that are stored and want an ack."""

    lane: int
    attempt: int
    sequence: int
    verdict: Verdict
    responses: bytes = b""
    refused: tuple[RefusedMessage, ...] = ()


def encode_chunk(chunk: Chunk) -> bytes:
    """Raises ValueError for an ack inbox beyond 64 KiB."""
    inbox = _short(chunk.ack_inbox.encode())
    head = _CHUNK.pack(
        _VERSION,
        _IS_CHUNK,
        chunk.lane,
        chunk.attempt,
        chunk.sequence,
        chunk.lowest,
        chunk.stream_id,
        chunk.partition,
        chunk.leader_epoch,
        len(inbox),
    )
    return b"".join((head, inbox, chunk.requests))


def encode_question(question: Question) -> bytes:
    """The question's bytes."""
    head = _QUESTION.pack(
        _VERSION,
        _IS_QUESTION,
        question.lane,
        question.attempt,
        question.stream_id,
        question.partition,
        question.leader_epoch,
    )
    return b"".join((head, *(_RANGE.pack(*one) for one in question.awaited)))


def decode_to_leader(data: bytes) -> Chunk | Question:
    """Raises ProtocolError; says nothing about the requests."""
    if len(data) < 2 or data[0] != _VERSION:
        raise ProtocolError(f"a forwarded chunk of version {data[:1].hex() or 'none'}; this server knows {_VERSION}")
    try:
        return _decode_chunk(data) if data[1] == _IS_CHUNK else _decode_question(data)
    except (struct.error, UnicodeDecodeError) as error:
        raise ProtocolError(f"not a forwarded chunk: {error}") from None


def _decode_chunk(data: bytes) -> Chunk:
    _, _, lane, attempt, sequence, lowest, stream_id, partition, leader_epoch, size = _CHUNK.unpack_from(data)
    inbox, position = _take(data, _CHUNK.size, size)
    return Chunk(
        lane=lane,
        attempt=attempt,
        sequence=sequence,
        lowest=lowest,
        stream_id=stream_id,
        partition=partition,
        leader_epoch=leader_epoch,
        ack_inbox=inbox.decode(),
        requests=data[position:],
    )


def _decode_question(data: bytes) -> Question:
    _, kind, lane, attempt, stream_id, partition, leader_epoch = _QUESTION.unpack_from(data)
    awaited = tuple(_RANGE.iter_unpack(data[_QUESTION.size :]))
    if kind != _IS_QUESTION or not _ascend(awaited):
        raise ProtocolError(f"neither a forwarded chunk nor a question about some: kind {kind}, about {awaited[:3]}")
    return Question(lane, attempt, stream_id, partition, leader_epoch, awaited)


def _ascend(ranges: Sequence[tuple[int, int]]) -> bool:
    """Whether there are some, one behind the other, and none is empty."""
    edges = [edge for one in ranges for edge in one]
    return (
        bool(edges)
        and all(one < other for one, other in zip(edges[::2], edges[1::2], strict=True))
        and (edges == sorted(edges))
    )


def encode_answer(answer: Answer) -> bytes:
    """The answer's bytes; texts are cut at 64 KiB."""
    responses = answer.responses
    head = _ANSWER.pack(_VERSION, answer.verdict, answer.lane, answer.attempt, answer.sequence, len(responses))
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
        version, verdict, lane, attempt, sequence, size = _ANSWER.unpack_from(data)
        if version != _VERSION:
            raise ProtocolError(f"an answer of version {version}; this server knows {_VERSION}")
        responses, position = _take(data, _ANSWER.size, size)
        texts = iter(_texts(data, position))
        refused = tuple(
            RefusedMessage(id_, kind.decode(), text.decode(errors="replace"))
            for id_, kind, text in zip(texts, texts, texts, strict=True)
        )
        return Answer(lane, attempt, sequence, _VERDICTS[verdict], responses, refused)
    except (struct.error, ValueError, IndexError) as error:
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
