"""For who publishes with a NATS client: messages with keys, headers and acks, as bytes (reference: the envelope on NATS).

::

    inbox = connection.new_inbox()
    payload = publish_message(b"3.1", key=b"oslo", ack_inbox=inbox, correlation_id="1")
    await connection.publish("weather.oslo", payload)
    ...
    ack = parse_ack(reply.data)

A plain payload is recorded, too; an envelope is needed only for what a plain one can't say.
"""

from collections.abc import Mapping

from google.protobuf.message import DecodeError

from liftbridge.client.failures import IncorrectOffset
from liftbridge.client.records import Ack, AckPolicy, ack_from_proto
from liftbridge.errors import InternalError, InvalidRequest, ProtocolError, RequestError, UnknownError
from liftbridge.protocol.envelope import MessageType, envelope_header, open_envelope
from liftbridge.protocol.generated import api_pb2 as api

_ANY_OFFSET = -1
_ERRORS: dict[int, tuple[type[RequestError], str]] = {
    api.Ack.INCORRECT_OFFSET: (IncorrectOffset, "incorrect expected offset"),
    api.Ack.TOO_LARGE: (InvalidRequest, "message exceeds max replication size"),
    api.Ack.ENCRYPTION: (InternalError, "encryption failed on partition"),
}


def publish_message(
    value: bytes,
    *,
    key: bytes = b"",
    headers: Mapping[str, bytes] | None = None,
    ack_inbox: str = "",
    correlation_id: str = "",
    ack_policy: AckPolicy = AckPolicy.LEADER,
    expected_offset: int | None = None,
) -> bytes:
    """What to publish on a stream's subject. With an ``ack_inbox``, each stream that records it sends an ack there."""
    message = api.Message(
        key=key,
        value=value,
        headers=headers,
        ackInbox=ack_inbox,
        correlationId=correlation_id,
        ackPolicy=int(ack_policy),  # type: ignore[arg-type]
        offset=_ANY_OFFSET if expected_offset is None else expected_offset,
    )
    return envelope_header(MessageType.PUBLISH) + message.SerializeToString()


def parse_ack(data: bytes) -> Ack:
    """The ack in what arrived on an ack inbox. Raises ProtocolError for what is none, and for a message that was not stored
    what :meth:`Client.publish` raises."""
    try:
        ack = api.Ack.FromString(open_envelope(data, MessageType.ACK))
    except DecodeError as error:
        raise ProtocolError(f"not an ack: {error}") from error
    if ack.ackError != api.Ack.OK:
        kind, text = _ERRORS.get(ack.ackError, (UnknownError, "unknown error"))
        raise kind(f"stream {ack.stream}: {text}")
    return ack_from_proto(ack)


def parse_message(data: bytes) -> api.Message:
    """The message in an envelope that somebody published. Raises ProtocolError for everything else."""
    try:
        return api.Message.FromString(open_envelope(data, MessageType.PUBLISH))
    except DecodeError as error:
        raise ProtocolError(f"not a message: {error}") from error
