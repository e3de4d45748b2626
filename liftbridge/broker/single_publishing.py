"""Publish and PublishToSubject: one message, one answer."""

import asyncio
from collections.abc import Sequence

from liftbridge.broker.api import PUBLISH_TIMEOUT_S, CallContext, PublishReply
from liftbridge.broker.forwarding import ForwardLane
from liftbridge.broker.publishing import Publishing, acks_in, enveloped, error_of, refusal_of
from liftbridge.broker.targets import INVALID_ACK_POLICY, AckTarget, Target
from liftbridge.errors import (
    DeadlineExceeded,
    InvalidRequest,
    PayloadTooLarge,
    TransportError,
    Unavailable,
)
from liftbridge.interfaces.transport import Delivery, DeliverySink, Subscription
from liftbridge.partition.ingress import InboxAcks, ack_error_of
from liftbridge.partition.pending import ACK_LEADER, ACK_NONE, AckSink, PendingRun
from liftbridge.partition.refusal import Refusal
from liftbridge.protocol.acks import encode_ack_response, encode_ack_texts, encode_ack_times
from liftbridge.protocol.generated import api_pb2 as api
from liftbridge.protocol.publish_requests import PublishRun, RequestParser
from liftbridge.protocol.record_batch import RECORD_PREFIX, RECORD_PREFIX_BYTES

_NO_ACK = b""


class SinglePublishing:
    """The calls that publish one message."""

    def __init__(self, publishing: Publishing) -> None:
        self._publishing = publishing
        self._parser = RequestParser()
        self._forward_lanes: dict[tuple[str, int], ForwardLane] = {}

    # --- Publish ------------------------------------------------------------------------------------------------------

    def publish(self, request: bytes, reply: PublishReply) -> asyncio.Task[None] | None:
        """See :meth:`liftbridge.broker.api.BrokerApi.publish`. Without a deadline the ack is awaited all the same (the
        original answers blindly), because appending takes no time worth hiding."""
        publishing = self._publishing
        run = self._parser.parse_one(request)
        if not run.stream:
            raise InvalidRequest("no stream provided")
        target = publishing.targets.find(run.stream, run.partition, run.ack_policy)
        if isinstance(target, Refusal):
            raise error_of(target)
        refusal = publishing.refusal_for_size(run.longest_message_bytes)
        if refusal is not None:
            raise error_of(refusal)
        if run.ack_inbox:
            publishing.check_inbox(run.ack_inbox)
        inbox = run.ack_inbox or publishing.inboxes.next()
        if target.local is None and not target.grouped:
            framed = RECORD_PREFIX.pack(0, len(request)) + request
            self._forward_lane(run).submit(framed, run, inbox, _ForwardedReply(reply))
            return None
        if target.attached:
            publishing.append_attached(target, run, inbox)
        if target.local is None:
            work = self._publish_far(target, run, inbox, reply)
            return asyncio.get_running_loop().create_task(work)
        acks: AckSink = _ReplyAcks(reply, target, inbox)
        if run.ack_inbox:
            acks = _BothAcks(acks, self._inbox_acks(target.acks, inbox))
        publishing.lane(target.local, target.subject, acks, inbox, target.attached).submit(run)
        return None

    def _forward_lane(self, run: PublishRun) -> ForwardLane:
        """One for all clients: who publishes single messages at the same time asks for no order."""
        lane = self._forward_lanes.get((run.stream, run.partition))
        if lane is None:
            lane = self._publishing.forwarder.open_lane(run.stream, run.partition, lambda: None)
            self._forward_lanes[run.stream, run.partition] = lane
        return lane

    def _inbox_acks(self, target: AckTarget, inbox: str) -> InboxAcks:
        return InboxAcks(self._publishing.transport, target.stream, target.base_subject, inbox)

    async def _publish_far(self, target: Target, run: PublishRun, inbox: str, reply: PublishReply) -> None:
        """Over the transport, because the message's way to its partition is decided there."""
        payload = enveloped(run.messages[0], inbox)
        try:
            ack = await self._publish_over_transport(target.subject, payload, inbox, run.ack_policy)
            if ack is not None and ack.ackError != api.Ack.OK:
                raise error_of(refusal_of(ack))
            reply.succeed(api.PublishResponse(ack=ack).SerializeToString())
        except Exception as error:  # noqa: BLE001  (nobody awaits this task: whatever it is, the client gets an answer)
            reply.fail(error)

    async def _publish_over_transport(
        self, subject: str, payload: bytes, inbox: str, ack_policy: int
    ) -> api.Ack | None:
        """Publishes and waits for the first ack, if the policy has one."""
        transport = self._publishing.transport
        future: asyncio.Future[api.Ack] = asyncio.get_running_loop().create_future()
        subscription: Subscription | None = None
        try:
            if ack_policy != ACK_NONE:
                subscription = await transport.subscribe(inbox, _ack_receiver(future))
            transport.publish(subject, [payload], echo=False)
            return None if subscription is None else await future
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
        publishing = self._publishing
        subject = request.subject
        problem = publishing.problem_with(subject)
        if problem is not None:
            raise InvalidRequest(f"Subject is invalid: {problem}")
        if not ACK_LEADER <= request.ackPolicy <= ACK_NONE:
            raise InvalidRequest(INVALID_ACK_POLICY.format(request.ackPolicy))
        if request.ackInbox:
            publishing.check_inbox(request.ackInbox)
        run = self._parser.parse_one(_as_publish_request(request).SerializeToString())
        refusal = publishing.refusal_for_size(run.longest_message_bytes)
        if refusal is not None:
            raise error_of(refusal)
        inbox = request.ackInbox or publishing.inboxes.next()
        listeners = publishing.targets.listeners(subject)
        if not listeners:
            payload = enveloped(run.messages[0], inbox)
            policy = ACK_NONE if call.deadline_ns is None else request.ackPolicy
            ack = await self._publish_over_transport(subject, payload, inbox, policy)
            return api.PublishToSubjectResponse(ack=ack)
        first = AckTarget(listeners[0].assignment.key.stream, listeners[0].assignment.base_subject)
        single = _SingleAck(first, inbox)
        acks = _BothAcks(single, self._inbox_acks(first, inbox)) if request.ackInbox else single
        publishing.lane(listeners[0], subject, acks, inbox, listeners[1:]).submit(run)
        for other in listeners[1:]:
            publishing.attached_lane(other, subject, inbox).submit(run)
        ack = await _in_time(single.future, call)
        return api.PublishToSubjectResponse(ack=ack if request.ackPolicy != ACK_NONE else None)


