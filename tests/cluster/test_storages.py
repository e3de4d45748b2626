"""A broker with another storage, chosen by the config and by nothing else."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from api_client import ApiClient
from broker_process import BrokerProcess
from cluster_processes import ClusterProcesses, eventually

from liftbridge.protocol.generated import api_pb2 as api

MESSAGES = 2000


async def publish(client: ApiClient, first: int, count: int) -> None:
    """Publishes numbers and waits until each is acked."""
    session = client.publish_async()
    for number in range(first, first + count):
        await session.write(api.PublishRequest(stream="s", value=b"%d" % number, correlationId=str(number)))
    for number in range(first, first + count):
        answer = await session.read()
        assert answer.ack.offset == number, answer
    session.cancel()


async def replayed(client: ApiClient, **more: object) -> list[bytes]:
    messages = await client.messages(stream="s", startPosition=api.EARLIEST, stopPosition=api.STOP_LATEST, **more)
    return [message.value for message in messages]


# --- SQLite -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("durability", ["page", "sync"])
async def test_a_broker_on_sqlite_replays_after_a_kill_what_it_acked(tmp_path: Path, durability: str) -> None:
    config = tmp_path / "server.conf"
    config.write_text(f"[storage]\nlog = sqlite\n[streams]\ndurability = {durability}\n")
    broker = BrokerProcess(tmp_path / "data", "--config", str(config))
    broker.start()
    async with ApiClient(broker.address) as client:
        await client("CreateStream", name="s", subject="s")
        await publish(client, 0, MESSAGES)
    broker.kill()
    broker.start()
    async with ApiClient(broker.address) as client:
        assert await replayed(client) == [b"%d" % number for number in range(MESSAGES)]
        await publish(client, MESSAGES, 10)
        await client("DeleteStream", name="s")
    assert broker.stop() == 0
    assert [path.name for path in (broker.data_dir / "sqlite").iterdir()] == ["lock"]
    assert not (broker.data_dir / "streams").exists()


@pytest.fixture
def mixed_cluster(tmp_path: Path) -> Iterator[ClusterProcesses]:
    """Three servers: one on SQLite, two on segment files."""
    cluster = ClusterProcesses(tmp_path)
    cluster.add("a", "--set", "storage.log=sqlite", bootstrap=("--raft-bootstrap-seed",))
    cluster.add("b")
    cluster.add("c")
    cluster.start("a", "b", "c")
    yield cluster
    cluster.kill()


@pytest.mark.slow
async def test_servers_with_different_storages_replicate_and_fail_over(mixed_cluster: ClusterProcesses) -> None:
    cluster = mixed_cluster
    cluster.call("a", "CreateStream", name="s", subject="s", replicationFactor=3)
    eventually(lambda: len(cluster.partition("a", "s").isr) == 3)
    expected: list[bytes] = []

    def publish_one(number: int) -> bool:
        leader = cluster.partition(cluster.running()[0].server_id, "s").leader
        cluster.call(leader, "Publish", timeout=3, stream="s", value=b"%d" % number, ackPolicy=api.ALL)
        expected.append(b"%d" % number)
        return True

    for number in range(50):
        eventually(lambda: publish_one(number))  # noqa: B023
    for round_, server_id in enumerate(("a", "b", "c")):  # each storage has led and followed by the end of this
        cluster.servers[server_id].kill()
        running = cluster.running()[0].server_id
        eventually(lambda: cluster.partition(running, "s").leader not in ("", server_id))  # noqa: B023
        eventually(lambda: publish_one(1000 + round_))  # noqa: B023
        cluster.start(server_id)
        eventually(lambda: len(cluster.partition(server_id, "s").isr) == 3)  # noqa: B023
    for server in cluster.running():
        async with ApiClient(server.address) as client:
            found = await replayed(client, readISRReplica=True)
        assert list(dict.fromkeys(found)) == expected  # an attempt whose answer was lost may be there besides


# --- memory -----------------------------------------------------------------------------------------------------------

IN_MEMORY = """
[storage]
log = memory
index = memory
stable = memory
"""


async def test_a_broker_in_memory_serves_and_forgets(tmp_path: Path) -> None:
    config = tmp_path / "server.conf"
    config.write_text(IN_MEMORY)
    broker = BrokerProcess(tmp_path / "data", "--config", str(config))
    broker.start()
    async with ApiClient(broker.address) as client:
        await client("CreateStream", name="s", subject="s")
        await publish(client, 0, MESSAGES)
        assert await replayed(client) == [b"%d" % number for number in range(MESSAGES)]
    assert "every message is lost when this process ends" in broker.log()
    assert broker.stop() == 0
    broker.start()
    async with ApiClient(broker.address) as client:
        assert not (await client("FetchMetadata")).streamMetadata
        await client("CreateStream", name="s", subject="s")
        await publish(client, 0, 10)
    broker.stop()


async def test_a_broker_needs_no_nats_with_the_transport_in_memory(tmp_path: Path) -> None:
    config = tmp_path / "server.conf"
    config.write_text(f"transport = memory\n{IN_MEMORY}")
    broker = BrokerProcess(tmp_path / "data", "--config", str(config), nats_url="nats://127.0.0.1:1")
    broker.start()
    async with ApiClient(broker.address) as client:
        await client("CreateStream", name="s", subject="s", partitions=2)
        await publish(client, 0, MESSAGES)
        assert await replayed(client) == [b"%d" % number for number in range(MESSAGES)]
        await client("PublishToSubject", subject="s", value=b"by subject")
        assert (await replayed(client))[-1] == b"by subject"
    assert broker.stop() == 0
