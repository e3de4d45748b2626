"""What a person sees who starts and stops a server: few lines, and of every mistake what is wrong and what helps."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from api_client import ApiClient
from broker_process import BrokerProcess, free_port
from cluster_processes import ClusterProcesses, eventually

from liftbridge.protocol.generated import api_pb2 as api

_LEVEL = re.compile(r"level=(\w+) msg=\"?(.*?)\"?$", re.MULTILINE)


def lines(log: str) -> list[str]:
    """Level and message of each line."""
    return [f"{level}: {message}" for level, message in _LEVEL.findall(log)]


def refused(*arguments: str, cwd: Path, code: int) -> str:
    """What a server that can't start says last; it has nothing to warn of before that."""
    command = [sys.executable, "-m", "liftbridge", "serve", "--raft-bootstrap-seed", "--port", "0", *arguments]
    done = subprocess.run(command, check=False, cwd=cwd, capture_output=True, text=True, timeout=30)
    assert "Traceback" not in done.stderr
    assert [line for line in lines(done.stderr) if not line.startswith("info")] == []
    *_, last = done.stderr.splitlines()
    assert done.returncode == code, done.stderr
    return last


def test_a_server_tells_in_few_lines_what_it_is_and_that_it_ends(new_broker: BrokerProcess) -> None:
    new_broker.start()
    status = [sys.executable, "-m", "liftbridge", "cluster", "status", "-n", new_broker.nats_url]
    for _ in range(2):  # who looks often makes no lines
        subprocess.run(status, check=True, capture_output=True, timeout=30)
    assert new_broker.stop() == 0
    assert lines(new_broker.log()) == [
        "info: Liftbridge Version:        0.1.0",
        "info: Server ID:                 broker",
        "info: Namespace:                 liftbridge-default",
        f"info: Data Directory:            {new_broker.data_dir}",
        "info: Default Retention Policy:  [Age: 1 week, Compact: false]",
        "info: Default Partition Pausing: disabled",
        f"info: Embedded NATS server listens on {new_broker.nats_url.removeprefix('nats://')}",
        "info: Server became metadata leader, performing leader promotion actions",
        f"info: Serving clients on {new_broker.address}",
        "info: Shutting down...",
        "info: Stopped",
    ]


def votes(cluster: ClusterProcesses) -> list[str]:
    """What each server is in the metadata group."""
    status = cluster.operate("status", "--json")
    return sorted(one["metadata"] for one in json.loads(status.stdout)["servers"]) if status.stdout else []


def test_a_leader_that_hands_over_warns_of_nothing(tmp_path: Path) -> None:
    cluster = ClusterProcesses(tmp_path)
    try:
        cluster.form("a", "b", "c")
        leader = cluster.servers["a"]
        eventually(lambda: votes(cluster) == ["leader", "voter", "voter"])
        assert leader.stop() == 0
        assert [line for line in lines(leader.log()) if not line.startswith("info")] == []
        promoted = "Server became metadata leader"  # the old one need not hear who it is before it stops
        eventually(lambda: any(promoted in cluster.servers[one].log() for one in "bc"))
    finally:
        cluster.kill()


def test_lines_about_a_partition_name_it_as_people_do(tmp_path: Path) -> None:
    cluster = ClusterProcesses(tmp_path)
    try:
        cluster.form("a", "b", "c")
        cluster.call("a", "CreateStream", name="s", subject="s", replicationFactor=3)
        cluster.servers["c"].end(signal.SIGKILL)

        def logs() -> str:
            return "".join(cluster.servers[one].log() for one in "ab")

        eventually(lambda: re.search(r'"partition 0 of stream \\"s\\": ISR .* is to become', logs()))
        assert "LogId(" not in logs()
    finally:
        cluster.kill()


