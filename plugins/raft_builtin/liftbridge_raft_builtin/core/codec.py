"""Bytes of everything that is sent or stored. Each begins with a version; what doesn't decode raises ProtocolError.

The first byte of a message is the version, the second its kind; then sender, receiver and term, then its own fields in
the order of its class.
"""

from collections.abc import Callable
from typing import NamedTuple

from liftbridge.errors import ProtocolError
from liftbridge_raft_builtin.core.entries import Entry, EntryKind, HardState, Snapshot
from liftbridge_raft_builtin.core.membership import Membership
from liftbridge_raft_builtin.core.messages import (
    AppendReply,
    AppendRequest,
    Message,
    SnapshotReply,
    SnapshotRequest,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)
from liftbridge_raft_builtin.core.wire import Reader, Writer

VERSION = 1


# --- what is stored ---------------------------------------------------------------------------------------------------


def encode_membership(membership: Membership) -> bytes:
    writer = Writer()
    _write_membership(writer, membership)
    return writer.finish()


def decode_membership(data: bytes) -> Membership:
    reader = Reader(data)
    membership = _read_membership(reader)
    reader.finish()
    return membership


def encode_hard_state(state: HardState) -> bytes:
    return Writer().integer(VERSION).integer(state.term).text(state.vote).integer(state.commit).finish()


def decode_hard_state(data: bytes) -> HardState:
    reader = _versioned(data)
    state = HardState(reader.integer(), reader.text(), reader.integer())
    reader.finish()
    return state


def encode_entry(entry: Entry) -> bytes:
    """Without its index, which is its key."""
    return Writer().integer(VERSION).integer(entry.term).integer(entry.kind).blob(entry.data).finish()


def decode_entry(index: int, data: bytes) -> Entry:
    reader = _versioned(data)
    entry = _read_entry(reader, index)
    reader.finish()
    return entry


def encode_snapshot(snapshot: Snapshot) -> bytes:
    writer = Writer().integer(VERSION).integer(snapshot.index).integer(snapshot.term)
    _write_membership(writer, snapshot.membership)
    return writer.blob(snapshot.data).finish()


def decode_snapshot(data: bytes) -> Snapshot:
    reader = _versioned(data)
    snapshot = Snapshot(reader.integer(), reader.integer(), _read_membership(reader), reader.blob())
    reader.finish()
    return snapshot


# --- what is sent -----------------------------------------------------------------------------------------------------


def encode_message(message: Message) -> bytes:
    kind = _KIND_NUMBERS[type(message)]
    writer = Writer().integer(VERSION).integer(kind)
    writer.text(message.sender).text(message.to).integer(message.term)
    _KINDS[kind].write(writer, message)
    return writer.finish()


def decode_message(data: bytes) -> Message:
    reader = _versioned(data)
    number = reader.integer()
    kind = _KINDS.get(number)
    if kind is None:
        raise ProtocolError(f"Raft messages of kind {number} are unknown")
    message = kind.read(reader, reader.text(), reader.text(), reader.integer())
    reader.finish()
    return message


def _versioned(data: bytes) -> Reader:
    reader = Reader(data)
    version = reader.integer()
    if version != VERSION:
        raise ProtocolError(f"Raft data has version {version}; this server knows {VERSION}")
    return reader


def _write_membership(writer: Writer, membership: Membership) -> None:
    writer.texts(membership.voters).texts(membership.learners)


def _read_membership(reader: Reader) -> Membership:
    membership = Membership(reader.texts(), reader.texts())
    if membership != Membership.of(membership.voters, membership.learners):
        raise ProtocolError(f"a membership isn't sorted, or has somebody twice: {membership}")
    return membership


def _read_entry(reader: Reader, index: int) -> Entry:
    term = reader.integer()
    number = reader.integer()
    data = reader.blob()
    try:
        kind = EntryKind(number)
    except ValueError:
        raise ProtocolError(f"Raft entries of kind {number} are unknown") from None
    if kind is EntryKind.MEMBERSHIP:
        decode_membership(data)
    return Entry(index, term, kind, data)


