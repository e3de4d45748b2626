"""Three real brokers on one real nats-server, one of which dies."""

import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from cluster_processes import ClusterProcesses

from liftbridge.protocol.generated import api_pb2 as api

SERVERS = ("a", "b", "c")
DEADLINE_S = 20.0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ClusterProcesses]:
    cluster = ClusterProcesses(tmp_path)
    cluster.form(*SERVERS)
    yield cluster
    cluster.kill()
    cluster.nats.stop()


def publish(cluster: ClusterProcesses, value: bytes) -> int:
    """With ack policy ALL, by whoever leads; tries again until it is stored. Returns the offset."""
    end = time.monotonic() + DEADLINE_S
    while True:
        try:
            leader = cluster.partition(cluster.running()[0].server_id, "s").leader
            answer = cluster.call(leader, "Publish", timeout=3, stream="s", value=value, ackPolicy=api.ALL)
            return int(answer.ack.offset)
        except (grpc.RpcError, KeyError):
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def wait_for_isr(cluster: ClusterProcesses, size: int) -> str:
    """Returns the leader."""
    end = time.monotonic() + DEADLINE_S
    while True:
        partition = cluster.partition(cluster.running()[0].server_id, "s")
        if len(partition.isr) == size and partition.leader in {one.server_id for one in cluster.running()}:
            return str(partition.leader)
        assert time.monotonic() < end, f"the ISR is {list(partition.isr)}, and {size} were expected"
        time.sleep(0.05)


def log_bytes(cluster: ClusterProcesses, server_id: str) -> bytes:
    folder = cluster.servers[server_id].data_dir / "streams"
    return b"".join(path.read_bytes() for path in sorted(folder.glob("*/*.log")))


def read_values(cluster: ClusterProcesses, server_id: str, *, isr_replica: bool = False) -> list[bytes]:
    request = api.SubscribeRequest(
        stream="s",
        startPosition=api.StartPosition.EARLIEST,
        stopPosition=api.StopPosition.STOP_LATEST,
        readISRReplica=isr_replica,
    )
    values = []
    with grpc.insecure_channel(cluster.servers[server_id].address) as channel:
        subscribe = channel.unary_stream(
            "/proto.API/Subscribe",
            request_serializer=api.SubscribeRequest.SerializeToString,
            response_deserializer=api.Message.FromString,
        )
        try:
            for message in subscribe(request, timeout=10, wait_for_ready=True):
                values.append(message.value)
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, error
    return values[1:]  # the first message only says that the subscription is accepted


def test_nothing_acked_is_lost_when_the_leader_is_killed_and_replicas_are_equal_in_the_end(
    cluster: ClusterProcesses,
) -> None:
    cluster.call("a", "CreateStream", name="s", subject="s", replicationFactor=3)
    expected = [b"%d" % number for number in range(100)]
    for value in expected:
        publish(cluster, value)
    killed = wait_for_isr(cluster, 3)
    cluster.servers[killed].kill()
    more = [b"more %d" % number for number in range(50)]
    for value in more:
        publish(cluster, value)
    leader = wait_for_isr(cluster, 2)
    assert read_values(cluster, leader) == expected + more
    cluster.start(killed)
    leader = wait_for_isr(cluster, 3)
    publish(cluster, b"last")
    assert log_bytes(cluster, "a") == log_bytes(cluster, "b") == log_bytes(cluster, "c") != b""
    (follower, *_) = (name for name in SERVERS if name != leader)
    end = time.monotonic() + DEADLINE_S
    while read_values(cluster, follower, isr_replica=True) != [*expected, *more, b"last"]:
        assert time.monotonic() < end


def test_everything_acked_is_readable_when_all_were_killed_at_once(cluster: ClusterProcesses) -> None:
    cluster.call("a", "CreateStream", name="s", subject="s", replicationFactor=3)
    expected = [b"%d" % number for number in range(50)]
    for value in expected:
        publish(cluster, value)
    for server in cluster.running():
        server.kill()
    cluster.start("c", "b", "a")
    leader = wait_for_isr(cluster, 3)
    assert read_values(cluster, leader) == expected
