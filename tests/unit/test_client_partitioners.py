"""Which partition a message goes to."""

import pytest

from liftbridge.client import KeyPartitioner, RoundRobinPartitioner
from liftbridge.client.cursors import cursor_partition


@pytest.mark.parametrize(
    ("key", "of_three", "of_64"),
    [
        (b"", 0, 0),
        (b"oslo", 0, 34),
        (b"lima", 2, 44),
        (b"123456789", 2, 38),
        (b"\x00\xff", 1, 50),
        (b"a key with spaces", 2, 26),
        ("Zürich".encode(), 0, 62),
    ],
)
def test_keys_go_where_the_go_client_sends_them(key: bytes, of_three: int, of_64: int) -> None:
    """The numbers are Go's: ``crc32.ChecksumIEEE(key) % partitions``."""
    assert KeyPartitioner()(key, b"v", 3) == of_three
    assert KeyPartitioner()(key, b"v", 64) == of_64


def test_cursors_are_where_the_original_keeps_them() -> None:
    """Go's ``crc32.ChecksumIEEE([]byte("mine,weather,1")) % 7``."""
    assert cursor_partition("mine", "weather", 1, 7) == 3


def test_round_robin_takes_partitions_in_turn() -> None:
    choose = RoundRobinPartitioner()
    assert [choose(b"k", b"v", 3) for _ in range(7)] == [0, 1, 2, 0, 1, 2, 0]
