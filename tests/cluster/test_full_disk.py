"""Three real brokers, one of which has no room left: a limit on the size of its files stands for a full disk."""

import resource
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from cluster_processes import ClusterProcesses, eventually

from liftbridge.protocol.generated import api_pb2 as api

SERVERS = ("a", "b", "c")
VALUE = b"x" * 64 * 1024
ROOM_BYTES = 1024 * 1024


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ClusterProcesses]:
    cluster = ClusterProcesses(tmp_path)
    cluster.form(*SERVERS)
    cluster.call("a", "CreateStream", name="s", subject="s", replicationFactor=3)
    eventually(lambda: len(cluster.partition("a", "s").isr) == 3)
    yield cluster
    cluster.kill()


def fill_disk(cluster: ClusterProcesses, server_id: str) -> None:
    limit_room(cluster, server_id, ROOM_BYTES)


def free_disk(cluster: ClusterProcesses, server_id: str) -> None:
    limit_room(cluster, server_id, resource.RLIM_INFINITY)


def limit_room(cluster: ClusterProcesses, server_id: str, file_bytes: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.prlimit(cluster.servers[server_id].pid, resource.RLIMIT_FSIZE, (file_bytes, hard))


def publish(cluster: ClusterProcesses, server_id: str) -> int:
    answer = cluster.call(server_id, "Publish", stream="s", value=VALUE, ackPolicy=api.ALL, timeout=5)
    return int(answer.ack.offset)


def leader_of(cluster: ClusterProcesses) -> str:
    return str(eventually(lambda: cluster.partition("a", "s").leader))


def test_a_follower_without_room_leaves_the_isr_says_why_and_comes_back_once_there_is_room(
    cluster: ClusterProcesses,
) -> None:
    leader = leader_of(cluster)
    follower = next(one for one in SERVERS if one != leader)
    fill_disk(cluster, follower)
    stored = [publish(cluster, leader) for _ in range(2 * ROOM_BYTES // len(VALUE))]
    assert stored == list(range(len(stored))), "the others go on"
    eventually(lambda: follower not in cluster.partition(leader, "s").isr)
    assert "following failed" in cluster.servers[follower].log()
    free_disk(cluster, follower)
    eventually(lambda: follower in cluster.partition(leader, "s").isr)
    assert publish(cluster, follower) == len(stored)


def test_a_leader_without_room_refuses_what_it_cannot_store_and_the_others_serve_what_they_lead(
    cluster: ClusterProcesses,
) -> None:
    leader = leader_of(cluster)
    other = next(one for one in SERVERS if one != leader)
    fill_disk(cluster, leader)
    stored = []
    with pytest.raises(grpc.RpcError) as refused:
        for _ in range(2 * ROOM_BYTES // len(VALUE)):
            stored.append(publish(cluster, leader))
    assert "not stored" in refused.value.details()
    cluster.call(other, "CreateStream", name="other", subject="other", replicationFactor=1)
    free_disk(cluster, leader)
    assert eventually(lambda: publish(cluster, leader_of(cluster)) + 1) == len(stored) + 1, (
        "what was refused is nowhere"
    )
