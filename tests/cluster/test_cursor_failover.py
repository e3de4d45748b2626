"""Cursors on three servers while their leaders die, stand still or hand over: never older than what was acked."""

import os
import signal
import subprocess
import sys
import threading
import time
from binascii import crc32
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import grpc
import pytest
from cluster_processes import SEED, ClusterProcesses, eventually

from liftbridge.protocol.generated import api_pb2 as api

SERVERS = ("a", "b", "c")
PARTITIONS = 2
SETTINGS = ("--set", f"cursors.stream.partitions={PARTITIONS}")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ClusterProcesses]:
    cluster = ClusterProcesses(tmp_path)
    for number, server_id in enumerate(SERVERS):
        cluster.add(server_id, *SETTINGS, bootstrap=SEED if number == 0 else ())
    cluster.start(*SERVERS)
    eventually(lambda: all(len(in_sync(cluster, number)) == len(SERVERS) for number in range(PARTITIONS)))
    yield cluster
    cluster.kill()


@pytest.fixture
def consumers(cluster: ClusterProcesses) -> Iterator[list["Consumer"]]:
    """Four at work, ended whatever the test does."""
    consumers = [Consumer(cluster, name) for name in ("c", "d", "e", "f")]
    for consumer in consumers:
        consumer.start()
    yield consumers
    for consumer in consumers:
        consumer.end()


def partition_of(cursor_id: str) -> int:
    return crc32(f"{cursor_id},s,0".encode()) % PARTITIONS


def in_sync(cluster: ClusterProcesses, number: int) -> list[str]:
    return list(cluster.partition(cluster.running()[0].server_id, "__cursors", number).isr)


def leader_of(cluster: ClusterProcesses, cursor_id: str, *, asked: str = "") -> str:
    asked = asked or cluster.running()[0].server_id
    return str(cluster.partition(asked, "__cursors", partition_of(cursor_id)).leader)


class Consumer(threading.Thread):
    """Sets a cursor to 0, 1, 2, ... at whoever leads, and asks all servers for it, each time it is acked. An error may
    mean that it is set all the same, so the next one may be newer than what was acked, and never older."""

    def __init__(self, cluster: ClusterProcesses, cursor_id: str) -> None:
        super().__init__(daemon=True)
        self._cluster = cluster
        self._cursor_id = cursor_id
        self._fields = {"stream": "s", "partition": 0, "cursorId": cursor_id}
        self._addresses = {one: server.address for one, server in cluster.servers.items()}
        self._channels = {one: grpc.insecure_channel(address) for one, address in self._addresses.items()}
        self.ended = threading.Event()
        self.acked = -1
        self.answers = 0
        self.problem = ""

    def _call(self, server_id: str, method: str, **more: int) -> int | None:
        call = self._channels[server_id].unary_unary(
            f"/proto.API/{method}",
            request_serializer=getattr(api, f"{method}Request").SerializeToString,
            response_deserializer=getattr(api, f"{method}Response").FromString,
        )
        try:
            response = call(getattr(api, f"{method}Request")(**self._fields, **more), timeout=1)
        except grpc.RpcError:
            return None
        return int(getattr(response, "offset", 0))

    def run(self) -> None:
        offset = 0
        while not self.ended.is_set() and not self.problem:
            for server_id in SERVERS:
                if self._call(server_id, "SetCursor", offset=offset) is not None:
                    self.acked = offset
            offset += 1
            for server_id in SERVERS:
                self._look(server_id, offset)

    def _look(self, server_id: str, next_offset: int) -> None:
        acked = self.acked
        found = self._call(server_id, "FetchCursor")
        if found is not None:
            self.answers += 1
            if not acked <= found < next_offset:
                self.problem = f"server {server_id} answered {found} after {acked} was acked"

    def end(self) -> None:
        self.ended.set()
        self.join(20)
        for channel in self._channels.values():
            channel.close()

    def finish(self) -> None:
        self.ended.set()
        self.join(20)
        assert self.problem == ""
        assert self.answers > 10

    def wait_for_progress(self) -> None:
        """At least one more is acked that was set from now on."""
        target = self.acked + 2
        eventually(lambda: self.problem or self.acked >= target)


def test_streams_of_the_cluster_get_replicas_on_servers_that_come_later(cluster: ClusterProcesses) -> None:
    for number in range(PARTITIONS):
        assert sorted(cluster.partition("a", "__cursors", number).replicas) == list(SERVERS)


def test_wrong_server_says_so(cluster: ClusterProcesses) -> None:
    wrong = next(one for one in SERVERS if one != leader_of(cluster, "c"))
    for method, fields in (("SetCursor", {"offset": 1}), ("FetchCursor", {})):
        with pytest.raises(grpc.RpcError) as refused:
            cluster.call(wrong, method, stream="s", partition=0, cursorId="c", **fields)
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert refused.value.details() == f"Server not leader for cursors partition {partition_of('c')}"


