"""Clients: each is connected to one server at a time, and goes to another one when that ends."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from liftbridge.broker.api import CallContext
from liftbridge.errors import LiftbridgeError
from liftbridge.protocol.generated import api_pb2 as api
from liftbridge.protocol.record_batch import RECORD_PREFIX, RECORD_PREFIX_BYTES

if TYPE_CHECKING:
    from simulation.invariants import Invariants
    from simulation.process import Timeline
    from simulation.server import SimulatedServer

_WAY_S = 0.0005
_RECONNECT_S = 0.1
_READ_BYTES = 4096

Servers = Callable[[], "Sequence[SimulatedServer]"]


@dataclass(eq=False, slots=True)
class Published:
    """One message. ``after`` is the highest offset that its session had an ALL ack for when it was sent. ``offset`` once it is
    acked, ``refused`` when it was definitely not stored; neither: nobody knows."""

    value: bytes
    partition: int
    policy: int
    number: int
    after: int
    sent_ns: int
    offset: int | None = None
    refused: bool = False
    answered_ns: int | None = None
    session: "_Session | None" = None

    @property
    def answered(self) -> bool:
        return self.answered_ns is not None

    @property
    def session_alive(self) -> bool:
        """Whether an answer can still come."""
        return self.session is not None and self.session.is_open


@dataclass(eq=False)
class Publisher:
    """Publishes through one session after the other."""

    name: str
    stream: str
    partitions: int
    timeline: "Timeline"
    chance: random.Random
    invariants: "Invariants"
    servers: Servers
    batch: int = 3
    _session: "_Session | None" = None
    _numbers: Any = field(default_factory=count)

    def publish(self, policy: int | None = None, partition: int | None = None) -> list[Published]:
        """A chunk of messages to one partition."""
        session = self._session
        if session is None or not session.is_open or self.chance.random() < 0.02:
            session = self._session = self._connect()
        if session is None:
            return []
        chosen = self.chance.randrange(self.partitions) if partition is None else partition
        messages = [self._message(session, chosen, policy) for _ in range(self.chance.randint(1, self.batch))]
        session.send(messages)
        return messages

    def _message(self, session: "_Session", partition: int, policy: int | None) -> Published:
        number = next(self._numbers)
        return Published(
            value=f"{self.name}-{number}".encode(),
            partition=partition,
            policy=self.chance.choice((api.ALL, api.ALL, api.LEADER, api.NONE)) if policy is None else policy,
            number=number,
            after=session.acked.get(partition, -1),
            sent_ns=self.timeline.now_ns,
            session=session,
        )

    def _connect(self) -> "_Session | None":
        candidates = [one for one in self.servers() if one.is_open]
        return _Session(self, self.chance.choice(candidates)) if candidates else None


class _Session:
    """One PublishAsync call."""

    def __init__(self, publisher: Publisher, server: "SimulatedServer") -> None:
        self.publisher = publisher
        self.server = server
        self.acked: dict[int, int] = {}
        self.unanswered: dict[str, Published] = {}
        self._session: Any = None
        self._arrives_ns = 0

    @property
    def is_open(self) -> bool:
        return self.server.is_open

    def send(self, messages: list[Published]) -> None:
        publisher = self.publisher
        for one in messages:
            publisher.invariants.published(publisher.stream, one)
            self.unanswered[str(one.number)] = one
        data = b"".join(map(self._framed, messages))
        process = self.server.process
        due_ns = publisher.timeline.now_ns + int(_WAY_S * publisher.chance.random() * 1e9)
        self._arrives_ns = max(self._arrives_ns, due_ns)  # a connection keeps the order
        publisher.timeline.at(self._arrives_ns, lambda: process.happen(lambda: process.call_soon(self._arrive, data)))

    def _framed(self, one: Published) -> bytes:
        request = api.PublishRequest(
            stream=self.publisher.stream,
            partition=one.partition,
            value=one.value,
            ackPolicy=one.policy,
            correlationId=str(one.number),
        ).SerializeToString()
        return RECORD_PREFIX.pack(0, len(request)) + request

    def _arrive(self, data: bytes) -> None:
        """On the server's event loop. A server that has closed its door meanwhile loses it, as a socket would."""
        endpoint = self.server.endpoint
        if endpoint is not None and endpoint.open:
            if self._session is None:
                self._session = endpoint.broker.publish_session(CallContext(), _Answers(self))
            self._session.publish(data)


