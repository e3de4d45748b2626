"""Chunks and answers between servers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liftbridge.errors import ProtocolError
from liftbridge.protocol.forwarding import (
    Answer,
    Chunk,
    RefusedMessage,
    decode_answer,
    decode_chunk,
    encode_answer,
    encode_chunk,
)

words = st.integers(0, 2**64 - 1)
halves = st.integers(0, 2**32 - 1)
texts = st.text(max_size=20)
chunks = st.builds(Chunk, words, halves, words, words, halves, words, st.booleans(), texts, st.binary(max_size=30))
refused = st.builds(RefusedMessage, st.binary(max_size=5), texts, texts)
answers = st.builds(
    Answer, words, halves, words, st.booleans(), st.binary(max_size=30), st.lists(refused, max_size=3).map(tuple)
)


@given(chunks, answers)
def test_what_is_sent_is_what_arrives(chunk: Chunk, answer: Answer) -> None:
    assert decode_chunk(encode_chunk(chunk)) == chunk
    assert decode_answer(encode_answer(answer)) == answer


@given(st.binary(max_size=80), st.sampled_from([decode_chunk, decode_answer]))
def test_whatever_comes_is_read_or_a_protocol_error(data: bytes, decode: object) -> None:
    for some in (data, b"\1" + data):
        try:
            decode(some)  # type: ignore[operator]
        except ProtocolError:
            continue


@given(answers)
def test_answer_that_is_cut_short_is_no_answer_or_another(answer: Answer) -> None:
    data = encode_answer(answer)
    with pytest.raises(ProtocolError):
        decode_answer(data[:10])
