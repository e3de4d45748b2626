"""Frames: their types, flags, errors and layouts (RFC 9113, sections 4, 6 and 7)."""

import struct
from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#: Length and type in one number, flags, stream ID.
FRAME_HEADER = struct.Struct(">IBI")
FRAME_HEADER_BYTES = 9
#: What we accept; the default, and so never told.
MAX_FRAME_BYTES = 16_384
MAX_WINDOW = (1 << 31) - 1
DEFAULT_WINDOW = 65_535
#: The highest bit of a stream ID is reserved.
MAX_STREAM_ID = 0x7FFF_FFFF


class FrameType(IntEnum):
    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


END_STREAM = 0x1
ACK = 0x1
END_HEADERS = 0x4
PADDED = 0x8
PRIORITY = 0x20


class ErrorCode(IntEnum):
    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11


class Setting(IntEnum):
    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class ConnectionFault(Exception):
    """The peer broke a rule that ends the connection."""

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class StreamFault(Exception):
    """The peer broke a rule that ends one stream."""

    def __init__(self, stream_id: int, code: ErrorCode, reason: str) -> None:
        super().__init__(reason)
        self.stream_id = stream_id
        self.code = code


def frame(kind: FrameType, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """One whole frame."""
    return FRAME_HEADER.pack(len(payload) << 8 | kind, flags, stream_id) + payload


def data_frames(stream_id: int, data: memoryview, max_frame_bytes: int, *, end: bool) -> list[bytes | memoryview]:
    """DATA frames of at most ``max_frame_bytes``, as pieces to join."""
    pieces: list[bytes | memoryview] = []
    for start in range(0, len(data), max_frame_bytes) or (0,):
        piece = data[start : start + max_frame_bytes]
        last = end and start + max_frame_bytes >= len(data)
        pieces.append(FRAME_HEADER.pack(len(piece) << 8 | FrameType.DATA, END_STREAM if last else 0, stream_id))
        pieces.append(piece)
    return pieces


def unpad(payload: bytes) -> bytes:
    """A PADDED frame's payload without its padding."""
    if not payload or payload[0] >= len(payload):
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "padding is longer than its frame")
    return payload[1 : len(payload) - payload[0]]
