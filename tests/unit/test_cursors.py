"""Names of cursors and the table of them, without a server."""

import zlib

from hypothesis import given
from hypothesis import strategies as st

from liftbridge.cursors import UNKNOWN, Cursor, CursorTable
from liftbridge.protocol.record_encoding import encode_records, encode_trailer

PARTS = st.text("a,1", min_size=1, max_size=4)
CURSORS = st.builds(Cursor, PARTS, PARTS, st.integers(-2, 12))
TRAILER = encode_trailer(timestamp_ns=1, stream="__cursors", partition=0, subject="ns.cursors", reply="")


def framed(items: list[bytes], base_offset: int = 0) -> bytes:
    return encode_records(items, None, base_offset=base_offset, trailer=TRAILER)


def test_key_and_partition_are_those_of_the_original() -> None:
    cursor = Cursor("c", "s", 3)
    assert cursor.key == b"c,s,3"
    assert [cursor.partition_of(count) for count in (1, 2, 3, 1000)] == [
        zlib.crc32(b"c,s,3") % count for count in (1, 2, 3, 1000)
    ]


@given(CURSORS, CURSORS)
def test_different_cursors_have_different_keys(one: Cursor, other: Cursor) -> None:
    assert (one.key == other.key) == (one == other)


@given(
    st.lists(st.tuples(CURSORS, st.one_of(st.none(), st.integers(-(1 << 63), (1 << 63) - 1))), max_size=40),
    st.integers(1, 10),
)
def test_table_holds_what_was_set_last_however_it_is_read(sets: list[tuple[Cursor, int | None]], step: int) -> None:
    """None stands for a record that is no cursor."""
    table, expected = CursorTable(), dict[Cursor, int]()
    items = [b"\x12\x01k\x1a\x02\xff\xff" if offset is None else one.record_fields(offset) for one, offset in sets]
    for start in range(0, len(items), step):
        some = items[start : start + step]
        table.add(framed(some, start), start + len(some))
    for cursor, offset in sets:
        if offset is not None:
            expected[cursor] = offset
    assert {cursor: table.get(cursor) for cursor in expected} == expected
    assert table.next_offset == len(items)
    assert table.get(Cursor("never", "set", 0)) == UNKNOWN


def test_record_without_a_value_removes_the_cursor_and_one_without_a_key_is_passed_over() -> None:
    cursor, table = Cursor("c", "s", 0), CursorTable()
    table.add(framed([cursor.record_fields(5), b"\x1a\x01x"]), 2)
    assert table.get(cursor) == 5
    table.add(framed([b"\x12\x05c,s,0"], 2), 3)
    assert table.get(cursor) == UNKNOWN
