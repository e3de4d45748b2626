"""Many messages to one stream, with their acks."""

import asyncio
import contextlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Self

from liftbridge.client.brokers import Brokers, Deadline
from liftbridge.client.failures import async_error_of
from liftbridge.client.partitioners import KeyPartitioner, Partitioner
from liftbridge.client.records import Ack, AckPolicy, ack_from_proto
from liftbridge.errors import (
    DeadlineExceeded,
    InvalidRequest,
    PermissionDenied,
    RequestError,
    Unavailable,
    Unimplemented,
)
from liftbridge.protocol.generated import api_pb2 as api

_ANY_OFFSET = -1
#: How often overdue acks are looked for.
_TICK_S = 0.25
#: With these a server takes nothing; how else a call ends says nothing of its messages.
_REFUSALS = (PermissionDenied, Unimplemented)
_OPEN = "; the message may be stored"


class Publisher:
    """Use it as ``async with client.publisher("stream") as publisher``; leaving waits for every ack.

    Messages to one partition are stored in the order of ``publish``. When the connection to a server breaks, the messages on
    their way fail with Unavailable (they may be stored, nobody knows), and the next ones go over a new connection. Whatever
    has no answer after ``ack_timeout_s`` fails with DeadlineExceeded. Any number of tasks may publish at once.
    """

    def __init__(
        self,
        brokers: Brokers,
        stream: str,
        *,
        max_in_flight: int,
        ack_policy: AckPolicy,
        partitioner: Partitioner | None,
        ack_timeout_s: float,
    ) -> None:
        if max_in_flight < 1:
            raise InvalidRequest(f"{max_in_flight} messages in flight are none")
        self._brokers = brokers
        self._stream = stream
        self._ack_policy = ack_policy
        self._partitioner = partitioner
        self._by_key = KeyPartitioner()
        self._ack_timeout_s = ack_timeout_s
        self._sessions: dict[str, _Session] = {}
        self._routes: dict[int, _Session] = {}
        self._routing = asyncio.Lock()
        self._room = asyncio.Semaphore(max_in_flight)
        self._in_flight = 0
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                await self.flush()
                await asyncio.gather(*(session.finish() for session in self._sessions.values()))
        finally:
            await self.close()

    async def publish(
        self,
        value: bytes,
        *,
        key: bytes = b"",
        headers: Mapping[str, bytes] | None = None,
        partition: int | None = None,
        expected_offset: int | None = None,
        correlation_id: str = "",
    ) -> "asyncio.Future[Ack | None]":
        """Waits only until fewer than ``max_in_flight`` messages have no ack, and returns what can be awaited for this
        one's: the Ack, None with AckPolicy.NONE. It raises what :meth:`Client.publish` raises. Nobody has to await it.

        Raises Unavailable itself when no server can be reached, and NotFound when a partition has to be chosen and the
        stream doesn't exist. A ``correlation_id`` must not be that of a message on its way."""
        await self._room.acquire()
        try:
            session, number = await self._session_for(key, value, partition)
        except BaseException:
            self._room.release()
            raise
        request = api.PublishRequest(
            stream=self._stream,
            partition=number,
            key=key,
            value=value,
            headers=headers,
            ackPolicy=int(self._ack_policy),  # type: ignore[arg-type]
            correlationId=correlation_id or session.new_id(),
            expectedOffset=_ANY_OFFSET if expected_offset is None else expected_offset,
        )
        future = session.send(request)
        self._in_flight += 1
        self._quiet.clear()
        future.add_done_callback(self._answered)
        return future

    async def flush(self) -> None:
        """Returns when every message that was published so far has its answer, good or bad."""
        await self._quiet.wait()

    async def close(self) -> None:
        """Doesn't wait: what has no answer fails with Unavailable. Idempotent."""
        self._closed = True
        sessions, self._sessions = self._sessions, {}
        self._routes.clear()
        for session in sessions.values():
            session.close()

    # ------------------------------------------------------------------------------------------------------------------

    async def _session_for(self, key: bytes, value: bytes, partition: int | None) -> "tuple[_Session, int]":
        if self._closed:
            raise InvalidRequest("the publisher is closed")
        number = partition if partition is not None else await self._choose(key, value)
        session = self._routes.get(number)
        if session is None or session.ended:
            session = await self._route(number)
        return session, number

    async def _choose(self, key: bytes, value: bytes) -> int:
        if self._partitioner is None and not key:
            return 0
        known = await self._brokers.stream(self._stream, Deadline(self._ack_timeout_s))
        return (self._partitioner or self._by_key)(key, value, len(known.partitions))

    async def _route(self, partition: int) -> "_Session":
        """One task at a time looks for a way, so that messages to a partition never take two."""
        async with self._routing:
            session = self._routes.get(partition)
            if session is None or session.ended:
                session = self._routes[partition] = await self._open(partition)
            return session

    async def _open(self, partition: int) -> "_Session":
        """To the leader, if it is known and there; every server takes what is for another."""
        deadline = Deadline(self._ack_timeout_s)
        leader = ""
        with contextlib.suppress(RequestError):
            stream = await self._brokers.stream(self._stream, deadline, fresh=partition in self._routes)
            leader = self._brokers.leader_address(stream, partition)
        address = await self._brokers.connected(deadline, first=leader)
        session = self._sessions.get(address)
        if session is None or session.ended:
            session = _Session(self._brokers, address, self._ack_policy, self._ack_timeout_s)
            await session.open(deadline)
            self._sessions[address] = session
        return session

    def _answered(self, future: "asyncio.Future[Ack | None]") -> None:
        if not future.cancelled():
            future.exception()  # a publisher that awaits no answers asked for no warnings
        self._in_flight -= 1
        if self._in_flight == 0:
            self._quiet.set()
        self._room.release()


