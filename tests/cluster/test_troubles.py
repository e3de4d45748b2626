"""What ``liftbridge cluster status`` says of partitions that their servers can't open."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from api_client import ApiClient
from broker_process import BrokerProcess
from cluster_processes import ClusterProcesses, eventually

from liftbridge.protocol.generated import api_pb2 as api

YES = api.NullableBool(value=True)


def status(nats_url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "liftbridge", "cluster", "status", *arguments, "-n", nats_url]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)


def shown(nats_url: str, *arguments: str) -> dict[str, Any]:
    """Whose exit code says the same."""
    done = status(nats_url, "--json", *arguments)
    picture: dict[str, Any] = json.loads(done.stdout)
    assert picture["healthy"] is (done.returncode == 0)
    return picture


async def test_a_damaged_file_is_shown_with_what_is_wrong_until_its_stream_is_deleted(
    new_broker: BrokerProcess,
) -> None:
    new_broker.start()
    async with ApiClient(new_broker.address) as client:
        for name in ("good", "bad"):
            await client("CreateStream", name=name, subject=name)
            for _ in range(5):
                await client("Publish", stream=name, value=bytes(100))
    assert shown(new_broker.nats_url)["troubles"] == []
    new_broker.kill()
    (segment,) = sorted(new_broker.data_dir.glob("streams/*/*.log"))[-1:]
    data = bytearray(segment.read_bytes())
    data[len(data) // 2] ^= 1
    segment.write_bytes(data)
    new_broker.start()
    (trouble,) = eventually(lambda: shown(new_broker.nats_url)["troubles"])
    assert "damaged at byte" in trouble.pop("reason")
    wrong = {"stream": "bad", "partition": 0, "server": "broker", "role": "leader", "problem": "can't open it"}
    assert trouble == wrong
    done = status(new_broker.nats_url)
    assert done.returncode == 3
    assert "0 offline, 0 with replicas out of sync, 1 replicas in trouble" in done.stdout
    assert f"partition 0 of stream bad: leader broker can't open it: {segment}: damaged at byte" in done.stdout
    async with ApiClient(new_broker.address) as client:
        await client("DeleteStream", name="bad")
    eventually(lambda: shown(new_broker.nats_url)["healthy"])


def test_a_server_without_the_key_is_shown_by_whoever_leads_the_metadata_group(tmp_path: Path) -> None:
    cluster = ClusterProcesses(tmp_path)
    key_file = tmp_path / "key"
    key_file.write_text("hex:" + "11" * 32)
    try:
        for server_id in "abc":
            with_key = ("--set", f"encryption.keys=file:{key_file}") if server_id != "c" else ()
            cluster.add(server_id, *with_key, bootstrap=("--raft-bootstrap-seed",) if server_id == "a" else ())
        cluster.start(*"abc")
        eventually(lambda: len(cluster.call("a", "FetchMetadata").brokers) == 3)
        cluster.call("a", "CreateStream", name="e", subject="e", replicationFactor=3, encryption=YES)

        def says_why() -> bool:
            troubles = shown(cluster.nats.url, "--namespace", cluster.namespace)["troubles"]
            assert [(one["server"], one["problem"]) for one in troubles] == [("c", "can't open it")]
            return "encryption.keys" in troubles[0]["reason"]

        for leader in "abc":
            assert cluster.operate("transfer-leader", leader).returncode == 0
            eventually(says_why)
    finally:
        cluster.kill()
