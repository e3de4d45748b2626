"""One server or several on virtual time, and a client that calls them as the endpoint does: what the state machine of
``stream_machine.py`` drives. The disks that it is given decide whether the files are real.

A call has an outcome, or raises :class:`Lost`: its server ended, or it took too long, and nobody knows what it did.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Generic, TypeVar

from simulation.cluster import Cluster
from simulation.disk import Disk
from simulation.invariants import Violation
from simulation.process import ProcessClock
from simulation.server import SimulatedServer, is_expected, simulated_system
from stream_model import Found, Pass

from liftbridge.broker.api import BrokerApi, CallContext
from liftbridge.errors import FailedPrecondition, InvalidRequest, LiftbridgeError, NotFound, UnknownError
from liftbridge.metadata.model import ServerStatus
from liftbridge.metadata.state import MetadataState
from liftbridge.partition.compacting import Compactions
from liftbridge.partition.local import LocalPartition
from liftbridge.protocol.generated import api_pb2 as api
from liftbridge.protocol.record_batch import RECORD_PREFIX, RECORD_PREFIX_BYTES

T = TypeVar("T")

_FORM_S = 20.0
_ANSWER_S = 30.0
#: Until everybody is there, in sync, and knows so.
_HEAL_S = 40.0
_REST_S = 20.0
#: For what is on its way when its sender ends.
_WAY_S = 0.05
_READ_BYTES = 1000
_NEVER_S = 1e6


class Lost(Exception):
    """Nobody knows what became of a call."""


class Outcome(Enum):
    """What became of a message. ``REFUSED`` is definite like those before it, but the same message may be taken later."""

    STORED = auto()
    READONLY = auto()
    NOT_FOUND = auto()
    WRONG_OFFSET = auto()
    BAD_REQUEST = auto()
    REFUSED = auto()
    UNKNOWN = auto()


@dataclass
class Answer:
    """To one message. ``offset`` is where it is stored, None if nobody said so."""

    outcome: Outcome = Outcome.UNKNOWN
    offset: int | None = None


@dataclass
class Reading:
    """What a subscription gave, and how it ended."""

    messages: list[api.Message] = field(default_factory=list)
    end: LiftbridgeError | None = None

    @property
    def found(self) -> list[Found]:
        return [Found(one.offset, one.key, one.value) for one in self.messages]


class Call(Generic[T]):
    """One call of a client, from its beginning on."""

    def __init__(self, server: SimulatedServer, work: Callable[[BrokerApi], Awaitable[T]]) -> None:
        self._server = server
        self._work = work
        self._results: list[T] = []
        self._error: LiftbridgeError | None = None
        server.process.call_soon(lambda: server.process.begin(self._run()))

    async def _run(self) -> None:
        endpoint = self._server.endpoint
        assert endpoint is not None
        try:
            result = await self._work(endpoint.broker)
        except LiftbridgeError as error:
            self._error = error if self._server.process.alive else None
        else:
            self._results += [result] if self._server.process.alive else []

    @property
    def over(self) -> bool:
        """Whether nothing more can come of it."""
        return bool(self._results) or self._error is not None or not self._server.process.alive

    def result(self) -> T:
        if self._results:
            return self._results[0]
        raise self._error or Lost


class StreamWorld(Cluster):
    """Runs from its making to ``close``."""

    def __init__(self, seed: int, disks: Sequence[Disk]) -> None:
        super().__init__(random.Random(seed), disks)
        self._settings = {
            "clustering.raft.bootstrap.peers": tuple(self.ids),
            "streams.cleaner.interval": _NEVER_S,  # compaction is the world's
        }
        self._problems: list[str] = []
        self._patches = ExitStack()
        self._patches.enter_context(simulated_system(self.chance, MetadataState))
        for server_id in self.ids:
            self.start(server_id)
        self.until(self._all_live, _FORM_S, "no cluster was formed")

    def close(self) -> None:
        self.end_all()
        self._patches.close()

    # --- servers ------------------------------------------------------------------------------------------------------

    @property
    def serving(self) -> list[SimulatedServer]:
        """Those that clients can connect to."""
        return [server for server in self.running() if server.is_open]

    @property
    def away(self) -> list[str]:
        return sorted(set(self.ids) - {one.server_id for one in self.running()})

    def stop(self, server_id: str) -> None:
        """SIGTERM; returns when the process is gone."""
        server = self.servers[server_id]
        server.stop()
        self.until(lambda: not server.process.alive, _HEAL_S, f"{server_id} doesn't stop")

    def heal(self) -> None:
        """Starts whoever is away; returns when all are there and in sync."""
        for server_id in self.away:
            self.start(server_id)
        self.until(self._is_whole, _HEAL_S, "not whole again")

    def _all_live(self) -> bool:
        live = [
            [one for one in server.state.servers.values() if one.status is ServerStatus.LIVE]
            for server in self.serving
            if server.state is not None
        ]
        return [len(one) for one in live] == [len(self.ids)] * len(self.ids)

    def _is_whole(self) -> bool:
        return self._all_live() and all(
            partition.leader and (partition.paused or set(partition.isr) == set(partition.replicas))
            for server in self.running()
            if server.state is not None
            for stream in server.state.streams.values()
            for partition in stream.partitions
        )

    def _exited(self, server: SimulatedServer, error: BaseException | None) -> None:
        if not is_expected(error):
            self._problems.append(f"{server.server_id} ended with {error!r}")
        super()._exited(server, error)

    def _turned(self, server: SimulatedServer) -> None:
        problems = [*self._problems, *(f"{server.server_id}: {one}" for one in server.process.problems)]
        if problems:
            raise Violation(problems[0])

    # --- calls --------------------------------------------------------------------------------------------------------

    def call(self, server: SimulatedServer, method: str, request: Any) -> Any:
        """A unary call. Raises what the client would get."""
        return self.ask(server, lambda broker: broker.unary_handlers()[method](request, CallContext()))

    def ask(self, server: SimulatedServer, work: Callable[[BrokerApi], Awaitable[T]]) -> T:
        """Lets time pass until the server has done it."""
        return self.wait(Call(server, work)).result()

    def turn(self, times: int) -> None:
        """Lets so little happen, and no time pass but for what is due next."""
        for _ in range(times):
            self._step(self.timeline.next_due_ns())

    def wait(self, call: Call[T]) -> Call[T]:
        """Lets time pass until the call is over, or has taken too long."""
        end_ns = self.timeline.now_ns + int(_ANSWER_S * 1e9)
        while not call.over and self._step(end_ns):
            pass
        return call

    def begin_publishing(
        self, server: SimulatedServer, requests: Sequence[api.PublishRequest]
    ) -> tuple[Call[None], list[Answer]]:
        """Through one session. The answers are filled in as they come."""
        sink = _Answers(server, len(requests))
        for number, request in enumerate(requests):
            request.correlationId = str(number)

        async def publish(broker: BrokerApi) -> None:
            session = broker.publish_session(CallContext(), sink)
            session.publish(b"".join(_framed(one.SerializeToString()) for one in requests))
            await session.finish()

        return Call(server, publish), sink.answers

    def publish(self, server: SimulatedServer, requests: Sequence[api.PublishRequest]) -> list[Answer]:
        """Through one session, until all are answered."""
        call, answers = self.begin_publishing(server, requests)
        self.wait(call)
        return answers

    def publish_one(self, server: SimulatedServer, request: api.PublishRequest) -> Answer:
        """By the unary call."""

        async def publish(broker: BrokerApi) -> bytes:
            reply = _Reply()
            broker.publish(request.SerializeToString(), CallContext(), reply)
            return await reply.response

        try:
            response = api.PublishResponse.FromString(self.ask(server, publish))
        except Lost:
            return Answer()
        except LiftbridgeError as error:
            return Answer(_outcome_of(error))
        return Answer(Outcome.STORED, response.ack.offset if response.HasField("ack") else None)

    def read(self, server: SimulatedServer, request: api.SubscribeRequest) -> Reading:
        """All that a subscription gives until it ends by itself. Raises what refuses it."""

        async def read(broker: BrokerApi) -> Reading:
            reading = Reading()
            subscription = await broker.subscribe(request, CallContext())
            try:
                while True:
                    framed = await subscription.read(_READ_BYTES)
                    reading.messages += map(api.Message.FromString, _unframed(framed))
            except LiftbridgeError as error:
                reading.end = error
            finally:
                subscription.close()
            return reading

        return self.ask(server, read)

    # --- replicas -----------------------------------------------------------------------------------------------------

    def rest(self, name: str, number: int) -> None:
        """Returns when every replica that runs has all of the partition, and knows that it is committed."""

        def at_rest() -> bool:
            ends = {end for _, one in self._replicas(name, number) for end in (one.high_watermark, one.end_offset)}
            return len(ends) == 1

        self.advance(_WAY_S)
        self.until(at_rest, _REST_S, f"partition {number} of {name} doesn't come to rest")

    def compact(self, name: str, number: int) -> list[Pass]:
        """One pass on each replica that runs. What a pass could work on is known after it: one that isn't at rest goes on
        meanwhile."""
        passes = []
        for server, local in list(self._replicas(name, number)):
            self.ask(server, lambda _, local=local: Compactions(ProcessClock()).compact(local))  # type: ignore[misc]
            passes.append(Pass(server.disk.sealed_end(local.assignment.key.log_id), local.high_watermark))
        return passes

    def _replicas(self, name: str, number: int) -> Iterator[tuple[SimulatedServer, LocalPartition]]:
        for server in self.serving:
            for local in server.locals:
                if (local.assignment.key.stream, local.assignment.key.partition) == (name, number):
                    yield server, local


class _Answers:
    """See :class:`liftbridge.broker.api.ResponseSink`."""

    def __init__(self, server: SimulatedServer, count: int) -> None:
        self.answers = [Answer() for _ in range(count)]
        self._server = server
        self._unanswered = set(range(count))

    def send(self, framed: bytes) -> None:
        for message in _unframed(framed) if self._server.process.alive else ():
            self._take(api.PublishResponse.FromString(message))

    def _take(self, response: api.PublishResponse) -> None:
        number = int(response.correlationId)
        self._unanswered.remove(number)  # each is answered once
        answer = self.answers[number]
        if response.HasField("asyncError"):
            answer.outcome = _OUTCOMES.get(response.asyncError.code, Outcome.REFUSED)
        else:
            answer.outcome, answer.offset = Outcome.STORED, response.ack.offset

    def resume(self) -> None:
        """This client doesn't wait."""


