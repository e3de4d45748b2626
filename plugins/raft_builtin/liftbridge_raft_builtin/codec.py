"""The core's messages and stored values as bytes."""

from typing import TypeVar

from google.protobuf.message import DecodeError
from google.protobuf.message import Message as ProtoMessage

from liftbridge.errors import ProtocolError
from liftbridge_raft_builtin.core.types import (
    AppendReply,
    AppendRequest,
    Entry,
    EntryKind,
    HardState,
    Membership,
    Message,
    Snapshot,
    SnapshotRequest,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)
from liftbridge_raft_builtin.generated import raft_pb2 as pb

_ProtoT = TypeVar("_ProtoT", bound=ProtoMessage)


def encode_membership(membership: Membership) -> pb.Membership:
    return pb.Membership(voters=membership.voters, learners=membership.learners)


def decode_membership(message: pb.Membership) -> Membership:
    return Membership(tuple(message.voters), tuple(message.learners))


def encode_entry(entry: Entry) -> pb.Entry:
    """A membership travels in the entry's data."""
    data = encode_membership(entry.membership).SerializeToString() if entry.membership else entry.data
    return pb.Entry(index=entry.index, term=entry.term, kind=pb.EntryKind.Name(entry.kind), data=data)


def decode_entry(message: pb.Entry) -> Entry:
    if message.kind == EntryKind.MEMBERSHIP:
        membership = decode_membership(_parse(pb.Membership(), message.data))
        return Entry(message.index, message.term, EntryKind.MEMBERSHIP, b"", membership)
    return Entry(message.index, message.term, EntryKind(message.kind), message.data)


def entry_from_bytes(data: bytes) -> Entry:
    return decode_entry(_parse(pb.Entry(), data))


def hard_state_to_bytes(state: HardState) -> bytes:
    return pb.HardState(term=state.term, vote=state.vote).SerializeToString()


def hard_state_from_bytes(data: bytes) -> HardState:
    message = _parse(pb.HardState(), data)
    return HardState(message.term, message.vote)


def snapshot_to_bytes(snapshot: Snapshot) -> bytes:
    return pb.Snapshot(
        index=snapshot.index,
        term=snapshot.term,
        membership=encode_membership(snapshot.membership),
        data=snapshot.data,
    ).SerializeToString()


def snapshot_from_bytes(data: bytes) -> Snapshot:
    message = _parse(pb.Snapshot(), data)
    return Snapshot(message.index, message.term, decode_membership(message.membership), message.data)


def encode_message(sender: str, message: Message, *, max_bytes: int) -> list[bytes]:
    """One payload, or several for a snapshot that is larger than ``max_bytes``."""
    envelope = pb.Envelope(sender=sender)
    match message:
        case VoteRequest():
            envelope.vote_request.CopyFrom(
                pb.VoteRequest(
                    term=message.term,
                    last_index=message.last_index,
                    last_term=message.last_term,
                    pre_vote=message.pre_vote,
                    transfer=message.transfer,
                )
            )
        case VoteReply():
            envelope.vote_reply.CopyFrom(
                pb.VoteReply(term=message.term, granted=message.granted, pre_vote=message.pre_vote)
            )
        case AppendRequest():
            envelope.append_request.CopyFrom(
                pb.AppendRequest(
                    term=message.term,
                    previous_index=message.previous_index,
                    previous_term=message.previous_term,
                    commit_index=message.commit_index,
                    entries=[encode_entry(entry) for entry in message.entries],
                )
            )
        case AppendReply():
            envelope.append_reply.CopyFrom(
                pb.AppendReply(term=message.term, accepted=message.accepted, index=message.index)
            )
        case SnapshotRequest():
            return [part.SerializeToString() for part in _snapshot_parts(sender, message, max_bytes)]
        case TimeoutNow():
            envelope.timeout_now.CopyFrom(pb.TimeoutNow(term=message.term))
    return [envelope.SerializeToString()]


def _snapshot_parts(sender: str, message: SnapshotRequest, max_bytes: int) -> list[pb.Envelope]:
    snapshot = message.snapshot
    positions = range(0, max(1, len(snapshot.data)), max_bytes)
    return [
        pb.Envelope(
            sender=sender,
            snapshot_request=pb.SnapshotRequest(
                term=message.term,
                index=snapshot.index,
                snapshot_term=snapshot.term,
                membership=encode_membership(snapshot.membership),
                position=position,
                data=snapshot.data[position : position + max_bytes],
                last=position == positions[-1],
            ),
        )
        for position in positions
    ]


class MessageDecoder:
    """Bytes to messages; puts the parts of snapshots together, one at a time for each sender."""

    def __init__(self) -> None:
        self._parts: dict[str, tuple[int, bytearray]] = {}

    def decode(self, data: bytes) -> tuple[str, Message] | None:
        """Sender and message; None for a part of a snapshot that isn't complete. Raises ProtocolError."""
        envelope = _parse(pb.Envelope(), data)
        sender = envelope.sender
        match envelope.WhichOneof("message"):
            case "vote_request":
                vote = envelope.vote_request
                return sender, VoteRequest(vote.term, vote.last_index, vote.last_term, vote.pre_vote, vote.transfer)
            case "vote_reply":
                reply = envelope.vote_reply
                return sender, VoteReply(reply.term, reply.granted, reply.pre_vote)
            case "append_request":
                append = envelope.append_request
                return sender, AppendRequest(
                    append.term,
                    append.previous_index,
                    append.previous_term,
                    append.commit_index,
                    tuple(decode_entry(entry) for entry in append.entries),
                )
            case "append_reply":
                answer = envelope.append_reply
                return sender, AppendReply(answer.term, answer.accepted, answer.index)
            case "snapshot_request":
                return self._take_part(sender, envelope.snapshot_request)
            case "timeout_now":
                return sender, TimeoutNow(envelope.timeout_now.term)
        raise ProtocolError("a Raft message of a kind that this version doesn't know")

    def _take_part(self, sender: str, part: pb.SnapshotRequest) -> tuple[str, Message] | None:
        index, data = self._parts.get(sender, (0, bytearray()))
        if part.position == 0:
            index, data = part.index, bytearray()
        if part.index != index or part.position != len(data):
            self._parts.pop(sender, None)
            return None
        data += part.data
        if not part.last:
            self._parts[sender] = (index, data)
            return None
        self._parts.pop(sender, None)
        snapshot = Snapshot(part.index, part.snapshot_term, decode_membership(part.membership), bytes(data))
        return sender, SnapshotRequest(part.term, snapshot)


def _parse(message: _ProtoT, data: bytes) -> _ProtoT:
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise ProtocolError(f"not a Raft {type(message).__name__}: {error}") from None
    return message
