"""The history checker notices what it is there for."""

import pytest
from history import PartitionHistory, problems_of

LOG = [b"a1", b"b1", b"a2"]


def good() -> PartitionHistory:
    return PartitionHistory(
        acked={b"a1": 0, b"a2": 2},
        refused={b"b2"},
        attempted={"a": [b"a1", b"a2", b"a3"], "b": [b"b1", b"b2"]},
        read={"reader": [(0, b"a1"), (1, b"b1")]},
    )


def test_good_history_has_no_problems() -> None:
    assert problems_of(good(), LOG) == []


@pytest.mark.parametrize(
    ("log", "problem"),
    [
        (LOG[:2], "lost"),
        ([b"a1", b"b1", b"b3"], "replaced"),
        ([*LOG, b"b1"], "doubled"),
        ([*LOG, b"b2"], "told that it wasn't"),
        ([b"a2", b"b1", b"a1"], "out of order"),
        ([b"a1", b"x", b"a2"], "isn't there in the end"),
    ],
)
def test_bad_log_is_noticed(log: list[bytes], problem: str) -> None:
    assert any(problem in one for one in problems_of(good(), log))


@pytest.mark.parametrize("read", [[(0, b"a1"), (2, b"a2")], [(0, b"a1"), (0, b"a1")], [(1, b"b1")]])
def test_reader_that_skips_or_repeats_is_noticed(read: list[tuple[int, bytes]]) -> None:
    history = good()
    history.read["reader"] = read
    assert any("was next" in one for one in problems_of(history, LOG))
