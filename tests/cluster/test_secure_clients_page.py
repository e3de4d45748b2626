"""docs/how-to/secure-clients.md does what it says: its commands make the certificates, its files secure a server."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from api_client import ApiClient, fails_with
from broker_process import BrokerProcess
from cluster_processes import eventually

from liftbridge.client import Tls

_PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "secure-clients.md"
_DENIED = "The client is not authorized to call Publish on resource orders"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", _PAGE.read_text(), re.MULTILINE | re.DOTALL)


def shell(script: str, folder: Path, server: str = "") -> subprocess.CompletedProcess[str]:
    """Runs a block of the page as a person would, in a folder with what the blocks before it made."""
    environment = {**os.environ, "LIFTBRIDGE_SERVERS": server} if server else None
    script = script.replace("liftbridge ", f"{sys.executable} -m liftbridge ")
    return subprocess.run(
        ["sh", "-ec", script], cwd=folder, env=environment, check=False, capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[BrokerProcess]:
    if shutil.which("openssl") is None:
        pytest.skip("openssl isn't installed")
    *making, _using = blocks("sh")
    assert len(making) == 3
    for script in making:
        made = shell(script, tmp_path)
        assert made.returncode == 0, made.stderr
    config, model = blocks("ini")
    policy, roles = blocks("csv")
    (tmp_path / "policy.csv").write_text(policy)
    (tmp_path / "model.conf").write_text(model)
    (tmp_path / "roles.csv").write_text(roles)
    for name in re.findall(r"\w+\.(?:pem|key|csv)", config):
        config = config.replace(f"= {name}", f"= {tmp_path / name}")
    (tmp_path / "server.conf").write_text(config)
    broker = BrokerProcess(tmp_path / "data", "--config", str(tmp_path / "server.conf"))
    yield broker
    broker.kill()


def test_its_clients_may_do_what_the_page_says_and_no_more(secured: BrokerProcess, tmp_path: Path) -> None:
    secured.launch()
    eventually(lambda: "Serving clients on" in secured.log(), timeout_s=30)
    *_, using = blocks("sh")
    done = shell(using, tmp_path, secured.address)
    assert done.returncode == 0, done.stderr
    assert "3 apples" in done.stdout
    by_bob = "liftbridge publish orders x --tls-ca ca.pem --tls-cert bob.pem --tls-key bob.key"
    assert by_bob.split(" x ")[1].replace("bob", "alice") in using
    done = shell(by_bob, tmp_path, secured.address)
    assert _DENIED in done.stderr
    with (tmp_path / "policy.csv").open("a") as file:
        file.write("p, bob, orders, Publish\n")
    os.kill(secured.pid, signal.SIGHUP)
    eventually(lambda: "Reloaded authorization permissions successfully" in secured.log())
    assert shell(by_bob, tmp_path, secured.address).returncode == 0
    assert _DENIED in _PAGE.read_text()
    assert "Reloaded authorization permissions successfully" in _PAGE.read_text()


async def test_its_model_has_roles_and_patterns(secured: BrokerProcess, tmp_path: Path) -> None:
    secured.arguments += ["--set", f"authorization.policy.model={tmp_path / 'model.conf'}"]
    secured.arguments += ["--set", f"authorization.policy.file={tmp_path / 'roles.csv'}"]
    secured.launch()
    eventually(lambda: "Serving clients on" in secured.log(), timeout_s=30)

    def client(name: str) -> ApiClient:
        tls = Tls(ca=tmp_path / "ca.pem", certificate=tmp_path / f"{name}.pem", key=tmp_path / f"{name}.key")
        return ApiClient(secured.address, tls.channel_credentials())

    async with client("alice") as alice, client("bob") as bob:
        await bob("FetchMetadata")
        with fails_with(grpc.StatusCode.NOT_FOUND, "No such partition"):
            await bob.messages(1, stream="sensor-1")
        with fails_with(grpc.StatusCode.PERMISSION_DENIED, "Subscribe on resource orders"):
            await bob.messages(1, stream="orders")
        with fails_with(grpc.StatusCode.PERMISSION_DENIED, "FetchMetadata on resource *"):
            await alice("FetchMetadata")
