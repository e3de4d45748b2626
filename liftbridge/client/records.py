"""Messages and acks as applications see them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum

from liftbridge.protocol.generated import api_pb2 as api


class AckPolicy(IntEnum):
    """When a publisher hears that its message is stored: once the leader has it, once every replica in sync has it, or
    never."""

    LEADER = 0
    ALL = 1
    NONE = 2


@dataclass(frozen=True, slots=True)
class Ack:
    """A message is stored at ``offset``, as surely as ``ack_policy`` says. Timestamps are nanoseconds since 1970."""

    stream: str
    offset: int
    correlation_id: str
    ack_policy: AckPolicy
    subject: str
    reception_timestamp_ns: int
    commit_timestamp_ns: int


@dataclass(frozen=True, slots=True)
class Message:
    """A stored message. ``subject`` is the NATS subject that it came on, ``key`` and ``reply_subject`` are empty where
    there was none. ``headers`` are the publisher's; the broker's own two are ``subject`` and ``reply_subject``."""

    offset: int
    value: bytes
    key: bytes
    timestamp_ns: int
    stream: str
    partition: int
    subject: str
    reply_subject: str
    headers: Mapping[str, bytes]

    @property
    def timestamp(self) -> datetime:
        """When the leader took it, to the microsecond."""
        return datetime.fromtimestamp(self.timestamp_ns / 1e9, UTC)


_RESERVED_HEADERS = ("subject", "reply")


def ack_from_proto(ack: api.Ack) -> Ack:
    return Ack(
        stream=ack.stream,
        offset=ack.offset,
        correlation_id=ack.correlationId,
        ack_policy=AckPolicy(ack.ackPolicy),
        subject=ack.msgSubject,
        reception_timestamp_ns=ack.receptionTimestamp,
        commit_timestamp_ns=ack.commitTimestamp,
    )


def message_from_proto(message: api.Message) -> Message:
    headers = message.headers
    return Message(
        offset=message.offset,
        value=message.value,
        key=message.key,
        timestamp_ns=message.timestamp,
        stream=message.stream,
        partition=message.partition,
        subject=message.subject,
        reply_subject=message.replySubject,
        headers={name: headers[name] for name in headers if name not in _RESERVED_HEADERS},
    )
