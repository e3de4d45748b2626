"""Load and chaos on a real cluster: publishers and readers that go on whatever happens, and a hand that kills and freezes."""

import asyncio
import logging
import os
import signal
import time
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count, pairwise

import grpc
from api_client import ApiClient
from cluster_processes import ClusterProcesses
from history import PartitionHistory

from liftbridge.protocol.generated import api_pb2 as api

logger = logging.getLogger(__name__)

_WINDOW = 64
_DEFINITE = (
    api.PublishAsyncError.READONLY,
    api.PublishAsyncError.NOT_FOUND,
    api.PublishAsyncError.BAD_REQUEST,
    api.PublishAsyncError.INTERNAL,
)


@dataclass(slots=True)
class Soak:
    """One stream under load. ``ack_times_s`` are the moments at which each partition's acks came."""

    cluster: ClusterProcesses
    stream: str
    partitions: int
    histories: dict[int, PartitionHistory] = field(default_factory=dict)
    ack_times_s: dict[int, list[float]] = field(default_factory=dict)
    #: Refusals that a publisher can't answer by trying again.
    strange_errors: list[api.PublishAsyncError] = field(default_factory=list)
    #: Every refusal.
    errors: list[api.PublishAsyncError] = field(default_factory=list)
    stopping: bool = False

    def __post_init__(self) -> None:
        for number in range(self.partitions):
            self.histories[number] = PartitionHistory()
            self.ack_times_s[number] = []

    # --- publishing ---------------------------------------------------------------------------------------------------

    async def publish(self, server_id: str, partition: int) -> None:
        """Publishes through one server, again and again, until the soak stops; each value once. With a publisher for
        each server, the time without acks is the cluster's doing, not that of a publisher whose server is frozen."""
        server, publisher = self.cluster.servers[server_id], f"through {server_id}"
        values = (b"%s-%d-%d" % (server_id.encode(), partition, number) for number in count())
        for session in count():
            if self.stopping:
                return
            attempted = self.histories[partition].attempted.setdefault(f"{publisher}, session {session}", [])
            try:
                async with ApiClient(server.address) as client:
                    await self._publish_session(client, partition, values, attempted)
            except (grpc.RpcError, asyncio.InvalidStateError) as error:
                logger.debug("%s: session ended: %s", publisher, error)
                await asyncio.sleep(0.05)

    async def _publish_session(
        self, client: ApiClient, partition: int, values: Iterator[bytes], attempted: list[bytes]
    ) -> None:
        call = client.publish_async()
        slots = asyncio.Semaphore(_WINDOW)
        reader = asyncio.create_task(self._read_answers(call, partition, slots))
        reader.add_done_callback(lambda _: slots.release())  # whoever waits for a slot looks at the reader again
        try:
            while not self.stopping and not reader.done():
                await asyncio.wait_for(slots.acquire(), 15)
                if reader.done():
                    break
                value = next(values)
                attempted.append(value)
                request = api.PublishRequest(
                    stream=self.stream,
                    partition=partition,
                    value=value,
                    correlationId=value.decode(),
                    ackPolicy=api.AckPolicy.ALL,
                )
                await call.write(request)
            if not reader.done():
                await call.done_writing()
                await asyncio.wait_for(reader, 15)
        except TimeoutError:
            logger.info("partition %d: no answer for 15 s", partition)
        finally:
            call.cancel()
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def _read_answers(self, call: grpc.aio.StreamStreamCall, partition: int, slots: asyncio.Semaphore) -> None:
        history = self.histories[partition]
        while True:
            answer = await call.read()
            if answer is grpc.aio.EOF:
                return
            slots.release()
            value = answer.correlationId.encode()
            if not answer.HasField("asyncError"):
                history.acked[value] = answer.ack.offset
                self.ack_times_s[partition].append(time.monotonic())
                continue
            self.errors.append(answer.asyncError)
            if answer.asyncError.code in _DEFINITE:
                history.refused.add(value)
                if answer.asyncError.code != api.PublishAsyncError.INTERNAL:
                    self.strange_errors.append(answer.asyncError)

    # --- reading ------------------------------------------------------------------------------------------------------

    async def read(self, reader: str, partition: int) -> None:
        """Follows the partition from its beginning, from whichever server leads it, until cancelled."""
        seen = self.histories[partition].read.setdefault(reader, [])
        while True:
            for server in list(self.cluster.servers.values()):
                try:
                    async with ApiClient(server.address) as client:
                        start = {"startPosition": api.StartPosition.OFFSET, "startOffset": len(seen)}
                        call = client.subscribe(stream=self.stream, partition=partition, **start)
                        await self._read_all(call, seen)
                except grpc.RpcError as error:
                    logger.debug("%s: %s", reader, error)
            await asyncio.sleep(0.05)

    async def _read_all(self, call: grpc.aio.UnaryStreamCall, seen: list[tuple[int, bytes]]) -> None:
        handshake = True
        async for message in call:
            if not handshake:
                seen.append((message.offset, message.value))
            handshake = False

    # --- chaos --------------------------------------------------------------------------------------------------------

    def first_ack_after_s(self, partition: int, moment_s: float) -> float | None:
        """Seconds from the moment to the next ack; None if there is none."""
        times_s = self.ack_times_s[partition]
        place = bisect_right(times_s, moment_s)
        return times_s[place] - moment_s if place < len(times_s) else None

    def longest_gap_s(self, partition: int, since_s: float) -> float:
        """The longest time without an ack between the moment and the latest ack."""
        times_s = self.ack_times_s[partition]
        return max(
            (later - earlier for earlier, later in pairwise([since_s, *times_s[bisect_right(times_s, since_s) :]])),
            default=0.0,
        )


async def frozen(pid: int, duration_s: float) -> None:
    """SIGSTOP, and SIGCONT when the time is over."""
    os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(duration_s)
    finally:
        os.kill(pid, signal.SIGCONT)
