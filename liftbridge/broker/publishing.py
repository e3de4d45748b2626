"""Publishing for clients: sessions (PublishAsync), single calls (Publish) and subjects (PublishToSubject).

A message for a partition that this server leads is appended directly and then mirrored to its subject, on a connection
that doesn't echo, so that everybody else on the subject has it and it doesn't come back. A message for a partition in
a load-balance group goes through the transport, because there the group's member is chosen.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter

from google.protobuf.message import DecodeError

from liftbridge.broker.api import CallContext
from liftbridge.broker.inboxes import InboxNames
from liftbridge.broker.targets import AckTarget, Target, TargetTable
from liftbridge.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InternalError,
    InvalidRequest,
    NotFound,
    PayloadTooLarge,
    ProtocolError,
    RequestError,
    ResourceExhausted,
    TransportError,
    Unavailable,
    UnknownError,
)
from liftbridge.interfaces.routing import SubjectRouter
from liftbridge.interfaces.transport import Delivery, DeliverySink, Subscription, Transport
from liftbridge.partition.ingress import InboxAcks, ack_error_of
from liftbridge.partition.manager import LocalPartition
from liftbridge.partition.pending import ACK_NONE, AckSink, PendingRun
from liftbridge.partition.refusal import Refusal, RefusalKind
from liftbridge.protocol.envelope import HEADER_BYTES, MessageType, envelope_header, open_envelope
from liftbridge.protocol.generated import api_pb2 as api
from liftbridge.protocol.publish_requests import PublishRun, RequestParser
from liftbridge.protocol.varint import encode_text

logger = logging.getLogger(__name__)

_ENVELOPE = envelope_header(MessageType.PUBLISH)
_ACK_INBOX_TAG = 0x52
_TOO_LARGE = "message exceeds max replication size"

#: How long a session waits for acks after the client's last request, and a call without a deadline for its ack.
FINISH_TIMEOUT_S = 5.0

_ERRORS: dict[RefusalKind, type[RequestError]] = {
    RefusalKind.BAD_REQUEST: InvalidRequest,
    RefusalKind.NO_SUCH_PARTITION: NotFound,
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
    mirror: SubjectMirror
    router: SubjectRouter
    inboxes: InboxNames
    max_message_bytes: int
    #: For the single calls of all clients.
    parser: RequestParser = field(default_factory=RequestParser)

    def refusal_for_size(self, message_bytes: int) -> Refusal | None:
        """Whether a message with its envelope is more than the cluster or the transport carries."""
        limit = min(self.max_message_bytes, self.transport.max_payload_bytes)
        return Refusal(RefusalKind.TOO_LARGE, _TOO_LARGE) if message_bytes + HEADER_BYTES > limit else None

    # --- Publish ------------------------------------------------------------------------------------------------------

    async def publish(self, request: api.PublishRequest, call: CallContext) -> api.PublishResponse:
        """Stores one message; the ack is in the response unless the policy is NONE. Without a deadline the ack is
        awaited all the same (the original answers blindly), because appending takes no time worth hiding."""
        if not request.stream:
            raise InvalidRequest("no stream provided")
        target = self.targets.find(request.stream, request.partition, request.ackPolicy)
        if isinstance(target, Refusal):
            raise error_of(target)
        run = self.parser.run_of(request)
        refusal = self.refusal_for_size(run.longest_message_bytes)
        if refusal is not None:
            raise error_of(refusal)
        inbox = request.ackInbox or self.inboxes.next()
        ack: api.Ack | None
        if target.local is None:
            payload = enveloped(run.messages[0], inbox)
            self.append_attached(target, run, inbox)
            ack = await self._publish_over_transport(target.subject, payload, inbox, request.ackPolicy, call)
            if ack is not None and ack.ackError != api.Ack.OK:
                raise error_of(refusal_of(ack))
        else:
            acks = SingleAck(target.acks, inbox, self.transport if request.ackInbox else None, refusals_as_acks=False)
            lane = self.lane(target.local, target.subject, acks, inbox)
            lane.submit(run)
            self.append_attached(target, run, inbox)
            ack = await self._await_ack(acks.future, call)
        return api.PublishResponse(ack=ack if request.ackPolicy != ACK_NONE else None)

    def lane(self, local: LocalPartition, subject: str, acks: AckSink, inbox: str) -> "Lane":
        """A way to a partition that is led here. A subject with wildcards isn't mirrored: nobody can publish to it."""
        mirror = self.mirror if self.router.is_literal(subject) else None
        return Lane(local, subject, acks, mirror, encode_text(_ACK_INBOX_TAG, inbox))

    def append_attached(self, target: Target, run: PublishRun, inbox: str) -> None:
        """Appends to what else listens on the target's subject here; its acks go to the inbox."""
        for other in target.attached:
            self._attached_lane(other, target.subject, inbox).submit(run)

    def _attached_lane(self, other: LocalPartition, subject: str, inbox: str) -> "Lane":
        acks = InboxAcks(self.transport, other.assignment.key.stream, other.assignment.base_subject, inbox)
        return Lane(other, subject, acks, None, b"")

    async def _await_ack(self, future: "asyncio.Future[api.Ack]", call: CallContext) -> api.Ack:
        if call.deadline_ns is not None:
            return await future  # the endpoint ends the call in time
        try:
            return await asyncio.wait_for(future, FINISH_TIMEOUT_S)
        except TimeoutError:
            raise DeadlineExceeded("no ack in time; the message may be stored") from None

    async def _publish_over_transport(
        self, subject: str, payload: bytes, inbox: str, ack_policy: int, call: CallContext
    ) -> api.Ack | None:
        """Publishes and waits for the first ack, if the policy has one."""
        future: asyncio.Future[api.Ack] = asyncio.get_running_loop().create_future()
        subscription: Subscription | None = None
        try:
            if ack_policy != ACK_NONE:
                subscription = await self.transport.subscribe(inbox, _ack_receiver(future))
            self.transport.publish(subject, [payload], echo=False)
            return None if subscription is None else await self._await_ack(future, call)
        except PayloadTooLarge as error:
            raise InvalidRequest(str(error)) from error
        except TransportError as error:
            raise Unavailable(f"failed to publish to NATS: {error}") from error
        finally:
            if subscription is not None:
                await subscription.unsubscribe()

    # --- PublishToSubject ---------------------------------------------------------------------------------------------

    async def publish_to_subject(
        self, request: api.PublishToSubjectRequest, call: CallContext
    ) -> api.PublishToSubjectResponse:
        """Publishes to a subject, whoever listens; the first ack wins, and a refusal comes as an ack with an error."""
        subject = request.subject
        problem = self.router.validate(subject)
        if problem is not None:
            raise InvalidRequest(f"Subject is invalid: {problem}")
        if not self.router.is_literal(subject):
            raise InvalidRequest(f'Subject is invalid: "{subject}" has wildcards')
        run = self.parser.run_of(
            api.PublishRequest(
                key=request.key,
                value=request.value,
                headers=request.headers,
                correlationId=request.correlationId,
                ackPolicy=request.ackPolicy,
            )
        )
        refusal = self.refusal_for_size(run.longest_message_bytes)
        if refusal is not None:
            raise error_of(refusal)
        inbox = request.ackInbox or self.inboxes.next()
        listeners = self.targets.listeners(subject)
        if not listeners:
            payload = enveloped(run.messages[0], inbox)
            policy = ACK_NONE if call.deadline_ns is None else request.ackPolicy
            ack = await self._publish_over_transport(subject, payload, inbox, policy, call)
            return api.PublishToSubjectResponse(ack=ack)
        assignment = listeners[0].assignment
        acks = SingleAck(
            AckTarget(assignment.key.stream, assignment.base_subject),
            inbox,
            self.transport if request.ackInbox else None,
            refusals_as_acks=True,
        )
        self.lane(listeners[0], subject, acks, inbox).submit(run)
        for other in listeners[1:]:
            self._attached_lane(other, subject, inbox).submit(run)
        ack = await self._await_ack(acks.future, call)
        return api.PublishToSubjectResponse(ack=ack if request.ackPolicy != ACK_NONE else None)


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
        leader = self.local.leader
        if leader is not None:
            leader.submit(pending)
        else:
            text = f"this server no longer leads {self.local.assignment.key}"
            self.acks.refused(pending, Refusal(RefusalKind.NOT_LEADER, text))


