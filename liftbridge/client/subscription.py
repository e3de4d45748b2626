"""Messages of one partition, wherever its leader is."""

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from google.protobuf.message import DecodeError

from liftbridge.client.brokers import Brokers, Deadline, again
from liftbridge.client.failures import PartitionPaused
from liftbridge.client.positions import StartAt, StopAt
from liftbridge.client.records import Message, message_from_proto
from liftbridge.client.stream_call import StreamCall
from liftbridge.client.turns import Turns
from liftbridge.errors import (
    FailedPrecondition,
    InternalError,
    InvalidRequest,
    NotFound,
    RequestError,
    ResourceExhausted,
    Unavailable,
    UnknownError,
)
from liftbridge.protocol.generated import api_pb2 as api

#: For one server to accept or refuse.
_HANDSHAKE_S = 5.0
#: How a server that isn't the leader (any more) refuses; another one, or the same a moment later, will not.
_NOT_LEADER = "Server not partition leader"
_PAUSED = "commit log was closed"
#: How it says that a subscription ends before it begins.
_NOTHING_LEFT = "Stop offset is before start offset"


#: Asking the generated module costs too much for each message.
_STOP_OFFSET = api.StopPosition.STOP_OFFSET
#: What a call brings: responses that arrived together, and in the end an error, or None.
_Arrival = list[bytes] | RequestError | None


@dataclass(frozen=True, slots=True)
class GroupPlace:
    """As which member of which generation of a consumer group somebody subscribes."""

    group_id: str
    consumer_id: str
    epoch: int


