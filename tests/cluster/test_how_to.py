"""What the how-to pages tell to do, done. Addresses and folders are the test's own."""

import contextlib
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import grpc
from broker_process import BrokerProcess, free_port
from original_process import Flavour
from pages import blocks, commands


def shell(broker: BrokerProcess, *command: str) -> str:
    """What a command of clients prints."""
    whole = [sys.executable, "-m", "liftbridge", *command, "--server", broker.address]
    return subprocess.run(whole, check=True, capture_output=True, text=True, timeout=60).stdout


def wait_until_it_listens(port: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return
        assert time.monotonic() < deadline
        time.sleep(0.05)


def wait_until_it_serves(address: str) -> None:
    deadline = time.monotonic() + 30
    with grpc.insecure_channel(address) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        while check(b"", timeout=30, wait_for_ready=True) != b"\x08\x01":
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_the_program_for_moving_copies_streams_from_either_server(flavour: Flavour, tmp_path: Path) -> None:
    old = flavour.start("old", {})
    new = BrokerProcess(tmp_path / "new")
    new.start()
    try:
        shell(old, "stream", "create", "weather", "--partitions", "2", "--subject", "weather.readings")
        shell(old, "publish", "weather", "3.1", "3.2", "--key", "oslo", "--header", "unit=C", "--partition", "1")
        (code,) = blocks("docs/how-to/move-from-the-original.md", "python")
        code = code.replace("old.example.org:9292", old.address).replace("new.example.org:9292", new.address)
        done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == "weather/1: 2 messages, the first had offset 0\n"
        copies = [json.loads(line) for line in shell(new, "subscribe", "weather", "--no-follow", "--json").splitlines()]
        assert [(one["partition"], one["offset"], one["key"], one["value"]) for one in copies] == [
            (1, 0, "oslo", "3.1"),
            (1, 1, "oslo", "3.2"),
        ]
        assert copies[0]["headers"] == {"unit": "C"}
    finally:
        new.kill()


def test_the_commands_for_three_servers_on_one_machine_run_a_cluster(tmp_path: Path) -> None:
    page = "docs/how-to/run-a-cluster.md"
    (servers,) = (block for block in blocks(page, "sh") if block.endswith("./c &\n"))
    (looks,) = (block for block in blocks(page, "sh") if "export LIFTBRIDGE_SERVERS" in block)
    nats_url = f"nats://127.0.0.1:{(nats_port := free_port())}"
    ports = {str(number): str(free_port()) for number in (9292, 9293, 9294)}

    def adapted(line: str) -> list[str]:
        for ours, taken in ports.items():
            line = line.replace(ours, taken)
        line = line.replace("nats-server -a 127.0.0.1", f"nats-server -a 127.0.0.1 -p {nats_port}")
        over_nats = line.startswith(("liftbridge serve", "liftbridge cluster"))
        return shlex.split(line.removesuffix(" &") + (f" -n {nats_url}" if over_nats else ""))

    scripts = Path(sys.executable).parent
    first, *others = looks.splitlines()
    environment = {**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}"}
    environment["LIFTBRIDGE_SERVERS"] = adapted(first.replace("export LIFTBRIDGE_SERVERS=", ""))[0]
    with contextlib.ExitStack() as running:
        for line in servers.splitlines():
            command = adapted(line)
            log = running.enter_context((tmp_path / f"{command[0]}{len(line)}.log").open("w"))
            process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
            running.callback(process.wait)
            running.callback(process.kill)
            if command[0] == "nats-server":
                wait_until_it_listens(nats_port)
        for port in ports.values():
            wait_until_it_serves(f"127.0.0.1:{port}")
        shown = [
            subprocess.run(
                adapted(line), check=True, env=environment, capture_output=True, text=True, timeout=60
            ).stdout
            for line in others
        ]
    assert "c       127.0.0.1" in shown[0]
    assert shown[2] == "partition 0, offset 0\npartition 0, offset 1\n"
    assert "a, b, c" in shown[3]
    assert [line.split()[-1] for line in shown[4].splitlines()] == ["one", "two"]


def test_the_health_check_of_the_page_says_what_a_server_does(new_broker: BrokerProcess) -> None:
    new_broker.start()
    (code,) = blocks("docs/how-to/watch-a-cluster.md", "python")
    code = code.replace("localhost:9292", new_broker.address)
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout == "serving\n"


def test_what_the_page_looks_at_is_in_the_answers(new_broker: BrokerProcess) -> None:
    new_broker.start()
    shell(new_broker, "stream", "create", "orders")
    status, listed, described = (shlex.split(line) for line in commands("docs/how-to/watch-a-cluster.md"))
    whole = [sys.executable, "-m", *status, "--nats-servers", new_broker.nats_url]
    asked = subprocess.run(whole, check=True, capture_output=True, text=True, timeout=60)
    assert {"healthy", "partitions_out_of_sync"} <= set(json.loads(asked.stdout))
    assert "orders" in shell(new_broker, *listed[1:])
    assert '"next_offset"' in shell(new_broker, *described[1:])


def test_a_copy_of_a_stopped_servers_data_directory_is_a_back_up(new_broker: BrokerProcess) -> None:
    (copy,) = (line for line in commands("docs/how-to/upgrade-and-back-up.md") if line.startswith("cp"))
    new_broker.start()
    shell(new_broker, "stream", "create", "orders")
    shell(new_broker, "publish", "orders", "before")
    assert new_broker.stop() == 0
    assert new_broker.data_dir.name == "data"
    subprocess.run(shlex.split(copy), check=True, cwd=new_broker.data_dir.parent)
    new_broker.start()
    shell(new_broker, "publish", "orders", "after")
    new_broker.kill()
    shutil.rmtree(new_broker.data_dir)
    new_broker.data_dir.with_name("data.backup").rename(new_broker.data_dir)
    new_broker.start()
    (exported,) = (line for line in commands("docs/how-to/upgrade-and-back-up.md") if "json" in line)
    command = shlex.split(exported.partition(" > ")[0])
    assert [json.loads(line)["value"] for line in shell(new_broker, *command[1:]).splitlines()] == ["before"]
    assert "partition 0, offset 1" in shell(new_broker, "publish", "orders", "again")
