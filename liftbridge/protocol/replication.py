"""Messages between the leaders and followers of partitions: one conversation for each pair of brokers.

A *session* is a conversation that a follower's broker opens by listing every partition it follows from one leader's broker.
Afterwards it lists only what changed. Fetches and answers of a session are numbered from 0, so that either side notices
a lost, repeated or overtaken message and the follower opens another session. An answer is cut into as many transport
messages (*parts*) as it needs. Big endian::

    every message    version B | kind B | session Q | number I
    fetch, then      replica, incarnation (each H length, text) | entries: stream ID Q, partition I, leader epoch Q,
                     next offset Q, epoch of the last record Q
    answer, then     part H | parts H | a piece of the sections, back to back: stream ID Q, partition I, kind B,
                     leader epoch Q, high watermark Q, offset Q, epoch Q, length of the data I, data
    reset            nothing more

The data of a section is record batches, verbatim as the leader's log returned them.
"""

import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple

from liftbridge.errors import ProtocolError
from liftbridge.interfaces.log import LogId

VERSION = 1
_HEADER = struct.Struct(">BBQI")
_LENGTH = struct.Struct(">H")
_ENTRY = struct.Struct(">QIQQQ")
_PART = struct.Struct(">HH")
_SECTION = struct.Struct(">QIBQQQQI")

#: What an answer takes beside its sections, for each part.
PART_OVERHEAD_BYTES = _HEADER.size + _PART.size
SECTION_OVERHEAD_BYTES = _SECTION.size
ENTRY_BYTES = _ENTRY.size
#: In the place of a next offset: the follower's disk takes nothing now. It asks again when it may.
CANNOT_STORE = (1 << 64) - 1


class MessageKind(IntEnum):
    """What a message is."""

    FETCH = 1
    ANSWER = 2
    RESET = 3


class FetchEntry(NamedTuple):
    """Where a follower stands in one partition. ``last_epoch`` is the leader epoch of the record before ``next_offset``,
    0 when the follower holds none that matters. ``leader_epoch`` 0 means that it no longer follows the partition here,
    ``next_offset`` CANNOT_STORE that nobody should wait for it."""

    log_id: LogId
    leader_epoch: int
    next_offset: int
    last_epoch: int


class Fetch(NamedTuple):
    """Asks for what is new. Number 0 opens a session; one answer may follow each fetch."""

    session: int
    number: int
    replica: str
    incarnation: str
    entries: Sequence[FetchEntry]


class SectionKind(IntEnum):
    """What a leader says about one partition."""

    #: ``data`` continues the follower's log at ``offset``; without data there is only a high watermark.
    SLICE = 0
    #: The logs differ: the leader's records of ``epoch``, its largest up to the follower's, end at ``offset``.
    DIVERGING = 1
    #: The follower's position is no longer kept: the leader's log begins at ``offset``.
    OUT_OF_RANGE = 2
    #: Not the leader in the epoch that the follower named; ``leader_epoch`` is the one it leads in, 0 for none.
    NOT_LEADER = 3


class Section(NamedTuple):
    """A leader's answer about one partition; ``leader_epoch`` is the epoch in which it answers."""

    log_id: LogId
    kind: SectionKind
    leader_epoch: int
    high_watermark: int = 0
    offset: int = 0
    epoch: int = 0
    data: bytes | memoryview = b""

    def size_bytes(self) -> int:
        return SECTION_OVERHEAD_BYTES + len(self.data)


class AnswerPart(NamedTuple):
    """Part ``part`` of ``parts`` of one answer."""

    session: int
    number: int
    part: int
    parts: int
    piece: memoryview


class Reset(NamedTuple):
    """The leader's broker doesn't know the session, or missed a message of it: open another."""

    session: int


