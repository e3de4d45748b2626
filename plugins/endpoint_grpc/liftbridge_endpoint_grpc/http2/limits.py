"""What one peer may have of us, and counting what it does to us."""

from dataclasses import dataclass

from liftbridge_endpoint_grpc.http2.frames import ConnectionFault, ErrorCode


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What one peer may have of us."""

    max_concurrent_streams: int = 1000
    max_header_list_bytes: int = 64 * 1024
    stream_window_bytes: int = 1024 * 1024
    connection_window_bytes: int = 4 * 1024 * 1024
    #: Frames in one read that make work and carry nothing.
    max_idle_frames_per_read: int = 1000
    #: Streams that the peer reset before they had an answer, beyond those that ended well.
    max_resets: int = 500
    max_continuations: int = 32
    #: When a stream's waiting output falls to this, its owner is told.
    low_water_bytes: int = 64 * 1024


class FloodGuard:
    """Counts what costs us more than it costs the peer. Too much of it ends the connection: the ``count_`` methods raise
    ConnectionFault."""

    __slots__ = ("_limits", "_resets", "earned_updates", "idle_frames")

    def __init__(self, limits: ConnectionLimits) -> None:
        self._limits = limits
        self._resets = 0
        #: In this read, so that a peer may send any number of them over time.
        self.idle_frames = 0
        #: WINDOW_UPDATEs that the peer may send because we sent data; some clients send one for each small frame.
        self.earned_updates = 0

    def count_idle_frame(self, weight: int = 1) -> None:
        """A frame that makes work and carries nothing."""
        self.idle_frames += weight
        if self.idle_frames > self._limits.max_idle_frames_per_read:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "a flood of frames that carry nothing")

    def count_reset(self, finished_streams: int) -> None:
        """A stream that ended without an answer. Opening streams only to reset them costs the peer nothing and us much
        (CVE-2023-44487), and so does breaking rules until we reset them (CVE-2025-8671). Streams that finished show
        that the peer uses what it asks for."""
        self._resets += 1
        if self._resets - finished_streams > self._limits.max_resets:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "too many streams were reset")
