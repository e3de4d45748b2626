"""Real servers on one real nats-server become a cluster, stay one through kills and restarts, and refuse what can't be in it."""

import itertools
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from broker_process import BrokerProcess, free_port
from cluster_processes import SEED, ClusterProcesses, eventually

THREE = ("a", "b", "c")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[ClusterProcesses]:
    cluster = ClusterProcesses(tmp_path)
    yield cluster
    cluster.kill()


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterProcesses]:
    """Three servers that tests only ask things of."""
    cluster = ClusterProcesses(tmp_path_factory.mktemp("three"))
    cluster.form(*THREE)
    yield cluster
    cluster.kill()


def brokers(cluster: ClusterProcesses, server_id: str) -> set[str]:
    return {broker.id for broker in cluster.call(server_id, "FetchMetadata").brokers}


def streams(cluster: ClusterProcesses, server_id: str) -> set[str]:
    return {stream.name for stream in cluster.call(server_id, "FetchMetadata").streamMetadata}


def metadata_leader(cluster: ClusterProcesses) -> str:
    """By the latest line of the logs of the running servers that says so."""

    def find() -> str:
        for server in cluster.running():
            last = [line for line in server.log().splitlines() if "metadata leader" in line][-1:]
            if last and "Server became metadata leader" in last[0]:
                return server.server_id
        return ""

    return str(eventually(find))


def is_led_by_one_of(cluster: ClusterProcesses, leaders: Sequence[str], number: int, server_id: str) -> bool:
    """Partition ``number`` of stream x, as that server knows it."""
    return cluster.partition(server_id, "x", number).leader in leaders


def on_all(condition: Callable[[str], Any], server_ids: Sequence[str] = THREE) -> None:
    """Waits until it holds on each of the servers."""
    for server_id in server_ids:
        eventually(partial(condition, server_id))


# --- coming together --------------------------------------------------------------------------------------------------


def test_servers_join_a_seed_and_everybody_knows_everybody(three: ClusterProcesses) -> None:
    on_all(lambda server_id: brokers(three, server_id) == set(THREE))


@pytest.mark.parametrize("through", THREE)
def test_streams_are_created_and_deleted_through_any_server(three: ClusterProcesses, through: str) -> None:
    name = f"through-{through}"
    three.call(through, "CreateStream", name=name, subject=name, replicationFactor=3, partitions=3)
    assert name in streams(three, through), "the server that answered knows it at once"
    on_all(lambda server_id: name in streams(three, server_id))
    other = THREE[THREE.index(through) - 1]
    three.call(other, "DeleteStream", name=name)
    assert name not in streams(three, other)
    on_all(lambda server_id: name not in streams(three, server_id))


def test_a_stream_exists_for_every_server_as_soon_as_it_was_created(three: ClusterProcesses) -> None:
    for number, (first, second) in enumerate(itertools.permutations(THREE, 2)):
        name = f"twice-{number}"
        three.call(first, "CreateStream", name=name, subject=name)
        with pytest.raises(grpc.RpcError, match="stream already exists"):
            three.call(second, "CreateStream", name=name, subject=name)
        three.call(second, "DeleteStream", name=name)
        with pytest.raises(grpc.RpcError, match="stream does not exist"):
            three.call(first, "DeleteStream", name=name)


def test_a_server_whose_port_is_taken_leaves_nothing_in_the_cluster(cluster: ClusterProcesses) -> None:
    cluster.form("a")
    late = cluster.add("b")
    late.port = cluster.servers["a"].port
    late.launch()
    assert late.wait_for_end() == 2
    assert f"can't listen on 127.0.0.1:{late.port}: Address already in use" in late.log()
    shown = json.loads(cluster.operate("status", "--json").stdout)
    assert [one["server"] for one in shown["servers"]] == ["a"]
    late.port = free_port()
    cluster.start("b")


def test_leaders_of_new_partitions_are_spread(three: ClusterProcesses) -> None:
    three.call("b", "CreateStream", name="spread", subject="spread", replicationFactor=2, partitions=6)
    partitions = [three.partition("b", "spread", number) for number in range(6)]
    assert sorted(partition.leader for partition in partitions) == ["a", "a", "b", "b", "c", "c"]
    assert all(len(partition.replicas) == 2 for partition in partitions)
    three.call("a", "DeleteStream", name="spread")


def test_a_list_of_peers_begins_a_cluster_together(cluster: ClusterProcesses) -> None:
    peers = ("--raft-bootstrap-peers", "a,b,c")
    for server_id in THREE:
        cluster.add(server_id, bootstrap=peers)
    cluster.start(*THREE)
    on_all(lambda server_id: brokers(cluster, server_id) == set(THREE))
    cluster.call("a", "CreateStream", name="x", subject="x", replicationFactor=3)


