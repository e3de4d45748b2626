"""Publishing through a server that doesn't lead: whole chunks go to the leader, and its answers come back.

Order: a lane's chunks are taken by leaders in the order of ``submit``. A chunk that no leader took is sent again, to the
leader that metadata names by then, for a few seconds. A chunk that may have been taken goes to nobody but the leader that it
was sent to, which takes it once however often it comes: when an answer is late, that one is asked, says what it misses,
and gives again what was lost of its answers. When it doesn't say anything, can't know, or leads no more, the publisher
hears that nobody knows.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Protocol

from liftbridge.broker.targets import RemoteLeader, Target, TargetTable
from liftbridge.clock import Clock
from liftbridge.errors import ProtocolError, TransportError
from liftbridge.interfaces.transport import Delivery, Subscription, Transport
from liftbridge.partition.partition import PartitionKey
from liftbridge.partition.refusal import Refusal, RefusalKind
from liftbridge.patience import subscribe_patiently
from liftbridge.protocol.forwarding import (
    CHUNK_OVERHEAD_BYTES,
    Answer,
    Chunk,
    Question,
    Verdict,
    decode_answer,
    encode_chunk,
    encode_question,
)
from liftbridge.protocol.publish_requests import PublishRun
from liftbridge.protocol.record_batch import RECORD_PREFIX, RECORD_PREFIX_BYTES

logger = logging.getLogger(__name__)

_TICK_S = 0.05
_TICK_NS = 50_000_000
#: A chunk that no leader takes is given up after this long.
_ROUTE_TIMEOUT_NS = 5_000_000_000
#: The leader may have taken the chunk, and says nothing.
_ANSWER_TIMEOUT_NS = 10_000_000_000
#: A chunk that has been the oldest without an answer for so long is asked about: longer than answers take but for chunks
#: that wait for replicas. Then again after twice as long, and so on.
_PATIENCE_NS = 500_000_000
_MAX_PATIENCE_NS = 1_000_000_000
#: Gaps between what is asked about beyond so many can wait for the next question.
_MAX_RANGES = 64
#: How long answers of a former leader may still be on their way.
_FORMER_LEADER_NS = 1_000_000_000
#: The answer to a chunk is one message, too: so much of it is for each of the chunk's messages.
_ANSWER_BYTES = 512
#: A session with more than this on the way isn't read.
MAX_LANE_BYTES = 1024 * 1024


def subject_of(namespace: str, server_id: str) -> str:
    """Where a server takes forwarded chunks."""
    return f"{namespace}.publish.{server_id}"


class ForwardSink(Protocol):
    """Hears what became of a chunk's messages."""

    def stored(self, responses: bytes, count: int) -> None:
        """``count`` messages are stored; ``responses`` are the framed PublishResponses of those that want an ack."""

    def refused(self, correlation_ids: Sequence[bytes], refusal: Refusal) -> None:
        """These were not stored (or, for OUTCOME_UNKNOWN, nobody knows)."""


@dataclass(slots=True)
class _Pending:
    """A chunk on its way; ``sequence`` is 0 until it is sent, in the attempt of the lane."""

    requests: bytes
    correlation_ids: Sequence[bytes]
    ack_inbox: str
    sink: ForwardSink
    taken_ns: int
    sequence: int = 0
    sent_ns: int = 0


