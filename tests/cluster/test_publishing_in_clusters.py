"""Expected offsets and load-balance groups where publishers, leaders and members are on different servers."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import grpc
import nats
import pytest
from api_client import ApiClient, fails_with
from cluster_processes import ClusterProcesses, eventually

from liftbridge.protocol.generated import api_pb2 as api

SERVERS = ("a", "b", "c")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterProcesses]:
    cluster = ClusterProcesses(Path(tmp_path_factory.mktemp("cluster")))
    cluster.form(*SERVERS)
    yield cluster
    cluster.kill()
    cluster.nats.stop()


def create(cluster: ClusterProcesses, name: str, **fields: object) -> str:
    """Returns the leader, once all servers know the stream."""
    cluster.call("a", "CreateStream", name=name, **fields)
    for server in SERVERS:
        eventually(lambda server=server: cluster.partition(server, name).leader)
    return str(cluster.partition("a", name).leader)


def newest(cluster: ClusterProcesses, name: str) -> int:
    leader = cluster.partition("a", name).leader
    return int(cluster.call(leader, "FetchPartitionMetadata", stream=name).metadata.newestOffset)


async def test_expected_offsets_are_checked_by_the_leader_message_by_message_wherever_they_come_from(
    cluster: ClusterProcesses,
) -> None:
    leader = create(cluster, "occ", subject="occ", replicationFactor=3, optimisticConcurrencyControl={"value": True})
    for server in SERVERS:
        async with ApiClient(cluster.servers[server].address) as client:
            offset = (await client("Publish", stream="occ", value=b"any", expectedOffset=-1)).ack.offset
            with fails_with(grpc.StatusCode.UNKNOWN, "incorrect expected offset"):
                await client("Publish", stream="occ", value=b"x", expectedOffset=offset)
            with fails_with(grpc.StatusCode.INVALID_ARGUMENT, "must have AckPolicy set"):
                await client("Publish", stream="occ", value=b"x", ackPolicy=api.NONE, expectedOffset=-1)
            session = client.publish_async()
            expected = [offset + 1, offset + 1, offset + 2, -2, -1, offset + 4]
            for number, one in enumerate(expected):
                request = api.PublishRequest(stream="occ", value=b"x", expectedOffset=one, correlationId=str(number))
                await session.write(request)
            await session.done_writing()
            answers = {answer.correlationId: answer async for answer in session}
            codes = [answers[str(number)].asyncError.code for number in range(len(expected))]
            wrong = api.PublishAsyncError.INCORRECT_OFFSET
            assert codes == [0, wrong, 0, wrong, 0, 0], f"through {server}, led by {leader}"
            stored = [answers[str(number)].ack.offset for number in (0, 2, 4, 5)]
            assert stored == [offset + 1, offset + 2, offset + 3, offset + 4]


async def test_members_of_a_group_on_different_servers_share_what_is_published(cluster: ClusterProcesses) -> None:
    names = [f"member-{number}" for number in range(6)]
    leaders = {create(cluster, name, subject="work", group="workers") for name in names}
    assert len(leaders) > 1
    create(cluster, "everything", subject="work")
    count = 300
    async with await nats.connect(cluster.nats.url) as client:
        for number in range(count):
            await client.publish("work", b"%d" % number)
        await client.flush()
    async with ApiClient(cluster.servers["b"].address) as client:
        for number in range(20):
            answer = await client("Publish", stream=names[0], value=b"%d" % number)
            assert answer.ack.stream in (*names, "everything")
    async with asyncio.timeout(10):
        while newest(cluster, "everything") + 1 < count + 20:
            await asyncio.sleep(0.05)
    eventually(lambda: sum(newest(cluster, name) + 1 for name in names) == count + 20)
    assert newest(cluster, "everything") + 1 == count + 20
