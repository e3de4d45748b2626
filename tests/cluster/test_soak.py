"""Three real servers under load while a hand kills, freezes and cuts them off: nothing acked is lost, whoever dies.

``LIFTBRIDGE_TEST_SOAK_S=900 pytest tests/cluster/test_soak.py -s`` is the whole of it; a run of the suite does a little.
"""

import asyncio
import contextlib
import gc
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median

import pytest
from api_client import ApiClient
from cluster_processes import ClusterProcesses, eventually
from history import describe, percentile, problems_of
from soak import Soak, frozen

from liftbridge.protocol.generated import api_pb2 as api

SOAK_S = float(os.environ.get("LIFTBRIDGE_TEST_SOAK_S", "15"))
SEED = int(os.environ.get("LIFTBRIDGE_TEST_SOAK_SEED", "0")) or random.randrange(1, 1 << 31)
SERVERS = ("a", "b", "c")
STREAM, PARTITIONS = "soak", 3
FREEZE_S = 3.0
ACTIONS = (
    *("kill leader", "kill metadata leader", "kill both leaders", "kill follower", "kill all"),
    *("freeze leader", "silence leader", "cut leader", "cut metadata leader", "silence follower"),
    *("restart NATS", "freeze NATS"),
)
#: After these, somebody else leads the partition.
COSTS_THE_LEADER = ("kill leader", "freeze leader", "silence leader", "cut leader")
#: What failing over takes at most, with default settings and more processes than cores.
MEDIAN_LIMIT_S, WORST_LIMIT_S = 5.0, 15.0


