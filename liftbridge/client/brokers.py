"""Connections to a cluster's servers: which to ask, and asking again elsewhere when one is gone."""

import asyncio
import contextlib
import time
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from ssl import SSLContext
from typing import Any, TypeVar

import grpc

from liftbridge.client.failures import error_of
from liftbridge.client.metadata import ClusterMetadata, Stream, metadata_from_proto
from liftbridge.client.security import Tls
from liftbridge.client.stream_call import StreamCall
from liftbridge.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    RequestError,
    Unavailable,
)
from liftbridge.protocol.generated import api_pb2 as api

_Result = TypeVar("_Result")

#: What one server may take to let itself be connected to, before another one is tried.
_CONNECT_S = 1.0
_RETRY_S = 0.05
_CLOSED = "the client is closed"
#: What one server may take to say what the cluster consists of; the original waits 3 s for another one that is gone.
_ASK_S = 4.0
#: What the leader may take to say where a partition ends.
_NEWEST_S = 1.0
#: How long a stream that was just created may be unknown to the server that is asked.
_KNOWN_S = 2.0
_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.enable_retries", 0),
)


class Deadline:
    """A moment by which something is to be done."""

    def __init__(self, timeout_s: float) -> None:
        self._end_s = time.monotonic() + timeout_s

    @property
    def remaining_s(self) -> float:
        return max(0.0, self._end_s - time.monotonic())

    @property
    def passed(self) -> bool:
        return self.remaining_s == 0.0


