"""What clients saw, and whether it can be: no acked message lost, no offset used twice, everything in order.

Every value is published once and is unlike any other. Offsets are per partition.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise


@dataclass(slots=True)
class PartitionHistory:
    """One partition, as its publishers and readers saw it.

    ``acked`` is value -> offset; ``refused`` are values whose publisher was told "not stored", for certain. ``attempted``
    are all values of each session, in order: only a session promises order. ``read`` is what each reader got, in order, as
    (offset, value).
    """

    acked: dict[bytes, int] = field(default_factory=dict)
    refused: set[bytes] = field(default_factory=set)
    attempted: dict[str, list[bytes]] = field(default_factory=dict)
    read: dict[str, list[tuple[int, bytes]]] = field(default_factory=dict)


def problems_of(history: PartitionHistory, log: Sequence[bytes]) -> list[str]:
    """What is wrong; ``log`` holds the values that the partition has in the end, by offset."""
    problems = []
    for value, offset in history.acked.items():
        if offset >= len(log):
            problems.append(f"lost: {value!r} was acked at offset {offset}, and the log ends at {len(log)}")
        elif log[offset] != value:
            problems.append(f"replaced: {value!r} was acked at offset {offset}, where {log[offset]!r} stands")
    places: dict[bytes, int] = {}
    for offset, value in enumerate(log):
        if value in places:
            problems.append(f"doubled: {value!r} at offsets {places[value]} and {offset}")
        if value in history.refused:
            problems.append(f"stored: {value!r} at offset {offset}, and its publisher was told that it wasn't")
        places[value] = offset
    for publisher, values in history.attempted.items():
        stored = [(places[value], value) for value in values if value in places]
        for (offset, value), (next_offset, next_value) in pairwise(stored):
            if next_offset < offset:
                problems.append(
                    f"out of order: {publisher}: {next_value!r} at offset {next_offset}, and {value!r}, which was published "
                    f"before it, at {offset}; acked at {history.acked.get(next_value)} and {history.acked.get(value)}"
                )
    for reader, messages in history.read.items():
        problems += _problems_of_reader(reader, messages, log)
    return problems


def _problems_of_reader(reader: str, messages: Sequence[tuple[int, bytes]], log: Sequence[bytes]) -> list[str]:
    problems = []
    for expected, (offset, value) in enumerate(messages):
        if offset != expected:
            problems.append(f"{reader} got offset {offset}, and {expected} was next")
            break
        if offset >= len(log) or log[offset] != value:
            problems.append(f"{reader} got {value!r} at offset {offset}, which isn't there in the end")
            break
    return problems


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` of them lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def describe(histories: Mapping[int, PartitionHistory]) -> str:
    """How much happened, in a line."""
    acked = sum(len(one.acked) for one in histories.values())
    tried = sum(len(values) for one in histories.values() for values in one.attempted.values())
    refused = sum(len(one.refused) for one in histories.values())
    return f"{tried} messages published: {acked} acked, {refused} refused, {tried - acked - refused} nobody knows"