def _ack_receiver(future: "asyncio.Future[api.Ack]") -> DeliverySink:
    """A sink that resolves ``future`` with the first ack."""

    def receive(deliveries: list[Delivery]) -> None:
        for ack in acks_in(deliveries):
            if not future.done():
                future.set_result(ack)

    return receive


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


class SingleAck:
    """The ack of one message, as a future; the first one counts.

    With ``transport`` the ack goes to the inbox too: the client named it, and may listen there. With
    ``refusals_as_acks`` a refusal resolves the future with an ack that has an error, instead of raising.
    """

    def __init__(self, target: AckTarget, inbox: str, transport: Transport | None, *, refusals_as_acks: bool) -> None:
        self.inbox = inbox
        self.future: asyncio.Future[api.Ack] = asyncio.get_running_loop().create_future()
        self._target = target
        self._refusals_as_acks = refusals_as_acks
        self._copy = InboxAcks(transport, target.stream, target.base_subject, inbox) if transport else None

    def stored(self, run: PendingRun, base_offset: int, reception_ns: int, commit_ns: int) -> None:
        if not self.future.done():
            template = self._target.template(run, self.inbox, reception_ns, commit_ns)
            self.future.set_result(template.ack(base_offset, run.correlation_ids[0]))
        if self._copy is not None:
            self._copy.stored(run, base_offset, reception_ns, commit_ns)

    def refused(self, run: PendingRun, refusal: Refusal) -> None:
        if not self.future.done():
            if self._refusals_as_acks:
                template = self._target.template(run, self.inbox, 0, 0)
                self.future.set_result(template.ack(0, run.correlation_ids[0], ack_error_of(refusal)))
            else:
                self.future.set_exception(error_of(refusal))
        if self._copy is not None:
            self._copy.refused(run, refusal)
