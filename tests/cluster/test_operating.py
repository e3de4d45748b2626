"""``liftbridge cluster`` against real servers: what an operator sees and does, and what the exit codes say."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_processes import ClusterProcesses, eventually


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ClusterProcesses]:
    cluster = ClusterProcesses(tmp_path)
    cluster.form("a", "b", "c")
    eventually(lambda: all(one["metadata"] in ("leader", "voter") for one in status(cluster)["servers"]))
    yield cluster
    cluster.kill()


def status(cluster: ClusterProcesses) -> dict[str, Any]:
    done = cluster.operate("status", "--json")
    assert done.returncode in (0, 3), done.stderr
    shown: dict[str, Any] = json.loads(done.stdout)
    return shown


def server(cluster: ClusterProcesses, server_id: str) -> dict[str, Any]:
    (found,) = [one for one in status(cluster)["servers"] if one["server"] == server_id]
    return dict(found)


def test_status_shows_every_server_and_says_when_something_is_wrong(cluster: ClusterProcesses) -> None:
    cluster.call("a", "CreateStream", name="s", subject="s", partitions=3)
    shown = cluster.operate("status")
    assert shown.returncode == 0
    for text in ("led by a", "3: 0 offline", "live", "voter", f"127.0.0.1:{cluster.servers['b'].port}"):
        assert text in shown.stdout
    cluster.servers["c"].kill()
    eventually(lambda: server(cluster, "c")["status"] == "down")
    shown = cluster.operate("status")
    assert shown.returncode == 3
    assert "3: 1 offline" in shown.stdout
    assert status(cluster)["healthy"] is False


def test_a_drained_server_leads_nothing_until_it_starts_again(cluster: ClusterProcesses) -> None:
    cluster.call("a", "CreateStream", name="s", subject="s", partitions=6, replicationFactor=3)
    drained = cluster.operate("drain", "a")
    assert (drained.returncode, drained.stderr) == (0, "")
    assert "server a is drained" in drained.stdout
    shown = server(cluster, "a")
    assert (shown["status"], shown["leads"], shown["in_sync"], shown["metadata"]) == ("draining", 0, 0, "voter")
    assert cluster.servers["a"].stop() == 0
    cluster.start("a")
    assert server(cluster, "a")["status"] == "live"


def test_sigterm_hands_over_before_the_server_stops(cluster: ClusterProcesses) -> None:
    cluster.call("a", "CreateStream", name="s", subject="s", partitions=6, replicationFactor=3)
    assert cluster.servers["a"].stop() == 0
    shown = status(cluster)
    assert shown["metadata_leader"] in ("b", "c")
    assert shown["offline_partitions"] == 0
    assert server(cluster, "a")["leads"] == 0
    assert server(cluster, "a")["status"] == "down"


def test_leadership_of_metadata_and_partitions_is_handed_over(cluster: ClusterProcesses) -> None:
    cluster.call("a", "CreateStream", name="s", subject="s", replicationFactor=3)
    assert cluster.operate("transfer-leader", "b").returncode == 0
    assert status(cluster)["metadata_leader"] == "b"
    assert cluster.operate("transfer-leader", "c", "--stream", "s").stdout == "server c leads partition 0 of stream s\n"
    eventually(lambda: cluster.partition("a", "s").leader == "c")


def test_a_dead_server_is_replaced_by_a_new_one(cluster: ClusterProcesses) -> None:
    cluster.call("a", "CreateStream", name="s", subject="s", partitions=3, replicationFactor=3)
    cluster.servers["b"].kill()
    cluster.add("d").start()
    removed = cluster.operate("remove", "b")
    assert (removed.returncode, removed.stdout) == (0, "server b is removed\n")
    for number in range(3):
        assert sorted(cluster.partition("a", "s", number).replicas) == ["a", "c", "d"]
    cluster.servers["b"].launch()
    assert cluster.servers["b"].wait_for_end() != 0
    said = "server b was removed from the cluster; start it with another server ID and an empty data directory"
    assert said in cluster.servers["b"].log()
    assert {broker.id for broker in cluster.call("a", "FetchMetadata").brokers} == {"a", "c", "d"}


NONSENSE = [
    (("drain", "x"), "there is no server x"),
    (("remove", "x"), "there is no server x"),
    (("transfer-leader", "x"), "no voter"),
    (("transfer-leader", "a", "--stream", "x"), "there is no partition 0 of a stream x"),
]


def test_what_makes_no_sense_is_refused_with_one_line(cluster: ClusterProcesses) -> None:
    for arguments, text in NONSENSE:
        refused = cluster.operate(*arguments)
        assert refused.returncode == 1, arguments
        assert text in refused.stderr
        assert refused.stderr.count("\n") == 1


def test_a_namespace_without_a_cluster_is_an_error_and_not_a_wait_forever(cluster: ClusterProcesses) -> None:
    cluster.namespace = "nobody"
    nobody = cluster.operate("status", "--timeout", "0.5")
    assert nobody.returncode == 1
    assert 'namespace "nobody"' in nobody.stderr


def test_removing_a_live_server_moves_what_is_paused_too(cluster: ClusterProcesses) -> None:
    cluster.call("a", "CreateStream", name="s", subject="s", partitions=3)
    (number,) = [number for number in range(3) if cluster.partition("a", "s", number).leader == "c"]
    cluster.call("c", "Publish", stream="s", partition=number, value=b"one")
    cluster.call("a", "SetStreamReadonly", name="s", readonly=True)
    cluster.call("a", "PauseStream", name="s")
    removed = cluster.operate("remove", "c", "--timeout", "30")
    assert (removed.returncode, removed.stdout, removed.stderr) == (0, "server c is removed\n", "")
    partitions = [cluster.partition("a", "s", one) for one in range(3)]
    assert partitions[number].replicas == [partitions[number].leader]
    assert partitions[number].leader in ("a", "b")
    assert [one.paused for one in partitions] == [one != number for one in range(3)], "what need not be copied stays"
    assert all(one.readonly for one in partitions)
    leader = partitions[number].leader
    eventually(lambda: cluster.partition(leader, "s", number).newestOffset == 0)


def test_removing_a_live_server_moves_its_data_first(cluster: ClusterProcesses) -> None:
    cluster.call("a", "CreateStream", name="s", subject="s", partitions=3)
    (number,) = [number for number in range(3) if cluster.partition("a", "s", number).leader == "c"]
    for value in (b"one", b"two", b"three"):
        cluster.call("c", "Publish", stream="s", partition=number, value=value)
    removed = cluster.operate("remove", "c", "--timeout", "30")
    assert (removed.returncode, removed.stdout) == (0, "server c is removed\n")
    assert cluster.servers["c"].wait_for_end() != 0, "it stops by itself"
    partition = cluster.partition("a", "s", number)
    assert partition.leader in ("a", "b")
    assert partition.replicas == [partition.leader]

    def newest() -> bool:
        return bool(cluster.partition(partition.leader, "s", number).newestOffset == 2)

    eventually(newest)