class Brokers:
    """One connection for each server, and one for each streaming call. ``addresses`` are where to begin; the servers'
    metadata tells of the others."""

    def __init__(self, addresses: Sequence[str], *, tls: Tls | None, call_metadata: Mapping[str, str]) -> None:
        if not addresses:
            raise InvalidRequest("name at least one server, as host:port")
        self._addresses = list(dict.fromkeys(addresses))
        self.tls = tls
        self._credentials = tls.channel_credentials() if tls is not None else None
        self._options = [*_OPTIONS]
        if tls is not None and tls.server_name:
            self._options.append(("grpc.ssl_target_name_override", tls.server_name))  # type: ignore[arg-type]
        self.call_metadata = tuple(call_metadata.items())
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._stream_calls: weakref.WeakSet[StreamCall] = weakref.WeakSet()
        self._metadata = ClusterMetadata({}, {}, {})
        self._closed = False

    async def close(self) -> None:
        self._closed = True
        for call in list(self._stream_calls):
            call.end(InvalidRequest(_CLOSED))
        channels, self._channels = self._channels, {}
        await asyncio.gather(*(channel.close() for channel in channels.values()))

    # --- connections --------------------------------------------------------------------------------------------------

    def channel(self, address: str) -> grpc.aio.Channel:
        """The connection to a server, which may still have to be made."""
        self._check_open()
        channel = self._channels.get(address)
        if channel is None:
            if self._credentials is None:
                channel = grpc.aio.insecure_channel(address, options=self._options)
            else:
                channel = grpc.aio.secure_channel(address, self._credentials, options=self._options)
            self._channels[address] = channel
        return channel

    def _check_open(self) -> None:
        if self._closed:
            raise InvalidRequest(_CLOSED)

    async def connected(self, deadline: Deadline, *, first: str = "") -> str:
        """The address of a server that is connected, ``first`` if that one can be. Raises Unavailable when none can."""
        while True:
            for address in dict.fromkeys(filter(None, (first, *self._addresses))):
                if await self._connects(address, min(_CONNECT_S, deadline.remaining_s)):
                    return address
            if deadline.passed:
                raise Unavailable(f"no server can be reached at {', '.join(self._addresses)}: {self._doubts()}")

    def _doubts(self) -> str:
        if self.tls is None:
            return "is one running there?"
        own = "does it want a certificate of ours?" if self.tls.certificate is None else "does it trust ours?"
        return f"is one running there, is its certificate trusted, and {own}"

    async def _connects(self, address: str, timeout_s: float) -> bool:
        channel = self.channel(address)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                state = channel.get_state(try_to_connect=True)
                while state not in (grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.TRANSIENT_FAILURE):
                    await channel.wait_for_state_change(state)
                    state = channel.get_state(try_to_connect=True)
                if state is not grpc.ChannelConnectivity.READY:
                    await asyncio.sleep(_RETRY_S)
                return state is grpc.ChannelConnectivity.READY
        return False

    # --- calls --------------------------------------------------------------------------------------------------------

    async def call(
        self, method: str, request: Any, deadline: Deadline, *, address: str = "", elsewhere: bool = True
    ) -> Any:
        """A unary call to the server at ``address``, or, if it is away or none is named and ``elsewhere`` isn't denied, to
        any. Raises what :mod:`liftbridge.errors` has for it; a
        call that broke may have been carried out."""
        if elsewhere:
            address = await self.connected(deadline, first=address)
        elif not await self._connects(address, min(_CONNECT_S, deadline.remaining_s)):
            raise Unavailable(f"{address} can't be reached")
        return await self._unary(address, method, request, max(deadline.remaining_s, 0.001))

    async def _unary(self, address: str, method: str, request: Any, timeout_s: float | None) -> Any:
        unary = self.channel(address).unary_unary(
            f"/proto.API/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=getattr(api, f"{method}Response").FromString,
        )
        try:
            return await unary(request, timeout=timeout_s, metadata=self.call_metadata)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                self._ask_last(address)
            raise error_of(error, address) from None

    def stream_call(
        self,
        address: str,
        method: str,
        *,
        on_responses: Callable[[list[bytes]], None],
        on_end: Callable[[RequestError | None], None],
    ) -> StreamCall:
        """A streaming call that is still to be connected; it ends when the client is closed. Raises InvalidRequest when that
        happened already."""
        self._check_open()
        call = StreamCall(
            address,
            f"/proto.API/{method}",
            self.call_metadata,
            tls=self._tls_context,
            server_name=(self.tls.server_name or "") if self.tls is not None else "",
            on_responses=on_responses,
            on_end=on_end,
        )
        self._stream_calls.add(call)
        return call

    @cached_property
    def _tls_context(self) -> SSLContext | None:
        return self.tls.context() if self.tls is not None else None

    async def call_until_done(self, method: str, request: Any, deadline: Deadline) -> Any:
        """Like ``call``, and again, elsewhere too, while servers are away. For what may be done twice."""
        return await again(lambda: self.call(method, request, deadline), deadline, Unavailable)

    async def call_leader(
        self, method: str, request: Any, deadline: Deadline, *, stream: str, partition: Callable[[int], int]
    ) -> Any:
        """A call that only the leader of a partition takes; again while there is none, or another one.
        ``partition`` chooses among so many."""
        fresh = False

        async def attempt() -> Any:
            nonlocal fresh
            known = await self.stream(stream, deadline, fresh=fresh)
            fresh = True
            leader = self.leader_address(known, partition(len(known.partitions)))
            return await self.call(method, request, deadline, address=leader)

        return await again(attempt, deadline, Unavailable, FailedPrecondition)

    async def newest_offset(self, stream: str, partition: int, deadline: Deadline) -> int | None:
        """Of the partition's last message, -1 for none; None while nobody can say, when it is paused for instance, or when
        we aren't allowed to ask. Raises NotFound."""
        request = api.FetchPartitionMetadataRequest(stream=stream, partition=partition)
        with contextlib.suppress(FailedPrecondition, Unavailable, DeadlineExceeded, PermissionDenied):
            response = await self.call_leader(
                "FetchPartitionMetadata",
                request,
                Deadline(min(_NEWEST_S, deadline.remaining_s)),
                stream=stream,
                partition=lambda _: partition,
            )
            return int(response.metadata.newestOffset)
        return None

    # --- metadata -----------------------------------------------------------------------------------------------------

    async def fetch(self, request: api.FetchMetadataRequest, deadline: Deadline) -> ClusterMetadata:
        """From any server. What it says of the servers is remembered."""
        metadata = metadata_from_proto(await again(lambda: self._ask(request, deadline), deadline, Unavailable))
        advertised = (broker.address for broker in metadata.brokers.values())
        self._addresses = list(dict.fromkeys((*self._addresses, *advertised)))
        self._metadata = replace(self._metadata, brokers=metadata.brokers)
        return metadata

    async def _ask(self, request: api.FetchMetadataRequest, deadline: Deadline) -> Any:
        """The server isn't told the deadline: the original would wait just as long for a server that is dead, and then fail."""
        address = await self.connected(deadline)
        try:
            async with asyncio.timeout(min(_ASK_S, deadline.remaining_s)):
                return await self._unary(address, "FetchMetadata", request, None)
        except TimeoutError:
            self._ask_last(address)
            raise Unavailable(f"{address} doesn't answer") from None

    def _ask_last(self, address: str) -> None:
        """It took too long: maybe it stands still. The next calls try the others first."""
        self._addresses = [*(one for one in self._addresses if one != address), address]

    async def stream(self, name: str, deadline: Deadline, *, fresh: bool = False) -> Stream:
        """What is known of a stream. Raises NotFound."""
        if fresh or name not in self._metadata.streams:
            patience = Deadline(min(_KNOWN_S, deadline.remaining_s / 2))
            while True:
                self._metadata = await self.fetch(api.FetchMetadataRequest(), deadline)
                if name in self._metadata.streams:
                    break
                if patience.passed:
                    raise NotFound(f"there is no stream {name}")
                await asyncio.sleep(_RETRY_S)
        return self._metadata.streams[name]

    def forget(self, name: str) -> None:
        """What is known of a stream is no longer true."""
        streams = {known: stream for known, stream in self._metadata.streams.items() if known != name}
        self._metadata = replace(self._metadata, streams=streams)

    async def address_of(self, server_id: str, deadline: Deadline) -> str:
        """Raises Unavailable for a server that the cluster doesn't know, or that is away."""
        if server_id not in self._metadata.brokers:
            self._metadata = await self.fetch(api.FetchMetadataRequest(), deadline)
        return self._known_address(server_id)

    def _known_address(self, server_id: str) -> str:
        broker = self._metadata.brokers.get(server_id)
        if broker is None:
            raise Unavailable(f"server {server_id} is away")
        return broker.address

    def leader_address(self, stream: Stream, partition: int) -> str:
        """Raises NotFound without such a partition, Unavailable while nobody leads it."""
        if not 0 <= partition < len(stream.partitions):
            raise NotFound(f"stream {stream.name} has no partition {partition}; it has {len(stream.partitions)}")
        leader = stream.partitions[partition].leader
        if not leader:
            raise Unavailable(f"nobody leads partition {partition} of stream {stream.name} now")
        return self._known_address(leader)

    def isr_addresses(self, stream: Stream, partition: int) -> list[str]:
        """Of the replicas in sync that are there."""
        self.leader_address(stream, partition)
        return [self._known_address(one) for one in stream.partitions[partition].isr if one in self._metadata.brokers]


async def again(work: Callable[[], Awaitable[_Result]], deadline: Deadline, *causes: type[RequestError]) -> _Result:
    """What ``work`` returns, after as many attempts as the time allows while it raises one of ``causes``."""
    while True:
        try:
            return await work()
        except causes:
            if deadline.remaining_s < _RETRY_S:
                raise
            await asyncio.sleep(_RETRY_S)