def _write_vote_request(writer: Writer, message: VoteRequest) -> None:
    writer.integer(message.last_index).integer(message.last_term).integer(message.pre).integer(message.transfer)


def _read_vote_request(reader: Reader, sender: str, to: str, term: int) -> VoteRequest:
    return VoteRequest(sender, to, term, reader.integer(), reader.integer(), reader.flag(), reader.flag())


def _write_vote_reply(writer: Writer, message: VoteReply) -> None:
    writer.integer(message.granted).integer(message.pre)


def _read_vote_reply(reader: Reader, sender: str, to: str, term: int) -> VoteReply:
    return VoteReply(sender, to, term, reader.flag(), reader.flag())


def _write_append_request(writer: Writer, message: AppendRequest) -> None:
    writer.integer(message.prev_index).integer(message.prev_term).integer(message.commit).integer(message.round)
    writer.integer(len(message.entries))
    for entry in message.entries:
        writer.integer(entry.term).integer(entry.kind).blob(entry.data)


def _read_append_request(reader: Reader, sender: str, to: str, term: int) -> AppendRequest:
    prev_index, prev_term, commit, round_ = (reader.integer() for _ in range(4))
    entries = tuple(_read_entry(reader, prev_index + 1 + place) for place in range(reader.count()))
    return AppendRequest(sender, to, term, prev_index, prev_term, commit, round_, entries)


def _write_append_reply(writer: Writer, message: AppendReply) -> None:
    writer.integer(message.index).integer(message.accepted).integer(message.round)
    writer.integer(message.hint_index).integer(message.hint_term)


def _read_append_reply(reader: Reader, sender: str, to: str, term: int) -> AppendReply:
    index, accepted, round_ = reader.integer(), reader.flag(), reader.integer()
    return AppendReply(sender, to, term, index, accepted, round_, reader.integer(), reader.integer())


def _write_snapshot_request(writer: Writer, message: SnapshotRequest) -> None:
    writer.integer(message.index).integer(message.index_term)
    _write_membership(writer, message.membership)
    writer.integer(message.offset).integer(message.total_bytes).blob(message.data).integer(message.round)


def _read_snapshot_request(reader: Reader, sender: str, to: str, term: int) -> SnapshotRequest:
    index, index_term, membership = reader.integer(), reader.integer(), _read_membership(reader)
    offset, total_bytes, data, round_ = reader.integer(), reader.integer(), reader.blob(), reader.integer()
    if offset + len(data) > total_bytes:
        raise ProtocolError(f"a snapshot chunk ends at byte {offset + len(data)} of {total_bytes}")
    return SnapshotRequest(sender, to, term, index, index_term, membership, offset, total_bytes, data, round_)


def _write_snapshot_reply(writer: Writer, message: SnapshotReply) -> None:
    writer.integer(message.index).integer(message.offset).integer(message.round)


def _read_snapshot_reply(reader: Reader, sender: str, to: str, term: int) -> SnapshotReply:
    return SnapshotReply(sender, to, term, reader.integer(), reader.integer(), reader.integer())


def _write_nothing(_writer: Writer, _message: TimeoutNow) -> None:
    """TimeoutNow has no fields of its own."""


def _read_timeout_now(_reader: Reader, sender: str, to: str, term: int) -> TimeoutNow:
    return TimeoutNow(sender, to, term)


class _MessageKind(NamedTuple):
    cls: type
    write: Callable[..., None]
    read: Callable[[Reader, str, str, int], Message]


_KINDS = {
    1: _MessageKind(VoteRequest, _write_vote_request, _read_vote_request),
    2: _MessageKind(VoteReply, _write_vote_reply, _read_vote_reply),
    3: _MessageKind(AppendRequest, _write_append_request, _read_append_request),
    4: _MessageKind(AppendReply, _write_append_reply, _read_append_reply),
    5: _MessageKind(SnapshotRequest, _write_snapshot_request, _read_snapshot_request),
    6: _MessageKind(SnapshotReply, _write_snapshot_reply, _read_snapshot_reply),
    7: _MessageKind(TimeoutNow, _write_nothing, _read_timeout_now),
}
_KIND_NUMBERS = {kind.cls: number for number, kind in _KINDS.items()}
