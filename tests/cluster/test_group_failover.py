"""Consumer groups on three real brokers, while coordinators, partition leaders and members are killed."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cluster_processes import ClusterProcesses, eventually

from liftbridge.protocol.generated import api_pb2 as api

SERVERS = ("a", "b", "c")
TIMEOUT_S = 3.0


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ClusterProcesses]:
    cluster = ClusterProcesses(tmp_path)
    for number, server_id in enumerate(SERVERS):
        bootstrap = ("--raft-bootstrap-seed",) if number == 0 else ()
        cluster.add(server_id, "--set", f"groups.consumer.timeout={TIMEOUT_S:g}s", bootstrap=bootstrap)
    cluster.start(*SERVERS)
    cluster.call("a", "CreateStream", name="s", subject="s", partitions=2, replicationFactor=3)
    yield cluster
    cluster.kill()


def join(cluster: ClusterProcesses, server_id: str, consumer: str, group: str = "g") -> Any:
    return cluster.call(server_id, "JoinConsumerGroup", groupId=group, consumerId=consumer, streams=["s"])


def group(cluster: ClusterProcesses, server_id: str = "") -> api.ConsumerGroupMetadata:
    (metadata,) = cluster.call(server_id or cluster.running()[0].server_id, "FetchMetadata", groups=["g"]).groupMetadata
    return metadata


def fetch(cluster: ClusterProcesses, known: api.ConsumerGroupMetadata, consumer: str) -> list[int]:
    response = cluster.call(
        known.coordinator,
        "FetchConsumerGroupAssignments",
        groupId="g",
        consumerId=consumer,
        epoch=known.epoch,
    )
    return [number for one in response.assignments for number in one.partitions]


class Reading:
    """A subscription for a group, on one server."""

    def __init__(self, cluster: ClusterProcesses, server_id: str, consumer: str, epoch: int, partition: int) -> None:
        self._channel = grpc.insecure_channel(cluster.servers[server_id].address)
        self._call = self._channel.unary_stream(
            "/proto.API/Subscribe",
            request_serializer=api.SubscribeRequest.SerializeToString,
            response_deserializer=api.Message.FromString,
        )(
            api.SubscribeRequest(
                stream="s",
                partition=partition,
                startPosition=api.StartPosition.EARLIEST,
                consumer=api.Consumer(groupId="g", consumerId=consumer, groupEpoch=epoch),
            ),
            timeout=20,
        )

    def opened(self) -> "Reading":
        assert next(self._call) == api.Message()
        return self

    def end(self) -> grpc.StatusCode:
        """How it ended."""
        for _ in self._call_messages():
            pass
        return self._call.code()

    def _call_messages(self) -> Iterator[api.Message]:
        try:
            yield from self._call
        except grpc.RpcError:
            return

    def close(self) -> None:
        self._call.cancel()
        self._channel.close()


def test_killed_coordinator_is_replaced_and_nobody_expires_early_or_lives_on(cluster: ClusterProcesses) -> None:
    join(cluster, "a", "alive")
    join(cluster, "b", "silent")
    before = group(cluster, "a")
    assert all(eventually(lambda one=one: group(cluster, one) == before) for one in SERVERS), "the same on all servers"
    fetch(cluster, before, "alive")
    fetch(cluster, before, "silent")
    cluster.servers[before.coordinator].kill()
    killed_s = time.monotonic()
    eventually(lambda: group(cluster).coordinator != before.coordinator)
    took_s = time.monotonic() - killed_s
    after = group(cluster)
    assert took_s < 5, "a coordinator that is down is replaced at once"
    assert after.epoch > before.epoch
    eventually(lambda: fetch(cluster, after, "silent") or True)
    chosen_s = time.monotonic()
    while (now := group(cluster)).epoch == after.epoch:
        with contextlib.suppress(grpc.RpcError):  # the epoch may end between the two calls
            fetch(cluster, after, "alive")
        assert time.monotonic() - chosen_s < TIMEOUT_S + 3, "a silent member lives on"
        time.sleep(0.2)
    assert time.monotonic() - chosen_s > TIMEOUT_S - 0.5, "a member expired early"
    assert sorted(eventually(lambda: fetch(cluster, now, "alive"))) == [0, 1]


def test_fence_holds_on_the_next_leader_of_the_partition(cluster: ClusterProcesses) -> None:
    join(cluster, "a", "c1")
    epoch = join(cluster, "b", "c2").epoch
    known = group(cluster, "b")
    owner, other = ("c1", "c2") if 0 in fetch(cluster, known, "c1") else ("c2", "c1")
    leader = cluster.partition("a", "s").leader
    Reading(cluster, leader, owner, epoch, 0).opened().close()
    cluster.servers[leader].kill()
    next_leader = eventually(
        lambda: (new := cluster.partition(cluster.running()[0].server_id, "s").leader) not in ("", leader) and new
    )
    epoch = eventually(lambda: group(cluster).coordinator != leader and group(cluster)).epoch
    for consumer, wrong_epoch in [(other, epoch), (owner, 0), (owner, epoch + 1), ("stranger", epoch)]:
        refused = Reading(cluster, next_leader, consumer, wrong_epoch, 0)
        assert refused.end() is grpc.StatusCode.FAILED_PRECONDITION, f"{consumer} with epoch {wrong_epoch}"
        refused.close()
    reading = eventually(lambda: Reading(cluster, next_leader, owner, epoch, 0).opened())
    cluster.call(next_leader, "LeaveConsumerGroup", groupId="g", consumerId=owner)
    assert reading.end() is grpc.StatusCode.OK, "displaced"
    reading.close()


def test_subscription_ends_when_another_server_leads_and_goes_on_there(cluster: ClusterProcesses) -> None:
    join(cluster, "a", "c1")
    leader = eventually(lambda: cluster.partition("a", "s").leader)
    reading = Reading(cluster, leader, "c1", 0, 0).opened()
    heir = next(one for one in SERVERS if one != leader)
    _transfer(cluster, heir)
    assert reading.end() is grpc.StatusCode.UNAVAILABLE
    reading.close()
    again = eventually(lambda: Reading(cluster, heir, "c1", 0, 0).opened())
    again.close()


def test_members_replace_a_coordinator_that_only_they_cannot_reach(cluster: ClusterProcesses) -> None:
    join(cluster, "a", "c1")
    join(cluster, "a", "c2")
    known = group(cluster, "a")
    report = {"groupId": "g", "coordinator": known.coordinator, "epoch": known.epoch}
    cluster.call("b", "ReportConsumerGroupCoordinator", consumerId="c1", **report)
    assert group(cluster, "b") == known
    cluster.call("c", "ReportConsumerGroupCoordinator", consumerId="c2", **report)
    now = group(cluster, "c")
    assert now.coordinator not in ("", known.coordinator)
    assert now.epoch > known.epoch
    with pytest.raises(grpc.RpcError, match="broker is not the consumer group coordinator"):
        fetch(cluster, known, "c1")
    assert fetch(cluster, now, "c1"), "the new coordinator answers at once"


def test_server_that_stops_hands_its_groups_over(cluster: ClusterProcesses) -> None:
    join(cluster, "a", "c1")
    coordinator = group(cluster, "a").coordinator
    assert cluster.servers[coordinator].stop() == 0
    now = group(cluster)
    assert now.coordinator not in ("", coordinator), "before it is gone"
    fetch(cluster, now, "c1")


def _transfer(cluster: ClusterProcesses, heir: str) -> None:
    command = [sys.executable, "-m", "liftbridge", "cluster", "transfer-leader", heir, "--stream", "s"]
    command += ["--partition", "0", "--nats-servers", cluster.nats.url, "--namespace", cluster.namespace]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
