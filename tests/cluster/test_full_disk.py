"""Three real brokers, one of which has no room left: a limit on the size of its files stands for a full disk."""

import json
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
    assert cluster.servers[follower].log().count("following failed") == 1
    free_disk(cluster, follower)
    eventually(lambda: follower in cluster.partition(leader, "s").isr)
    assert publish(cluster, follower) == len(stored)


def publish_until_refused(cluster: ClusterProcesses, server_id: str) -> list[int]:
    stored = []
    with pytest.raises(grpc.RpcError) as refused:
        for _ in range(2 * ROOM_BYTES // len(VALUE)):
            stored.append(publish(cluster, server_id))
    assert "not stored" in refused.value.details()
    return stored


def troubles(cluster: ClusterProcesses) -> list[tuple[str, str, str]]:
    """Of which server, in which role, with which problem. The exit code says the same as the picture."""
    done = cluster.operate("status", "--json")
    shown = json.loads(done.stdout)
    assert shown["healthy"] is (done.returncode == 0)
    assert len(shown["troubles"]) == shown["replicas_in_trouble"]
    return [(one["server"], one["role"], one["problem"]) for one in shown["troubles"]]


def test_a_leader_without_room_hands_over_to_who_has_some_and_may_lead_again_once_it_has_some_too(
    cluster: ClusterProcesses,
) -> None:
    full = leader_of(cluster)
    other = next(one for one in SERVERS if one != full)
    fill_disk(cluster, full)
    stored = publish_until_refused(cluster, full)
    eventually(lambda: cluster.partition(other, "s").leader not in ("", full))
    stored += [eventually(lambda: publish(cluster, full) + 1) - 1 for _ in range(3)]
    assert stored == list(range(len(stored))), "what was refused is nowhere, and all else is there"
    eventually(lambda: full not in cluster.partition(other, "s").isr)
    log = cluster.servers[full].log()
    assert log.count("append failed") == 1
    assert "another server leads" in log
    eventually(lambda: troubles(cluster) == [(full, "follower", "can't store")])
    shown = cluster.operate("status")
    assert shown.returncode == 3
    assert f"partition 0 of stream s: follower {full} can't store: " in shown.stdout
    assert "File too large" in shown.stdout, "the reason is the system's"
    refused = cluster.operate("transfer-leader", full, "--stream", "s")
    assert "not in sync" in refused.stderr
    free_disk(cluster, full)
    eventually(lambda: full in cluster.partition(other, "s").isr)
    eventually(lambda: troubles(cluster) == [])
    assert cluster.operate("transfer-leader", full, "--stream", "s").returncode == 0
    assert eventually(lambda: publish(cluster, other) + 1) - 1 == len(stored)


def test_all_that_a_server_without_room_leads_is_handed_over_and_not_only_what_was_refused(
    cluster: ClusterProcesses,
) -> None:
    full = leader_of(cluster)
    other = next(one for one in SERVERS if one != full)
    cluster.call("a", "CreateStream", name="t", subject="t", replicationFactor=3, partitions=6)
    led = [number for number in range(6) if cluster.partition("a", "t", number).leader == full]
    assert led
    limit_room(cluster, full, 100 * 1024)
    publish_until_refused(cluster, full)

    def handed_over() -> bool:
        leaders = [cluster.partition(other, "t", number).leader for number in led]
        return "" not in leaders and full not in leaders

    eventually(handed_over)
    for number in led:
        cluster.call(full, "Publish", stream="t", partition=number, value=b"v", ackPolicy=api.ALL)


def test_the_only_replica_refuses_what_it_cannot_store_until_there_is_room(cluster: ClusterProcesses) -> None:
    cluster.call("a", "CreateStream", name="alone", subject="alone", replicationFactor=1)
    full = str(eventually(lambda: cluster.partition("a", "alone").leader))

    def publish_alone() -> int:
        return int(cluster.call(full, "Publish", stream="alone", value=VALUE, timeout=5).ack.offset)

    publish_alone()
    fill_disk(cluster, full)
    with pytest.raises(grpc.RpcError, match="not stored"):
        for _ in range(2 * ROOM_BYTES // len(VALUE)):
            publish_alone()
    with pytest.raises(grpc.RpcError, match="not stored"):
        publish_alone()
    eventually(lambda: (full, "leader", "can't store") in troubles(cluster))
    assert cluster.partition("a", "alone").leader == full
    assert cluster.servers[full].log().count("append failed") == 1
    cluster.call(full, "CreateStream", name="other", subject="other", replicationFactor=1)
    free_disk(cluster, full)
    eventually(lambda: troubles(cluster) == [])
    assert publish_alone() > 0
