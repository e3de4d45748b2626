"""gRPC's length-prefixed messages: finding whole ones in a stream's bytes, many at a time."""

import struct
import zlib

from liftbridge.errors import InternalError, ResourceExhausted
from liftbridge.protocol.strides import count_repeats

PREFIX = struct.Struct(">BI")
PREFIX_BYTES = PREFIX.size
#: How many of the largest messages the compressed ones of one read may grow to.
_MAX_GROWTH = 8
EMPTY_MESSAGE = PREFIX.pack(0, 0)


def frame_message(message: bytes) -> bytes:
    """A message with its prefix."""
    return PREFIX.pack(0, len(message)) + message


class MessageReader:
    """Collects one stream's bytes and gives out whole framed messages, uncompressed, back to back."""

    def __init__(self, max_message_bytes: int, *, gzip: bool) -> None:
        self._max_message_bytes = max_message_bytes
        self._gzip = gzip
        self._partial: list[bytes] = []
        self._partial_bytes = 0
        self._needed_bytes = 0

    @property
    def unfinished(self) -> bool:
        """Whether part of a message is waiting for the rest."""
        return bool(self._partial_bytes)

    def feed(self, data: bytes) -> bytes:
        """The messages that are whole now. Raises the error that ends the call: a message too large, or compressed in
        a way that wasn't announced."""
        if not self._partial and data[:1] == b"\0" and len(data) - PREFIX_BYTES <= self._max_message_bytes:
            if int.from_bytes(data[1:PREFIX_BYTES], "big") == len(data) - PREFIX_BYTES:
                return data
        elif self._partial:
            self._partial.append(data)
            self._partial_bytes += len(data)
            if self._partial_bytes < self._needed_bytes:
                return b""
            data = b"".join(self._partial)
        end, compressed, needed = self._whole_messages(data)
        self._partial = [data[end:]] if end < len(data) else []
        self._partial_bytes = len(data) - end
        self._needed_bytes = needed
        whole = data if end == len(data) else data[:end]
        return self._decompress(whole) if compressed else whole

    def _whole_messages(self, data: bytes) -> tuple[int, bool, int]:
        """Where the last whole message ends, whether any is compressed, and how many bytes the next one needs."""
        position, compressed = 0, False
        while len(data) - position >= PREFIX_BYTES:
            flag, length = PREFIX.unpack_from(data, position)
            if length > self._max_message_bytes:
                raise ResourceExhausted(
                    f"grpc: received message larger than max ({length} vs. {self._max_message_bytes})"
                )
            stride = PREFIX_BYTES + length
            complete = (len(data) - position) // stride
            if not complete:
                return position, compressed, stride
            if complete > 1:
                complete = count_repeats(data, position, stride, range(PREFIX_BYTES), complete)
            compressed = compressed or bool(flag)
            position += complete * stride
        return position, compressed, PREFIX_BYTES

    def _decompress(self, framed: bytes) -> bytes:
        """The same messages, none compressed. A message that grows beyond the limit is stopped there."""
        messages = []
        position = total_bytes = 0
        while position < len(framed):
            flag, length = PREFIX.unpack_from(framed, position)
            message = framed[position + PREFIX_BYTES : position + PREFIX_BYTES + length]
            messages.append(frame_message(self._gunzip(message) if flag else message))
            total_bytes += len(messages[-1])
            if total_bytes > _MAX_GROWTH * self._max_message_bytes:
                raise ResourceExhausted(f"grpc: compressed messages grew to more than {total_bytes} bytes at once")
            position += PREFIX_BYTES + length
        return b"".join(messages)

    def _gunzip(self, message: bytes) -> bytes:
        if not self._gzip:
            raise InternalError("grpc: compressed flag set with identity or empty encoding")
        decompressor = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        try:
            plain = decompressor.decompress(message, self._max_message_bytes + 1)
        except zlib.error as error:
            raise InternalError(f"grpc: failed to decompress the received message: {error}") from None
        if len(plain) > self._max_message_bytes:
            raise ResourceExhausted(
                f"grpc: received message after decompression larger than max {self._max_message_bytes}"
            )
        if not decompressor.eof:
            raise InternalError("grpc: failed to decompress the received message: it is cut short")
        return plain
