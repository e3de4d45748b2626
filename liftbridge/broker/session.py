"""A publish session: one PublishAsync call, its requests in and its answers out, in chunks."""

import asyncio
import logging
from typing import NamedTuple

from liftbridge.broker.api import PUBLISH_TIMEOUT_S, ResponseSink
from liftbridge.broker.publishing import Lane, Publishing, acks_in, enveloped, refusal_of
from liftbridge.broker.targets import Target
from liftbridge.errors import TransportError
from liftbridge.interfaces.transport import Delivery, Subscription
from liftbridge.partition.manager import LocalPartition
from liftbridge.partition.pending import ACK_NONE, PendingRun
from liftbridge.partition.refusal import Refusal, RefusalKind
from liftbridge.protocol.acks import (
    encode_ack_texts,
    encode_ack_times,
    encode_error_response,
    encode_publish_responses,
)
from liftbridge.protocol.generated import api_pb2 as api
from liftbridge.protocol.publish_requests import PublishRun, RequestParser
from liftbridge.protocol.record_batch import RECORD_PREFIX

logger = logging.getLogger(__name__)

_Code = api.PublishAsyncError
_CODES: "dict[RefusalKind, api.PublishAsyncError.Code]" = {
    RefusalKind.BAD_REQUEST: _Code.BAD_REQUEST,
    RefusalKind.NO_SUCH_PARTITION: _Code.NOT_FOUND,
    RefusalKind.READONLY: _Code.READONLY,
    RefusalKind.TOO_LARGE: _Code.BAD_REQUEST,
    RefusalKind.INCORRECT_OFFSET: _Code.INCORRECT_OFFSET,
    RefusalKind.OUTCOME_UNKNOWN: _Code.UNKNOWN,
}


