"""Messages of one partition, wherever its leader is."""

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import grpc

from liftbridge.client.brokers import Brokers, Deadline, again
from liftbridge.client.failures import PartitionPaused, error_of
from liftbridge.client.positions import StartAt, StopAt
from liftbridge.client.records import Message, message_from_proto
from liftbridge.errors import FailedPrecondition, NotFound, RequestError, ResourceExhausted, Unavailable, UnknownError
from liftbridge.protocol.generated import api_pb2 as api

#: For one server to accept or refuse.
_HANDSHAKE_S = 5.0
#: For the leader to say where a partition ends.
_PIN_S = 1.0
#: How a server that isn't the leader (any more) refuses; another one, or the same a moment later, will not.
_NOT_LEADER = "Server not partition leader"
_PAUSED = "commit log was closed"


@dataclass(frozen=True, slots=True)
class GroupPlace:
    """As which member of which generation of a consumer group somebody subscribes."""

    group_id: str
    consumer_id: str
    epoch: int


class Subscription:
    """An async iterator of :class:`Message`, in order, each once: when a server dies or hands over, it goes on where it was
    with the next leader. Only what is committed is delivered.

    The iteration ends where the stop position says, at the end of a readonly partition, and, in a consumer group, when
    another member took the partition over. It raises NotFound when the stream is deleted, PartitionPaused when the
    partition is paused, and what the server said when the subscription is refused. Leave it by ``async with`` or
    ``close``; an iteration that isn't finished keeps a call open.
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
            try:
                message = await self._call.read()
            except grpc.aio.AioRpcError as error:
                self._call = None
                self._end_or_go_on(error_of(error, self._address))
                continue
            if message is grpc.aio.EOF:
                break
            self._start = StartAt.offset(max(message.offset - 1, 0) if self._reverse else message.offset + 1)
            if self._reverse and message.offset == 0:
                self._ended = True
                self._call.cancel()
            return message_from_proto(message)
        await self.close()
        raise StopAsyncIteration

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
            if self._start.position == api.StartPosition.NEW_ONLY and not self._reverse:
                await self._pin_start(deadline)
            await again(attempt, deadline, Unavailable)
        except ResourceExhausted:  # there is nothing up to the stop
            self._ended = True

    async def _pin_start(self, deadline: Deadline) -> None:
        """Says by its offset what "new" means now, so that a call that breaks before the first message loses none."""
        request = api.FetchPartitionMetadataRequest(stream=self._stream, partition=self._partition)
        with contextlib.suppress(FailedPrecondition, Unavailable):  # paused, for instance: then "new" is later
            response = await self._brokers.call_leader(
                "FetchPartitionMetadata",
                request,
                Deadline(min(_PIN_S, deadline.remaining_s)),
                stream=self._stream,
                partition=lambda _: self._partition,
            )
            self._start = StartAt.offset(response.metadata.newestOffset + 1)

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
            raise self._refusal(error_of(error, address)) from None
        if handshake is grpc.aio.EOF:
            raise Unavailable(f"{address} ended the subscription before it began")
        self._call, self._address = call, address

    def _refusal(self, error: RequestError) -> RequestError:
        if isinstance(error, FailedPrecondition) and _NOT_LEADER in str(error):
            return Unavailable(str(error))
        if isinstance(error, FailedPrecondition) and _PAUSED in str(error):
            return PartitionPaused(f"partition {self._partition} of stream {self._stream} is paused")
        if isinstance(error, NotFound):
            return NotFound(f"there is no partition {self._partition} of a stream {self._stream}")
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