class Forwarder:
    """This server's lanes to partitions that other servers lead, or nobody at the moment. ``resume`` sees to it that a
    paused one is resumed. All methods run on the event loop."""

    def __init__(
        self,
        transport: Transport,
        targets: TargetTable,
        clock: Clock,
        *,
        namespace: str,
        server_id: str,
        incarnation: str,
        resume: Callable[[PartitionKey], None],
    ) -> None:
        self.resume = resume
        self.transport = transport
        self.targets = targets
        self.clock = clock
        self.namespace = namespace
        self.answer_subject = f"{namespace}.published.{server_id}.{incarnation}"
        self._numbers = count(1)
        #: Of attempts, of all lanes: a leader that forgot a lane knows by it what is older.
        self.attempts = count(1)
        self._lanes: dict[int, ForwardLane] = {}
        self._subscription: Subscription | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Listens for answers; waits for the transport if it is away."""
        self._subscription = await subscribe_patiently(self.transport, self.answer_subject, self._receive, direct=True)

    async def stop(self) -> None:
        """Every message on its way is answered "nobody knows". Idempotent."""
        subscription, self._subscription = self._subscription, None
        if self._timer is not None:
            self._timer.cancel()
        for lane in list(self._lanes.values()):
            lane.give_up("this server is stopping")
        if subscription is not None:
            await subscription.unsubscribe()

    def open_lane(self, stream: str, partition: int, has_room: Callable[[], None]) -> "ForwardLane":
        """A lane for one publisher. ``has_room`` is called when it is no longer full. Close it when the publisher is
        gone."""
        number = next(self._numbers)
        lane = self._lanes[number] = ForwardLane(self, number, stream, partition, has_room)
        return lane

    def close_lane(self, number: int) -> None:
        """Answers to it are ignored from now on."""
        self._lanes.pop(number, None)

    def _receive(self, deliveries: list[Delivery]) -> None:
        for answer in _answers(deliveries):
            lane = self._lanes.get(answer.lane)
            if lane is not None:
                lane.take(answer)

    def look_again(self) -> None:
        """Somebody may lead now who didn't before."""
        now_ns = self.clock.monotonic_ns()
        for lane in list(self._lanes.values()):
            if lane.busy:
                lane.pump(now_ns)

    def tick_soon(self) -> None:
        """Lanes have something to watch over."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_TICK_S, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now_ns = self.clock.monotonic_ns()
        for lane in list(self._lanes.values()):
            lane.tick(now_ns)
        if any(lane.busy for lane in self._lanes.values()):
            self.tick_soon()


def _answers(deliveries: list[Delivery]) -> Iterator[Answer]:
    for delivery in deliveries:
        for payload in delivery.payloads:
            try:
                yield decode_answer(payload)
            except ProtocolError as error:
                logger.warning("%s: ignored %s", delivery.subject, error)


class ForwardLane:
    """One publisher's way to one partition, whichever server leads it."""

    def __init__(
        self, forwarder: Forwarder, number: int, stream: str, partition: int, has_room: Callable[[], None]
    ) -> None:
        self._forwarder = forwarder
        self._number = number
        self._stream = stream
        self._partition = partition
        self._has_room = has_room
        self._waiting: deque[_Pending] = deque()
        self._sent: dict[int, _Pending] = {}
        self._bytes = 0
        self._was_full = False
        self._attempt = 0
        self._attempt_ended = True
        self._sequence = 0
        self._route: RemoteLeader | None = None
        self._retry_ns = 0
        self._left_ns = 0
        #: The oldest chunk without an answer, since when it is that, and how long it may be.
        self._watched, self._watched_ns, self._patience_ns = 0, 0, _PATIENCE_NS
        #: Up to here, the leader was asked, or got chunks again: there is more than one copy of them on the way.
        self._doubtful = 0
        #: The leader said that it has all below.
        self._held_below, self._held_ns = 0, 0
        #: What the leader missed was sent again, from here on.
        self._filled_from, self._filled_ns = 0, 0

    @property
    def busy(self) -> bool:
        """Whether messages are on their way: others of the same publisher must not overtake them."""
        return bool(self._waiting or self._sent)

    @property
    def full(self) -> bool:
        """Whether the publisher should wait until ``has_room`` is called."""
        if self._bytes > MAX_LANE_BYTES:
            self._was_full = True
        return self._was_full

    def submit(self, requests: bytes, run: PublishRun, ack_inbox: str, sink: ForwardSink) -> None:
        """Takes framed requests, those of ``run``; the sink hears of every message of it, once."""
        now_ns = self._forwarder.clock.monotonic_ns()
        limit = self._forwarder.transport.max_payload_bytes - CHUNK_OVERHEAD_BYTES
        for piece, ids in _pieces(requests, run.correlation_ids, limit):
            if len(piece) > limit:
                text = (
                    f"message of {len(piece)} bytes with its stream and IDs is more than fits a NATS message on the way to "
                    f"the partition's leader ({limit}); publish it through the leader, or raise NATS's max_payload"
                )
                sink.refused(ids, Refusal(RefusalKind.TOO_LARGE, text))
                continue
            self._waiting.append(_Pending(piece, ids, ack_inbox, sink, now_ns))
            self._bytes += len(piece)
        self.pump(now_ns)
        self._forwarder.tick_soon()

    def close(self) -> None:
        """The publisher is gone."""
        self._waiting.clear()
        self._sent.clear()
        self._forwarder.close_lane(self._number)

    # --- sending ------------------------------------------------------------------------------------------------------

    def pump(self, now_ns: int) -> None:
        """Sends what waits, as far as there is somebody to send it to."""
        if not self._waiting or now_ns < self._retry_ns:
            return
        target = self._forwarder.targets.find(self._stream, self._partition, 0)
        if isinstance(target, Refusal):
            if not self._sent:
                self._refuse_waiting(target)
            return
        if target.paused is not None:
            self._forwarder.resume(target.paused)
        starts = self._attempt_ended or target.leader != self._route
        if target.leader is None or (starts and self._sent):
            return
        if starts:
            self._begin_attempt(target.leader)
        while self._waiting and self._send(self._waiting[0], now_ns):
            self._waiting.popleft()

    def _begin_attempt(self, route: RemoteLeader) -> None:
        self._route = route
        self._attempt = next(self._forwarder.attempts)
        self._attempt_ended = False

    def _send(self, pending: _Pending, now_ns: int) -> bool:
        sequence = self._sequence + 1
        if not self._transmit(pending, sequence):
            self._retry_ns = now_ns + _TICK_NS
            return False
        self._sequence = sequence
        pending.sequence, pending.sent_ns = sequence, now_ns
        self._sent[sequence] = pending
        return True

    def _transmit(self, pending: _Pending, sequence: int) -> bool:
        leader = self._route
        assert leader is not None
        chunk = Chunk(
            lane=self._number,
            attempt=self._attempt,
            sequence=sequence,
            lowest=next(iter(self._sent), sequence),
            stream_id=leader.stream_id,
            partition=self._partition,
            leader_epoch=leader.leader_epoch,
            ack_inbox=pending.ack_inbox,
            requests=pending.requests,
        )
        return self._publish(leader, encode_chunk(chunk))

    def _publish(self, leader: RemoteLeader, data: bytes) -> bool:
        forwarder = self._forwarder
        subject = subject_of(forwarder.namespace, leader.server_id)
        try:
            forwarder.transport.publish_direct(subject, [data], reply=forwarder.answer_subject)
        except TransportError as error:
            logger.debug("can't forward to %s now: %s", leader.server_id, error)
            return False
        return True

    def _ask(self) -> None:
        """What became of all that has no answer?"""
        leader = self._route
        assert leader is not None
        self._doubtful = self._sequence
        awaited = tuple(islice(_ranges(self._sent), _MAX_RANGES))
        question = Question(
            self._number, self._attempt, leader.stream_id, self._partition, leader.leader_epoch, awaited
        )
        self._publish(leader, encode_question(question))

    def _fill(self, first_sequence: int, now_ns: int) -> None:
        """Sends again what the leader misses. It says so twice, when it is asked and when it sees a gap."""
        if first_sequence == self._filled_from and now_ns - self._filled_ns < _PATIENCE_NS:
            return
        missing = [one for one in self._sent.values() if one.sequence >= first_sequence]
        if missing:
            self._filled_from, self._filled_ns, self._doubtful = first_sequence, now_ns, self._sequence
        for pending in missing:
            if not self._transmit(pending, pending.sequence):
                return

    # --- answers ------------------------------------------------------------------------------------------------------

    def take(self, answer: Answer) -> None:
        """An answer from a server that this lane sent to."""
        if answer.attempt != self._attempt:
            return
        now_ns = self._forwarder.clock.monotonic_ns()
        if answer.verdict is Verdict.DONE:
            self._close(answer)
        elif answer.verdict is Verdict.EXPECTED:
            self._note_held(answer.sequence, now_ns)
            self._fill(answer.sequence, now_ns)
        elif answer.verdict is Verdict.NOT_TAKEN:
            self._note_held(answer.sequence, now_ns)
            self._take_back(answer.sequence, now_ns)
        elif answer.verdict is Verdict.FORGOTTEN:
            self._doubt(
                answer.sequence, answer.sequence, "outcome unknown, the leader took it and has no answer any more"
            )
        else:
            self._take_strange(answer.sequence, now_ns)
        self.pump(now_ns)

    def _close(self, answer: Answer) -> None:
        """All messages of a chunk have their outcome."""
        pending = self._sent.get(answer.sequence)
        if pending is None:
            return
        self._forget(pending)
        stored = len(pending.correlation_ids) - len(answer.refused)
        if stored:
            pending.sink.stored(answer.responses, stored)
        for message in answer.refused:
            pending.sink.refused([message.correlation_id], Refusal(_kind_of(message.kind), message.text))

    def _note_held(self, end_sequence: int, now_ns: int) -> None:
        """Whatever the leader holds takes as long as it takes: it waits for replicas."""
        self._held_below, self._held_ns = max(self._held_below, end_sequence), now_ns

    def _take_back(self, first_sequence: int, now_ns: int) -> None:
        """The leader took neither this chunk nor any behind it: they wait again, in their order."""
        self._attempt_ended = True
        back = [one for sequence, one in self._sent.items() if sequence >= first_sequence]
        for one in back:
            del self._sent[one.sequence]
        if back:
            self._waiting.extendleft(reversed(back))
            self._retry_ns = now_ns + _TICK_NS

    def _take_strange(self, sequence: int, now_ns: int) -> None:
        """Of a chunk's only copy it is certain that it wasn't taken, and then nothing behind it was."""
        if sequence <= self._doubtful:
            self._doubt(0, sequence, "outcome unknown, the leader was restarted or leads no more")
        elif sequence in self._sent:
            self._take_back(sequence, now_ns)

    def _doubt(self, first_sequence: int, last_sequence: int, reason: str) -> None:
        """Nobody can know any more what became of these."""
        for pending in [one for one in self._sent.values() if first_sequence <= one.sequence <= last_sequence]:
            self._refuse(pending, RefusalKind.OUTCOME_UNKNOWN, reason)

    def _forget(self, pending: _Pending) -> None:
        self._sent.pop(pending.sequence, None)
        self._bytes -= len(pending.requests)
        if self._was_full and self._bytes * 2 <= MAX_LANE_BYTES:
            self._was_full = False
            self._has_room()

    # --- time ---------------------------------------------------------------------------------------------------------

    def tick(self, now_ns: int) -> None:
        """Gives up what is overdue and tries again what waits."""
        if not self.busy:
            return
        self._watch_former_leader(now_ns)
        self._watch_oldest(now_ns)
        for pending in [one for one in self._sent.values() if now_ns - self._heard_ns(one) > _ANSWER_TIMEOUT_NS]:
            self._refuse(pending, RefusalKind.OUTCOME_UNKNOWN, "the leader doesn't answer; the message may be stored")
        self.pump(now_ns)
        for pending in [one for one in self._waiting if now_ns - one.taken_ns > _ROUTE_TIMEOUT_NS]:
            self._waiting.remove(pending)
            text = f"no server that leads partition {self._partition} of stream {self._stream} took the message"
            self._refuse(pending, RefusalKind.NOT_LEADER, text)

    def _heard_ns(self, pending: _Pending) -> int:
        """When the leader last said that it has it, if ever."""
        return max(pending.sent_ns, self._held_ns) if pending.sequence < self._held_below else pending.sent_ns

    def _watch_oldest(self, now_ns: int) -> None:
        """Answers come in order but for chunks that wait for replicas: if the oldest is still the same, some may be lost,
        or chunks. A leader that is slow answers one after the other, and isn't asked."""
        oldest = next(iter(self._sent), 0)
        if oldest != self._watched:
            self._watched, self._watched_ns, self._patience_ns = oldest, now_ns, _PATIENCE_NS
        elif oldest and now_ns - self._watched_ns >= self._patience_ns:
            self._watched_ns, self._patience_ns = now_ns, min(2 * self._patience_ns, _MAX_PATIENCE_NS)
            self._ask()

    def _watch_former_leader(self, now_ns: int) -> None:
        """What was sent to a leader that leads no more has a moment for its answers."""
        target = self._forwarder.targets.find(self._stream, self._partition, 0)
        current = target.leader if isinstance(target, Target) else None
        if not self._sent or current == self._route:
            self._left_ns = 0
        elif not self._left_ns:
            self._left_ns = now_ns
        elif now_ns - self._left_ns > _FORMER_LEADER_NS:
            self.give_up("leader changed", only_sent=True)

    def give_up(self, reason: str, *, only_sent: bool = False) -> None:
        """Nobody knows what becomes of what was sent; what wasn't is refused."""
        for pending in list(self._sent.values()):
            self._refuse(pending, RefusalKind.OUTCOME_UNKNOWN, f"outcome unknown, {reason}")
        if not only_sent:
            self._refuse_waiting(Refusal(RefusalKind.NOT_LEADER, reason))

    def _refuse_waiting(self, refusal: Refusal) -> None:
        waiting = list(self._waiting)
        self._waiting.clear()
        for pending in waiting:
            self._refuse(pending, refusal.kind, refusal.message)

    def _refuse(self, pending: _Pending, kind: RefusalKind, text: str) -> None:
        self._forget(pending)
        pending.sink.refused(pending.correlation_ids, Refusal(kind, text))


def _kind_of(name: str) -> RefusalKind:
    """A newer server may have kinds that this one doesn't know."""
    return RefusalKind[name] if name in RefusalKind.__members__ else RefusalKind.STORAGE


def _ranges(sequences: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Ascending numbers as ranges: the first, and behind the last."""
    first = end = 0
    for sequence in sequences:
        if sequence != end:
            if first:
                yield first, end
            first = sequence
        end = sequence + 1
    yield first, end


def _pieces(requests: bytes, ids: Sequence[bytes], max_bytes: int) -> Iterator[tuple[bytes, Sequence[bytes]]]:
    """The requests in pieces that the transport carries, and whose answers it carries, each with its correlation IDs."""
    max_messages = max(1, max_bytes // _ANSWER_BYTES)
    if len(requests) <= max_bytes and len(ids) <= max_messages:
        yield requests, ids
        return
    start = position = first = number = 0
    while position < len(requests):
        end = position + RECORD_PREFIX_BYTES + RECORD_PREFIX.unpack_from(requests, position)[1]
        if position > start and (end - start > max_bytes or number - first == max_messages):
            yield requests[start:position], ids[first:number]
            start, first = position, number
        position, number = end, number + 1
    yield requests[start:], ids[first:]
