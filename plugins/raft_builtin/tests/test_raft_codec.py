"""What is sent and stored comes back as it was, and anything else is a ProtocolError."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liftbridge.errors import ProtocolError
from liftbridge_raft_builtin.core import Entry, EntryKind, HardState, Membership, Message, Snapshot
from liftbridge_raft_builtin.core.codec import (
    decode_entry,
    decode_hard_state,
    decode_membership,
    decode_message,
    decode_snapshot,
    encode_entry,
    encode_hard_state,
    encode_membership,
    encode_message,
    encode_snapshot,
)
from liftbridge_raft_builtin.core.messages import (
    AppendReply,
    AppendRequest,
    SnapshotReply,
    SnapshotRequest,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)

numbers = st.integers(0, 2**63)
ids = st.text(max_size=8)
memberships = st.builds(Membership.of, st.lists(ids, max_size=4), st.lists(ids, max_size=4))
hard_states = st.builds(HardState, numbers, ids, numbers)
snapshots = st.builds(Snapshot, numbers, numbers, memberships, st.binary(max_size=50))


def entries_at(index: int) -> st.SearchStrategy[Entry]:
    plain = st.builds(
        Entry, st.just(index), numbers, st.sampled_from([EntryKind.COMMAND, EntryKind.NOOP]), st.binary(max_size=20)
    )
    changes = st.builds(
        Entry, st.just(index), numbers, st.just(EntryKind.MEMBERSHIP), memberships.map(encode_membership)
    )
    return plain | changes


@st.composite
def append_requests(draw: st.DrawFn) -> AppendRequest:
    prev_index = draw(numbers)
    entries = tuple(draw(entries_at(prev_index + 1 + place)) for place in range(draw(st.integers(0, 3))))
    return AppendRequest(
        draw(ids), draw(ids), draw(numbers), prev_index, draw(numbers), draw(numbers), draw(numbers), entries
    )


@st.composite
def snapshot_requests(draw: st.DrawFn) -> SnapshotRequest:
    data, offset, rest = draw(st.binary(max_size=50)), draw(st.integers(0, 1000)), draw(st.integers(0, 1000))
    total_bytes = offset + len(data) + rest
    sender, to, term, index = draw(ids), draw(ids), draw(numbers), draw(numbers)
    return SnapshotRequest(
        sender, to, term, index, draw(numbers), draw(memberships), offset, total_bytes, data, draw(numbers)
    )


messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(VoteRequest, ids, ids, numbers, numbers, numbers, st.booleans(), st.booleans()),
    st.builds(VoteReply, ids, ids, numbers, st.booleans(), st.booleans()),
    append_requests(),
    st.builds(AppendReply, ids, ids, numbers, numbers, st.booleans(), numbers, numbers, numbers),
    snapshot_requests(),
    st.builds(SnapshotReply, ids, ids, numbers, numbers, numbers, numbers),
    st.builds(TimeoutNow, ids, ids, numbers),
)


@given(messages)
def test_messages_come_back_as_they_were(message: Message) -> None:
    assert decode_message(encode_message(message)) == message


@given(hard_states, snapshots, memberships, entries_at(7))
def test_stored_values_come_back_as_they_were(
    hard_state: HardState, snapshot: Snapshot, membership: Membership, entry: Entry
) -> None:
    assert decode_hard_state(encode_hard_state(hard_state)) == hard_state
    assert decode_snapshot(encode_snapshot(snapshot)) == snapshot
    assert decode_membership(encode_membership(membership)) == membership
    assert decode_entry(7, encode_entry(entry)) == entry


@given(messages, st.data())
def test_a_message_cut_short_or_made_longer_is_refused(message: Message, data: st.DataObject) -> None:
    encoded = encode_message(message)
    with pytest.raises(ProtocolError):
        decode_message(encoded[: data.draw(st.integers(0, len(encoded) - 1))])
    with pytest.raises(ProtocolError):
        decode_message(encoded + b"\0")


@given(st.binary(max_size=80))
def test_any_bytes_are_a_message_or_a_protocol_error(data: bytes) -> None:
    for candidate in (data, b"\1" + data, *(bytes((1, kind)) + data for kind in range(9))):
        try:
            decode_message(candidate)
        except ProtocolError:
            continue


@given(messages, st.data())
def test_a_damaged_message_is_a_message_or_a_protocol_error(message: Message, data: st.DataObject) -> None:
    damaged = bytearray(encode_message(message))
    damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode_message(bytes(damaged))
    except ProtocolError:
        return


def test_a_version_of_the_future_is_refused_by_its_number() -> None:
    with pytest.raises(ProtocolError, match="version 2"):
        decode_message(b"\2" + encode_message(TimeoutNow("a", "b", 1))[1:])


def test_a_number_of_items_that_cannot_be_there_allocates_nothing() -> None:
    request = encode_message(AppendRequest("a", "b", 1, 0, 0, 0))
    with pytest.raises(ProtocolError, match="don't fit"):
        decode_message(request[:-1] + b"\xff\xff\xff\xff\x0f")
