"""Brokers that are scraped while they work, while something goes wrong, and while somebody misbehaves at the port."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from api_client import ApiClient
from broker_process import BrokerProcess
from cluster_processes import SEED, ClusterProcesses, eventually
from scrapes import Scraped, fetch, scrape, with_metrics

from liftbridge.client import Client, StartAt
from liftbridge.protocol.generated import api_pb2 as api

YES = api.NullableBool(value=True)


class Watched:
    """A broker and where its metrics are."""

    def __init__(self, folder: Path) -> None:
        self.port, arguments = with_metrics()
        self.broker = BrokerProcess(folder / "data", *arguments)

    def scrape(self) -> Scraped:
        return scrape(self.port)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    watched = Watched(tmp_path)
    watched.broker.start()
    yield watched
    watched.broker.kill()


class WatchedCluster:
    """Three servers, and where the metrics of each are."""

    def __init__(self, folder: Path) -> None:
        self.cluster = ClusterProcesses(folder)
        self.ports: dict[str, int] = {}
        for server_id in "abc":
            self.ports[server_id], arguments = with_metrics()
            self.cluster.add(server_id, *arguments, bootstrap=SEED if server_id == "a" else ())
        self.cluster.start(*"abc")

    def scrape(self, server_id: str) -> Scraped:
        return scrape(self.ports[server_id])

    def leader(self, stream: str) -> str:
        (leader,) = [
            one
            for one in self.ports
            if self.cluster.servers[one].running and self.scrape(one)("partition_is_leader", stream=stream) == 1
        ]
        return leader


@pytest.fixture
def three(tmp_path: Path) -> Iterator[WatchedCluster]:
    three = WatchedCluster(tmp_path)
    yield three
    three.cluster.kill()


# --- one server -------------------------------------------------------------------------------------------------------


async def test_what_clients_do_is_seen_at_the_next_scrape(watched: Watched) -> None:
    async with ApiClient(watched.broker.address) as client:
        await client("CreateStream", name="s", subject="s", partitions=2)
        for number in range(5):
            await client("Publish", stream="s", partition=1, value=b"x" * 100)
        subscription = client.subscribe(stream="s", partition=1)
        await subscription.read()

        def seen() -> bool:
            now = watched.scrape()
            return (
                now("partition_end_offset", stream="s", partition=1) == 5
                and now("partition_high_watermark", stream="s", partition=1) == 5
                and (now("partition_size_bytes", stream="s", partition=1) or 0) > 500
                and now("partition_end_offset", stream="s", partition=0) == 0
                and now("partition_subscriptions", stream="s", partition=1) == 1
                and now("cluster_partitions") == 2
                and now("metadata_events_total", event="stream_created") == 2
            )

        await asyncio.to_thread(eventually, seen)
        subscription.cancel()
        await client("PauseStream", name="s", partitions=[0])
        await asyncio.to_thread(
            eventually, lambda: watched.scrape()("partition_end_offset", stream="s", partition=0) is None
        )
        await client("DeleteStream", name="s")
        await asyncio.to_thread(eventually, lambda: watched.scrape().all("partition_is_leader") == [])


async def test_a_server_shows_itself_and_its_process(watched: Watched) -> None:
    now = watched.scrape()
    assert now("server_info", server_id="broker", namespace="liftbridge-default", version="0.1.0") == 1
    assert now("server_serving") == now("transport_connected") == now("server_holds_lease") == 1
    assert now("metadata_is_leader") == now("metadata_leader_known") == now("cluster_servers", status="live") == 1
    assert 0 < (now("data_dir_free_bytes") or 0) < (now("data_dir_size_bytes") or 0)
    assert now("process_resident_memory_bytes") == pytest.approx(watched.broker.resident_bytes(), rel=0.2)


async def test_what_is_refused_is_counted_by_reason(watched: Watched) -> None:
    async with ApiClient(watched.broker.address) as client:
        await client("CreateStream", name="s", subject="s", minIsr=api.NullableInt32(value=2))
        for _ in range(3):
            with pytest.raises(Exception, match="replicas in sync"):
                await client("Publish", stream="s", value=b"x", ackPolicy=api.AckPolicy.ALL)

    def counted() -> bool:
        now = watched.scrape()
        return (
            now("partition_refused_messages_total", reason="too_few_replicas") == 3
            and now("partition_refused_messages_total", reason="storage") == 0
            and now("partition_min_in_sync_replicas") == 2
        )

    await asyncio.to_thread(eventually, counted)


async def test_a_partition_that_cannot_be_opened_is_shown_and_the_server_is_ready(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("hex:" + "11" * 32)
    port, arguments = with_metrics("--set", f"encryption.keys=file:{tmp_path / 'keys'}")
    broker = BrokerProcess(tmp_path / "data", *arguments)
    try:
        broker.start()
        async with ApiClient(broker.address) as client:
            await client("CreateStream", name="e", subject="e", encryption=YES)
            await client("Publish", stream="e", value=b"x")
        broker.stop()
        (tmp_path / "keys").write_text("hex:" + "22" * 32)
        broker.start()
        assert fetch(port, "/readyz")[0] == 200
        assert scrape(port)("partition_problem", stream="e", partition=0, problem="damaged") == 1
    finally:
        broker.kill()


def test_health_changes_with_the_life_of_the_server(tmp_path: Path) -> None:
    """Alone of three that begin together it has no metadata leader: it lives, and doesn't serve."""
    cluster = ClusterProcesses(tmp_path)
    try:
        port, arguments = with_metrics()
        peers = ("--raft-bootstrap-peers", "x,y")
        server = cluster.add("a", *arguments, bootstrap=peers)
        server.launch()
        eventually(lambda: _can_connect(port), timeout_s=30)
        assert fetch(port, "/healthz") == (200, "ok\n")
        assert fetch(port, "/readyz") == (503, "not serving clients\n")
        assert scrape(port)("metadata_leader_known") == 0
        assert scrape(port)("server_serving") == 0
        cluster.add("x", bootstrap=("--raft-bootstrap-peers", "a,y")).launch()
        server.wait_until_serving()
        eventually(lambda: fetch(port, "/readyz") == (200, "ok\n"))
    finally:
        cluster.kill()