_OUTCOMES = {
    api.PublishAsyncError.READONLY: Outcome.READONLY,
    api.PublishAsyncError.NOT_FOUND: Outcome.NOT_FOUND,
    api.PublishAsyncError.INCORRECT_OFFSET: Outcome.WRONG_OFFSET,
    api.PublishAsyncError.BAD_REQUEST: Outcome.BAD_REQUEST,
    api.PublishAsyncError.UNKNOWN: Outcome.UNKNOWN,
}


class _Reply:
    """See :class:`liftbridge.broker.api.PublishReply`."""

    def __init__(self) -> None:
        self.response: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def succeed(self, response: bytes) -> None:
        self.response.set_result(response)

    def fail(self, error: BaseException) -> None:
        self.response.set_exception(error)


def _outcome_of(error: LiftbridgeError) -> Outcome:
    match error:
        case FailedPrecondition():
            return Outcome.READONLY
        case NotFound():
            return Outcome.NOT_FOUND
        case InvalidRequest():
            return Outcome.BAD_REQUEST
        case UnknownError() if "incorrect expected offset" in str(error):
            return Outcome.WRONG_OFFSET
    return Outcome.UNKNOWN


def _framed(message: bytes) -> bytes:
    return RECORD_PREFIX.pack(0, len(message)) + message


def _unframed(framed: bytes) -> Iterator[bytes]:
    position = 0
    while position < len(framed):
        end = position + RECORD_PREFIX_BYTES + RECORD_PREFIX.unpack_from(framed, position)[1]
        yield framed[position + RECORD_PREFIX_BYTES : end]
        position = end