def test_servers_that_come_before_the_seed_wait_for_it(cluster: ClusterProcesses) -> None:
    early = cluster.add("b")
    early.launch()
    eventually(lambda: "Waiting for a cluster in namespace" in early.log())
    cluster.add("a", bootstrap=SEED).start()
    early.wait_until_serving()
    eventually(lambda: brokers(cluster, "a") == {"a", "b"})


def test_servers_beyond_the_quorum_size_follow_without_a_vote(cluster: ClusterProcesses) -> None:
    for number, server_id in enumerate(THREE):
        cluster.add(server_id, "--set", "clustering.raft.max.quorum.size=1", bootstrap=SEED if number == 0 else ())
    cluster.start(*THREE)
    cluster.servers["b"].kill()
    cluster.servers["c"].kill()
    cluster.call("a", "CreateStream", name="x", subject="x")  # the only voter needs nobody


# --- refusals ---------------------------------------------------------------------------------------------------------


def refused(cluster: ClusterProcesses, server_id: str) -> str:
    """What a server says that is not let in; the others keep serving."""
    server = cluster.servers[server_id]
    server.launch()
    assert server.wait_for_end() == 2
    assert "Traceback" not in server.log()
    return server.log()


def test_a_second_seed_is_refused(three: ClusterProcesses) -> None:
    three.add("seed", bootstrap=SEED)
    assert "this server can't begin one there" in refused(three, "seed")
    assert brokers(three, "a") == set(THREE)


def test_of_two_seeds_at_once_one_gives_way(cluster: ClusterProcesses) -> None:
    for server_id in ("a", "b"):
        cluster.add(server_id, bootstrap=SEED)
        cluster.servers[server_id].launch()

    def ended() -> list[str]:
        return [one.server_id for one in cluster.servers.values() if "has a cluster already" in one.log()]

    (loser,) = eventually(ended)
    assert cluster.servers[loser].wait_for_end() == 2
    winner = "b" if loser == "a" else "a"
    cluster.servers[winner].wait_until_serving()
    assert brokers(cluster, winner) == {winner}


def test_a_server_id_that_is_taken_is_refused(three: ClusterProcesses) -> None:
    taken = three.servers["b"]
    clash = three.add("b")
    clash.data_dir = three.folder / "another-b"
    clash.log_path = three.folder / "another-b.log"
    try:
        log = refused(three, "b")
        assert 'server ID "b" is taken' in log
        assert f"127.0.0.1:{taken.port}" in log
    finally:
        three.servers["b"] = taken
    assert brokers(three, "b") == set(THREE)


def test_two_namespaces_on_one_nats_know_nothing_of_each_other(cluster: ClusterProcesses, tmp_path: Path) -> None:
    cluster.add("a", bootstrap=SEED).start()
    other = BrokerProcess(tmp_path / "other", "--namespace", "other", nats_url=cluster.nats.url, server_id="a")
    other.start()
    try:
        cluster.servers["other"] = other
        for server_id in ("a", "other"):
            cluster.call(server_id, "CreateStream", name=f"of-{server_id}", subject=f"of-{server_id}")
        assert (brokers(cluster, "a"), brokers(cluster, "other")) == ({"a"}, {"a"})
        assert (streams(cluster, "a"), streams(cluster, "other")) == ({"of-a"}, {"of-other"})
    finally:
        other.kill()


def test_data_of_another_namespace_is_refused(cluster: ClusterProcesses) -> None:
    cluster.add("a", bootstrap=SEED).start()
    cluster.servers["a"].stop()
    cluster.namespace = "other"
    cluster.add("a", bootstrap=SEED)
    assert 'belongs to namespace "test"' in refused(cluster, "a")


def test_a_server_of_another_cluster_is_refused(cluster: ClusterProcesses) -> None:
    cluster.add("b", bootstrap=SEED).start()
    cluster.servers["b"].stop()
    cluster.add("a", bootstrap=SEED).start()
    assert "this server belongs to another one" in refused(cluster, "b")
    assert brokers(cluster, "a") == {"a"}


def test_a_data_directory_of_a_newer_format_is_refused(cluster: ClusterProcesses) -> None:
    server = cluster.add("a", bootstrap=SEED)
    server.data_dir.mkdir()
    (server.data_dir / "server.json").write_text(json.dumps({"server_id": "a", "format": 9}))
    server.launch()
    assert server.wait_for_end() == 1
    assert "has format 9" in server.log()
    assert "Start the version that wrote it, or begin with an empty --data-dir" in server.log()


def test_a_server_whose_disk_was_wiped_does_not_come_back_under_its_id(cluster: ClusterProcesses) -> None:
    cluster.form(*THREE)
    eventually(lambda: "Server c votes" in cluster.servers["a"].log())  # or there may be no majority without b
    cluster.servers["b"].kill()
    cluster.servers["b"].data_dir.rename(cluster.folder / "gone")
    assert "liftbridge cluster remove b" in refused(cluster, "b")


