"""What sessions (PublishAsync) and single calls (Publish, PublishToSubject) share: the ways a message can go.

A message for a partition that this server leads is appended directly and then mirrored to its subject, on a connection
that doesn't echo, so that everybody else on the subject has it and it doesn't come back. A message for a partition in
a load-balance group goes through the transport, because there the group's member is chosen.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

from google.protobuf.message import DecodeError

from liftbridge.broker.forwarding import Forwarder
from liftbridge.broker.inboxes import InboxNames
from liftbridge.broker.targets import Target, TargetTable
from liftbridge.errors import (
    FailedPrecondition,
    InternalError,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    ProtocolError,
    RequestError,
    ResourceExhausted,
    TransportError,
    Unavailable,
    UnknownError,
)
from liftbridge.interfaces.routing import SubjectRouter
from liftbridge.interfaces.transport import Delivery, Transport
from liftbridge.partition.ingress import InboxAcks
from liftbridge.partition.local import LocalPartition
from liftbridge.partition.pending import AckSink, PendingRun
from liftbridge.partition.refusal import Refusal, RefusalKind
from liftbridge.protocol.envelope import HEADER_BYTES, MessageType, envelope_header, mirror_mark, open_envelope
from liftbridge.protocol.generated import api_pb2 as api
from liftbridge.protocol.publish_requests import PublishRun
from liftbridge.protocol.varint import encode_text

logger = logging.getLogger(__name__)

_ENVELOPE = envelope_header(MessageType.PUBLISH)
_ACK_INBOX_TAG = 0x52
#: A NATS server ends connections that send much longer command lines.
MAX_PUBLISH_SUBJECT_BYTES = 1024
_TOO_LARGE = "message exceeds max replication size"

_ERRORS: dict[RefusalKind, type[RequestError]] = {
    RefusalKind.BAD_REQUEST: InvalidRequest,
    RefusalKind.NO_SUCH_PARTITION: NotFound,
    RefusalKind.NOT_ALLOWED: PermissionDenied,
    RefusalKind.READONLY: FailedPrecondition,
    RefusalKind.TOO_LARGE: InvalidRequest,
    RefusalKind.INCORRECT_OFFSET: UnknownError,
    RefusalKind.TOO_FEW_REPLICAS: Unavailable,
    RefusalKind.OVERLOADED: ResourceExhausted,
    RefusalKind.STORAGE: InternalError,
    RefusalKind.NOT_LEADER: Unavailable,
    RefusalKind.OUTCOME_UNKNOWN: UnknownError,
}
_ACK_ERRORS = {
    api.Ack.INCORRECT_OFFSET: Refusal(RefusalKind.INCORRECT_OFFSET, "incorrect expected offset"),
    api.Ack.TOO_LARGE: Refusal(RefusalKind.TOO_LARGE, _TOO_LARGE),
    api.Ack.ENCRYPTION: Refusal(RefusalKind.STORAGE, "encryption failed on partition"),
    api.Ack.UNKNOWN: Refusal(RefusalKind.OUTCOME_UNKNOWN, "unknown error"),
}


def error_of(refusal: Refusal) -> RequestError:
    """The refusal as what a single call raises."""
    return _ERRORS[refusal.kind](refusal.message)


def refusal_of(ack: api.Ack) -> Refusal:
    """What an ack with an error from another server means."""
    return _ACK_ERRORS.get(ack.ackError, _ACK_ERRORS[api.Ack.UNKNOWN])


def enveloped(message: bytes, inbox: str) -> bytes:
    """A publish envelope that asks for acks on ``inbox``."""
    return _ENVELOPE + message + encode_text(_ACK_INBOX_TAG, inbox)


class SubjectMirror:
    """Publishes what was appended here to its subject, for everybody else."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def publish(self, runs: Sequence[PendingRun]) -> None:
        for subject, some in groupby(runs, attrgetter("subject")):
            payloads = [_ENVELOPE + message + run.mirror_tail for run in some for message in run.messages]
            try:
                self._transport.publish(subject, payloads, echo=False, deferrable=True)
            except TransportError as error:
                logger.error('subject "%s": %d stored messages not mirrored: %s', subject, len(payloads), error)


