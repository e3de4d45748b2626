"""Header blocks: decoding and the rules for requests (RFC 9113, section 8), and encoding of what we answer.

The tables and the Huffman code are those of the ``hpack`` library. The loop over a block is ours: the library's logs,
wraps and measures each field, which together cost more than everything else that happens to a call. Answers use only
the static table and literals, so encoding has no state.
"""

from collections.abc import Iterable

from hpack import HPACKError, InvalidTableIndex
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

from liftbridge_endpoint_grpc.http2.frames import ConnectionFault, ErrorCode

_CONNECTION_HEADERS = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"))
_REQUEST_PSEUDO = frozenset((b":method", b":scheme", b":path", b":authority"))
_REQUIRED_PSEUDO = (b":method", b":scheme", b":path")
_MAX_TABLE_BYTES = HeaderTable.DEFAULT_SIZE
_ENTRY_OVERHEAD_BYTES = 32
#: RFC 7541, section 6: how a field's representation begins, and the bits of its first byte that hold a number.
_INDEXED, _INDEXED_BITS = 0x80, 0x7F
_ADDED, _ADDED_BITS = 0x40, 0x3F
_TABLE_SIZE, _TABLE_SIZE_BITS = 0x20, 0x1F
_LITERAL_BITS = 0x0F
_HUFFMAN, _LENGTH_BITS = 0x80, 0x7F
_MAX_INTEGER_BITS = 28
_MAX_LENGTH_DIGITS = 18
#: Names that every call brings and nothing is wrong with.
_COMMON_NAMES = frozenset(
    (b"content-type", b"user-agent", b"grpc-timeout", b"grpc-encoding", b"grpc-accept-encoding", b"accept-encoding")
)

Header = tuple[bytes, bytes]


class HeaderDecoder:
    """The receiving side of one connection's header compression."""

    def __init__(self, max_list_bytes: int) -> None:
        self._max_list_bytes = max_list_bytes
        self._table = HeaderTable()

    def decode(self, block: bytes) -> list[Header]:
        """The headers of a block. Raises ConnectionFault: after a bad block the table can't be trusted."""
        try:
            return self._decode(block)
        except (HPACKError, InvalidTableIndex, IndexError) as error:
            raise _bad_block(str(error) or "it is cut short") from None

    def _decode(self, block: bytes) -> list[Header]:
        headers: list[Header] = []
        list_bytes = position = 0
        end = len(block)
        while position < end:
            first = block[position]
            if first >= _INDEXED:
                index, position = first & _INDEXED_BITS, position + 1
                if index == _INDEXED_BITS:
                    index, position = _integer(block, position - 1, _INDEXED_BITS)
                header = self._table.get_by_index(index)
            elif first >= _ADDED:
                header, position = self._literal(block, position, _ADDED_BITS)
                self._table.add(*header)
            elif first >= _TABLE_SIZE:
                position = self._resize(block, position, first_of_block=not headers)
                continue
            else:
                header, position = self._literal(block, position, _LITERAL_BITS)
            list_bytes += _ENTRY_OVERHEAD_BYTES + len(header[0]) + len(header[1])
            if list_bytes > self._max_list_bytes:
                raise ConnectionFault(
                    ErrorCode.ENHANCE_YOUR_CALM, f"a header list of more than {self._max_list_bytes} bytes"
                )
            headers.append(header)
        return headers

    def _literal(self, block: bytes, position: int, bits: int) -> tuple[Header, int]:
        index, position = _integer(block, position, bits)
        if index:
            name = self._table.get_by_index(index)[0]
        else:
            name, position = _string(block, position)
        value, position = _string(block, position)
        return (name, value), position

    def _resize(self, block: bytes, position: int, *, first_of_block: bool) -> int:
        size, position = _integer(block, position, _TABLE_SIZE_BITS)
        if not first_of_block or size > _MAX_TABLE_BYTES:
            raise _bad_block(f"a table size update to {size}, or behind the block's first field")
        self._table.maxsize = size
        return position


def _bad_block(reason: str) -> ConnectionFault:
    return ConnectionFault(ErrorCode.COMPRESSION_ERROR, f"bad header block: {reason}")


def _integer(block: bytes, position: int, bits: int) -> tuple[int, int]:
    """The number in the low ``bits`` of a byte and, if those are all set, in the bytes behind it."""
    value = block[position] & bits
    position += 1
    if value < bits:
        return value, position
    for shift in range(0, _MAX_INTEGER_BITS, 7):
        byte = block[position]
        position += 1
        value += (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise _bad_block("an integer of too many bytes")


def _string(block: bytes, position: int) -> tuple[bytes, int]:
    coded = block[position]
    length, position = _integer(block, position, _LENGTH_BITS)
    end = position + length
    if end > len(block):
        raise _bad_block("a string is longer than the block")
    data = block[position:end]
    return (decode_huffman(data) if coded & _HUFFMAN else data), end


def request_problem(headers: list[Header]) -> str | None:
    """What makes a request malformed, None if nothing does."""
    pseudo: dict[bytes, bytes] = {}
    regular_seen = False
    for name, value in headers:
        if name.startswith(b":"):
            if regular_seen or name not in _REQUEST_PSEUDO or name in pseudo:
                return f"pseudo-header {name!r} is unknown, repeated or late"
            pseudo[name] = value
        else:
            regular_seen = True
            problem = None if name in _COMMON_NAMES else _field_problem(name, value)
            if problem:
                return problem
    for name in _REQUIRED_PSEUDO:
        if not pseudo.get(name):
            return f"pseudo-header {name!r} is missing"
    return None


def content_length(headers: list[Header]) -> int | None:
    """How many bytes of data a request says it has. Raises ValueError if that is no number."""
    for name, value in headers:
        if name == b"content-length":
            if not value.isdigit() or len(value) > _MAX_LENGTH_DIGITS:
                raise ValueError("content-length is no number")
            return int(value)
    return None


def trailer_problem(headers: list[Header]) -> str | None:
    """What makes trailers malformed, None if nothing does."""
    for name, value in headers:
        if name.startswith(b":"):
            return f"pseudo-header {name!r} in trailers"
        problem = _field_problem(name, value)
        if problem:
            return problem
    return None


def _field_problem(name: bytes, value: bytes) -> str | None:
    if name != name.lower() or not name:
        return f"header name {name!r} is not lower case"
    if name in _CONNECTION_HEADERS or (name == b"te" and value != b"trailers"):
        return f"header {name!r} belongs to a connection"
    return None


def encode_headers(headers: Iterable[tuple[str, str]]) -> bytes:
    """A header block of literals that nobody is asked to remember."""
    return b"".join(b"\x00" + _text(name) + _text(value) for name, value in headers)


def _text(text: str) -> bytes:
    data = text.encode("latin-1", "replace")
    if len(data) < 127:
        return bytes((len(data),)) + data
    length, rest = b"\x7f", len(data) - 127
    while rest >= 128:
        length += bytes((rest & 0x7F | 0x80,))
        rest >>= 7
    return length + bytes((rest,)) + data
