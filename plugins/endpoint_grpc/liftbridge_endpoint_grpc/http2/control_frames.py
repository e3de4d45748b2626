"""What frames other than DATA and HEADERS say (RFC 9113, section 6): their payloads, checked for size and place.

Nothing here knows a connection's state. What breaks a rule raises ConnectionFault or StreamFault.
"""

import struct

from liftbridge_endpoint_grpc.http2.frames import (
    ACK,
    MAX_STREAM_ID,
    PADDED,
    PRIORITY,
    ConnectionFault,
    ErrorCode,
    FrameType,
    StreamFault,
    frame,
    unpad,
)

_SETTING = struct.Struct(">HI")
_WORD = struct.Struct(">I")
_TWO_WORDS = struct.Struct(">II")
_MAX_SETTINGS = 64
_PRIORITY_BYTES = 5
_PING_BYTES = 8
_MAX_REASON_BYTES = 200


def read_settings(flags: int, stream_id: int, payload: bytes) -> dict[int, int] | None:
    """The values by their settings' numbers; None for an acknowledgement."""
    if stream_id != 0:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "SETTINGS on a stream")
    if flags & ACK:
        if payload:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "a SETTINGS ack with a payload")
        return None
    if len(payload) % _SETTING.size:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS of a wrong size")
    if len(payload) > _MAX_SETTINGS * _SETTING.size:
        raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, f"more than {_MAX_SETTINGS} settings in a frame")
    return dict(_SETTING.iter_unpack(payload))


def read_header_fragment(flags: int, stream_id: int, payload: bytes) -> tuple[bytes, bool]:
    """The part of a header block that a HEADERS frame holds, and whether the stream says that it depends on itself:
    that is wrong, but the block must be decoded all the same, because it may change the table for compression."""
    if stream_id == 0:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "HEADERS on stream 0")
    block = unpad(payload) if flags & PADDED else payload
    if not flags & PRIORITY:
        return block, False
    if len(block) < _PRIORITY_BYTES:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "HEADERS without its priority")
    return block[_PRIORITY_BYTES:], _dependency(block) == stream_id


def check_priority(stream_id: int, payload: bytes) -> None:
    """Priorities are ignored, but have to be well-formed."""
    if stream_id == 0:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PRIORITY on stream 0")
    if len(payload) != _PRIORITY_BYTES:
        raise StreamFault(stream_id, ErrorCode.FRAME_SIZE_ERROR, "PRIORITY of a wrong size")
    if _dependency(payload) == stream_id:
        raise StreamFault(stream_id, ErrorCode.PROTOCOL_ERROR, "a stream depends on itself")


def _dependency(payload: bytes) -> int:
    word: int = _WORD.unpack_from(payload)[0]
    return word & MAX_STREAM_ID


def check_reset(payload: bytes) -> None:
    """Why the peer reset the stream is nothing to us."""
    if len(payload) != _WORD.size:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM of a wrong size")


def check_ping(stream_id: int, payload: bytes) -> None:
    if stream_id != 0:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PING on a stream")
    if len(payload) != _PING_BYTES:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "PING of a wrong size")


def check_goaway(stream_id: int, payload: bytes) -> None:
    """A client that goes away only says that it takes no streams from us, and we open none."""
    if stream_id != 0:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "GOAWAY on a stream")
    if len(payload) < _TWO_WORDS.size:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY of a wrong size")


def settings_frame(settings: dict[int, int]) -> bytes:
    return frame(FrameType.SETTINGS, 0, 0, b"".join(_SETTING.pack(name, value) for name, value in settings.items()))


def window_update_frame(stream_id: int, increment: int) -> bytes:
    return frame(FrameType.WINDOW_UPDATE, 0, stream_id, _WORD.pack(increment))


def reset_frame(stream_id: int, code: ErrorCode) -> bytes:
    return frame(FrameType.RST_STREAM, 0, stream_id, _WORD.pack(code))


def goaway_frame(last_stream_id: int, code: ErrorCode, reason: str = "") -> bytes:
    return frame(FrameType.GOAWAY, 0, 0, _TWO_WORDS.pack(last_stream_id, code) + reason.encode()[:_MAX_REASON_BYTES])
