"""A publish session: one PublishAsync call, its requests in and its answers out, in chunks."""

import asyncio
import logging
from collections.abc import Sequence
from typing import NamedTuple

from liftbridge.broker.api import PUBLISH_TIMEOUT_S, ResponseSink
from liftbridge.broker.forwarding import ForwardLane
from liftbridge.broker.publishing import Lane, Publishing, acks_in, enveloped, refusal_of
from liftbridge.broker.targets import Target, Targets
from liftbridge.errors import TransportError
from liftbridge.interfaces.transport import Delivery, Subscription
from liftbridge.partition.local import LocalPartition
from liftbridge.partition.pending import ACK_NONE, PendingRun
from liftbridge.partition.refusal import Refusal, RefusalKind
from liftbridge.protocol.acks import (
    encode_ack_texts,
    encode_ack_times,
    encode_error_response,
    encode_publish_responses,
)
from liftbridge.protocol.generated import api_pb2 as api
from liftbridge.protocol.publish_requests import PublishRun, RequestParser, split_by_runs
from liftbridge.protocol.record_batch import RECORD_PREFIX, RECORD_PREFIX_BYTES

logger = logging.getLogger(__name__)

_Code = api.PublishAsyncError
_CODES: "dict[RefusalKind, api.PublishAsyncError.Code]" = {
    RefusalKind.BAD_REQUEST: _Code.BAD_REQUEST,
    RefusalKind.NO_SUCH_PARTITION: _Code.NOT_FOUND,
    RefusalKind.NOT_ALLOWED: _Code.PERMISSION_DENIED,
    RefusalKind.READONLY: _Code.READONLY,
    RefusalKind.TOO_LARGE: _Code.BAD_REQUEST,
    RefusalKind.INCORRECT_OFFSET: _Code.INCORRECT_OFFSET,
    RefusalKind.OUTCOME_UNKNOWN: _Code.UNKNOWN,
}


