"""What partitions cost a cluster that nobody uses, and what a death costs: ``python tests/benchmarks/cluster_partitions.py``.

Three servers on one nats-server, streams of 100 partitions with three replicas each (1,000 partitions unless told
otherwise). Prints how long it takes to create them, memory and idle CPU of each server with and without them, the time
from kill -9 of a server until others lead all that it led, and until it is back in every ISR; and how long the first
ack of policy ALL takes on a new stream. About two minutes; figures depend on the machine and on who else uses it.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from cluster_processes import ClusterProcesses

from liftbridge.protocol.generated import api_pb2 as api

IDLE_S = 15.0
PARTITIONS_OF_A_STREAM = 100
SERVERS = ("a", "b", "c")


def main(partitions: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        cluster = ClusterProcesses(Path(folder))
        try:
            print(f"three servers form a cluster: {seconds(lambda: cluster.form(*SERVERS)):.2f} s")
            report_idle(cluster, "without partitions")
            report_first_ack(cluster)
            streams = [f"s{number}" for number in range(partitions // PARTITIONS_OF_A_STREAM)]
            print(f"create {partitions:,} partitions: {seconds(lambda: create(cluster, streams)):.1f} s")
            report_idle(cluster, f"with {partitions:,} partitions")
            report_failover(cluster, streams)
        finally:
            cluster.kill()


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def create(cluster: ClusterProcesses, streams: list[str]) -> None:
    for name in streams:
        cluster.call(
            "a",
            "CreateStream",
            timeout=60,
            name=name,
            subject=name,
            replicationFactor=3,
            partitions=PARTITIONS_OF_A_STREAM,
        )


def report_first_ack(cluster: ClusterProcesses) -> None:
    times_ms = []
    for number in range(5):
        began = time.perf_counter()
        name = f"new{number}"
        cluster.call("a", "CreateStream", name=name, subject=name, replicationFactor=3)
        cluster.call("a", "Publish", stream=name, value=b"x", ackPolicy=api.AckPolicy.ALL)
        times_ms.append((time.perf_counter() - began) * 1e3)
    print("a new stream and its first ack of policy ALL: " + ", ".join(f"{one:.0f} ms" for one in times_ms))


def report_idle(cluster: ClusterProcesses, when: str) -> None:
    before = {server.server_id: cpu_seconds(server.pid) for server in cluster.running()}
    time.sleep(IDLE_S)
    for server in cluster.running():
        used = (cpu_seconds(server.pid) - before[server.server_id]) / IDLE_S
        print(f"{when}, {server.server_id}: {server.resident_bytes() / 2**20:.1f} MiB, idle {used:.2%} of a core")


def report_failover(cluster: ClusterProcesses, streams: list[str]) -> None:
    led = sum(leader == "c" for leader in leaders(cluster, "a", streams))
    cluster.servers["c"].kill()
    took_s = seconds(lambda: wait_until(lambda: "c" not in leaders(cluster, "a", streams)))
    print(f"kill -9 of a server that leads {led} partitions: others lead them after {took_s:.2f} s")
    started_s = seconds(lambda: cluster.start("c"))
    joined_s = seconds(lambda: wait_until(lambda: all_in_sync(cluster, streams)))
    print(f"it starts again: serves clients after {started_s:.2f} s, in all ISRs {joined_s:.2f} s later")


def partitions_of(cluster: ClusterProcesses, server_id: str, streams: list[str]) -> list[api.PartitionMetadata]:
    metadata = cluster.call(server_id, "FetchMetadata", streams=streams).streamMetadata
    return [partition for stream in metadata for partition in stream.partitions.values()]


def leaders(cluster: ClusterProcesses, server_id: str, streams: list[str]) -> list[str]:
    return [partition.leader or "c" for partition in partitions_of(cluster, server_id, streams)]


def all_in_sync(cluster: ClusterProcesses, streams: list[str]) -> bool:
    return all(len(partition.isr) == len(SERVERS) for partition in partitions_of(cluster, "a", streams))


def wait_until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    end = time.perf_counter() + timeout_s
    while not condition():
        if time.perf_counter() > end:
            sys.exit(f"not within {timeout_s} s")
        time.sleep(0.02)


def cpu_seconds(pid: int) -> float:
    """User and system time of the process and its threads so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("partitions", type=int, nargs="?", default=1_000)
    main(parser.parse_args().partitions)
