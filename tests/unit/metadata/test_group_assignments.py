"""Who gets which partitions: complete, balanced, sticky, and the same everywhere."""

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from liftbridge.metadata.group_assignments import Partitions, assign

_STREAMS = ("s0", "s1", "s2")
_consumed = st.dictionaries(
    st.sampled_from([f"c{number}" for number in range(6)]), st.sets(st.sampled_from(_STREAMS)).map(tuple), min_size=1
)
_counts = st.fixed_dictionaries({stream: st.integers(1, 9) for stream in _STREAMS})


def _owners(assigned: dict[str, Partitions]) -> dict[tuple[str, int], str]:
    owners: dict[tuple[str, int], str] = {}
    for member, streams in assigned.items():
        for stream, partitions in streams.items():
            assert list(partitions) == sorted(set(partitions))
            for number in partitions:
                assert (stream, number) not in owners, "a partition has two owners"
                owners[stream, number] = member
    return owners


def _loads(assigned: dict[str, Partitions]) -> list[int]:
    return sorted(sum(map(len, streams.values())) for streams in assigned.values())


def test_members_of_two_streams_share_both() -> None:
    alone = assign({"c1": ("g1", "g2")}, {"g1": 3, "g2": 2}, {})
    assert alone == {"c1": {"g1": (0, 1, 2), "g2": (0, 1)}}
    both = assign({"c1": ("g1", "g2"), "c2": ("g1", "g2")}, {"g1": 3, "g2": 2}, alone)
    assert both == {"c1": {"g1": (0, 1), "g2": (0,)}, "c2": {"g1": (2,), "g2": (1,)}}


def test_more_members_than_partitions_leaves_some_without() -> None:
    assigned = assign({f"c{number}": ("s",) for number in range(5)}, {"s": 2}, {})
    assert _loads(assigned) == [0, 0, 0, 1, 1]


def test_a_partition_moves_by_way_of_a_third_member() -> None:
    held = {"a": {"x": (0, 1)}, "b": {"y": (0,)}}
    assigned = assign({"a": ("x",), "b": ("x", "y"), "c": ("y",)}, {"x": 2, "y": 1}, held)
    assert assigned == {"a": {"x": (0,)}, "b": {"x": (1,)}, "c": {"y": (0,)}}


@given(_consumed, _counts, st.lists(_consumed, max_size=3))
def test_every_partition_that_somebody_consumes_has_one_owner_who_does(
    consumed: dict[str, tuple[str, ...]], counts: dict[str, int], before: list[dict[str, tuple[str, ...]]]
) -> None:
    held: dict[str, Partitions] = {}
    for earlier in [*before, consumed]:
        held = assign(earlier, counts, held)
    owners = _owners(held)
    wanted = {stream for streams in consumed.values() for stream in streams}
    assert set(owners) == {(stream, number) for stream in wanted for number in range(counts[stream])}
    assert all(stream in consumed[owner] for (stream, _), owner in owners.items())
    reordered = dict(reversed(list(consumed.items())))
    assert assign(reordered, counts, held) == held, "nothing moves when nothing changed"


@given(
    st.dictionaries(st.sampled_from("abc"), st.sets(st.sampled_from("xyz"), min_size=1).map(tuple), min_size=1),
    st.fixed_dictionaries({stream: st.integers(1, 2) for stream in "xyz"}),
    st.dictionaries(st.sampled_from("abc"), st.sets(st.sampled_from("xyz"), min_size=1).map(tuple), min_size=1),
)
def test_no_other_assignment_is_better_balanced(
    consumed: dict[str, tuple[str, ...]], counts: dict[str, int], before: dict[str, tuple[str, ...]]
) -> None:
    assigned = assign(consumed, counts, assign(before, counts, {}))
    choices = [
        [member for member, streams in consumed.items() if stream in streams]
        for stream in sorted({stream for streams in consumed.values() for stream in streams})
        for _ in range(counts[stream])
    ]
    best = min(sum(owners.count(member) ** 2 for member in consumed) for owners in product(*choices))
    assert sum(load**2 for load in _loads(assigned)) == best


@given(st.integers(1, 12), st.integers(1, 40), st.integers(1, 20))
def test_one_who_joins_gets_its_share_and_nothing_else_moves(members: int, first: int, second: int) -> None:
    counts = {"s": first, "t": second}
    before = assign({f"c{number:02}": ("s", "t") for number in range(members)}, counts, {})
    after = assign({f"c{number:02}": ("s", "t") for number in range(members + 1)}, counts, before)
    old, new = _owners(before), _owners(after)
    moved = {place for place in new if new[place] != old[place]}
    assert {new[place] for place in moved} <= {f"c{members:02}"}
    assert len(moved) == (first + second) // (members + 1)
    assert _loads(after)[-1] - _loads(after)[0] <= 1


@given(st.integers(2, 12), st.integers(1, 40), st.data())
def test_when_one_leaves_only_its_partitions_move(members: int, partitions: int, data: st.DataObject) -> None:
    consumed = {f"c{number:02}": ("s",) for number in range(members)}
    before = assign(consumed, {"s": partitions}, {})
    leaver = data.draw(st.sampled_from(sorted(consumed)))
    after = assign({one: ("s",) for one in consumed if one != leaver}, {"s": partitions}, before)
    old, new = _owners(before), _owners(after)
    assert {old[place] for place in new if new[place] != old[place]} <= {leaver}
    assert _loads(after)[-1] - _loads(after)[0] <= 1
