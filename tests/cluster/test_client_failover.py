"""The client library on three servers whose leaders are killed, one after the other."""

import asyncio
import contextlib
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pytest
from cluster_processes import ClusterProcesses
from original_process import Flavour

from liftbridge.client import AckPolicy, Client, StartAt, stream_call
from liftbridge.errors import DeadlineExceeded, Unavailable

_FAILOVERS = 3
#: How many messages are acked before a leader is killed, and between two kills.
_BETWEEN = 60
_CONSUMER = Path(__file__).parents[1] / "support" / "consume.py"
_IMPATIENT = {
    "clustering.replica.max.leader.timeout": "1s",
    "clustering.replica.max.lag.time": "2s",
    "clustering.replica.max.idle.wait": "200ms",
    "clustering.replica.fetch.timeout": "500ms",
    "cursors.stream.partitions": "1",
    "groups.consumer.timeout": "3s",
}


@pytest.fixture
def cluster(flavour: Flavour) -> Iterator[ClusterProcesses]:
    cluster = flavour.start_cluster(_IMPATIENT)
    yield cluster
    cluster.kill()


@pytest.fixture
async def client(cluster: ClusterProcesses) -> AsyncIterator[Client]:
    async with Client([server.address for server in cluster.servers.values()]) as client:
        yield client


class Publishing:
    """Publishes numbers with policy ALL, one after the other, to the partitions in turn."""

    def __init__(self, client: Client, stream: str, partitions: int) -> None:
        self._client = client
        self._stream = stream
        self._partitions = partitions
        self._numbers = count()
        self.acked: set[str] = set()

    async def publish(self, messages: int) -> None:
        for _ in range(messages):
            number = next(self._numbers)
            async with asyncio.timeout(60):
                await self._until_acked(str(number), number % self._partitions)

    async def _until_acked(self, value: str, partition: int) -> None:
        """What broke on its way may be stored twice."""
        while value not in self.acked:
            try:
                await self._client.publish(
                    self._stream, value.encode(), partition=partition, ack_policy=AckPolicy.ALL, timeout_s=1
                )
                self.acked.add(value)
            except (Unavailable, DeadlineExceeded):
                continue


async def fail_over(client: Client, cluster: ClusterProcesses, stream: str, publishing: Publishing) -> None:
    """Kills the leader of the first partition, goes on publishing without it, and brings it back."""
    metadata = await client.fetch_metadata(streams=[stream], timeout_s=20)
    leader = metadata.streams[stream].partitions[0].leader
    await asyncio.to_thread(cluster.servers[leader].kill)
    await publishing.publish(_BETWEEN)
    await asyncio.to_thread(cluster.start, leader)
    async with asyncio.timeout(60):
        while len((await client.fetch_partition_metadata(stream, timeout_s=20)).isr) < 3:
            await asyncio.sleep(0.1)


@pytest.mark.timeout(240)
async def test_a_subscription_hears_everything_once_while_leaders_are_killed(
    client: Client, cluster: ClusterProcesses
) -> None:
    await client.create_stream("s", "s", replication_factor=3)
    publishing = Publishing(client, "s", 1)
    seen: list[tuple[int, str]] = []

    async def read() -> None:
        async for message in client.subscribe("s", start=StartAt.earliest()):
            seen.append((message.offset, message.value.decode()))

    reader = asyncio.create_task(read())
    await publishing.publish(_BETWEEN)
    for _ in range(_FAILOVERS):
        await fail_over(client, cluster, "s", publishing)
    async with asyncio.timeout(30):
        while not reader.done() and not publishing.acked <= {value for _, value in seen}:
            await asyncio.sleep(0.05)
    reader.cancel()
    await asyncio.gather(reader, return_exceptions=True)
    assert [offset for offset, _ in seen] == list(range(len(seen)))
    assert publishing.acked <= {value for _, value in seen}


