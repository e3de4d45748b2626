"""What a connection tells its owner."""

from dataclasses import dataclass

from liftbridge_endpoint_grpc.http2.headers import Header


@dataclass(frozen=True, slots=True)
class RequestReceived:
    """A new stream. The headers are well-formed."""

    stream_id: int
    headers: list[Header]
    end_stream: bool


@dataclass(frozen=True, slots=True)
class DataReceived:
    """The payloads of consecutive DATA frames. ``credit_bytes`` have to be given back with ``give_credit``."""

    stream_id: int
    data: bytes
    credit_bytes: int


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """The peer sent its last byte."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class StreamReset:
    """The stream is gone, by the peer or because it broke a rule."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class Drained:
    """So much of the stream's output went out that it has room for more."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class ConnectionEnded:
    """Nothing more is to be read; send what is left to send, and close."""

    reason: str


Event = RequestReceived | DataReceived | StreamEnded | StreamReset | Drained | ConnectionEnded