class _Answers:
    """The endpoint's side of a session: see :class:`liftbridge.broker.api.ResponseSink`."""

    def __init__(self, session: _Session) -> None:
        self._session = session

    def send(self, framed: bytes) -> None:
        if self._session.server.process.alive:
            for message in _messages(framed):
                self._take(api.PublishResponse.FromString(message))

    def _take(self, response: api.PublishResponse) -> None:
        session = self._session
        invariants, stream = session.publisher.invariants, session.publisher.stream
        one = session.unanswered.pop(response.correlationId, None)
        if one is None:
            invariants.fail("I17", f"an answer to nothing that waits: {response}")
            return
        one.answered_ns = session.publisher.timeline.now_ns
        if response.HasField("asyncError"):
            one.refused = response.asyncError.code != api.PublishAsyncError.UNKNOWN
            invariants.refused(stream, one, session.server)
            return
        one.offset = response.ack.offset
        invariants.acked(stream, one, session.server)
        if one.policy == api.ALL:
            session.acked[one.partition] = max(session.acked.get(one.partition, -1), one.offset)

    def resume(self) -> None:
        """This client doesn't wait."""


@dataclass(eq=False)
class Reader:
    """Reads one partition from its beginning, from leaders and from members of the ISR; goes on where it was."""

    name: str
    stream: str
    partition: int
    timeline: "Timeline"
    chance: random.Random
    invariants: "Invariants"
    servers: Servers
    next_offset: int = 0
    _reading: "_Subscription | None" = None

    def connect(self) -> None:
        """Tries a server; comes back by itself."""
        candidates = [one for one in self.servers() if one.is_open]
        if not candidates:
            self.timeline.after(_RECONNECT_S, self.connect)
            return
        server = self.chance.choice(candidates)
        reading = self._reading = _Subscription(server)
        server.process.happen(lambda: server.process.call_soon(self._begin, reading))
        self.timeline.after(_RECONNECT_S, self._look)

    def _look(self) -> None:
        """A connection that ended is made anew; readers move on from time to time, too."""
        reading = self._reading
        if reading is None or not reading.server.is_open or self.chance.random() < 0.05:
            self._reading = None
            self.connect()
        else:
            self.timeline.after(_RECONNECT_S, self._look)

    def _begin(self, reading: "_Subscription") -> None:
        reading.server.process.begin(self._read(reading))

    async def _read(self, reading: "_Subscription") -> None:
        endpoint = reading.server.endpoint
        request = api.SubscribeRequest(
            stream=self.stream,
            partition=self.partition,
            startPosition=api.StartPosition.OFFSET,
            startOffset=self.next_offset,
            readISRReplica=self.chance.random() < 0.5,
        )
        try:
            assert endpoint is not None
            subscription = await endpoint.broker.subscribe(request, CallContext())
            while self._reading is reading:
                framed = await subscription.read(_READ_BYTES)
                for message in _messages(framed) if self._reading is reading else ():
                    self._take(api.Message.FromString(message), reading.server)
        except LiftbridgeError:
            pass
        finally:
            if self._reading is reading:
                self._reading = None

    def _take(self, message: api.Message, server: "SimulatedServer") -> None:
        self.invariants.delivered(self, message, server)
        self.next_offset = max(self.next_offset, message.offset + 1)


@dataclass(eq=False, frozen=True, slots=True)
class _Subscription:
    """One Subscribe call."""

    server: "SimulatedServer"


def _messages(framed: bytes) -> Iterator[bytes]:
    position = 0
    while position < len(framed):
        end = position + RECORD_PREFIX_BYTES + RECORD_PREFIX.unpack_from(framed, position)[1]
        yield framed[position + RECORD_PREFIX_BYTES : end]
        position = end