class PublishSession:
    """See :class:`liftbridge.broker.api.PublishSession`."""

    def __init__(self, publishing: Publishing, sink: ResponseSink) -> None:
        self._publishing = publishing
        self._sink = sink
        self._inbox = publishing.inboxes.next()
        self._inbox_task: asyncio.Task[None] | None = None
        self._inbox_subscription: Subscription | None = None
        self._waiting_for_inbox: list[tuple[str, list[bytes]]] | None = None
        self._parser = RequestParser()
        self._lanes: dict[tuple[str, int], _SessionLane] = {}
        self._unanswered = 0
        self._answered = asyncio.Event()
        self._aborted = False

    def publish(self, framed: bytes) -> bool:
        overloaded = None
        for run in self._parser.parse(framed):
            target = self._publishing.targets.find(run.stream, run.partition, run.ack_policy)
            refusal = self._publishing.refusal_for_size(run.longest_message_bytes)
            if isinstance(target, Refusal):
                self._refuse(run, target)
            elif refusal is not None and len(run.messages) > 1:
                self._publish_each(run, target)
            elif refusal is not None:
                self._refuse(run, refusal)
            else:
                self._route(run, target)
                if target.local is not None and target.local.leader is not None and target.local.leader.overloaded:
                    overloaded = target.local.leader
        if overloaded is not None:
            overloaded.call_when_ready(self._sink.resume)
            return False
        return True

    def _route(self, run: PublishRun, target: Target) -> None:
        if run.ack_policy != ACK_NONE:
            self._unanswered += len(run.messages)
        if target.local is None:
            self._publishing.append_attached(target, run, self._inbox)
            self._publish_over_transport(target.subject, [enveloped(message, self._inbox) for message in run.messages])
            return
        lane = self._lanes.get((run.stream, run.partition))
        if lane is None or lane.target is not target:
            lane = self._lanes[run.stream, run.partition] = self._open_lane(target, target.local)
        lane.lane.submit(run)
        if target.attached:
            self._publishing.append_attached(target, run, self._inbox)

    def _open_lane(self, target: Target, local: LocalPartition) -> "_SessionLane":
        acks = _SessionAcks(self, target, self._inbox)
        return _SessionLane(target, self._publishing.lane(local, target.subject, acks, self._inbox))

    def _publish_each(self, run: PublishRun, target: Target) -> None:
        """A run in which at least one message is too large: the others are not."""
        for i, message in enumerate(run.messages):
            one = PublishRun(
                stream=run.stream,
                partition=run.partition,
                ack_policy=run.ack_policy,
                expected_offset=run.expected_offset,
                fields=[run.fields[i]],
                field_bytes=len(run.fields[i]),
                messages=[message],
                correlation_ids=[run.correlation_ids[i]],
                correlation_id_bytes=len(run.correlation_ids[i]),
                longest_message_bytes=len(message),
            )
            refusal = self._publishing.refusal_for_size(len(message))
            if refusal is not None:
                self._refuse(one, refusal)
            else:
                self._route(one, target)

    def _refuse(self, run: PublishRun | PendingRun, refusal: Refusal) -> None:
        code = _CODES.get(refusal.kind, _Code.INTERNAL)
        self._send(b"".join(encode_error_response(id_, code, refusal.message) for id_ in run.correlation_ids))

    # --- answers ------------------------------------------------------------------------------------------------------

    def answer_stored(self, run: PendingRun, ack_fields: bytes, base_offset: int) -> None:
        """The run is stored. ``ack_fields`` is what its acks have in common."""
        self._send(encode_publish_responses(ack_fields, run.correlation_ids, run.correlation_id_bytes, base_offset))
        self._count_answers(len(run.items))

    def answer_refused(self, run: PendingRun, refusal: Refusal) -> None:
        """The run is not stored."""
        self._refuse(run, refusal)
        if run.ack_policy != ACK_NONE:
            self._count_answers(len(run.items))

    def _send(self, framed: bytes) -> None:
        if not self._aborted:
            self._sink.send(framed)

    def _count_answers(self, count: int) -> None:
        self._unanswered -= count
        if self._unanswered <= 0:
            self._answered.set()

    # --- partitions that are reached over the transport ---------------------------------------------------------------

    def _publish_over_transport(self, subject: str, payloads: list[bytes]) -> None:
        if self._inbox_subscription is not None:
            self._publish_now(subject, payloads)
        elif self._waiting_for_inbox is not None:
            self._waiting_for_inbox.append((subject, payloads))
        else:
            self._waiting_for_inbox = [(subject, payloads)]
            self._inbox_task = asyncio.get_running_loop().create_task(self._open_inbox())

    async def _open_inbox(self) -> None:
        self._inbox_subscription = await self._publishing.transport.subscribe(self._inbox, self._receive_acks)
        waiting, self._waiting_for_inbox = self._waiting_for_inbox or [], None
        for subject, payloads in waiting:
            self._publish_now(subject, payloads)

    def _publish_now(self, subject: str, payloads: list[bytes]) -> None:
        try:
            self._publishing.transport.publish(subject, payloads, echo=False)
        except TransportError as error:
            logger.error('subject "%s": %d messages not published: %s', subject, len(payloads), error)

    def _receive_acks(self, deliveries: list[Delivery]) -> None:
        for ack in acks_in(deliveries):
            if ack.ackError == api.Ack.OK:
                answer = api.PublishResponse(ack=ack, correlationId=ack.correlationId).SerializeToString()
                self._send(RECORD_PREFIX.pack(0, len(answer)) + answer)
            else:
                refusal = refusal_of(ack)
                code = _CODES.get(refusal.kind, _Code.INTERNAL)
                self._send(encode_error_response(ack.correlationId.encode(), code, refusal.message))
            self._count_answers(1)

    # --- the end ------------------------------------------------------------------------------------------------------

    async def finish(self) -> None:
        self._answered.clear()
        if self._unanswered > 0:
            try:
                await asyncio.wait_for(self._answered.wait(), PUBLISH_TIMEOUT_S)
            except TimeoutError:
                logger.warning("publish session ended with %d messages unanswered", self._unanswered)
        self.abort()

    def abort(self) -> None:
        if self._aborted:
            return
        self._aborted = True
        if self._inbox_task is not None:
            self._inbox_task.cancel()
        if self._inbox_subscription is not None:
            self._inbox_task = asyncio.get_running_loop().create_task(self._inbox_subscription.unsubscribe())


class _SessionLane(NamedTuple):
    """The session's way to a target; another target of the same name needs another one."""

    target: Target
    lane: Lane


class _SessionAcks:
    """Answers the runs of one session to one partition."""

    def __init__(self, session: PublishSession, target: Target, inbox: str) -> None:
        self._session = session
        self._texts = encode_ack_texts(target.acks.stream, target.acks.base_subject, target.subject, inbox)

    def stored(self, run: PendingRun, base_offset: int, reception_ns: int, commit_ns: int) -> None:
        if run.ack_policy != ACK_NONE:
            ack_fields = self._texts + encode_ack_times(run.ack_policy, reception_ns, commit_ns)
            self._session.answer_stored(run, ack_fields, base_offset)

    def refused(self, run: PendingRun, refusal: Refusal) -> None:
        self._session.answer_refused(run, refusal)
