"""Messages of one partition, wherever its leader is."""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import grpc

from liftbridge.client.brokers import Brokers, Deadline, again
from liftbridge.client.failures import PartitionPaused, error_of
from liftbridge.client.positions import StartAt, StopAt
from liftbridge.client.records import Message, message_from_proto
from liftbridge.errors import (
    FailedPrecondition,
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


@dataclass(frozen=True, slots=True)
class GroupPlace:
    """As which member of which generation of a consumer group somebody subscribes."""

    group_id: str
    consumer_id: str
    epoch: int


class Subscription:
    """An async iterator of :class:`Message`, in the order of offsets, each once: when a server dies or hands over, it goes
    on where it was with the next leader. Only what is committed is delivered. One task at a time may iterate; a wait
    for the next message may be cancelled, by ``asyncio.timeout`` for instance, and costs no message.

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
        self._call: Any = None
        self._address = ""
        self._ended = False
        #: The offset of the message to come or, in a compacted partition, one before it; None before the first.
        self._next: int | None = None

    async def __aenter__(self) -> Self:
        """Subscribes; without ``async with``, the first message does. Raises what the server answers."""
        await self._open()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Idempotent."""
        self._ended = True
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        while not self._ended:
            if self._call is None:
                await self._open()
                continue
            message = await self._read()
            if message is None or self._is_behind(message.offset):
                continue
            if self._is_past_the_stop(message.offset):  # the message at the stop is gone, and the original goes on
                break
            self._advance(message.offset)
            return message_from_proto(message)
        await self.close()
        raise StopAsyncIteration

    async def _read(self) -> api.Message | None:
        """The call's next message; None when it ended, and then it is decided whether another one goes on."""
        try:
            message = await self._call.read()
        except grpc.aio.AioRpcError as error:
            self._call = None
            self._end_or_go_on(error_of(error, self._address))
            return None
        except asyncio.CancelledError:  # which grpcio takes for the end of the call
            self._call = None
            raise
        if message is grpc.aio.EOF:
            self._ended = True
            return None
        return message  # type: ignore[no-any-return]

    def _is_behind(self, offset: int) -> bool:
        """A server that doesn't know yet how far the partition is committed begins below the offset that it is asked for."""
        if self._next is None:
            return False
        return offset > self._next if self._reverse else offset < self._next

    def _advance(self, offset: int) -> None:
        self._next = offset - 1 if self._reverse else offset + 1
        self._start = StartAt.offset(max(self._next, 0))
        if self._is_past_the_stop(self._next):
            self._ended = True
            self._call.cancel()

    def _is_past_the_stop(self, offset: int) -> bool:
        if self._reverse:
            return offset < 0
        return self._stop.position == api.StopPosition.STOP_OFFSET and offset > self._stop.stop_offset

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
        is_new = self._start.position == api.StartPosition.NEW_ONLY and not self._reverse
        to_latest = self._stop.position == api.StopPosition.STOP_LATEST
        if not is_new and not to_latest:
            return
        newest = await self._brokers.newest_offset(self._stream, self._partition, deadline)
        if newest is None:  # paused, for instance; then the server says what they mean, when it takes the call
            return
        if is_new:
            self._next = newest + 1
            self._start = StartAt.offset(newest + 1)
        if to_latest and newest >= 0:
            self._stop = StopAt.offset(newest)

    async def _choose_server(self, deadline: Deadline, *, fresh: bool) -> str:
        known = await self._brokers.stream(self._stream, deadline, fresh=fresh)
        if self._read_isr_replica:
            return random.choice(self._brokers.isr_addresses(known, self._partition))
        return self._brokers.leader_address(known, self._partition)

    async def _subscribe(self, address: str, deadline: Deadline) -> None:
        await self._brokers.connected(deadline, first=address)
        call = self._brokers.channel(address).unary_stream(
            "/proto.API/Subscribe",
            request_serializer=api.SubscribeRequest.SerializeToString,
            response_deserializer=api.Message.FromString,
        )(self._request(), metadata=self._brokers.call_metadata)
        try:
            handshake = await _in_time(call, min(_HANDSHAKE_S, deadline.remaining_s), address)
        except grpc.aio.AioRpcError as error:
            raise self._refusal(error_of(error, address), address) from None
        if handshake is grpc.aio.EOF:
            raise Unavailable(f"{address} ended the subscription before it began")
        self._call, self._address = call, address

    def _refusal(self, error: RequestError, address: str) -> RequestError:
        if isinstance(error, FailedPrecondition) and _NOT_LEADER in str(error):
            return Unavailable(str(error))
        if isinstance(error, FailedPrecondition) and _PAUSED in str(error):
            return PartitionPaused(f"partition {self._partition} of stream {self._stream} is paused")
        if isinstance(error, NotFound):  # that server may only have started; what metadata says next decides
            return Unavailable(f"{address} knows no partition {self._partition} of a stream {self._stream}")
        return error

    def _request(self) -> api.SubscribeRequest:
        request = api.SubscribeRequest(
            stream=self._stream,
            partition=self._partition,
            startPosition=self._start.position,
            startOffset=self._start.start_offset,
            startTimestamp=self._start.start_timestamp_ns,
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


async def _in_time(call: Any, timeout_s: float, address: str) -> Any:
    """The call's first message."""
    try:
        async with asyncio.timeout(timeout_s):
            return await call.read()
    except TimeoutError:
        call.cancel()
        raise Unavailable(f"{address} doesn't answer") from None