@pytest.mark.timeout(240)
async def test_a_server_that_stands_still_is_asked_last(cluster: ClusterProcesses) -> None:
    still, *others = cluster.servers.values()
    async with Client([still.address, *(server.address for server in others)]) as client:
        await client.fetch_metadata()
        os.kill(still.pid, signal.SIGSTOP)
        try:
            with contextlib.suppress(DeadlineExceeded):
                await client.publish_to_subject("nobody", b"x", timeout_s=0.5, ack_policy=AckPolicy.NONE)
            await client.publish_to_subject("nobody", b"x", timeout_s=5, ack_policy=AckPolicy.NONE)
        finally:
            os.kill(still.pid, signal.SIGCONT)


@pytest.mark.timeout(240)
async def test_a_subscription_leaves_a_leader_that_stands_still(
    client: Client, cluster: ClusterProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_call, "_SILENT_S", 1)
    await client.create_stream("s", "s", replication_factor=3)
    publishing = Publishing(client, "s", 1)
    async with client.subscribe("s", start=StartAt.earliest()) as subscription, asyncio.timeout(60):
        await publishing.publish(1)
        assert (await anext(subscription)).value == b"0"
        leader = (await client.fetch_metadata(streams=["s"])).streams["s"].partitions[0].leader
        os.kill(cluster.servers[leader].pid, signal.SIGSTOP)
        try:
            await publishing.publish(1)
            assert (await anext(subscription)).value == b"1"
        finally:
            os.kill(cluster.servers[leader].pid, signal.SIGCONT)


@dataclass
class Member:
    """What a member of the group printed: offsets by partition, and those of them that are committed."""

    process: asyncio.subprocess.Process
    handed_out: list[tuple[int, int]] = field(default_factory=list)
    committed: set[tuple[int, int]] = field(default_factory=set)
    values: set[str] = field(default_factory=set)

    @classmethod
    async def start(cls, cluster: ClusterProcesses) -> "Member":
        addresses = [server.address for server in cluster.servers.values()]
        return cls(
            await asyncio.create_subprocess_exec(
                sys.executable, _CONSUMER, "group", "s", *addresses, stdout=asyncio.subprocess.PIPE
            )
        )

    async def follow(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            words = line.decode().split()
            if words[0] == "commit":
                self.committed = set(self.handed_out)
            else:
                self.handed_out.append((int(words[1]), int(words[2])))
                self.values.add(words[3])


@pytest.mark.timeout(240)
@pytest.mark.only_ours("the original keeps cursors on the server that began the cluster: they are away when it is")
async def test_a_group_hears_everything_while_leaders_are_killed_and_repeats_only_what_a_dead_member_left(
    client: Client, cluster: ClusterProcesses
) -> None:
    await client.create_stream("s", "s", partitions=2, replication_factor=3)
    publishing = Publishing(client, "s", 2)
    members = [await Member.start(cluster) for _ in range(2)]
    following = [asyncio.create_task(member.follow()) for member in members]

    async def until_all_is_heard() -> None:
        async with asyncio.timeout(30):
            while not publishing.acked <= {value for member in members for value in member.values}:
                await asyncio.sleep(0.05)

    try:
        await publishing.publish(_BETWEEN)
        async with asyncio.timeout(30):
            while not all(member.handed_out for member in members):
                await publishing.publish(2)
        await until_all_is_heard()
        before = repeats(members)
        for _ in range(_FAILOVERS):
            await fail_over(client, cluster, "s", publishing)
        await until_all_is_heard()
        assert repeats(members) == before, "members that live hear nothing twice"
        members[0].process.kill()
        await following[0]
        await publishing.publish(_BETWEEN)
        await until_all_is_heard()
        again = repeats(members) - before
        assert not again.keys() & members[0].committed, "what a member committed before it died doesn't come again"
    finally:
        for member in members:
            if member.process.returncode is None:
                member.process.kill()
        await asyncio.gather(*following)


def repeats(members: list[Member]) -> Counter[tuple[int, int]]:
    """How often each message was handed out, less once."""
    everything = Counter(place for member in members for place in member.handed_out)
    return everything - Counter(everything.keys())