def test_a_second_signal_ends_the_handing_over_and_not_the_clean_stop(tmp_path: Path) -> None:
    cluster = ClusterProcesses(tmp_path)
    try:
        cluster.form("a", "b")
        cluster.call("a", "CreateStream", name="s", subject="s", replicationFactor=2)
        cluster.servers["b"].end(signal.SIGKILL)  # nobody is left to hand over to
        leader = cluster.servers["a"]
        os.kill(leader.pid, signal.SIGINT)
        eventually(lambda: "Shutting down..." in leader.log())
        os.kill(leader.pid, signal.SIGINT)
        assert leader.wait_for_end() == 0
        assert "Traceback" not in leader.log()
        assert lines(leader.log())[-2:] == [
            "info: Asked again: not waiting for other servers to take over",
            "info: Stopped",
        ]
    finally:
        cluster.kill()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (
            ["--nats-servers", "nats://127.0.0.1:1"],
            1,
            "liftbridge: failed to connect to NATS at nats://127.0.0.1:1: Connection refused. Is it running there? "
            "transport.nats.servers (--nats-servers) says where it is",
        ),
        (["--nats-servers", "a:b:c"], 2, 'liftbridge: transport.nats.servers: "a:b:c" is no URL like nats://host:4222'),
        (
            ["--data-dir", "a-file"],
            1,
            "liftbridge: data directory a-file can't be used: it is a file. Name another with --data-dir",
        ),
        (["--data-dir", "original"], 1, "liftbridge: data directory original is the original Liftbridge's"),
        (["--config", "bad.yaml"], 2, "liftbridge: Failed to load configuration file bad.yaml, line 3: "),
        (["--set", "endpoints="], 2, "liftbridge: endpoints: name at least one"),
        (["--set", "streams.encryption=true"], 2, "liftbridge: streams.encryption needs a key"),
        (
            ["--tls-cert", "a-file", "--tls-key", "a-file"],
            2,
            "failed to load TLS key pair: a-file holds no certificate in PEM",
        ),
        (["--tls-cert", "a-file", "--tls-key", "nothing"], 2, "a-file holds no certificate in PEM"),
        (["--set", "tls.client.auth.enabled=true"], 2, "endpoint.grpc.tls.client.auth.enabled needs TLS"),
        (["--set", "tls.client.auth.ca=a-file"], 2, "no client would be asked for a certificate"),
        (["--set", "tls.client.authz.enabled=true"], 2, "no file has them. Name one with authorization.policy.file"),
        (["--set", "tls.client.authz.policy=a-file"], 2, "authorization is off and everybody could do everything"),
        (
            ["--set", "authorization=policy", "--set", "authorization.policy.file=nothing"],
            2,
            "liftbridge: failed to load authorization permissions: can't read nothing: No such file or directory",
        ),
        (
            ["--set", "authorization=policy", "--set", "authorization.policy.file=a-file"],
            2,
            "liftbridge: authorization is on, and goes by the names in clients' certificates, which no client is asked for: ",
        ),
        (["--host", "no-such-host.invalid"], 2, "Choose another address with --host and --port"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_keeps_a_server_from_starting_is_one_line_that_helps(
    tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    (tmp_path / "a-file").touch()
    (tmp_path / "original" / "raft").mkdir(parents=True)
    (tmp_path / "original" / "raft" / "raft.db").touch()
    (tmp_path / "bad.yaml").write_text("nats:\n  servers: [a\n")
    if "--nats-servers" not in arguments:
        arguments = ["--embedded-nats", "--set", "transport.nats.embedded.listen=127.0.0.1:0", *arguments]
    assert said in refused("--data-dir", "data", *arguments, cwd=tmp_path, code=code)


def test_ports_that_are_taken_are_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        listen = f"transport.nats.embedded.listen=127.0.0.1:{port}"
        last = refused("-d", "data", "--embedded-nats", "--set", listen, cwd=tmp_path, code=1)
        assert f"127.0.0.1:{port}" in last
        assert "say --nats-servers instead of --embedded-nats" in last
        own = f"transport.nats.embedded.listen=127.0.0.1:{free_port()}"
        endpoint = ("--host", "127.0.0.1", "--port", str(port))
        last = refused("-d", "data", "--embedded-nats", "--set", own, *endpoint, cwd=tmp_path, code=2)
        assert last == (
            f"liftbridge: can't listen on 127.0.0.1:{port}: Address already in use. Choose another address with --host and "
            "--port (endpoint.grpc.listen)"
        )


def test_the_only_server_of_a_cluster_is_not_removed(tmp_path: Path) -> None:
    cluster = ClusterProcesses(tmp_path)
    try:
        cluster.form("a")
        done = cluster.operate("remove", "a")
        said = "liftbridge: a is the only server that keeps the metadata: let another one join first\n"
        assert (done.returncode, done.stderr) == (1, said)
    finally:
        cluster.kill()


async def test_messages_without_their_metadata_are_not_taken_for_rubbish(new_broker: BrokerProcess) -> None:
    new_broker.start()
    async with ApiClient(new_broker.address) as client:
        await client("CreateStream", name="s", subject="s")
        await client("Publish", stream="s", value=b"kept")
    new_broker.stop()
    stable = new_broker.data_dir / "stable"
    shutil.move(stable, new_broker.data_dir / "elsewhere")
    new_broker.launch()
    assert new_broker.wait_for_end() == 1
    assert "holds messages, but not the metadata that says of which streams" in new_broker.log()
    shutil.rmtree(stable, ignore_errors=True)
    shutil.move(new_broker.data_dir / "elsewhere", stable)
    new_broker.start()
    async with ApiClient(new_broker.address) as client:
        messages = await client.messages(stream="s", startPosition=api.EARLIEST, stopPosition=api.STOP_LATEST)
    assert [message.value for message in messages] == [b"kept"]


def test_the_demo_goes_on_where_the_one_before_it_ended(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "liftbridge", "demo", "--data-dir", "demo"]
    shown = ""
    for _ in range(2):
        done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        shown = done.stdout
    assert 'The stream "weather" is there already, with what earlier demos published' in shown
    assert re.findall(r"offset \d+ +key \S+ +(\S+)", shown) == ["Oslo", "Lima", "Pune", "Oslo", "Lima"] * 2
    assert re.search(r"^  liftbridge dump-log demo/streams/", shown, re.MULTILINE)
