"""How long a consumer group's partitions are between two members: ``python tests/benchmarks/rebalance.py``.

Three servers on one nats-server, a stream of 64 partitions with three replicas, groups of 10 members. Prints, as medians of 20
rounds, what the servers' part of a rebalance takes: a join until the member that gives up a partition is cut off, until
the one that gets it reads it, the same for leaving; and once, what it takes until another coordinator answers after
kill -9 of the first, and until a partition is read from the next leader after kill -9 of that. Members poll, so theirs
comes on top: the Go client asks every 0.4 x groups.consumer.timeout, and waits 2 s after a refusal. About half a minute.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import grpc
from api_client import ApiClient
from cluster_processes import ClusterProcesses, eventually

from liftbridge.protocol.generated import api_pb2 as api

SERVERS = ("a", "b", "c")
PARTITIONS = 64
MEMBERS = 10
ROUNDS = 20


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        cluster = ClusterProcesses(Path(folder))
        try:
            cluster.form(*SERVERS)
            cluster.call("a", "CreateStream", name="s", subject="s", partitions=PARTITIONS, replicationFactor=3)
            clients = {server_id: ApiClient(server.address) for server_id, server in cluster.servers.items()}
            await report_rebalances(cluster, clients)
            await report_coordinator_kill(cluster, clients)
            await report_leader_kill(cluster, clients)
        finally:
            cluster.kill()


async def report_rebalances(cluster: ClusterProcesses, clients: dict[str, ApiClient]) -> None:
    joins, cuts, reads, returns = [], [], [], []
    leaders = {number: cluster.partition("a", "s", number).leader for number in range(PARTITIONS)}
    for round_ in range(ROUNDS):
        group = f"g{round_}"
        for member in range(MEMBERS - 1):
            joined = await join(clients["a"], group, f"c{member}")
        held = {
            number: (f"c{member}", await opened(clients[leaders[number]], group, f"c{member}", joined.epoch, number))
            for member in range(MEMBERS - 1)
            for number in await assigned(clients, group, f"c{member}", joined)
        }
        began = time.perf_counter()
        joined = await join(clients["b"], group, "new")
        joins.append(time.perf_counter() - began)
        mine = await assigned(clients, group, "new", joined)
        for number in mine:
            assert await held[number][1].read() is grpc.aio.EOF
        cuts.append(time.perf_counter() - began)
        for number in mine:
            await opened(clients[leaders[number]], group, "new", joined.epoch, number)
        reads.append(time.perf_counter() - began)
        began = time.perf_counter()
        await clients["c"]("LeaveConsumerGroup", groupId=group, consumerId="new")
        (now,) = (await clients["a"]("FetchMetadata", groups=[group])).groupMetadata
        for number in await assigned(clients, group, "c0", now):
            await opened(clients[leaders[number]], group, "c0", now.epoch, number)
        returns.append(time.perf_counter() - began)
    print(f"{PARTITIONS} partitions, {MEMBERS} members, medians of {ROUNDS} rounds, the servers' part:")
    print(f"  join answered                                  {milliseconds(joins)}")
    print(f"  ... and all that lose a partition are cut off  {milliseconds(cuts)}")
    print(f"  ... and the new member reads its {PARTITIONS // MEMBERS} partitions     {milliseconds(reads)}")
    print(f"  leave, until a member reads all of its anew    {milliseconds(returns)}")


async def report_coordinator_kill(cluster: ClusterProcesses, clients: dict[str, ApiClient]) -> None:
    (known,) = (await clients["a"]("FetchMetadata", groups=["g0"])).groupMetadata
    cluster.servers[known.coordinator].kill()
    began = time.perf_counter()
    survivor = cluster.running()[0].server_id

    def answers() -> bool:
        (now,) = cluster.call(survivor, "FetchMetadata", groups=["g0"]).groupMetadata
        request = {"groupId": "g0", "consumerId": "c0", "epoch": now.epoch}
        return now.coordinator != known.coordinator and bool(
            cluster.call(now.coordinator, "FetchConsumerGroupAssignments", **request).assignments
        )

    eventually(answers)
    print(f"kill -9 of the coordinator, until another one answers: {time.perf_counter() - began:.2f} s")
    cluster.servers[known.coordinator].start()
    eventually(lambda: all(len(cluster.partition(survivor, "s", one).isr) == 3 for one in range(PARTITIONS)))


async def report_leader_kill(cluster: ClusterProcesses, clients: dict[str, ApiClient]) -> None:
    survivor = cluster.running()[0].server_id
    victim = next(one for one in SERVERS if one != survivor)
    owners = {}
    (now,) = (await clients[survivor]("FetchMetadata", groups=["g1"])).groupMetadata
    for member in range(MEMBERS - 1):
        for number in await assigned(clients, "g1", f"c{member}", now):
            owners[number] = f"c{member}"
    led = [number for number in range(PARTITIONS) if cluster.partition(survivor, "s", number).leader == victim]
    cluster.servers[victim].kill()
    began = time.perf_counter()
    for number in led:
        while True:
            leader = cluster.partition(survivor, "s", number).leader
            (now,) = (await clients[survivor]("FetchMetadata", groups=["g1"])).groupMetadata
            try:
                if leader not in ("", victim):
                    await opened(clients[leader], "g1", owners[number], now.epoch, number)
                    break
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.02)
    took = time.perf_counter() - began
    print(f"kill -9 of a server that led {len(led)} partitions, until the group reads all of them again: {took:.2f} s")


async def join(client: ApiClient, group: str, consumer: str) -> Any:
    return await client("JoinConsumerGroup", groupId=group, consumerId=consumer, streams=["s"])


async def assigned(clients: dict[str, ApiClient], group: str, consumer: str, known: Any) -> list[int]:
    response = await clients[known.coordinator](
        "FetchConsumerGroupAssignments", groupId=group, consumerId=consumer, epoch=known.epoch
    )
    return [number for one in response.assignments for number in one.partitions]


async def opened(client: ApiClient, group: str, consumer: str, epoch: int, partition: int) -> Any:
    call = client.subscribe(
        stream="s",
        partition=partition,
        startPosition=api.StartPosition.EARLIEST,
        consumer=api.Consumer(groupId=group, consumerId=consumer, groupEpoch=epoch),
    )
    assert await call.read() == api.Message()
    return call


def milliseconds(times_s: list[float]) -> str:
    return f"{statistics.median(times_s) * 1e3:6.1f} ms (worst {max(times_s) * 1e3:.1f})"


if __name__ == "__main__":
    asyncio.run(main())