@pytest.fixture(params=[True, False], ids=["links", "no_links"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ClusterProcesses]:
    """Without direct links, a server whose cable is cut is alone; with them, it is half alone."""
    cluster = ClusterProcesses(tmp_path, cables=True, links=request.param)
    cluster.form(*SERVERS)
    yield cluster
    cluster.kill()


@pytest.fixture(autouse=True)
def _no_garbage_collection() -> Iterator[None]:
    """What is remembered of millions of messages takes seconds to go through, and the cables, which are a thread of this
    process, would carry nothing meanwhile."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.timeout(SOAK_S * 3 + 300)
async def test_nothing_acked_is_lost_whoever_dies(cluster: ClusterProcesses) -> None:
    print(f"LIFTBRIDGE_TEST_SOAK_SEED={SEED}")
    random_ = random.Random(SEED)
    cluster.call("a", "CreateStream", name=STREAM, subject=STREAM, replicationFactor=3, partitions=PARTITIONS)
    soak = Soak(cluster, STREAM, PARTITIONS)
    publishers = [
        asyncio.create_task(soak.publish(server_id, partition))
        for server_id in SERVERS
        for partition in range(PARTITIONS)
    ]
    readers = [asyncio.create_task(soak.read("reader", partition)) for partition in range(PARTITIONS)]
    try:
        failover_s = await chaos(soak, random_)
    finally:
        soak.stopping = True
    await asyncio.wait_for(asyncio.gather(*publishers), 60)
    await until_all_in_sync(cluster)
    logs = [await read_all(cluster, partition) for partition in range(PARTITIONS)]
    await until_read(soak, logs)
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    print(describe(soak.histories))
    print("failover: " + ", ".join(f"{one:.2f} s" for one in sorted(failover_s)))
    for partition, history in soak.histories.items():
        assert history.acked, f"nothing was acked in partition {partition}"
        assert problems_of(history, logs[partition]) == []
    cluster.stop()
    assert replicas_of(cluster, "a") == replicas_of(cluster, "b") == replicas_of(cluster, "c")
    if failover_s:
        assert median(failover_s) < MEDIAN_LIMIT_S
        assert percentile(failover_s, 0.99) < WORST_LIMIT_S


async def chaos(soak: Soak, random_: random.Random) -> list[float]:
    """Kills and freezes until the time is over; returns for how long there were no acks after each loss of a leader."""
    end_s = time.monotonic() + SOAK_S
    failover_s: list[float] = []
    actions = list(ACTIONS)
    while time.monotonic() < end_s:
        random_.shuffle(actions)
        for action in actions:
            if time.monotonic() > end_s:
                break
            await until_all_in_sync(soak.cluster)
            await asyncio.sleep(random_.uniform(0.2, 1.0))
            failover_s += await act(soak, action, random_)
    return failover_s


async def act(soak: Soak, action: str, random_: random.Random) -> list[float]:
    cluster = soak.cluster
    partition = random_.randrange(PARTITIONS)
    leader = await asyncio.to_thread(leader_of, cluster, partition)
    followers = [one for one in SERVERS if one != leader]
    victims = {
        "leader": [leader],
        "metadata leader": [metadata_leader(cluster)],
        "both leaders": sorted({leader, metadata_leader(cluster)}),
        "follower": [random_.choice(followers)],
        "all": list(SERVERS),
        "NATS": [],
    }[action.split(" ", 1)[1]]
    print(f"{action}: {', '.join(victims)}")
    began_s = time.monotonic()
    await HANDS[action.split(" ", 1)[0]](cluster, victims, random_)
    if action not in COSTS_THE_LEADER:
        return []
    await asyncio.to_thread(eventually, partial(soak.first_ack_after_s, partition, time.monotonic()), 30)
    gap_s = soak.longest_gap_s(partition, began_s)
    print(f"no acks for {gap_s:.2f} s")
    return [gap_s]


async def kill(cluster: ClusterProcesses, victims: list[str], random_: random.Random) -> None:
    for victim in victims:
        cluster.servers[victim].kill()
    await asyncio.sleep(random_.uniform(2.0, 5.0) if len(victims) == 1 else random_.uniform(0.0, 1.0))
    random_.shuffle(victims)
    await asyncio.to_thread(cluster.start, *victims)


async def freeze(cluster: ClusterProcesses, victims: list[str], random_: random.Random) -> None:
    """SIGSTOP, as a machine that hangs; NATS hangs for a shorter time than it takes to notice, or a longer."""
    if not victims:
        await frozen(cluster.nats.pid, random_.uniform(0.2, FREEZE_S))
    for victim in victims:
        await frozen(cluster.servers[victim].pid, FREEZE_S)


async def silence(cluster: ClusterProcesses, victims: list[str], random_: random.Random) -> None:
    """A cable that carries nothing and tells nobody; afterwards everything arrives late."""
    assert cluster.cables is not None
    for victim in victims:
        cluster.cables.silence(victim)
    await asyncio.sleep(random_.uniform(1.0, 2 * FREEZE_S))
    for victim in victims:
        cluster.cables.mend(victim)


async def cut(cluster: ClusterProcesses, victims: list[str], random_: random.Random) -> None:
    assert cluster.cables is not None
    for victim in victims:
        cluster.cables.cut(victim)
    await asyncio.sleep(random_.uniform(0.1, FREEZE_S))
    for victim in victims:
        cluster.cables.mend(victim)


async def restart(cluster: ClusterProcesses, victims: list[str], random_: random.Random) -> None:
    """Of NATS: nobody reaches anybody meanwhile."""
    assert not victims
    cluster.nats.kill()
    await asyncio.sleep(random_.uniform(0.0, 2.0))
    cluster.nats.start()


#: What a hand does to its victims.
HANDS: dict[str, Callable[[ClusterProcesses, list[str], random.Random], Awaitable[None]]] = {
    "kill": kill,
    "freeze": freeze,
    "silence": silence,
    "cut": cut,
    "restart": restart,
}


def leader_of(cluster: ClusterProcesses, partition: int) -> str:
    return str(eventually(lambda: cluster.partition(cluster.running()[0].server_id, STREAM, partition).leader))


def metadata_leader(cluster: ClusterProcesses) -> str:
    """By the latest line of the servers' logs that says so."""

    def find() -> str:
        for server in cluster.running():
            last = [line for line in server.log().splitlines() if "metadata leader" in line][-1:]
            if last and "Server became metadata leader" in last[0]:
                return server.server_id
        return ""

    return str(eventually(find, 30))


async def until_all_in_sync(cluster: ClusterProcesses) -> None:
    def in_sync() -> bool:
        for partition in range(PARTITIONS):
            metadata = cluster.partition(cluster.running()[0].server_id, STREAM, partition)
            if len(metadata.isr) != len(SERVERS) or metadata.leader not in SERVERS:
                return False
        return True

    await asyncio.to_thread(eventually, in_sync, 60)


async def read_all(cluster: ClusterProcesses, partition: int) -> list[bytes]:
    """The values of the whole partition, by offset."""
    leader = await asyncio.to_thread(leader_of, cluster, partition)
    async with ApiClient(cluster.servers[leader].address) as client:
        messages = await client.messages(
            stream=STREAM,
            partition=partition,
            startPosition=api.StartPosition.EARLIEST,
            stopPosition=api.StopPosition.STOP_LATEST,
        )
    assert [message.offset for message in messages] == list(range(len(messages)))
    return [message.value for message in messages]


async def until_read(soak: Soak, logs: list[list[bytes]]) -> None:
    """Readers catch up."""
    with contextlib.suppress(TimeoutError):  # then the checker says what is missing
        async with asyncio.timeout(30):
            while any(len(soak.histories[i].read["reader"]) < len(log) for i, log in enumerate(logs)):
                await asyncio.sleep(0.05)
    for number, log in enumerate(logs):
        assert len(soak.histories[number].read["reader"]) == len(log), f"partition {number}: the reader is behind"


def replicas_of(cluster: ClusterProcesses, server_id: str) -> dict[str, bytes]:
    """The bytes of each partition's segments."""
    folder = cluster.servers[server_id].data_dir / "streams"
    replicas: dict[str, bytes] = {}
    for path in sorted(folder.glob("*/*.log")):
        replicas[path.parent.name] = replicas.get(path.parent.name, b"") + path.read_bytes()
    return replicas


@pytest.mark.timeout(240)
async def test_rolling_restart_under_load_refuses_nothing_for_good(cluster: ClusterProcesses) -> None:
    """What isn't acked is refused as "not stored", or nobody knows: both may be tried again. Nothing is lost."""
    cluster.call("a", "CreateStream", name=STREAM, subject=STREAM, replicationFactor=3, partitions=PARTITIONS)
    soak = Soak(cluster, STREAM, PARTITIONS)
    publishers = [
        asyncio.create_task(soak.publish(server_id, partition)) for partition, server_id in enumerate(SERVERS)
    ]
    try:
        for server_id in SERVERS:
            assert await asyncio.to_thread(cluster.servers[server_id].stop) == 0
            await asyncio.to_thread(cluster.start, server_id)
            await until_all_in_sync(cluster)
            await asyncio.to_thread(eventually, partial(has_new_acks, soak, time.monotonic()), 30)
    finally:
        soak.stopping = True
    await asyncio.wait_for(asyncio.gather(*publishers), 60)
    for partition, history in soak.histories.items():
        assert problems_of(history, await read_all(cluster, partition)) == []
    assert not soak.strange_errors, "only what may be tried again was refused"


@pytest.mark.timeout(240)
async def test_moving_leaders_under_load_costs_no_publisher_an_error(cluster: ClusterProcesses) -> None:
    """By an operator's hand and by draining; publishers are connected to leaders and to others."""
    cluster.call("a", "CreateStream", name=STREAM, subject=STREAM, replicationFactor=3, partitions=PARTITIONS)
    soak = Soak(cluster, STREAM, PARTITIONS)
    publishers = [
        asyncio.create_task(soak.publish(server_id, partition))
        for server_id in SERVERS
        for partition in range(PARTITIONS)
    ]
    try:
        for successor in (*SERVERS, *SERVERS):
            for partition in range(PARTITIONS):
                where = ("--stream", STREAM, "--partition", str(partition))
                moved = await asyncio.to_thread(cluster.operate, "transfer-leader", successor, *where)
                assert moved.returncode == 0, moved.stderr
                await asyncio.to_thread(eventually, partial(has_new_acks, soak, time.monotonic()), 10)
        assert (await asyncio.to_thread(cluster.operate, "drain", "b")).returncode == 0
        await asyncio.to_thread(eventually, partial(has_new_acks, soak, time.monotonic()), 10)
    finally:
        soak.stopping = True
    await asyncio.wait_for(asyncio.gather(*publishers), 60)
    for partition, history in soak.histories.items():
        assert problems_of(history, await read_all(cluster, partition)) == []
    assert not soak.errors


def has_new_acks(soak: Soak, since_s: float) -> bool:
    """In every partition."""
    return all(soak.first_ack_after_s(partition, since_s) is not None for partition in range(PARTITIONS))
