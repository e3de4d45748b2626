"""Header blocks: decoding and the rules for requests (RFC 9113, section 8), and encoding of what we answer.

Decoding goes through the ``hpack`` library. A block that left the dynamic table as it was means the same the next time,
until the table changes; clients repeat themselves, so such blocks are remembered. Answers use only the static table and
literals, so encoding has no state.
"""

from collections.abc import Iterable

from hpack import Decoder, HPACKError, InvalidTableIndex, OversizedHeaderListError

from liftbridge_endpoint_grpc.http2.frames import ConnectionFault, ErrorCode

_CONNECTION_HEADERS = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"))
_REQUEST_PSEUDO = frozenset((b":method", b":scheme", b":path", b":authority"))
_REQUIRED_PSEUDO = (b":method", b":scheme", b":path")
_REMEMBERED_BLOCKS = 64

Header = tuple[bytes, bytes]


class HeaderDecoder:
    """The receiving side of one connection's header compression."""

    def __init__(self, max_list_bytes: int) -> None:
        self._decoder = Decoder(max_header_list_size=max_list_bytes)
        self._remembered: dict[bytes, list[Header]] = {}

    def decode(self, block: bytes) -> list[Header]:
        """The headers of a block. Raises ConnectionFault: after a bad block the table can't be trusted."""
        headers = self._remembered.get(block)
        if headers is not None:
            return headers
        before = self._table_state()  # holds on to the newest entry, so that no other one can be taken for it
        try:
            headers = [(bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True)]
        except OversizedHeaderListError as error:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, f"header list too large: {error}") from None
        except (HPACKError, InvalidTableIndex, UnicodeDecodeError, IndexError) as error:
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, f"bad header block: {error}") from None
        after = self._table_state()
        if after[0] is not before[0] or after[1:] != before[1:]:
            self._remembered.clear()
        elif len(self._remembered) < _REMEMBERED_BLOCKS:
            self._remembered[block] = headers
        return headers

    def _table_state(self) -> tuple[object, int, int]:
        table = self._decoder.header_table
        entries = table.dynamic_entries
        return entries[0] if entries else None, len(entries), table.maxsize


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
            problem = _field_problem(name, value)
            if problem:
                return problem
    for name in _REQUIRED_PSEUDO:
        if not pseudo.get(name):
            return f"pseudo-header {name!r} is missing"
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