class PublishSession:
    """See :class:`liftbridge.broker.api.PublishSession`."""

    def __init__(self, publishing: Publishing, targets: Targets, sink: ResponseSink) -> None:
        """``targets`` are what this client may publish to."""
        self._publishing = publishing
        self._targets = targets
        self._sink = sink
        self._inbox = publishing.inboxes.next()
        self._inbox_task: asyncio.Task[None] | None = None
        self._inbox_subscription: Subscription | None = None
        self._waiting_for_inbox: list[tuple[str, PublishRun]] | None = None
        self._parser = RequestParser()
        self._lanes: dict[tuple[str, int], _SessionLane] = {}
        self._forward_lanes: dict[tuple[str, int], ForwardLane] = {}
        self._unanswered = 0
        self._answered = asyncio.Event()
        self._aborted = False

    def publish(self, framed: bytes) -> bool:
        runs = self._parser.parse(framed)
        pieces: list[bytes] = []
        ready = True
        for i, run in enumerate(runs):
            target = self._targets.find(run.stream, run.partition, run.ack_policy)
            refusal = self._publishing.refusal_for_size(run.longest_message_bytes)
            if isinstance(target, Refusal):
                self._refuse(run.correlation_ids, target)
            elif refusal is not None and len(run.messages) > 1:
                pieces = pieces or split_by_runs(framed, runs)
                ready = self._publish_each(pieces[i]) and ready
            elif refusal is not None:
                self._refuse(run.correlation_ids, refusal)
            elif target.local is not None and not self._forwards(run):
                ready = self._append(run, target, target.local) and ready
            elif target.grouped:
                self._publish_over_transport(run, target)
            else:
                pieces = pieces or split_by_runs(framed, runs)
                ready = self._forward(run, pieces[i]) and ready
        return ready

    def _publish_each(self, framed: bytes) -> bool:
        """A run in which at least one message is too large: the others are not."""
        position, ready = 0, True
        while position < len(framed):
            end = position + RECORD_PREFIX_BYTES + RECORD_PREFIX.unpack_from(framed, position)[1]
            ready = self.publish(framed[position:end]) and ready
            position = end
        return ready

    def _expect_answers(self, run: PublishRun) -> None:
        if run.ack_policy != ACK_NONE:
            self._unanswered += len(run.messages)

    # --- partitions that are led here ---------------------------------------------------------------------------------

    def _append(self, run: PublishRun, target: Target, local: LocalPartition) -> bool:
        self._expect_answers(run)
        lane = self._lanes.get((run.stream, run.partition))
        if lane is None or lane.target is not target:
            lane = self._lanes[run.stream, run.partition] = self._open_lane(target, local)
        lane.lane.submit(run)
        if target.attached:
            self._publishing.append_attached(target, run, self._inbox)
        if local.leader is None or not local.leader.overloaded:
            return True
        local.leader.call_when_ready(self._sink.resume)
        return False

    def _open_lane(self, target: Target, local: LocalPartition) -> "_SessionLane":
        acks = _SessionAcks(self, target, self._inbox)
        return _SessionLane(target, self._publishing.lane(local, target.subject, acks, self._inbox, target.attached))

    # --- partitions that other servers lead ---------------------------------------------------------------------------

    def _forwards(self, run: PublishRun) -> bool:
        """Whether messages to the run's partition are on their way to another server: this one must not overtake."""
        lane = self._forward_lanes.get((run.stream, run.partition))
        return lane is not None and lane.busy

    def _forward(self, run: PublishRun, framed: bytes) -> bool:
        self._expect_answers(run)
        lane = self._forward_lanes.get((run.stream, run.partition))
        if lane is None:
            lane = self._publishing.forwarder.open_lane(run.stream, run.partition, self._sink.resume)
            self._forward_lanes[run.stream, run.partition] = lane
        lane.submit(framed, run, self._inbox, _ForwardedRun(self, run.ack_policy))
        return not lane.full

    # --- answers ------------------------------------------------------------------------------------------------------

    def answer_stored(self, responses: bytes, count: int) -> None:
        """So many messages are stored; ``responses`` are their framed PublishResponses."""
        self._send(responses)
        self._count_answers(count)

    def answer_refused(self, correlation_ids: Sequence[bytes], ack_policy: int, refusal: Refusal) -> None:
        """These messages are not stored."""
        self._refuse(correlation_ids, refusal)
        if ack_policy != ACK_NONE:
            self._count_answers(len(correlation_ids))

    def _refuse(self, correlation_ids: Sequence[bytes], refusal: Refusal) -> None:
        code = _CODES.get(refusal.kind, _Code.INTERNAL)
        self._send(b"".join(encode_error_response(id_, code, refusal.message) for id_ in correlation_ids))

    def _send(self, framed: bytes) -> None:
        if not self._aborted:
            self._sink.send(framed)

    def _count_answers(self, count: int) -> None:
        self._unanswered -= count
        if self._unanswered <= 0:
            self._answered.set()

    # --- partitions in load-balance groups: the transport chooses the member ------------------------------------------

    def _publish_over_transport(self, run: PublishRun, target: Target) -> None:
        self._expect_answers(run)
        if target.attached:
            self._publishing.append_attached(target, run, self._inbox)
        if self._inbox_subscription is not None:
            self._publish_now(target.subject, run)
        elif self._waiting_for_inbox is not None:
            self._waiting_for_inbox.append((target.subject, run))
        else:
            self._waiting_for_inbox = [(target.subject, run)]
            self._inbox_task = asyncio.get_running_loop().create_task(self._open_inbox())

    async def _open_inbox(self) -> None:
        problem: TransportError | None = None
        try:
            self._inbox_subscription = await self._publishing.transport.subscribe(self._inbox, self._receive_acks)
        except TransportError as error:
            problem = error
        waiting, self._waiting_for_inbox = self._waiting_for_inbox or [], None
        for subject, run in waiting:
            if problem is None:
                self._publish_now(subject, run)
            else:
                self._refuse_unpublished(run, problem)

    def _publish_now(self, subject: str, run: PublishRun) -> None:
        try:
            payloads = [enveloped(message, self._inbox) for message in run.messages]
            self._publishing.transport.publish(subject, payloads, echo=False)
        except TransportError as error:
            self._refuse_unpublished(run, error)

    def _refuse_unpublished(self, run: PublishRun, error: TransportError) -> None:
        refusal = Refusal(RefusalKind.OVERLOADED, f"not published to the load-balance group: {error}")
        self.answer_refused(run.correlation_ids, run.ack_policy, refusal)

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
        for lane in self._forward_lanes.values():
            lane.close()
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
            fields = self._texts + encode_ack_times(run.ack_policy, reception_ns, commit_ns)
            ids, id_bytes = run.correlation_ids, run.correlation_id_bytes
            self._session.answer_stored(encode_publish_responses(fields, ids, id_bytes, base_offset), len(ids))

    def refused(self, run: PendingRun, refusal: Refusal) -> None:
        self._session.answer_refused(run.correlation_ids, run.ack_policy, refusal)


class _ForwardedRun:
    """Answers a run that another server takes."""

    def __init__(self, session: PublishSession, ack_policy: int) -> None:
        self._session = session
        self._ack_policy = ack_policy

    def stored(self, responses: bytes, count: int) -> None:
        if self._ack_policy != ACK_NONE:
            self._session.answer_stored(responses, count)

    def refused(self, correlation_ids: Sequence[bytes], refusal: Refusal) -> None:
        self._session.answer_refused(correlation_ids, self._ack_policy, refusal)