def encode_fetch(fetch: Fetch) -> bytes:
    """One transport message."""
    replica, incarnation = fetch.replica.encode(), fetch.incarnation.encode()
    parts = [
        _HEADER.pack(VERSION, MessageKind.FETCH, fetch.session, fetch.number),
        _LENGTH.pack(len(replica)),
        replica,
        _LENGTH.pack(len(incarnation)),
        incarnation,
    ]
    for (stream_id, partition), leader_epoch, next_offset, last_epoch in fetch.entries:
        parts.append(_ENTRY.pack(stream_id, partition, leader_epoch, next_offset, last_epoch))
    return b"".join(parts)


def encode_answer(session: int, number: int, sections: Sequence[Section], max_payload_bytes: int) -> list[bytes]:
    """The transport messages of one answer, none larger than ``max_payload_bytes``."""
    pieces: list[bytes | memoryview] = []
    for log_id, kind, leader_epoch, high_watermark, offset, epoch, data in sections:
        pieces.append(_SECTION.pack(*log_id, kind, leader_epoch, high_watermark, offset, epoch, len(data)))
        pieces.append(data)
    header = _HEADER.pack(VERSION, MessageKind.ANSWER, session, number)
    room = max_payload_bytes - PART_OVERHEAD_BYTES
    total = sum(map(len, pieces))
    if total <= room:
        return [b"".join((header, _PART.pack(0, 1), *pieces))]
    body = memoryview(b"".join(pieces))
    parts = -(-total // room)
    return [b"".join((header, _PART.pack(i, parts), body[i * room : (i + 1) * room])) for i in range(parts)]


def encode_reset(session: int) -> bytes:
    """One transport message."""
    return _HEADER.pack(VERSION, MessageKind.RESET, session, 0)


def decode_message(data: bytes) -> Fetch | AnswerPart | Reset:
    """Raises ProtocolError for anything that isn't one of the three."""
    try:
        version, kind, session, number = _HEADER.unpack_from(data)
        if version != VERSION:
            raise ProtocolError(f"replication message of version {version}, and this server speaks {VERSION}")
        if kind == MessageKind.FETCH:
            return _decode_fetch(data, session, number)
        if kind == MessageKind.ANSWER:
            part, parts = _PART.unpack_from(data, _HEADER.size)
            return AnswerPart(session, number, part, parts, memoryview(data)[PART_OVERHEAD_BYTES:])
    except (struct.error, UnicodeDecodeError) as error:
        raise ProtocolError(f"no replication message: {error}") from None
    if kind != MessageKind.RESET:
        raise ProtocolError(f"no replication message: kind {kind}")
    return Reset(session)


def _decode_fetch(data: bytes, session: int, number: int) -> Fetch:
    replica, position = _decode_text(data, _HEADER.size)
    incarnation, position = _decode_text(data, position)
    entries = [
        FetchEntry(LogId(stream_id, partition), leader_epoch, next_offset, last_epoch)
        for stream_id, partition, leader_epoch, next_offset, last_epoch in _ENTRY.iter_unpack(data[position:])
    ]
    return Fetch(session, number, replica, incarnation, entries)


def _decode_text(data: bytes, position: int) -> tuple[str, int]:
    (length,) = _LENGTH.unpack_from(data, position)
    start = position + _LENGTH.size
    if start + length > len(data):
        raise ProtocolError(f"no replication message: a text of {length} bytes is cut short")
    return data[start : start + length].decode(), start + length


def iter_sections(body: bytes | memoryview) -> Iterator[Section]:
    """The sections of a whole answer. Raises ProtocolError where they don't add up."""
    view = memoryview(body)
    position = 0
    while position < len(view):
        try:
            stream_id, partition, kind, leader_epoch, high_watermark, offset, epoch, length = _SECTION.unpack_from(
                view, position
            )
            position += _SECTION.size + length
            if position > len(view):
                raise ProtocolError(f"a section of an answer is cut short by {position - len(view)} bytes")
            yield Section(
                LogId(stream_id, partition),
                SectionKind(kind),
                leader_epoch,
                high_watermark,
                offset,
                epoch,
                view[position - length : position],
            )
        except (struct.error, ValueError) as error:
            raise ProtocolError(f"no section of an answer: {error}") from None
