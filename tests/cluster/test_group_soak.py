"""A hundred consumers in ten groups over 64 partitions on three servers, with members killed at random."""

import asyncio
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import grpc
import pytest
from api_client import ApiClient
from cluster_processes import ClusterProcesses, eventually
from group_member import Delivery, GroupHistory, GroupMember, Place

from liftbridge.protocol.generated import api_pb2 as api

SERVERS = ("a", "b", "c")
GROUPS = [f"g{number}" for number in range(10)]
PARTITIONS = 64
MEMBERS_OF_A_GROUP = 10
CURSOR_PARTITIONS = 4
TIMEOUT_S = 5.0
KILLING_S = 45.0
#: What finding out costs beside the expiry: the coordinator looks every second, members ask every 2 s and again after 0.25 s.
FINDING_OUT_S = 8.0
#: Elections of the metadata leader, the partition's, the coordinator and the cursors' leader, and members that find them.
SERVERS_DOWN_S = 15.0
#: Two members' sockets are read by one process of this test, in any order.
IN_FLIGHT_S = 1.0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ClusterProcesses]:
    cluster = ClusterProcesses(tmp_path)
    settings = {
        "groups.consumer.timeout": f"{TIMEOUT_S:g}s",
        "cursors.stream.partitions": CURSOR_PARTITIONS,
        "cursors.stream.replication.factor": 3,
    }
    arguments = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    for number, server_id in enumerate(SERVERS):
        cluster.add(server_id, *arguments, bootstrap=("--raft-bootstrap-seed",) if number == 0 else ())
    cluster.start(*SERVERS)
    cluster.call("a", "CreateStream", name="s", subject="s", partitions=PARTITIONS, replicationFactor=3, timeout=30)
    eventually(lambda: len(cluster.call("a", "FetchMetadata", streams=["__cursors"]).streamMetadata[0].partitions) > 0)
    yield cluster
    cluster.kill()


class Publisher:
    """Publishes to one partition after the other, and knows what was stored."""

    def __init__(self, cluster: ClusterProcesses) -> None:
        self._clients = [ApiClient(server.address) for server in cluster.servers.values()]
        self.ends = dict.fromkeys(range(PARTITIONS), 0)

    async def run(self) -> None:
        number = 0
        while True:
            client = self._clients[number % len(self._clients)]
            partition = number % PARTITIONS
            try:
                done = await client(
                    "Publish", stream="s", partition=partition, value=b"x", ackPolicy=api.AckPolicy.ALL, timeout=5
                )
                self.ends[partition] = max(self.ends[partition], done.ack.offset + 1)
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.1)
            number += 1
            await asyncio.sleep(0.02)

    async def close(self) -> None:
        for client in self._clients:
            await client.channel.close()


class Crowd:
    """All members of all groups; a killed one is replaced by another after a while, as a supervisor would."""

    def __init__(self, cluster: ClusterProcesses, chance: random.Random) -> None:
        self.history = GroupHistory()
        self._addresses = {server_id: server.address for server_id, server in cluster.servers.items()}
        self._chance = chance
        self._number = 0
        self.members: dict[str, list[GroupMember]] = {group: [] for group in GROUPS}
        self.killed = 0

    async def add(self, group: str) -> None:
        self._number += 1
        member = GroupMember(
            self._addresses, group, f"c{self._number}", ["s"], self.history, cursor_partitions=CURSOR_PARTITIONS
        )
        await member.start()
        self.members[group].append(member)

    async def kill_one(self) -> None:
        group = self._chance.choice(GROUPS)
        members = self.members[group]
        if len(members) > 3:
            victim = members.pop(self._chance.randrange(len(members)))
            await victim.kill()
            self.killed += 1
            if self._chance.random() < 0.8:
                await self.add(group)

    def is_settled(self) -> bool:
        """Every partition is read by one member of each group, with one epoch."""
        everything = {("s", number) for number in range(PARTITIONS)}
        for members in self.members.values():
            places = [place for member in members for place in member.places]
            if len(places) != PARTITIONS or set(places) != everything or len({one.epoch for one in members}) != 1:
                return False
        return True

    async def settle(self, timeout_s: float) -> float:
        """Returns after how long."""
        began_s = time.monotonic()
        while not self.is_settled():
            if time.monotonic() - began_s > timeout_s:
                counts = {group: sum(len(one.places) for one in members) for group, members in self.members.items()}
                raise AssertionError(f"not settled after {timeout_s} s: partitions held by group: {counts}")
            await asyncio.sleep(0.1)
        return time.monotonic() - began_s

    async def close(self) -> None:
        for members in self.members.values():
            for member in members:
                await member.kill()


