"""The other end of :mod:`liftbridge.broker.forwarding`: takes chunks for partitions that are led here.

A lane that was forgotten leaves the number of its attempt behind: attempts are numbered in the order in which the sender
began them, so a chunk of an older attempt, of whichever lane, that arrives after all isn't taken for a new one.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence

from liftbridge.broker.forwarded_lane import ForwardedLane
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
from liftbridge.protocol.forwarding import (
    Answer,
    Chunk,
    Question,
    RefusedMessage,
    Verdict,
    decode_to_leader,
    encode_answer,
)
from liftbridge.protocol.publish_requests import PublishRun

logger = logging.getLogger(__name__)

#: A lane that was quiet for so long begins anew; its publisher notices and sends again.
_LANE_IDLE_NS = 120_000_000_000
#: Nobody asks any more for an answer that is older: the sender has given up before.
_ANSWERS_IDLE_NS = 20_000_000_000
_SWEEP_S = 20.0


class ForwardServer:
    """Appends what other servers' clients publish. All methods run on the event loop."""

    def __init__(self, publishing: Publishing, clock: Clock, *, namespace: str, server_id: str) -> None:
        self._publishing = publishing
        self._clock = clock
        self._subject = subject_of(namespace, server_id)
        self._lanes: dict[tuple[str, int], ForwardedLane] = {}
        #: By sender, the latest attempt of the lanes that are forgotten.
        self._forgotten: dict[str, int] = {}
        self._subscription: Subscription | None = None
        self._sweeping: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Takes chunks; waits for the transport if it is away."""
        self._subscription = await subscribe_patiently(
            self._publishing.transport, self._subject, self._receive, direct=True
        )
        self._sweep_again()

    async def stop(self) -> None:
        """Takes no more. Idempotent."""
        subscription, self._subscription = self._subscription, None
        if self._sweeping is not None:
            self._sweeping.cancel()
        if subscription is not None:
            await subscription.unsubscribe()

    def _sweep_again(self) -> None:
        self._sweep()
        self._sweeping = asyncio.get_running_loop().call_later(_SWEEP_S, self._sweep_again)

    def _sweep(self) -> None:
        now_ns = self._clock.monotonic_ns()
        for name, lane in list(self._lanes.items()):
            idle_ns = now_ns - lane.used_ns
            if idle_ns > _ANSWERS_IDLE_NS and lane.answers:
                lane.forget_answers()
            if idle_ns > _LANE_IDLE_NS and not lane.has_answers_to_come:
                sender, _ = name
                self._forgotten[sender] = max(self._forgotten.get(sender, 0), lane.attempt)
                del self._lanes[name]

    # --- what comes ---------------------------------------------------------------------------------------------------

    def _receive(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            for payload in delivery.payloads:
                try:
                    message = decode_to_leader(payload)
                    lane = self._enter(message, delivery.reply)
                    if message.attempt < lane.attempt:
                        continue  # from before the sender began anew
                    if isinstance(message, Question):
                        self._tell(message, lane, delivery.reply)
                    else:
                        self._take(message, lane, delivery.reply)
                except ProtocolError as error:
                    logger.warning("%s: ignored %s", delivery.subject, error)

    def _enter(self, message: Chunk | Question, sender: str) -> ForwardedLane:
        """The lane that it is about, in its latest attempt."""
        lane = self._lanes.get((sender, message.lane))
        if lane is None:
            lane = self._lanes[sender, message.lane] = ForwardedLane()
        lane.used_ns = self._clock.monotonic_ns()
        if message.attempt > lane.attempt:
            is_new = message.attempt > self._forgotten.get(sender, 0)
            lane.begin(message.attempt, message.lowest, leads=is_new and self._leads(message))
        elif message.attempt == lane.attempt and message.lowest > lane.lowest:
            lane.confirm(message.lowest)
        return lane

    def _leads(self, message: Chunk | Question) -> bool:
        """Whether this server, since its start, is the one that leads in the epoch that the sender means."""
        epoch = self._publishing.targets.leader_epoch_here(message.stream_id, message.partition)
        return epoch == message.leader_epoch

    # --- chunks -------------------------------------------------------------------------------------------------------

    def _take(self, chunk: Chunk, lane: ForwardedLane, answer_subject: str) -> None:
        if lane.is_strange:
            self._answer(chunk, chunk.sequence, Verdict.STRANGE, answer_subject)
            return
        if chunk.sequence < lane.next_sequence:
            if chunk.sequence >= lane.lowest:
                self._answer_again(chunk, lane, [chunk.sequence], answer_subject)
            return
        target = self._target(chunk) if lane.is_open else None
        if target is None:
            lane.is_open = False  # what was refused once must not be taken when it comes again
            self._answer(chunk, lane.next_sequence, Verdict.NOT_TAKEN, answer_subject)
        elif chunk.sequence > lane.next_sequence:
            self._tell_of_gap(chunk, lane, answer_subject)
        else:
            runs = lane.parser.parse(chunk.requests)
            lane.take(chunk.sequence)
            if isinstance(target, Refusal):
                self._refuse(runs, target, chunk, lane, answer_subject)
            else:
                self._submit(runs, target, chunk, lane, answer_subject)

    def _target(self, chunk: Chunk) -> Target | Refusal | None:
        """None unless this server leads the partition as the sender thinks. A refusal if it does, and the partition is
        readonly, which the sender need not know yet."""
        found = self._publishing.targets.find_by_id(chunk.stream_id, chunk.partition)
        if isinstance(found, Refusal):
            return found if found.kind is RefusalKind.READONLY else None
        if found is None or found.local is None or found.local.leader is None:
            return None
        return found if found.local.leader.leader_epoch == chunk.leader_epoch else None

    def _tell_of_gap(self, chunk: Chunk, lane: ForwardedLane, answer_subject: str) -> None:
        """Once, though everything behind it comes, too."""
        if lane.told != lane.next_sequence:
            lane.told = lane.next_sequence
            self._answer(chunk, lane.next_sequence, Verdict.EXPECTED, answer_subject)

    def _refuse(
        self, runs: Sequence[PublishRun], refusal: Refusal, chunk: Chunk, lane: ForwardedLane, answer_subject: str
    ) -> None:
        refused = tuple(
            RefusedMessage(id_, refusal.kind.name, refusal.message) for run in runs for id_ in run.correlation_ids
        )
        answer = Answer(chunk.lane, chunk.attempt, chunk.sequence, Verdict.DONE, b"", refused)
        give_answer(self._publishing.transport, answer_subject, answer, lane)

    def _submit(
        self, runs: Sequence[PublishRun], target: Target, chunk: Chunk, forwarded: ForwardedLane, answer_subject: str
    ) -> None:
        assert target.local is not None
        count = sum(len(run.messages) for run in runs)
        acks = _ChunkAcks(self._publishing.transport, target, chunk, forwarded, answer_subject, count)
        lane = self._publishing.lane(target.local, target.subject, acks, chunk.ack_inbox, target.attached)
        for run in runs:
            lane.submit(run)
            if target.attached:
                self._publishing.append_attached(target, run, chunk.ack_inbox)

    # --- questions ----------------------------------------------------------------------------------------------------

    def _tell(self, question: Question, lane: ForwardedLane, answer_subject: str) -> None:
        if lane.is_strange:
            self._answer(question, question.last, Verdict.STRANGE, answer_subject)
            return
        self._answer_again(question, lane, lane.awaited(question.awaited), answer_subject)
        lane.told = lane.next_sequence
        verdict = Verdict.EXPECTED if lane.is_open else Verdict.NOT_TAKEN
        self._answer(question, lane.next_sequence, verdict, answer_subject)

    def _answer_again(
        self, about: Chunk | Question, lane: ForwardedLane, sequences: Iterable[int], answer_subject: str
    ) -> None:
        """Those of them that there are already."""
        for sequence in sequences:
            if sequence not in lane.answers:
                self._answer(about, sequence, Verdict.FORGOTTEN, answer_subject)
            elif kept := lane.answers[sequence]:
                _send(self._publishing.transport, answer_subject, kept)

    def _answer(self, about: Chunk | Question, sequence: int, verdict: Verdict, answer_subject: str) -> None:
        answer = encode_answer(Answer(about.lane, about.attempt, sequence, verdict))
        _send(self._publishing.transport, answer_subject, answer)


class _ChunkAcks:
    """Answers one chunk when all its messages have an outcome."""

    def __init__(
        self,
        transport: Transport,
        target: Target,
        chunk: Chunk,
        lane: ForwardedLane,
        answer_subject: str,
        count: int,
    ) -> None:
        self._transport = transport
        self._target = target
        self._chunk = chunk
        self._lane = lane
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
            answer = Answer(chunk.lane, chunk.attempt, chunk.sequence, Verdict.DONE, responses, refused)
            give_answer(self._transport, self._answer_subject, answer, self._lane)


def give_answer(transport: Transport, subject: str, answer: Answer, lane: ForwardedLane) -> None:
    """Sends it, and keeps it until the other side has it. Of one that is too large for a message, only that is told."""
    data = encode_answer(answer)
    if len(data) > transport.max_payload_bytes:
        logger.error("%s: an answer of %d bytes to a chunk is too large for NATS (its max_payload)", subject, len(data))
        data = encode_answer(Answer(answer.lane, answer.attempt, answer.sequence, Verdict.FORGOTTEN))
    lane.keep(answer.attempt, answer.sequence, data)
    _send(transport, subject, data)


def _send(transport: Transport, subject: str, answer: bytes) -> None:
    """One that can't be sent is asked for."""
    try:
        transport.publish_direct(subject, [answer])
    except (TransportError, ValueError) as error:
        logger.warning("%s: an answer was not sent: %s", subject, error)