async def _in_time(future: "asyncio.Future[api.Ack]", call: CallContext) -> api.Ack:
    """The endpoint ends calls that have a deadline; the others end here."""
    if call.deadline_ns is not None:
        return await future
    try:
        return await asyncio.wait_for(future, PUBLISH_TIMEOUT_S)
    except TimeoutError:
        raise DeadlineExceeded("no ack in time; the message may be stored") from None


def _as_publish_request(request: api.PublishToSubjectRequest) -> api.PublishRequest:
    return api.PublishRequest(
        key=request.key,
        value=request.value,
        headers=request.headers,
        correlationId=request.correlationId,
        ackPolicy=request.ackPolicy,
    )


def _ack_receiver(future: "asyncio.Future[api.Ack]") -> DeliverySink:
    """A sink that resolves ``future`` with the first ack."""

    def receive(deliveries: list[Delivery]) -> None:
        for ack in acks_in(deliveries):
            if not future.done():
                future.set_result(ack)

    return receive


class _ReplyAcks:
    """Answers a Publish call."""

    def __init__(self, reply: PublishReply, target: Target, inbox: str) -> None:
        self._reply = reply
        self._target = target
        self._inbox = inbox

    def stored(self, run: PendingRun, base_offset: int, reception_ns: int, commit_ns: int) -> None:
        if run.ack_policy == ACK_NONE:
            self._reply.succeed(_NO_ACK)
            return
        acks = self._target.acks
        fields = encode_ack_texts(acks.stream, acks.base_subject, run.subject, self._inbox)
        fields += encode_ack_times(run.ack_policy, reception_ns, commit_ns)
        self._reply.succeed(encode_ack_response(fields, run.correlation_ids[0], base_offset))

    def refused(self, run: PendingRun, refusal: Refusal) -> None:
        del run
        self._reply.fail(error_of(refusal))


class _ForwardedReply:
    """Answers a Publish call whose message another server takes."""

    def __init__(self, reply: PublishReply) -> None:
        self._reply = reply

    def stored(self, responses: bytes, count: int) -> None:
        del count
        self._reply.succeed(responses[RECORD_PREFIX_BYTES:])

    def refused(self, correlation_ids: Sequence[bytes], refusal: Refusal) -> None:
        del correlation_ids
        self._reply.fail(error_of(refusal))


class _SingleAck:
    """The ack of one message, as a future; a refusal is an ack with an error."""

    def __init__(self, target: AckTarget, inbox: str) -> None:
        self.future: asyncio.Future[api.Ack] = asyncio.get_running_loop().create_future()
        self._target = target
        self._inbox = inbox

    def stored(self, run: PendingRun, base_offset: int, reception_ns: int, commit_ns: int) -> None:
        template = self._target.template(run, self._inbox, reception_ns, commit_ns)
        self._resolve(template.ack(base_offset, run.correlation_ids[0]))

    def refused(self, run: PendingRun, refusal: Refusal) -> None:
        template = self._target.template(run, self._inbox, 0, 0)
        self._resolve(template.ack(0, run.correlation_ids[0], ack_error_of(refusal)))

    def _resolve(self, ack: api.Ack) -> None:
        if not self.future.done():
            self.future.set_result(ack)


class _BothAcks:
    """For a client that named an inbox: it may listen there, too."""

    def __init__(self, first: AckSink, second: AckSink) -> None:
        self._sinks = (first, second)

    def stored(self, run: PendingRun, base_offset: int, reception_ns: int, commit_ns: int) -> None:
        for sink in self._sinks:
            sink.stored(run, base_offset, reception_ns, commit_ns)

    def refused(self, run: PendingRun, refusal: Refusal) -> None:
        for sink in self._sinks:
            sink.refused(run, refusal)
