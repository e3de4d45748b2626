"""A member of a consumer group, that does what the Go client's consumer does, and tells a test what happened to it."""

import asyncio
import time
from binascii import crc32
from collections.abc import Mapping
from dataclasses import dataclass, field

import grpc
from api_client import ApiClient

from liftbridge.protocol.generated import api_pb2 as api

Place = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that a member processed, by a subscription with this epoch."""

    group: str
    consumer: str
    epoch: int
    place: Place
    offset: int
    time_s: float


@dataclass(frozen=True, slots=True)
class Held:
    """A member's subscription was accepted."""

    group: str
    consumer: str
    epoch: int
    place: Place
    time_s: float


@dataclass(slots=True)
class GroupHistory:
    """What all members of all groups did, in order."""

    deliveries: list[Delivery] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    #: What a member held when it was killed, and when.
    lost: list[tuple[str, Place, str, float]] = field(default_factory=list)


@dataclass(slots=True)
class _Reading:
    epoch: int
    task: "asyncio.Task[None]"
    subscribed: bool = False
    processed: int = -1
    checkpointed: int = -1


class GroupMember:
    """Reads from the cursor of its group, sets it after processing, and never leaves unless told to."""

    def __init__(
        self,
        addresses: Mapping[str, str],
        group: str,
        consumer: str,
        streams: list[str],
        history: GroupHistory,
        *,
        cursor_partitions: int,
        retry_s: float = 0.25,
        checkpoint_s: float = 1.0,
    ) -> None:
        self.group, self.consumer = group, consumer
        self._streams = streams
        self._history = history
        self._clients = {server: ApiClient(address) for server, address in addresses.items()}
        self._cursor_partitions = cursor_partitions
        self._retry_s = retry_s
        self._checkpoint_s = checkpoint_s
        self._metadata = api.FetchMetadataResponse()
        self._readings: dict[Place, _Reading] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._poll_s = self._report_after_s = 0.0
        self.coordinator, self.epoch = "", 0
        self.is_removed = False

    async def start(self) -> None:
        """Joins, by whichever server answers, and begins to consume."""
        joined = await self._anywhere("JoinConsumerGroup", streams=self._streams, **self._me())
        self.coordinator, self.epoch = joined.coordinator, joined.epoch
        self._poll_s = 0.4 * joined.consumerTimeout / 1e9
        self._report_after_s = joined.coordinatorTimeout / 1e9
        await self._refresh()
        self._tasks = [asyncio.create_task(self._follow()), asyncio.create_task(self._checkpoint())]

    async def kill(self) -> None:
        """As if its process were killed: nothing more is processed, no cursor set, nobody told."""
        now = time.monotonic()
        for place, reading in self._readings.items():
            if reading.subscribed and not reading.task.done():
                self._history.lost.append((self.group, place, self.consumer, now))
        tasks = self._tasks + [reading.task for reading in self._readings.values()]
        self._readings = {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for client in self._clients.values():
            await client.channel.close()

    async def leave(self) -> None:
        """In good order, as far as servers answer."""
        await self._anywhere("LeaveConsumerGroup", **self._me())
        await self.kill()

    @property
    def places(self) -> set[Place]:
        """What it reads now."""
        return {place for place, reading in self._readings.items() if reading.subscribed and not reading.task.done()}

    # --- following the coordinator ------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        answered_s = time.monotonic()
        while True:
            try:
                assigned = await self._clients[self.coordinator](
                    "FetchConsumerGroupAssignments", timeout=3, epoch=self.epoch, **self._me()
                )
            except (grpc.aio.AioRpcError, KeyError) as error:
                self.is_removed = isinstance(error, grpc.aio.AioRpcError) and "not a member" in str(error.details())
                await self._look_for_coordinator(answered_s)
                await asyncio.sleep(self._retry_s)
                continue
            answered_s = time.monotonic()
            self._take_over(
                {(one.stream, number) for one in assigned.assignments for number in one.partitions}, assigned.epoch
            )
            await asyncio.sleep(self._poll_s)

    async def _look_for_coordinator(self, answered_s: float) -> None:
        await self._refresh()
        known = (self.coordinator, self.epoch)
        (now,) = self._metadata.groupMetadata
        self.coordinator, self.epoch = now.coordinator, now.epoch
        if known == (now.coordinator, now.epoch) and time.monotonic() - answered_s > self._report_after_s:
            report = {"coordinator": self.coordinator, "epoch": self.epoch}
            try:
                await self._anywhere("ReportConsumerGroupCoordinator", **report, **self._me())
            except grpc.aio.AioRpcError:
                return  # somebody else's report was enough

    def _take_over(self, assigned: set[Place], epoch: int) -> None:
        for place, reading in list(self._readings.items()):
            if place not in assigned or reading.epoch != epoch or reading.task.done():
                reading.task.cancel()
                del self._readings[place]
        for place in assigned - set(self._readings):
            task = asyncio.create_task(self._read(place, epoch))
            self._readings[place] = _Reading(epoch, task)

    # --- reading ------------------------------------------------------------------------------------------------------

    async def _read(self, place: Place, epoch: int) -> None:
        """Until it is told that the partition is somebody else's; looks for the leader again when it is gone."""
        while True:
            try:
                await self._read_from_leader(place, epoch)
                return
            except (grpc.aio.AioRpcError, KeyError):
                await asyncio.sleep(self._retry_s)
                await self._refresh()

    async def _read_from_leader(self, place: Place, epoch: int) -> None:
        client = self._clients[self._leader(*place)]
        start = await self._fetch_cursor(place) + 1
        call = client.subscribe(
            stream=place[0],
            partition=place[1],
            startPosition=api.StartPosition.OFFSET,
            startOffset=start,
            consumer=api.Consumer(groupId=self.group, consumerId=self.consumer, groupEpoch=epoch),
        )
        try:
            await call.read()
            reading = self._readings[place]
            reading.subscribed = True
            self._history.held.append(Held(self.group, self.consumer, epoch, place, time.monotonic()))
            while (message := await call.read()) is not grpc.aio.EOF:
                now = time.monotonic()
                self._history.deliveries.append(Delivery(self.group, self.consumer, epoch, place, message.offset, now))
                reading.processed = message.offset
        finally:
            call.cancel()

    # --- cursors ------------------------------------------------------------------------------------------------------

    async def _checkpoint(self) -> None:
        while True:
            await asyncio.sleep(self._checkpoint_s)
            for place, reading in list(self._readings.items()):
                processed = reading.processed
                if processed != reading.checkpointed and not reading.task.done():
                    try:
                        await self._cursor_call("SetCursor", place, offset=processed)
                        reading.checkpointed = processed
                    except (grpc.aio.AioRpcError, KeyError):
                        await self._refresh()

    async def _fetch_cursor(self, place: Place) -> int:
        return int((await self._cursor_call("FetchCursor", place)).offset)

    async def _cursor_call(self, method: str, place: Place, **fields: int) -> api.FetchCursorResponse:
        cursor_id = f"__group:{self.group}"
        number = crc32(f"{cursor_id},{place[0]},{place[1]}".encode()) % self._cursor_partitions
        client = self._clients[self._leader("__cursors", number)]
        return await client(method, timeout=5, stream=place[0], partition=place[1], cursorId=cursor_id, **fields)

    # --- servers ------------------------------------------------------------------------------------------------------

    def _me(self) -> dict[str, str]:
        return {"groupId": self.group, "consumerId": self.consumer}

    def _leader(self, stream: str, number: int) -> str:
        """Raises KeyError when nobody is known to lead it."""
        for one in self._metadata.streamMetadata:
            if one.name == stream:
                return str(one.partitions[number].leader)
        raise KeyError(stream)

    async def _refresh(self) -> None:
        self._metadata = await self._anywhere("FetchMetadata", groups=[self.group])

    async def _anywhere(self, method: str, **fields: object) -> api.FetchMetadataResponse:
        """By the first server that answers, beginning with a different one for each member."""
        servers = sorted(self._clients)
        first = crc32(self.consumer.encode()) % len(servers)
        while True:
            for server in servers[first:] + servers[:first]:
                try:
                    return await self._clients[server](method, timeout=5, **fields)
                except grpc.aio.AioRpcError as error:
                    if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                        raise
            await asyncio.sleep(self._retry_s)