@dataclass(frozen=True, slots=True)
class Publishing:
    """What every way of publishing needs."""

    targets: TargetTable
    transport: Transport
    forwarder: Forwarder
    mirror: SubjectMirror
    router: SubjectRouter
    inboxes: InboxNames
    max_message_bytes: int

    def refusal_for_size(self, message_bytes: int) -> Refusal | None:
        """Whether a message with its envelope is more than the cluster or the transport carries."""
        limit = min(self.max_message_bytes, self.transport.max_payload_bytes)
        return Refusal(RefusalKind.TOO_LARGE, _TOO_LARGE) if message_bytes + HEADER_BYTES > limit else None

    def check_inbox(self, inbox: str) -> None:
        """An inbox that a client chose must be a subject that acks can be published to. Raises InvalidRequest."""
        problem = self.problem_with(inbox)
        if problem is not None:
            raise InvalidRequest(f"ackInbox is invalid: {problem}")

    def problem_with(self, subject: str) -> str | None:
        """Why nobody can publish to a subject; None if one can."""
        if len(subject.encode()) > MAX_PUBLISH_SUBJECT_BYTES:
            return f"it is longer than {MAX_PUBLISH_SUBJECT_BYTES} bytes"
        problem = self.router.validate(subject)
        if problem is None and not self.router.is_literal(subject):
            return f'"{subject}" has wildcards'
        return problem

    def lane(
        self, local: LocalPartition, subject: str, acks: AckSink, inbox: str, attached: Sequence[LocalPartition] = ()
    ) -> "Lane":
        """A way to a partition that is led here. A subject with wildcards isn't mirrored: nobody can publish to it. The
        mirrored message says which partitions have it, ``attached`` ones too, because another server may lead them
        by the time it gets there."""
        mirror = self.mirror if self.router.is_literal(subject) else None
        keys = [one.assignment.key for one in (local, *attached)]
        marks = b"".join(mirror_mark(key.stream_id, key.partition) for key in keys)
        return Lane(local, subject, acks, mirror, encode_text(_ACK_INBOX_TAG, inbox) + marks)

    def append_attached(self, target: Target, run: PublishRun, inbox: str) -> None:
        """Appends to what else listens on the target's subject here; its acks go to the inbox."""
        for other in target.attached:
            self.attached_lane(other, target.subject, inbox).submit(run)

    def attached_lane(self, other: LocalPartition, subject: str, inbox: str) -> "Lane":
        """A way to what listens on a subject by the way: the message is mirrored already."""
        acks = InboxAcks(self.transport, other.assignment.key.stream, other.assignment.base_subject, inbox)
        return Lane(other, subject, acks, None, b"")


@dataclass(frozen=True, slots=True)
class Lane:
    """One publisher's way to one partition that is led here: all that its runs there have in common."""

    local: LocalPartition
    subject: str
    acks: AckSink
    mirror: SubjectMirror | None
    mirror_tail: bytes

    def submit(self, run: PublishRun) -> None:
        """Hands a run to the partition."""
        pending = PendingRun(
            items=run.fields,
            item_bytes=run.field_bytes,
            subject=self.subject,
            ack_policy=run.ack_policy,
            expected_offset=run.expected_offset,
            acks=self.acks,
            correlation_ids=run.correlation_ids,
            correlation_id_bytes=run.correlation_id_bytes,
            mirror=self.mirror,
            mirror_tail=self.mirror_tail,
            messages=run.messages,
        )
        intake = self.local.intake
        if intake is not None:
            intake.submit(pending)
        else:
            text = f"this server no longer leads {self.local.assignment.key}"
            self.acks.refused(pending, Refusal(RefusalKind.NOT_LEADER, text))


def acks_in(deliveries: list[Delivery]) -> list[api.Ack]:
    """The acks that arrived on an inbox; what is no ack is logged and left out."""
    acks = []
    for delivery in deliveries:
        for payload in delivery.payloads:
            try:
                acks.append(api.Ack.FromString(open_envelope(payload, MessageType.ACK)))
            except (ProtocolError, DecodeError) as error:
                logger.warning('ack inbox "%s": dropped what is no ack: %s', delivery.subject, error)
    return acks