# --- kills and restarts -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["abc", "cba"])
def test_all_servers_come_back_after_kill_9_in_any_order(cluster: ClusterProcesses, order: str) -> None:
    cluster.form(*THREE)
    cluster.call("a", "CreateStream", name="x", subject="x", replicationFactor=3, partitions=3)
    for server_id in THREE:
        cluster.servers[server_id].kill()
    cluster.start(*order)
    for number in range(3):
        on_all(partial(is_led_by_one_of, cluster, THREE, number))
        assert sorted(cluster.partition("a", "x", number).isr) == list(THREE)


def test_another_server_leads_when_the_metadata_leader_is_killed(cluster: ClusterProcesses) -> None:
    cluster.form(*THREE)
    cluster.call("a", "CreateStream", name="x", subject="x", replicationFactor=3, partitions=3)
    eventually(
        lambda: "Server c votes" in cluster.servers["a"].log() and "Server b votes" in cluster.servers["a"].log()
    )
    victim = metadata_leader(cluster)
    cluster.servers[victim].kill()
    others = [one for one in THREE if one != victim]
    cluster.call(others[0], "CreateStream", name="y", subject="y", replicationFactor=2)
    for number in range(3):
        on_all(partial(is_led_by_one_of, cluster, others, number), others)
    cluster.start(victim)
    eventually(lambda: streams(cluster, victim) == {"x", "y"})


def test_without_a_majority_changes_are_refused_soon_with_what_is_missing(cluster: ClusterProcesses) -> None:
    cluster.form(*THREE)
    eventually(
        lambda: "Server c votes" in cluster.servers["a"].log() and "Server b votes" in cluster.servers["a"].log()
    )
    for victim in "ab":
        cluster.servers[victim].kill()
    calls: list[tuple[str, dict[str, Any]]] = [
        ("CreateStream", {"name": "x", "subject": "x"}),
        ("DeleteStream", {"name": "x"}),
        ("PauseStream", {"name": "x"}),
    ]
    for number, (method, fields) in enumerate(calls):
        began = time.monotonic()
        with pytest.raises(grpc.RpcError) as refused:
            cluster.call("c", method, timeout=60, **fields)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "no metadata leader for" in refused.value.details()
        assert "a majority of the servers a, b, c" in refused.value.details()
        assert time.monotonic() - began < (30 if number == 0 else 5), "the first one waits out an election"
    cluster.start("b")
    eventually(lambda: cluster.call("c", "CreateStream", name="x", subject="x") is not None)


def test_partitions_without_a_live_replica_in_sync_are_offline_until_one_is_back(cluster: ClusterProcesses) -> None:
    cluster.form(*THREE)
    cluster.call("a", "CreateStream", name="x", subject="x", partitions=3)
    eventually(
        lambda: "Server c votes" in cluster.servers["a"].log() and "Server b votes" in cluster.servers["a"].log()
    )
    led_by_c = next(n for n in range(3) if cluster.partition("a", "x", n).leader == "c")
    cluster.servers["c"].kill()
    eventually(lambda: cluster.partition("a", "x", led_by_c).leader == "")
    cluster.start("c")
    eventually(lambda: cluster.partition("a", "x", led_by_c).leader == "c")


def test_a_frozen_metadata_leader_holds_nobody_up_and_does_no_harm_when_it_wakes(cluster: ClusterProcesses) -> None:
    cluster.form(*THREE)
    cluster.call("a", "CreateStream", name="x", subject="x", replicationFactor=3, partitions=3)
    eventually(
        lambda: "Server c votes" in cluster.servers["a"].log() and "Server b votes" in cluster.servers["a"].log()
    )
    frozen = metadata_leader(cluster)
    others = [one for one in THREE if one != frozen]
    os.kill(cluster.servers[frozen].pid, signal.SIGSTOP)
    try:
        cluster.call(others[0], "CreateStream", name="y", subject="y", replicationFactor=2)
        for number in range(3):
            on_all(partial(is_led_by_one_of, cluster, others, number), others)
    finally:
        os.kill(cluster.servers[frozen].pid, signal.SIGCONT)
    on_all(lambda server_id: streams(cluster, server_id) == {"x", "y"})
    on_all(lambda server_id: brokers(cluster, server_id) == set(THREE))


def test_a_restart_of_nats_leaves_the_cluster_as_it_was(cluster: ClusterProcesses) -> None:
    cluster.form(*THREE)
    cluster.call("a", "CreateStream", name="x", subject="x", replicationFactor=3, partitions=3)
    cluster.nats.kill()
    cluster.nats.start()
    cluster.call("b", "CreateStream", name="y", subject="y", replicationFactor=3, timeout=20)
    on_all(lambda server_id: streams(cluster, server_id) == {"x", "y"})
    on_all(lambda server_id: brokers(cluster, server_id) == set(THREE))
    for number in range(3):
        on_all(partial(is_led_by_one_of, cluster, THREE, number))
