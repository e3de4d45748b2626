"""A publisher whose server doesn't lead, while what the two servers say to each other gets lost and both live on."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from api_client import ApiClient
from broker_process import BrokerProcess
from cluster_processes import ClusterProcesses, eventually

from liftbridge.protocol.generated import api_pb2 as api

SERVERS = ("a", "b", "c")
STREAM = "stream"
BREAKS = 6
#: Between two of them, so that each has its own delay.
PAUSE_S = 1.5
CUT_S = 0.1
#: What is lost is asked for after half a second; NATS is reached again after a quarter. The rest is for a busy machine.
MOST_PATIENT_S = 4.0
PROGRAM = str(Path(__file__).parents[1] / "support" / "breakable_broker.py")


class Publisher:
    """Publishes numbers through one session, and notes when they are acked."""

    def __init__(self, client: ApiClient) -> None:
        self._session = client.publish_async()
        self.sent = 0
        self.offsets: list[tuple[int, int]] = []
        self.errors: list[api.PublishResponse] = []
        self.acked_at_s = [time.monotonic()]

    async def publish(self, end: asyncio.Event) -> None:
        while not end.is_set():
            value = str(self.sent)
            await self._session.write(
                api.PublishRequest(stream=STREAM, value=value.encode(), correlationId=value, ackPolicy=api.ALL)
            )
            self.sent += 1
            await asyncio.sleep(0.01)
        await self._session.done_writing()

    async def listen(self) -> None:
        async for answer in self._session:
            self.acked_at_s.append(time.monotonic())
            if answer.HasField("ack"):
                self.offsets.append((answer.ack.offset, int(answer.correlationId)))
            else:
                self.errors.append(answer)

    @property
    def longest_wait_s(self) -> float:
        return max(after - before for before, after in zip(self.acked_at_s, self.acked_at_s[1:], strict=False))


@pytest.fixture(params=["links", "NATS"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ClusterProcesses]:
    links = request.param == "links"
    cluster = ClusterProcesses(tmp_path, cables=not links, links=links, program=(PROGRAM,))
    cluster.form(*SERVERS)
    yield cluster
    cluster.kill()


async def test_what_gets_lost_between_two_servers_is_acked_soon_and_stored_once_in_order(
    cluster: ClusterProcesses,
) -> None:
    leader, other = await asyncio.to_thread(create, cluster)
    end = asyncio.Event()
    async with ApiClient(cluster.servers[other].address) as client:
        publisher = Publisher(client)
        publishing, listening = asyncio.create_task(publisher.publish(end)), asyncio.create_task(publisher.listen())
        for number in range(BREAKS):
            await asyncio.sleep(PAUSE_S)
            await lose(cluster, (leader, other)[number % 2])
        await asyncio.sleep(PAUSE_S)
        end.set()
        await asyncio.wait_for(asyncio.gather(publishing, listening), 30)
    stored = await read(cluster, leader)
    assert publisher.errors == []
    assert [int(message.value) for message in stored] == list(range(publisher.sent))
    assert sorted(publisher.offsets) == [(message.offset, int(message.value)) for message in stored]
    print(f"{publisher.sent} messages; the longest wait was {publisher.longest_wait_s:.2f} s")
    assert publisher.longest_wait_s < MOST_PATIENT_S


def create(cluster: ClusterProcesses) -> tuple[str, str]:
    """The leader of the stream, and a server that has no replica of it: all that they say to each other is forwarded."""
    cluster.call("a", "CreateStream", name=STREAM, subject=STREAM, replicationFactor=2)
    for server in SERVERS:
        eventually(lambda server=server: len(cluster.partition(server, STREAM).isr) == 2)
    partition = cluster.partition("a", STREAM)
    return str(partition.leader), next(one for one in SERVERS if one not in partition.replicas)


async def lose(cluster: ClusterProcesses, server_id: str) -> None:
    """What is on the way to that server, and the connection with it."""
    if cluster.cables is None:
        await asyncio.to_thread(eventually, partial(break_links, cluster.servers[server_id]))
    else:
        cluster.cables.cut(server_id)
        await asyncio.sleep(CUT_S)
        cluster.cables.mend(server_id)


def break_links(server: BrokerProcess) -> bool:
    """Whether something was lost. There are none for some seconds after they broke."""
    before = server.log().count("lost")
    os.kill(server.pid, signal.SIGUSR2)
    time.sleep(0.2)
    return server.log().count("lost") > before


async def read(cluster: ClusterProcesses, server_id: str) -> list[api.Message]:
    """All that is stored."""
    async with ApiClient(cluster.servers[server_id].address) as client:
        newest = (await client("FetchPartitionMetadata", stream=STREAM)).metadata.newestOffset
        return await client.messages(newest + 1, stream=STREAM, startPosition=api.StartPosition.EARLIEST)
