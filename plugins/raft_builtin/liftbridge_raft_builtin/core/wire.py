"""Reading and writing of small binary structures: varints, texts, flags."""

from liftbridge.errors import ProtocolError
from liftbridge.protocol.varint import decode_varint, encode_varint


class Writer:
    """Joins fields; integers as varints, bytes and texts behind their length."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def integer(self, value: int) -> "Writer":
        self._parts.append(encode_varint(value))
        return self

    def blob(self, value: bytes) -> "Writer":
        self._parts.append(encode_varint(len(value)))
        self._parts.append(value)
        return self

    def text(self, value: str) -> "Writer":
        return self.blob(value.encode())

    def texts(self, values: tuple[str, ...]) -> "Writer":
        self.integer(len(values))
        for value in values:
            self.text(value)
        return self

    def finish(self) -> bytes:
        return b"".join(self._parts)


class Reader:
    """Reads what a :class:`Writer` wrote. Anything else raises :class:`~liftbridge.errors.ProtocolError`."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def integer(self) -> int:
        value, self._position = decode_varint(self._data, self._position, len(self._data))
        return value

    def flag(self) -> bool:
        value = self.integer()
        if value > 1:
            raise ProtocolError(f"a flag has the value {value}")
        return bool(value)

    def blob(self) -> bytes:
        size_bytes = self.integer()
        end = self._position + size_bytes
        if end > len(self._data):
            raise ProtocolError(f"a field of {size_bytes} bytes is cut short")
        value = self._data[self._position : end]
        self._position = end
        return value

    def text(self) -> str:
        try:
            return self.blob().decode()
        except UnicodeDecodeError as error:
            raise ProtocolError(f"a text isn't UTF-8: {error}") from error

    def texts(self) -> tuple[str, ...]:
        return tuple(self.text() for _ in range(self.count()))

    def count(self) -> int:
        """How many items follow; each takes at least a byte, so a larger number is wrong, not a reason to allocate."""
        value = self.integer()
        if value > len(self._data) - self._position:
            raise ProtocolError(f"{value} items don't fit in {len(self._data) - self._position} bytes")
        return value

    def finish(self) -> None:
        if self._position != len(self._data):
            raise ProtocolError(f"{len(self._data) - self._position} bytes too many")
