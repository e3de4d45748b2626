"""Messages between brokers: what goes in comes out, and nothing else decodes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liftbridge.errors import ProtocolError
from liftbridge.interfaces.log import LogId
from liftbridge.protocol.replication import (
    PART_OVERHEAD_BYTES,
    AnswerPart,
    Fetch,
    FetchEntry,
    Reset,
    Section,
    SectionKind,
    decode_message,
    encode_answer,
    encode_fetch,
    encode_reset,
    iter_sections,
)

numbers = st.integers(0, (1 << 64) - 1)
log_ids = st.builds(LogId, numbers, st.integers(0, (1 << 32) - 1))
entries = st.builds(FetchEntry, log_ids, numbers, numbers, numbers)
fetches = st.builds(
    Fetch, numbers, st.integers(0, (1 << 32) - 1), st.text(max_size=30), st.text(max_size=30), st.lists(entries)
)
sections = st.builds(
    Section, log_ids, st.sampled_from(SectionKind), numbers, numbers, numbers, numbers, st.binary(max_size=200)
)


@given(fetches)
def test_a_fetch_survives_the_wire(fetch: Fetch) -> None:
    assert decode_message(encode_fetch(fetch)) == fetch


@given(numbers, st.integers(0, (1 << 32) - 1), st.lists(sections), st.integers(PART_OVERHEAD_BYTES + 1, 500))
def test_an_answer_survives_the_wire_in_parts_that_fit(
    session: int, number: int, told: list[Section], max_payload_bytes: int
) -> None:
    payloads = encode_answer(session, number, told, max_payload_bytes)
    assert max(map(len, payloads)) <= max_payload_bytes
    parts = [decode_message(payload) for payload in payloads]
    assert all(isinstance(part, AnswerPart) for part in parts)
    assert [(p.session, p.number, p.part, p.parts) for p in parts if isinstance(p, AnswerPart)] == [
        (session, number, i, len(payloads)) for i in range(len(payloads))
    ]
    body = b"".join(part.piece for part in parts if isinstance(part, AnswerPart))
    assert list(iter_sections(body)) == told


def test_a_reset_survives_the_wire() -> None:
    assert decode_message(encode_reset(7)) == Reset(7)


@given(st.binary(max_size=80))
def test_bytes_that_are_no_message_are_an_error_and_nothing_worse(data: bytes) -> None:
    try:
        message = decode_message(data)
        if isinstance(message, AnswerPart):
            list(iter_sections(message.piece))
    except ProtocolError:
        pass


@given(fetches, st.data())
def test_a_fetch_that_is_cut_short_inside_its_names_or_an_entry_is_refused(fetch: Fetch, data: st.DataObject) -> None:
    encoded = encode_fetch(fetch)
    kept = data.draw(st.integers(0, len(encoded) - 1))
    try:
        decoded = decode_message(encoded[:kept])
    except ProtocolError:
        return
    assert isinstance(decoded, Fetch)
    assert decoded.entries == fetch.entries[: len(decoded.entries)]
    assert len(decoded.entries) < len(fetch.entries)


def test_another_version_is_refused_by_name() -> None:
    with pytest.raises(ProtocolError, match="version 9"):
        decode_message(b"\x09" + encode_reset(1)[1:])


def test_a_section_that_is_cut_short_is_refused() -> None:
    (payload,) = encode_answer(1, 0, [Section(LogId(1, 0), SectionKind.SLICE, 1, data=b"abc")], 1000)
    with pytest.raises(ProtocolError, match="cut short"):
        list(iter_sections(payload[PART_OVERHEAD_BYTES:-1]))
