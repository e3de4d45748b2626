"""Chunks and answers between servers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liftbridge.errors import ProtocolError
from liftbridge.protocol.forwarding import (
    Answer,
    Chunk,
    Question,
    RefusedMessage,
    Verdict,
    decode_answer,
    decode_to_leader,
    encode_answer,
    encode_chunk,
    encode_question,
)

words = st.integers(0, 2**64 - 1)
halves = st.integers(0, 2**32 - 1)
texts = st.text(max_size=20)
chunks = st.builds(Chunk, words, words, words, words, words, halves, words, texts, st.binary(max_size=30))
edges = st.lists(words, min_size=2, max_size=8, unique=True).filter(lambda some: len(some) % 2 == 0).map(sorted)
ranges = edges.map(lambda some: tuple(zip(some[::2], some[1::2], strict=True)))
questions = st.builds(Question, words, words, words, halves, words, ranges)
refused = st.builds(RefusedMessage, st.binary(max_size=5), texts, texts)
answers = st.builds(
    Answer,
    words,
    words,
    words,
    st.sampled_from(Verdict),
    st.binary(max_size=30),
    st.lists(refused, max_size=3).map(tuple),
)


@given(chunks, questions, answers)
def test_what_is_sent_is_what_arrives(chunk: Chunk, question: Question, answer: Answer) -> None:
    assert decode_to_leader(encode_chunk(chunk)) == chunk
    assert decode_to_leader(encode_question(question)) == question
    assert decode_answer(encode_answer(answer)) == answer


@given(st.binary(max_size=80), st.sampled_from([decode_to_leader, decode_answer]))
def test_whatever_comes_is_read_or_a_protocol_error(data: bytes, decode: object) -> None:
    for some in (data, b"\2" + data, b"\2\0" + data, b"\2\1" + data):
        try:
            decode(some)  # type: ignore[operator]
        except ProtocolError:
            continue


@given(answers)
def test_answer_that_is_cut_short_is_no_answer_or_another(answer: Answer) -> None:
    data = encode_answer(answer)
    with pytest.raises(ProtocolError):
        decode_answer(data[:10])


@pytest.mark.parametrize("awaited", [(), ((3, 3),), ((3, 5), (4, 6)), ((5, 6), (3, 4)), ((4, 3),)])
def test_a_question_about_no_ascending_ranges_is_none(awaited: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(ProtocolError, match="question"):
        decode_to_leader(encode_question(Question(1, 1, 1, 0, 1, awaited)))


def test_ranges_that_touch_are_as_good_as_one() -> None:
    question = Question(1, 1, 1, 0, 1, ((3, 5), (5, 6)))
    assert decode_to_leader(encode_question(question)) == question
    assert (question.lowest, question.last) == (3, 5)


@pytest.mark.parametrize("decode", [decode_to_leader, decode_answer])
def test_what_another_version_says_is_named_as_that(decode: object) -> None:
    with pytest.raises(ProtocolError, match="version"):
        decode(b"\1" + bytes(80))  # type: ignore[operator]