class Subscription:
    """An async iterator of :class:`Message`, in the order of offsets, each once: when a server dies or hands over, it goes
    on where it was with the next leader. Only what is committed is delivered. One task at a time may iterate; a wait
    for the next message may be cancelled, by ``asyncio.timeout`` for instance, and costs no message. While messages are
    there, asking for the next one doesn't wait, and every 50 ms others of the event loop have a turn; what nobody asks for
    stays with the server, but for some 2 MiB.

    The iteration ends where the stop position says, at the end of a readonly partition, and, in a consumer group, when
    another member took the partition over. It raises NotFound when the stream is deleted, PartitionPaused when the
    partition is paused, Unavailable when nobody led it for ``patience_s``, and what the server said when the subscription
    is refused. Leave it by ``async with`` or ``close``; an iteration that isn't finished keeps a call open.
    """

    def __init__(
        self,
        brokers: Brokers,
        stream: str,
        partition: int,
        *,
        start: StartAt,
        stop: StopAt,
        reverse: bool = False,
        read_isr_replica: bool = False,
        resume: bool = False,
        patience_s: float = 30.0,
        place: Callable[[], GroupPlace] | None = None,
    ) -> None:
        self._brokers = brokers
        self._stream = stream
        self._partition = partition
        self._start = start
        self._stop = stop
        self._reverse = reverse
        self._read_isr_replica = read_isr_replica
        self._resume = resume
        self._patience_s = patience_s
        self._place = place
        self._loop: asyncio.AbstractEventLoop | None = None
        self._call: StreamCall | None = None
        self._arrivals: asyncio.Queue[_Arrival] = asyncio.Queue()
        #: To be handed out.
        self._messages: deque[Message] = deque()
        self._turns = Turns()
        #: Nothing follows what is to be handed out.
        self._ended = False
        #: The offset of the message that follows these or, in a compacted partition, one before it; None before the first.
        self._next: int | None = None

    async def __aenter__(self) -> Self:
        """Subscribes; without ``async with``, the first message does. Raises what the server answers."""
        await self._open()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Idempotent."""
        self._messages.clear()
        self._finish()
        self._arrivals.put_nowait(None)  # for who waits meanwhile

    def __del__(self) -> None:
        """Who leaves a loop and forgets it here doesn't keep a connection."""
        if self._call is not None and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is over, too
                self._loop.call_soon_threadsafe(self._call.close)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        if self._turns.due:
            await self._turns.give()
        while not self._messages:
            if not await self._wait():
                raise StopAsyncIteration
        return self._messages.popleft()

    async def receive_many(self) -> list[Message]:
        """Waits for a message and returns it with those that came with it, in order; none at the end. Raises what the iteration
        would. Cancelling it costs no message."""
        if self._turns.due:
            await self._turns.give()
        await self._wait()
        messages, self._messages = list(self._messages), deque()
        return messages

    async def _wait(self) -> bool:
        """Until there are messages: False when there won't be any."""
        while not self._messages and not self._ended:
            if self._call is None:
                await self._open()
            else:
                self._take(await self._arrivals.get())
        return bool(self._messages)

    def _take(self, arrival: _Arrival) -> None:
        """Raises what ends a subscription badly."""
        if arrival is None:
            self._finish()
        elif isinstance(arrival, RequestError):
            self._call = None
            self._end_or_go_on(arrival)
        elif self._call is not None:
            self._call.acknowledge(arrival)
            self._decode(arrival)

    def _decode(self, responses: Sequence[bytes]) -> None:
        for response in responses:
            try:
                message = api.Message.FromString(response)
            except DecodeError:
                self._finish()
                raise InternalError("the server sends what is no message") from None
            offset = message.offset
            if self._is_behind(offset):
                continue
            if self._is_past_the_stop(offset):  # the message at the stop is gone, and the original goes on
                self._finish()
                return
            self._messages.append(message_from_proto(message))
            self._next = offset - 1 if self._reverse else offset + 1
            if self._is_past_the_stop(self._next):
                self._finish()
                return

    def _finish(self) -> None:
        self._ended = True
        call, self._call = self._call, None
        if call is not None:
            call.close()

    def _is_behind(self, offset: int) -> bool:
        """A server that doesn't know yet how far the partition is committed begins below the offset that it is asked for."""
        if self._next is None:
            return False
        return offset > self._next if self._reverse else offset < self._next

    def _is_past_the_stop(self, offset: int) -> bool:
        if self._reverse:
            return offset < 0
        return self._stop.position == _STOP_OFFSET and offset > self._stop.stop_offset

    def _end_or_go_on(self, error: RequestError) -> None:
        """Raises what ends a subscription badly; returns to go on with another call, or because it is over."""
        if isinstance(error, Unavailable):
            return
        self._ended = True
        if isinstance(error, ResourceExhausted) or (self._reverse and isinstance(error, UnknownError)):
            return
        if isinstance(error, FailedPrecondition) and _PAUSED in str(error):
            raise PartitionPaused(f"partition {self._partition} of stream {self._stream} is paused")
        raise error

    # --- subscribing --------------------------------------------------------------------------------------------------

    async def _open(self) -> None:
        """A call that is past its handshake, or the end."""
        if self._call is not None or self._ended:
            return
        deadline = Deadline(self._patience_s)
        fresh = False

        async def attempt() -> None:
            nonlocal fresh
            known, fresh = fresh, True
            await self._subscribe(await self._choose_server(deadline, fresh=known), deadline)

        try:
            await self._pin(deadline)
            await again(attempt, deadline, Unavailable)
        except ResourceExhausted:  # there is nothing up to the stop
            self._ended = True
        except InvalidRequest as error:
            if self._next is None or _NOTHING_LEFT not in str(error):
                raise
            self._ended = True

    async def _pin(self, deadline: Deadline) -> None:
        """Says by offsets what "new" and "latest" mean now, so that another call, after this one broke, means the same."""
        is_new = self._next is None and self._start.position == api.StartPosition.NEW_ONLY and not self._reverse
        to_latest = self._stop.position == api.StopPosition.STOP_LATEST
        if not is_new and not to_latest:
            return
        newest = await self._brokers.newest_offset(self._stream, self._partition, deadline)
        if newest is None:  # paused, for instance; then the server says what they mean, when it takes the call
            return
        if is_new:
            self._next = newest + 1
        if to_latest and newest >= 0:
            self._stop = StopAt.offset(newest)

    async def _choose_server(self, deadline: Deadline, *, fresh: bool) -> str:
        known = await self._brokers.stream(self._stream, deadline, fresh=fresh)
        if self._read_isr_replica:
            return random.choice(self._brokers.isr_addresses(known, self._partition))
        return self._brokers.leader_address(known, self._partition)

    async def _subscribe(self, address: str, deadline: Deadline) -> None:
        arrivals: asyncio.Queue[_Arrival] = asyncio.Queue()
        call = self._brokers.stream_call(
            address, "Subscribe", on_responses=arrivals.put_nowait, on_end=arrivals.put_nowait
        )
        call.send(self._request().SerializeToString())
        call.send_no_more()
        try:
            first = await _first_arrival(call, arrivals, min(_HANDSHAKE_S, deadline.remaining_s), address)
        except BaseException:
            call.close()
            raise
        if isinstance(first, RequestError):
            raise self._refusal(first, address)
        if first is None:
            raise Unavailable(f"{address} ended the subscription before it began")
        if self._ended:  # closed meanwhile
            call.close()
            return
        self._loop, self._call, self._arrivals = asyncio.get_running_loop(), call, arrivals
        call.acknowledge(first)
        self._decode(first[1:])  # an empty message says that the subscription began

    def _refusal(self, error: RequestError, address: str) -> RequestError:
        if isinstance(error, FailedPrecondition) and _NOT_LEADER in str(error):
            return Unavailable(str(error))
        if isinstance(error, FailedPrecondition) and _PAUSED in str(error):
            return PartitionPaused(f"partition {self._partition} of stream {self._stream} is paused")
        if isinstance(error, NotFound):  # that server may only have started; what metadata says next decides
            return Unavailable(f"{address} knows no partition {self._partition} of a stream {self._stream}")
        return error

    def _request(self) -> api.SubscribeRequest:
        start = self._start if self._next is None else StartAt.offset(max(self._next, 0))
        request = api.SubscribeRequest(
            stream=self._stream,
            partition=self._partition,
            startPosition=start.position,
            startOffset=start.start_offset,
            startTimestamp=start.start_timestamp_ns,
            stopPosition=self._stop.position,
            stopOffset=self._stop.stop_offset,
            stopTimestamp=self._stop.stop_timestamp_ns,
            readISRReplica=self._read_isr_replica,
            resume=self._resume,
            reverse=self._reverse,
        )
        if self._place is not None:
            place = self._place()
            request.consumer.CopyFrom(
                api.Consumer(groupId=place.group_id, groupEpoch=place.epoch, consumerId=place.consumer_id)
            )
        return request


async def _first_arrival(
    call: StreamCall, arrivals: "asyncio.Queue[_Arrival]", timeout_s: float, address: str
) -> _Arrival:
    """Raises Unavailable."""
    try:
        async with asyncio.timeout(timeout_s):
            await call.connect(timeout_s)
            return await arrivals.get()
    except TimeoutError:
        raise Unavailable(f"{address} doesn't answer") from None