@dataclass(slots=True)
class _Pending:
    future: "asyncio.Future[Ack | None]"
    overdue_s: float


class _Session:
    """One PublishAsync call, and who waits for its answers."""

    def __init__(self, brokers: Brokers, address: str, ack_policy: AckPolicy, ack_timeout_s: float) -> None:
        self._address = address
        self._wants_acks = ack_policy is not AckPolicy.NONE
        self._ack_timeout_s = ack_timeout_s
        self._loop = asyncio.get_running_loop()
        self._call = brokers.stream_call(address, "PublishAsync", on_responses=self._take_all, on_end=self._end)
        self._id_prefix = secrets.token_hex(8)
        self._numbers = count()
        self._pending: dict[str, _Pending] = {}
        self._watch: asyncio.TimerHandle | None = None
        self.ended = False

    async def open(self, deadline: Deadline) -> None:
        """Raises Unavailable."""
        await self._call.connect(deadline.remaining_s)

    def new_id(self) -> str:
        """No other message has it."""
        return f"{self._id_prefix}-{next(self._numbers)}"

    def send(self, request: api.PublishRequest) -> "asyncio.Future[Ack | None]":
        """Never blocks."""
        future: asyncio.Future[Ack | None] = self._loop.create_future()
        if request.correlationId in self._pending:
            future.set_exception(InvalidRequest(f"correlation ID {request.correlationId} is on its way already"))
            return future
        if self.ended:
            future.set_exception(Unavailable(f"{self._address} ended the call; the message isn't stored"))
            return future
        self._pending[request.correlationId] = _Pending(future, self._loop.time() + self._ack_timeout_s)
        self._call.send(
            request.SerializeToString(), None if self._wants_acks else partial(self._sent, request.correlationId)
        )
        if self._watch is None:
            self._watch = self._loop.call_later(_TICK_S, self._look_for_overdue)
        return future

    async def finish(self) -> None:
        """Acks say that messages arrived; without them, the end of the call does."""
        if not self._wants_acks:
            await self._call.finish(self._ack_timeout_s)

    def close(self) -> None:
        """What has no answer fails. Idempotent."""
        self._call.close()
        self._end(Unavailable(f"the publisher was closed before {self._address} answered"))

    def _sent(self, correlation_id: str) -> None:
        """Without an ack there may still be an error, but nothing says that there is none: sent is all that is known."""
        pending = self._pending.pop(correlation_id, None)
        if pending is not None and not pending.future.done():
            pending.future.set_result(None)

    def _take_all(self, responses: list[bytes]) -> None:
        for response in responses:
            self._take(api.PublishResponse.FromString(response))
        self._call.acknowledge(responses)

    def _take(self, response: api.PublishResponse) -> None:
        failed = response.HasField("asyncError")
        pending = self._pending.pop(response.correlationId or response.ack.correlationId, None)
        if pending is None or pending.future.done():
            return
        if failed:
            pending.future.set_exception(async_error_of(response.asyncError))
        else:
            pending.future.set_result(ack_from_proto(response.ack))

    def _look_for_overdue(self) -> None:
        """The oldest come first, so looking at few is enough."""
        self._watch = None
        now_s = self._loop.time()
        while self._pending:
            oldest = next(iter(self._pending))
            if self._pending[oldest].overdue_s > now_s:
                self._watch = self._loop.call_later(_TICK_S, self._look_for_overdue)
                return
            future = self._pending.pop(oldest).future
            if not future.done():
                text = f"no ack from {self._address} in {self._ack_timeout_s:g} s{_OPEN}"
                future.set_exception(DeadlineExceeded(text))

    def _end(self, error: RequestError | None) -> None:
        """Answers everything that has no answer."""
        self.ended = True
        error = error or Unavailable(f"{self._address} ended the call")
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        is_meant = isinstance(error, InvalidRequest) and len(self._pending) == 1  # nobody else can have been refused
        refused = isinstance(error, _REFUSALS) or is_meant
        kind, text = (type(error), str(error)) if refused else (Unavailable, f"{error}{_OPEN}")
        for pending in self._pending.values():
            if not pending.future.done():
                pending.future.set_exception(kind(text))
        self._pending.clear()
