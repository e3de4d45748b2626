"""go-liftbridge v2.4.0, the official client, against a real broker."""

import shutil
import subprocess
from pathlib import Path

import pytest
from broker_process import BrokerProcess
from cluster_processes import SEED, ClusterProcesses
from secure_broker import SecureBroker

_SOURCE = Path(__file__).parent / "go_client"
_CURSORS = ("--set", "cursors.stream.partitions=3")


@pytest.fixture(scope="module")
def go_client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("go") is None:
        pytest.skip("go isn't installed")
    binary = tmp_path_factory.mktemp("go") / "go_client"
    built = subprocess.run(
        ["go", "build", "-o", str(binary), "."], cwd=_SOURCE, capture_output=True, text=True, check=False, timeout=240
    )
    assert built.returncode == 0, built.stderr
    return binary


def run(*command: str | Path) -> tuple[str, str, int]:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=90)
    return done.stdout, done.stderr, done.returncode


@pytest.mark.interop
@pytest.mark.timeout(300)
def test_go_liftbridge_publishes_subscribes_and_reads_metadata(go_client: Path, tmp_path: Path) -> None:
    broker = BrokerProcess(tmp_path / "data", *_CURSORS)
    broker.start()
    try:
        assert run(go_client, broker.address) == ("ok\n", "", 0)
    finally:
        broker.stop()


@pytest.mark.interop
@pytest.mark.timeout(300)
def test_go_client_with_a_certificate_does_what_its_rules_allow(go_client: Path, tmp_path: Path) -> None:
    calls = ("CreateStream", "Publish", "Subscribe")
    server = SecureBroker(
        tmp_path, "p, gopher, *, FetchMetadata\n" + "".join(f"p, gopher, orders, {one}\n" for one in calls)
    )
    server.start()
    try:
        files = server.certificate("gopher")
        done = run(go_client, "secure", server.process.address, server.authority.cert, files.cert, files.key)
        assert done == ("ok\n", "", 0)
    finally:
        server.process.stop()


@pytest.mark.interop
@pytest.mark.timeout(300)
def test_go_consumers_share_partitions_and_go_on_where_others_stopped(go_client: Path, tmp_path: Path) -> None:
    broker = BrokerProcess(tmp_path / "data", *_CURSORS)
    broker.start()
    try:
        assert run(go_client, "consumers", broker.address) == ("ok\n", "", 0)
    finally:
        broker.stop()


@pytest.mark.interop
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_go_consumer_goes_on_when_its_coordinator_is_killed(go_client: Path, tmp_path: Path) -> None:
    cluster = ClusterProcesses(tmp_path)
    for server_id in "abc":
        cluster.add(server_id, *_CURSORS, bootstrap=SEED if server_id == "a" else ())
    cluster.start("a", "b", "c")
    addresses = [server.address for server in cluster.servers.values()]
    with subprocess.Popen(
        [go_client, "consumers", *addresses],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            if process.stdout.readline() == "consuming\n":
                (group,) = cluster.call("a", "FetchMetadata", groups=["workers"]).groupMetadata
                cluster.servers[group.coordinator].kill()
            output, errors = process.communicate("killed\n", timeout=90)
        finally:
            process.kill()
            cluster.kill()
    assert (output, errors, process.returncode) == ("ok\n", "", 0)
