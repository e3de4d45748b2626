"""Encryption at rest through real brokers: nothing in clear on the disk, and a key that is missing harms one stream only."""

import os
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from api_client import ApiClient, fails_with
from broker_process import BrokerProcess
from cluster_processes import ClusterProcesses, eventually

from liftbridge.protocol.generated import api_pb2 as api

YES = api.NullableBool(value=True)
KEY = "hex:" + "11" * 32
OTHER = "hex:" + "22" * 32
SECRETS = (b"the secret value", b"the secret key", b"the-secret-header", b"secret header value", b"secret.subject")
EARLIEST = {"startPosition": api.StartPosition.EARLIEST, "stopPosition": api.StopPosition.STOP_LATEST}


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(KEY)
    return path


@pytest.fixture
def broker(tmp_path: Path, key_file: Path) -> Iterator[BrokerProcess]:
    process = BrokerProcess(tmp_path / "data", "--set", f"encryption.keys=file:{key_file}")
    process.start()
    yield process
    process.kill()


def write_keys(path: Path, *keys: str) -> str:
    """Where the broker finds them; nowhere, if there is none."""
    path.write_text("\n".join(keys))
    return f"file:{path}" if any(keys) else "env:LIFTBRIDGE_ENCRYPTION_KEY"


async def publish_secret(client: ApiClient, stream: str) -> None:
    await client(
        "Publish",
        stream=stream,
        value=SECRETS[0],
        key=SECRETS[1],
        headers={SECRETS[2].decode(): SECRETS[3]},
        ackPolicy=api.AckPolicy.ALL,
    )


def files_with(folder: Path, secret: bytes) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file() and secret in path.read_bytes()]


async def test_nothing_is_in_clear_on_the_disk_and_everything_for_readers(broker: BrokerProcess) -> None:
    async with ApiClient(broker.address) as client:
        await client("CreateStream", name="e", subject="secret.subject", encryption=YES, compactEnabled=YES)
        await client("CreateStream", name="clear", subject="clear")
        for _ in range(5):
            await publish_secret(client, "e")
        await publish_secret(client, "clear")
        messages = await client.messages(stream="e", **EARLIEST)
        assert [message.value for message in messages] == [SECRETS[0]] * 5
        assert messages[0].key == SECRETS[1]
    logs = broker.data_dir / "streams"
    encrypted, clear = sorted(logs.glob("*-0"), key=lambda path: int(path.name.split("-")[0]))
    for secret in SECRETS:
        assert files_with(encrypted, secret) == []
    assert files_with(clear, SECRETS[0]), "the test looks where values are"
    assert files_with(broker.data_dir / "index", SECRETS[1]) == []
    broker.kill()
    broker.start()
    async with ApiClient(broker.address) as client:
        assert len(await client.messages(stream="e", **EARLIEST)) == 5


async def test_a_missing_key_takes_one_stream_offline_until_it_is_back(broker: BrokerProcess, key_file: Path) -> None:
    async with ApiClient(broker.address) as client:
        await client("CreateStream", name="e", subject="e", encryption=YES)
        await client("CreateStream", name="clear", subject="clear")
        await publish_secret(client, "e")
        await publish_secret(client, "clear")
    for content in (OTHER, ""):
        broker.stop()
        broker.arguments = ["--set", f"encryption.keys={write_keys(key_file, content)}"]
        broker.start()
        async with ApiClient(broker.address) as client:
            assert len(await client.messages(stream="clear", **EARLIEST)) == 1
            with fails_with(grpc.StatusCode.INTERNAL, "is offline"):
                await client.messages(stream="e", **EARLIEST)
            with fails_with(grpc.StatusCode.INTERNAL, "key"):
                await client("Publish", stream="e", value=b"x")
        assert "is offline" in broker.log()
    broker.stop()
    broker.arguments = [
        "--set",
        f"encryption.keys={write_keys(key_file, OTHER, KEY)}",
    ]  # rotated: OTHER writes from now on
    broker.start()
    async with ApiClient(broker.address) as client:
        await publish_secret(client, "e")
        assert [message.offset for message in await client.messages(stream="e", **EARLIEST)] == [0, 1]


async def test_every_new_stream_is_encrypted_where_the_server_says_so(tmp_path: Path, key_file: Path) -> None:
    settings = (f"encryption.keys=file:{key_file}", "streams.encryption=true", "cursors.stream.partitions=1")
    broker = BrokerProcess(tmp_path / "data", *(word for one in settings for word in ("--set", one)))
    broker.start()
    try:
        async with ApiClient(broker.address) as client:
            await client("CreateStream", name="e", subject="e")
            await publish_secret(client, "e")
            await client("SetCursor", stream="e", partition=0, cursorId="secret cursor", offset=0)
            assert (await client("FetchCursor", stream="e", partition=0, cursorId="secret cursor")).offset == 0
        for secret in (SECRETS[0], b"secret cursor"):
            assert files_with(broker.data_dir / "streams", secret) == []
    finally:
        broker.kill()


async def test_without_a_key_a_server_that_encrypts_doesnt_start(tmp_path: Path) -> None:
    assert "LIFTBRIDGE_ENCRYPTION_KEY" not in os.environ
    broker = BrokerProcess(tmp_path / "data", "--set", "streams.encryption=true")
    with pytest.raises(RuntimeError, match=r"streams\.encryption needs a key"):
        broker.start()


async def test_a_server_without_the_key_keeps_nobody_else_from_serving(tmp_path: Path, key_file: Path) -> None:
    cluster = ClusterProcesses(tmp_path)
    try:
        with_key = ("--set", f"encryption.keys=file:{key_file}")
        cluster.add("a", *with_key, bootstrap=("--raft-bootstrap-seed",))
        cluster.add("b", *with_key)
        cluster.add("c")
        cluster.start("a", "b", "c")
        eventually(lambda: len(cluster.call("a", "FetchMetadata").brokers) == 3)
        cluster.call("a", "CreateStream", name="e", subject="e", replicationFactor=3, partitions=3, encryption=YES)
        eventually(lambda: "offline" in cluster.servers["c"].log())

        def acked_by_all() -> bool:
            led = [n for n in range(3) if cluster.partition("a", "e", n).leader in ("a", "b")]
            for number in led:
                cluster.call("a", "Publish", stream="e", partition=number, value=b"v", ackPolicy=api.AckPolicy.ALL)
            return len(led) >= 2

        assert eventually(acked_by_all, 20)
        for number in range(3):
            metadata = cluster.partition("a", "e", number)
            if metadata.leader in ("a", "b"):
                assert "c" not in metadata.isr
    finally:
        cluster.kill()
