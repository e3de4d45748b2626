"""Publishing through a server that doesn't lead: whole chunks go to the leader, and its answers come back.

Order: a lane's chunks are taken by leaders in the order of ``submit``. A chunk that no leader took is sent again, to the
leader that metadata names by then, for a few seconds. A chunk that may have been taken is never sent again: when its
answer doesn't come, or its leader changed, the publisher hears that nobody knows.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
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
    decode_answer,
    encode_chunk,
)
from liftbridge.protocol.publish_requests import PublishRun
from liftbridge.protocol.record_batch import RECORD_PREFIX, RECORD_PREFIX_BYTES

logger = logging.getLogger(__name__)

_TICK_S = 0.05
_TICK_NS = 50_000_000
#: A chunk that no leader takes is given up after this long.
_ROUTE_TIMEOUT_NS = 5_000_000_000
#: The leader took the chunk, as far as we know, and says nothing.
_ANSWER_TIMEOUT_NS = 10_000_000_000
#: How long answers of a former leader may still be on their way.
_FORMER_LEADER_NS = 1_000_000_000
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
    """A chunk on its way; ``sequence`` is 0 until it is sent."""

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
        self._sequence = 0
        self._route: RemoteLeader | None = None
        self._retry_ns = 0
        self._left_ns = 0

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
        starts = target.leader != self._route
        if target.leader is None or (starts and self._sent):
            return
        if starts:
            self._begin_attempt(target.leader)
        while self._waiting and self._send(target.leader, self._waiting[0], now_ns, starts=starts):
            self._waiting.popleft()
            starts = False

    def _begin_attempt(self, route: RemoteLeader) -> None:
        self._route = route
        self._attempt += 1

    def _send(self, leader: RemoteLeader, pending: _Pending, now_ns: int, *, starts: bool) -> bool:
        sequence = self._sequence + 1
        chunk = Chunk(
            lane=self._number,
            attempt=self._attempt,
            sequence=sequence,
            stream_id=leader.stream_id,
            partition=self._partition,
            leader_epoch=leader.leader_epoch,
            starts=starts,
            ack_inbox=pending.ack_inbox,
            requests=pending.requests,
        )
        forwarder = self._forwarder
        subject = subject_of(forwarder.namespace, leader.server_id)
        try:
            forwarder.transport.publish_direct(subject, [encode_chunk(chunk)], reply=forwarder.answer_subject)
        except TransportError as error:
            logger.debug("can't forward to %s now: %s", leader.server_id, error)
            if starts:
                self._route = None
            self._retry_ns = now_ns + _TICK_NS
            return False
        self._sequence = sequence
        pending.sequence, pending.sent_ns = sequence, now_ns
        self._sent[sequence] = pending
        return True

    # --- answers ------------------------------------------------------------------------------------------------------

    def take(self, answer: Answer) -> None:
        """An answer from a server that this lane sent to."""
        pending = self._sent.get(answer.sequence)
        if answer.attempt != self._attempt or pending is None:
            return
        if not answer.taken:
            self._take_back(answer.sequence)
            return
        self._forget(pending)
        stored = len(pending.correlation_ids) - len(answer.refused)
        if stored:
            pending.sink.stored(answer.responses, stored)
        for message in answer.refused:
            pending.sink.refused([message.correlation_id], Refusal(_kind_of(message.kind), message.text))
        self.pump(self._forwarder.clock.monotonic_ns())

    def _take_back(self, first_sequence: int) -> None:
        """The leader took neither this chunk nor any behind it: they wait again, in their order."""
        back = [one for sequence, one in self._sent.items() if sequence >= first_sequence]
        for one in back:
            del self._sent[one.sequence]
        self._waiting.extendleft(reversed(back))
        self._route = None
        self._retry_ns = self._forwarder.clock.monotonic_ns() + _TICK_NS

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
        for pending in [one for one in self._sent.values() if now_ns - one.sent_ns > _ANSWER_TIMEOUT_NS]:
            self._refuse(pending, RefusalKind.OUTCOME_UNKNOWN, "the leader doesn't answer; the message may be stored")
        self.pump(now_ns)
        for pending in [one for one in self._waiting if now_ns - one.taken_ns > _ROUTE_TIMEOUT_NS]:
            self._waiting.remove(pending)
            text = f"no server that leads partition {self._partition} of stream {self._stream} took the message"
            self._refuse(pending, RefusalKind.NOT_LEADER, text)

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


def _pieces(requests: bytes, ids: Sequence[bytes], max_bytes: int) -> Iterator[tuple[bytes, Sequence[bytes]]]:
    """The requests in pieces that the transport carries, each with its correlation IDs."""
    if len(requests) <= max_bytes:
        yield requests, ids
        return
    start = position = first = number = 0
    while position < len(requests):
        end = position + RECORD_PREFIX_BYTES + RECORD_PREFIX.unpack_from(requests, position)[1]
        if end - start > max_bytes and position > start:
            yield requests[start:position], ids[first:number]
            start, first = position, number
        position, number = end, number + 1
    yield requests[start:], ids[first:]
