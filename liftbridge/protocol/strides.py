"""Finding runs of equally shaped messages at C speed.

A client that publishes in a loop sends messages of one length and one layout, back to back. Such a run is found by
looking at the same byte of every message at once, with a strided slice, instead of at every message in turn.
"""

from collections.abc import Iterable


def count_repeats(data: bytes, start: int, stride: int, positions: Iterable[int], limit: int) -> int:
    """How many blocks of ``stride`` bytes from ``start`` on, at most ``limit``, agree with the first one in each of
    ``positions`` (relative to the block). ``limit`` blocks must lie inside ``data``. At least 1."""
    count = limit
    for position in positions:
        first = start + position
        column = data[first : first + (count - 1) * stride + 1 : stride]
        count -= len(column.lstrip(column[:1]))
        if count == 1:
            break
    return count
