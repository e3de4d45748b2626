"""The other end of :mod:`liftbridge.broker.forwarding`: takes chunks for partitions that are led here."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from liftbridge.broker.forwarding import subject_of
from liftbridge.broker.publishing import Publishing
from liftbridge.broker.targets import Target
from liftbridge.clock import Clock
from liftbridge.errors import ProtocolError, TransportError
from liftbridge.interfaces.transport import Delivery, Subscription, Transport
from liftbridge.partition.pending import ACK_NONE, PendingRun
from liftbridge.partition.refusal import Refusal, RefusalKind
from liftbridge.patience import subscribe_patiently
from liftbridge.protocol.acks import encode_ack_texts, encode_ack_times, encode_publish_responses
from liftbridge.protocol.forwarding import Answer, Chunk, RefusedMessage, decode_chunk, encode_answer
from liftbridge.protocol.publish_requests import PublishRun, RequestParser

logger = logging.getLogger(__name__)

#: A lane that was quiet for so long begins anew; its publisher notices and sends again.
_LANE_IDLE_NS = 120_000_000_000
_SWEEP_S = 60.0


@dataclass(slots=True)
class _Lane:
    """What was taken from one lane of another server."""

    parser: RequestParser
    attempt: int = 0
    next_sequence: int = 0
    used_ns: int = 0


class ForwardServer:
    """Appends what other servers' clients publish. All methods run on the event loop."""

    def __init__(self, publishing: Publishing, clock: Clock, *, namespace: str, server_id: str) -> None:
        self._publishing = publishing
        self._clock = clock
        self._subject = subject_of(namespace, server_id)
        self._lanes: dict[tuple[str, int], _Lane] = {}
        self._subscription: Subscription | None = None
        self._sweeping: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Takes chunks; waits for the transport if it is away."""
        self._subscription = await subscribe_patiently(
            self._publishing.transport, self._subject, self._receive, direct=True
        )
        self._sweep()

    async def stop(self) -> None:
        """Takes no more. Idempotent."""
        subscription, self._subscription = self._subscription, None
        if self._sweeping is not None:
            self._sweeping.cancel()
        if subscription is not None:
            await subscription.unsubscribe()

    def _sweep(self) -> None:
        oldest_ns = self._clock.monotonic_ns() - _LANE_IDLE_NS
        self._lanes = {name: lane for name, lane in self._lanes.items() if lane.used_ns >= oldest_ns}
        self._sweeping = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep)

    def _receive(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            for payload in delivery.payloads:
                try:
                    self._take(decode_chunk(payload), delivery.reply)
                except ProtocolError as error:
                    logger.warning("%s: ignored %s", delivery.subject, error)

    def _take(self, chunk: Chunk, answer_subject: str) -> None:
        lane = self._lanes.setdefault((answer_subject, chunk.lane), _Lane(RequestParser()))
        lane.used_ns = self._clock.monotonic_ns()
        if chunk.starts and chunk.attempt > lane.attempt:
            lane.attempt, lane.next_sequence = chunk.attempt, chunk.sequence
        if chunk.attempt < lane.attempt or (chunk.attempt == lane.attempt and chunk.sequence < lane.next_sequence):
            return  # from before the sender began anew, or delivered twice
        target = self._target(chunk, lane)
        if isinstance(target, Refusal):
            lane.next_sequence += 1
            self._refuse(lane.parser.parse(chunk.requests), target, chunk, answer_subject)
            return
        if target is None:
            not_taken = Answer(chunk.lane, chunk.attempt, chunk.sequence, taken=False)
            send_answer(self._publishing.transport, answer_subject, not_taken)
            return
        lane.next_sequence += 1
        self._submit(lane.parser.parse(chunk.requests), target, chunk, answer_subject)

    def _target(self, chunk: Chunk, lane: _Lane) -> Target | Refusal | None:
        """None unless this server leads the partition as the sender thinks, and misses nothing that stands before. A refusal
        if it does, and the partition is readonly, which the sender need not know yet."""
        if chunk.attempt != lane.attempt or chunk.sequence != lane.next_sequence:
            return None
        found = self._publishing.targets.find_by_id(chunk.stream_id, chunk.partition)
        if isinstance(found, Refusal):
            return found if found.kind is RefusalKind.READONLY else None
        if found is None or found.local is None or found.local.leader is None:
            return None
        return found if found.local.leader.leader_epoch == chunk.leader_epoch else None

    def _refuse(self, runs: Sequence[PublishRun], refusal: Refusal, chunk: Chunk, answer_subject: str) -> None:
        refused = tuple(
            RefusedMessage(id_, refusal.kind.name, refusal.message) for run in runs for id_ in run.correlation_ids
        )
        answer = Answer(chunk.lane, chunk.attempt, chunk.sequence, True, b"", refused)
        send_answer(self._publishing.transport, answer_subject, answer)

    def _submit(self, runs: Sequence[PublishRun], target: Target, chunk: Chunk, answer_subject: str) -> None:
        assert target.local is not None
        count = sum(len(run.messages) for run in runs)
        acks = _ChunkAcks(self._publishing.transport, target, chunk, answer_subject, count)
        lane = self._publishing.lane(target.local, target.subject, acks, chunk.ack_inbox, target.attached)
        for run in runs:
            lane.submit(run)
            if target.attached:
                self._publishing.append_attached(target, run, chunk.ack_inbox)


class _ChunkAcks:
    """Answers one chunk when all its messages have an outcome."""

    def __init__(self, transport: Transport, target: Target, chunk: Chunk, answer_subject: str, count: int) -> None:
        self._transport = transport
        self._target = target
        self._chunk = chunk
        self._answer_subject = answer_subject
        self._open = count
        self._responses: list[bytes] = []
        self._refused: list[RefusedMessage] = []

    def stored(self, run: PendingRun, base_offset: int, reception_ns: int, commit_ns: int) -> None:
        if run.ack_policy != ACK_NONE:
            acks = self._target.acks
            fields = encode_ack_texts(acks.stream, acks.base_subject, run.subject, self._chunk.ack_inbox)
            fields += encode_ack_times(run.ack_policy, reception_ns, commit_ns)
            self._responses.append(
                encode_publish_responses(fields, run.correlation_ids, run.correlation_id_bytes, base_offset)
            )
        self._close(len(run.items))

    def refused(self, run: PendingRun, refusal: Refusal) -> None:
        self._refused += [RefusedMessage(id_, refusal.kind.name, refusal.message) for id_ in run.correlation_ids]
        self._close(len(run.items))

    def _close(self, count: int) -> None:
        self._open -= count
        if self._open == 0:
            chunk = self._chunk
            responses, refused = b"".join(self._responses), tuple(self._refused)
            answer = Answer(chunk.lane, chunk.attempt, chunk.sequence, True, responses, refused)
            send_answer(self._transport, self._answer_subject, answer)


def send_answer(transport: Transport, subject: str, answer: Answer) -> None:
    """One that can't be sent is missed by the other side, which then says so to its client."""
    try:
        transport.publish_direct(subject, [encode_answer(answer)])
    except (TransportError, ValueError) as error:
        logger.warning("%s: an answer was not sent: %s", subject, error)