def _can_connect(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_how_far_a_consumer_group_is_behind_is_in_two_metrics(tmp_path: Path) -> None:
    port, arguments = with_metrics("--set", "cursors.stream.partitions=3")
    broker = BrokerProcess(tmp_path / "data", *arguments)
    broker.start()
    try:
        async with Client([broker.address]) as client:
            await client.create_stream("s", "s")
            for _ in range(5):
                await client.publish("s", b"x")
            async with client.consumer("g", ["s"], start=StartAt.earliest()) as consumer:
                messages = aiter(consumer)
                for _ in range(4):
                    await anext(messages)
                await consumer.commit()

                def behind() -> bool:
                    now = scrape(port)
                    return (
                        now("group_members", group="g") == 1
                        and now("group_next_offset", group="g", stream="s", partition=0) == 4
                        and now("partition_high_watermark", stream="s", partition=0) == 5
                    )

                await asyncio.to_thread(eventually, behind)
            await asyncio.to_thread(eventually, lambda: scrape(port).all("group_members") == [])
            assert scrape(port).all("group_next_offset") == []
    finally:
        broker.kill()


# --- a cluster --------------------------------------------------------------------------------------------------------


def test_a_dead_server_is_seen_from_the_others_until_it_is_back(three: WatchedCluster) -> None:
    cluster = three.cluster
    cluster.call("a", "CreateStream", name="s", subject="s", replicationFactor=3)
    cluster.call("a", "Publish", stream="s", value=b"x", ackPolicy=api.AckPolicy.ALL)
    leader = eventually(lambda: three.leader("s"))
    eventually(lambda: three.scrape(leader)("partition_in_sync_replicas", stream="s") == 3)
    assert three.scrape(leader)("partition_follower_lag_messages", stream="s") == 0
    assert sum(three.scrape(one)("metadata_is_leader") or 0 for one in "abc") == 1
    follower = next(one for one in "bc" if one != leader)
    watcher = next(one for one in "abc" if one not in (leader, follower))
    cluster.servers[follower].kill()
    for _ in range(4):
        cluster.call(leader, "Publish", stream="s", value=b"x")

    def missed() -> bool:
        now, led = three.scrape(watcher), three.scrape(leader)
        return (
            now("cluster_servers", status="down") == 1
            and now("cluster_under_replicated_partitions") == 1
            and (now("metadata_events_total", event="isr_changed") or 0) >= 1
            and led("partition_replicas", stream="s") == 3
            and led("partition_in_sync_replicas", stream="s") == 2
            and led("partition_follower_lag_messages", stream="s") == 4
        )

    eventually(missed)
    cluster.start(follower)

    def well() -> bool:
        return (
            three.scrape(watcher)("cluster_servers", status="down") == 0
            and three.scrape(watcher)("cluster_under_replicated_partitions") == 0
            and three.scrape(leader)("partition_follower_lag_messages", stream="s") == 0
        )

    eventually(well)


def test_a_partition_whose_only_server_died_is_offline_in_the_eyes_of_the_others(three: WatchedCluster) -> None:
    three.cluster.call("a", "CreateStream", name="s", subject="s", replicationFactor=1)
    leader = eventually(lambda: three.leader("s"))
    three.cluster.servers[leader].kill()
    other = next(one for one in "abc" if one != leader)
    eventually(lambda: three.scrape(other)("cluster_offline_partitions") == 1)
    assert three.scrape(other)("metadata_events_total", event="partition_offline") == 1


def test_a_server_that_was_frozen_says_that_it_has_no_lease(three: WatchedCluster) -> None:
    """Without two of three nobody leads the metadata group, and the one that is left knows."""
    for server_id in "bc":
        os.kill(three.cluster.servers[server_id].pid, signal.SIGSTOP)
    try:

        def alone() -> bool:
            now = three.scrape("a")
            return now("server_holds_lease") == 0 and now("metadata_leader_known") == 0

        eventually(alone, timeout_s=30)
    finally:
        for server_id in "bc":
            os.kill(three.cluster.servers[server_id].pid, signal.SIGCONT)
    eventually(lambda: three.scrape("a")("server_holds_lease") == 1, timeout_s=30)


# --- who misbehaves ---------------------------------------------------------------------------------------------------


async def test_whatever_happens_at_the_port_publishers_are_served(watched: Watched) -> None:
    """Clients that say nothing, talk nonsense, read nothing and ask without end, all at once."""
    end = time.monotonic() + 3
    async with ApiClient(watched.broker.address) as client:
        await client("CreateStream", name="s", subject="s", partitions=100)
        with ExitStack() as sockets:
            for request in (b"", b"nonsense" * 2000, b"GET /metrics HTTP/1.1\r\n\r\n") * 25:
                one = sockets.enter_context(socket.create_connection(("127.0.0.1", watched.port)))
                one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                one.sendall(request)

            def ask_without_end() -> int:
                answers = 0
                while time.monotonic() < end:
                    answers += fetch(watched.port, "/metrics")[0] == 200
                return answers

            asking = [asyncio.create_task(asyncio.to_thread(ask_without_end)) for _ in range(4)]
            published = 0
            while time.monotonic() < end:
                await client("Publish", stream="s", value=b"x", timeout=2)
                published += 1
            assert min(await asyncio.gather(*asking)) > 0
        assert published > 0
        assert (await client("FetchPartitionMetadata", stream="s", partition=0)).metadata.newestOffset == published - 1
    assert "level=error" not in watched.broker.log()
    assert watched.broker.stop() == 0


# --- configuration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("endpoints", ["prometheus", "prometheus, grpc"])
def test_an_endpoint_that_clients_cannot_use_is_not_taken_for_the_first(endpoints: str, tmp_path: Path) -> None:
    (tmp_path / "server.conf").write_text(f"endpoints = {endpoints}\ndata.dir = data\n")
    for command in (["config", "check", "server.conf"], ["serve", "--config", "server.conf"]):
        done = subprocess.run(
            [sys.executable, "-m", "liftbridge", *command],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert "Write: endpoints = grpc, prometheus" in done.stderr