def test_cursors_never_go_back_while_leaders_are_killed_and_come_back(
    cluster: ClusterProcesses, consumers: list[Consumer]
) -> None:
    for _ in range(2):
        for consumer in consumers:
            consumer.wait_for_progress()
        victim = eventually(lambda: leader_of(cluster, "c"))
        cluster.servers[victim].kill()
        for consumer in consumers:
            consumer.wait_for_progress()
        cluster.start(victim)
        eventually(lambda: all(len(in_sync(cluster, number)) == len(SERVERS) for number in range(PARTITIONS)))
    for consumer in consumers:
        consumer.finish()


def hand_over(cluster: ClusterProcesses, server_id: str, number: int, *, must_succeed: bool = True) -> None:
    command = [sys.executable, "-m", "liftbridge", "cluster", "transfer-leader", server_id]
    where = ["--stream", "__cursors", "--partition", str(number), "-n", cluster.nats.url, "--namespace", "test"]
    subprocess.run(command + where, check=must_succeed, timeout=90, capture_output=True)


def test_cursors_never_go_back_while_leaders_hand_over(cluster: ClusterProcesses, consumers: list[Consumer]) -> None:
    for number in range(4):
        leader = cluster.partition("a", "__cursors", number % PARTITIONS).leader
        hand_over(cluster, next(one for one in SERVERS if one != leader), number % PARTITIONS)
        for consumer in consumers:
            consumer.wait_for_progress()
    victim = leader_of(cluster, "c")
    cluster.servers[victim].stop()
    for consumer in consumers:
        consumer.wait_for_progress()
        consumer.finish()


def test_leader_that_stood_still_never_answers_what_it_knew_before(cluster: ClusterProcesses) -> None:
    """The first one leads the metadata group too, and for a moment believes that it still does."""
    frozen = leader_of(cluster, "c")
    cluster.call(frozen, "SetCursor", stream="s", partition=0, cursorId="c", offset=1)
    assert cluster.call(frozen, "FetchCursor", stream="s", partition=0, cursorId="c").offset == 1
    for round_ in range(2):
        frozen, offset = leader_of(cluster, "c"), 100 + round_
        others = [one for one in SERVERS if one != frozen]
        os.kill(cluster.servers[frozen].pid, signal.SIGSTOP)
        waiting = ask_soon(cluster, frozen)
        try:

            def is_set(others: list[str] = others, frozen: str = frozen, offset: int = offset) -> bool:
                leader = leader_of(cluster, "c", asked=others[0])
                assert leader not in ("", frozen)
                cluster.call(leader, "SetCursor", timeout=2, stream="s", partition=0, cursorId="c", offset=offset)
                return True

            eventually(is_set)
        finally:
            os.kill(cluster.servers[frozen].pid, signal.SIGCONT)
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            try:
                answer = cluster.call(frozen, "FetchCursor", timeout=2, stream="s", partition=0, cursorId="c").offset
                assert answer == offset
            except grpc.RpcError:
                continue
        assert waiting() in (None, offset)
        eventually(lambda: len(in_sync(cluster, partition_of("c"))) == len(SERVERS))


@pytest.mark.slow
def test_cursors_never_go_back_whatever_happens_to_servers(
    cluster: ClusterProcesses, consumers: list[Consumer]
) -> None:
    random = Random(7)
    end = time.monotonic() + 40
    while time.monotonic() < end:
        victim = random.choice([leader_of(cluster, "c"), leader_of(cluster, "e"), "a", "b", "c"])
        if not victim:
            continue
        match random.choice(["kill", "stop", "freeze", "hand over"]):
            case "kill":
                cluster.servers[victim].kill()
                cluster.start(victim)
            case "stop":
                cluster.servers[victim].stop()
                cluster.start(victim)
            case "freeze":
                os.kill(cluster.servers[victim].pid, signal.SIGSTOP)
                time.sleep(random.uniform(0.3, 3.0))
                os.kill(cluster.servers[victim].pid, signal.SIGCONT)
            case "hand over":
                leads = cluster.partition("a", "__cursors", 0).leader == victim
                hand_over(cluster, victim, 1 if leads else 0, must_succeed=False)
        assert [consumer.problem for consumer in consumers] == [""] * 4
    for consumer in consumers:
        consumer.wait_for_progress()
        consumer.finish()


def ask_soon(cluster: ClusterProcesses, server_id: str) -> Callable[[], int | None]:
    """A question that the server finds as soon as it runs again; returns how to get the answer, None for an error."""

    def ask() -> int | None:
        try:
            return int(cluster.call(server_id, "FetchCursor", timeout=20, stream="s", partition=0, cursorId="c").offset)
        except grpc.RpcError:
            return None

    return ThreadPoolExecutor(1).submit(ask).result
