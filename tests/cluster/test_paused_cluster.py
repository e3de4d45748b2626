"""Paused and readonly partitions on three real brokers, one of which dies."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import nats
import pytest
from api_client import ApiClient, fails_with
from cluster_processes import ClusterProcesses, eventually

from liftbridge.protocol.generated import api_pb2 as api

SERVERS = ("a", "b", "c")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ClusterProcesses]:
    cluster = ClusterProcesses(tmp_path)
    cluster.form(*SERVERS)
    yield cluster
    cluster.kill()
    cluster.nats.stop()


def create(cluster: ClusterProcesses) -> tuple[str, list[str]]:
    """A stream on all servers; returns its leader and the others."""
    cluster.call("a", "CreateStream", name="s", subject="s", replicationFactor=3)
    for server in SERVERS:
        eventually(lambda server=server: cluster.partition(server, "s").leader)
    leader = cluster.partition("a", "s").leader
    return leader, [one for one in SERVERS if one != leader]


def pause(cluster: ClusterProcesses, by: str) -> None:
    cluster.call(by, "PauseStream", name="s")
    eventually(lambda: all(cluster.partition(one.server_id, "s").paused for one in cluster.running()))


async def values(cluster: ClusterProcesses, server_id: str, **fields: object) -> list[bytes]:
    async with ApiClient(cluster.servers[server_id].address) as client:
        messages = await client.messages(stream="s", startPosition=api.EARLIEST, stopPosition=api.STOP_LATEST, **fields)
    return [message.value for message in messages]


@pytest.mark.timeout(90)
def test_a_paused_partition_fails_over_and_a_publish_anywhere_resumes_it(cluster: ClusterProcesses) -> None:
    leader, others = create(cluster)
    for number in range(20):
        cluster.call(others[0], "Publish", stream="s", value=b"%d" % number, ackPolicy=api.ALL)
    pause(cluster, others[0])
    time.sleep(3)  # longer than a follower may be silent
    assert set(cluster.partition(others[0], "s").isr) == set(SERVERS), "paused followers are not out of sync"

    answer = cluster.call(others[1], "Publish", stream="s", value=b"20", ackPolicy=api.ALL)
    assert answer.ack.offset == 20
    pause(cluster, leader)
    cluster.servers[leader].kill()
    successor = eventually(lambda: (now := cluster.partition(others[0], "s").leader) in others and now)
    assert cluster.partition(others[0], "s").paused

    (publisher,) = [one for one in others if one != successor]
    answer = cluster.call(publisher, "Publish", stream="s", value=b"21", ackPolicy=api.ALL)
    assert answer.ack.offset == 21
    assert not cluster.partition(publisher, "s").paused
    cluster.start(leader)
    eventually(lambda: set(cluster.partition(successor, "s").isr) == set(SERVERS))
    expected = [b"%d" % number for number in range(22)]
    assert asyncio.run(values(cluster, successor)) == expected
    eventually(lambda: cluster.partition(leader, "s").highWatermark == 21)
    assert asyncio.run(values(cluster, leader, readISRReplica=True)) == expected


@pytest.mark.timeout(60)
async def test_plain_messages_wake_a_partition_whose_leader_died_while_it_was_paused(cluster: ClusterProcesses) -> None:
    leader, others = create(cluster)
    pause(cluster, leader)
    before = cluster.partition(others[0], "s").pauseTimestamps
    cluster.servers[leader].kill()
    successor = eventually(lambda: (now := cluster.partition(others[0], "s").leader) in others and now)
    async with await nats.connect(cluster.nats.url) as client:
        heard = asyncio.timeout(10)
        async with heard:
            while cluster.partition(
                others[0], "s"
            ).paused:  # the successor begins to listen a moment after its election
                await client.publish("s", b"x")
                await client.flush()
                await asyncio.sleep(0.05)
    eventually(lambda: cluster.partition(successor, "s").highWatermark >= 0)
    assert set(await values(cluster, successor)) == {b"x"}
    times = cluster.partition(others[1], "s").pauseTimestamps
    assert times.firstTimestamp == before.firstTimestamp < times.latestTimestamp


@pytest.mark.timeout(60)
async def test_a_session_through_another_server_keeps_its_order_while_the_partition_is_paused_again_and_again(
    cluster: ClusterProcesses,
) -> None:
    _, others = create(cluster)
    count = 200
    async with ApiClient(cluster.servers[others[0]].address) as client:
        session = client.publish_async()

        async def write() -> None:
            for number in range(count):
                await session.write(api.PublishRequest(stream="s", value=b"%d" % number, correlationId=str(number)))
                if number % 50 == 20:
                    await client("PauseStream", name="s")
            await session.done_writing()

        writing = asyncio.create_task(write())
        answers = [answer async for answer in session]
        await writing
    assert not [answer for answer in answers if answer.HasField("asyncError")]
    leader = cluster.partition("a", "s").leader
    assert await values(cluster, leader, resume=True) == [b"%d" % number for number in range(count)]


@pytest.mark.timeout(60)
async def test_readonly_holds_for_publishers_on_every_server_and_survives_a_failover(cluster: ClusterProcesses) -> None:
    leader, others = create(cluster)
    cluster.call(others[0], "Publish", stream="s", value=b"1", ackPolicy=api.ALL)
    cluster.call(others[0], "SetStreamReadonly", name="s", readonly=True)
    for server in SERVERS:
        eventually(lambda server=server: cluster.partition(server, "s").readonly)
        async with ApiClient(cluster.servers[server].address) as client:
            with fails_with(grpc.StatusCode.FAILED_PRECONDITION, "readonly partition: 0"):
                await client("Publish", stream="s", value=b"x")
            session = client.publish_async()
            await session.write(api.PublishRequest(stream="s", value=b"x", ackPolicy=api.NONE))
            assert (await session.read()).asyncError.code == api.PublishAsyncError.READONLY
            session.cancel()
    cluster.servers[leader].kill()
    successor = eventually(lambda: (now := cluster.partition(others[0], "s").leader) in others and now)
    for server in others:
        async with ApiClient(cluster.servers[server].address) as client:
            with fails_with(grpc.StatusCode.FAILED_PRECONDITION, "readonly partition: 0"):
                await client("Publish", stream="s", value=b"x", timeout=15)
    cluster.call(others[1], "SetStreamReadonly", name="s", readonly=False)
    answer = cluster.call(others[0], "Publish", stream="s", value=b"2", ackPolicy=api.ALL)
    assert answer.ack.offset == 1
    assert await values(cluster, successor) == [b"1", b"2"]
