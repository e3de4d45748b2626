"""Which partition a message goes to."""

import zlib
from collections.abc import Callable
from itertools import count

#: Takes the key (empty: none) and the value, and how many partitions there are; returns one of them.
Partitioner = Callable[[bytes, bytes, int], int]


class KeyPartitioner:
    """Equal keys go to the same partition: CRC-32 of the key modulo partitions, as in the Go client."""

    def __call__(self, key: bytes, value: bytes, partitions: int) -> int:
        del value
        return zlib.crc32(key) % partitions


class RoundRobinPartitioner:
    """One partition after the other."""

    def __init__(self) -> None:
        self._numbers = count()

    def __call__(self, key: bytes, value: bytes, partitions: int) -> int:
        del key, value
        return next(self._numbers) % partitions