@pytest.mark.slow
@pytest.mark.timeout(280)
@pytest.mark.parametrize("kill_servers", [False, True], ids=["members are killed", "and servers"])
async def test_hundred_consumers(cluster: ClusterProcesses, kill_servers: bool) -> None:
    chance = random.Random(7)
    crowd, publisher = Crowd(cluster, chance), Publisher(cluster)
    publishing = asyncio.create_task(publisher.run())
    began_s = time.monotonic()
    for number in range(MEMBERS_OF_A_GROUP):
        await asyncio.gather(*(crowd.add(group) for group in GROUPS))
    joined_s = time.monotonic() - began_s
    settled_s = await crowd.settle(60)
    end_s = time.monotonic() + KILLING_S
    servers = list(SERVERS) if kill_servers else []
    while time.monotonic() < end_s:
        await crowd.kill_one()
        await asyncio.sleep(chance.uniform(0.2, 1.0))
        if servers and time.monotonic() > end_s - KILLING_S / 3 * len(servers):
            await restart(cluster, servers.pop())
    resettled_s = await crowd.settle(60)
    publishing.cancel()
    await asyncio.gather(publishing, return_exceptions=True)
    everything = {(group, ("s", number)): end for number, end in publisher.ends.items() for group in GROUPS}
    await until_consumed(crowd.history, everything)
    history = crowd.history
    history.lost, lost = [], list(history.lost)
    await crowd.close()
    await publisher.close()
    gaps = [
        found - when for group, place, consumer, when in lost if (found := next_holder(history, group, place, when))
    ]
    check_one_member_at_a_time(history)
    check_nothing_was_skipped(history, everything)
    assert crowd.killed > 30
    assert len(gaps) == len(lost), "a partition was never read again"
    # Who inherits it may die as well, and the next one too.
    bound_s = 3 * TIMEOUT_S + FINDING_OUT_S + (SERVERS_DOWN_S if kill_servers else 0)
    assert max(gaps) < bound_s, f"a partition was not read for {max(gaps):.1f} s"
    print(
        f"\n100 joined in {joined_s:.1f} s, and all partitions were read {settled_s:.1f} s later; {crowd.killed} members "
        f"were killed, all was settled {resettled_s:.1f} s after the last; {len(history.deliveries)} messages processed; "
        f"a partition whose member was killed was read again after {sorted(gaps)[len(gaps) // 2]:.1f} s (median), "
        f"{max(gaps):.1f} s (longest)"
    )


async def restart(cluster: ClusterProcesses, server_id: str) -> None:
    def run() -> None:
        cluster.servers[server_id].kill()
        time.sleep(2)
        cluster.servers[server_id].start()

    await asyncio.to_thread(run)


def by_place(history: GroupHistory) -> dict[tuple[str, Place], list[Delivery]]:
    deliveries: dict[tuple[str, Place], list[Delivery]] = defaultdict(list)
    for one in history.deliveries:
        deliveries[one.group, one.place].append(one)
    return deliveries


def next_holder(history: GroupHistory, group: str, place: Place, when_s: float) -> float | None:
    """When the partition was next read by somebody."""
    times = (one.time_s for one in history.held if (one.group, one.place) == (group, place) and one.time_s > when_s)
    return next(times, None)


def check_one_member_at_a_time(history: GroupHistory) -> None:
    for (group, place), deliveries in by_place(history).items():
        owners: dict[int, str] = {}
        last_s: dict[str, float] = {}
        for one in deliveries:
            assert owners.setdefault(one.epoch, one.consumer) == one.consumer, f"{group} {place}: two at one epoch"
            last_s[one.consumer] = one.time_s
        for before, after in pairwise(deliveries):
            if after.consumer != before.consumer:
                assert after.epoch > before.epoch or last_s[after.consumer] - before.time_s < IN_FLIGHT_S, (
                    f"{group} {place}: {after} after {before}"
                )


def check_nothing_was_skipped(history: GroupHistory, ends: dict[tuple[str, Place], int]) -> None:
    """Nobody read on before everything that is below was processed by somebody: so each cursor told the truth."""
    for where, deliveries in by_place(history).items():
        processed = 0
        for one in deliveries:
            assert one.offset <= processed, f"{where}: offset {one.offset} came before {processed}"
            processed = max(processed, one.offset + 1)
        assert processed >= ends[where], f"{where}: {processed} of {ends[where]} were processed"


async def until_consumed(history: GroupHistory, ends: dict[tuple[str, Place], int]) -> None:
    deadline_s = time.monotonic() + 30
    while True:
        processed = {where: max(one.offset for one in found) + 1 for where, found in by_place(history).items()}
        behind = {where: end for where, end in ends.items() if processed.get(where, 0) < end}
        if not behind:
            return
        assert time.monotonic() < deadline_s, f"not consumed: {list(behind.items())[:5]}"
        await asyncio.sleep(0.2)
