"""A broker as the original's documentation secures one: client certificates, a model and a policy, in YAML."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from api_client import ApiClient
from broker_process import BrokerProcess
from certificates import Authority, Certificate
from cluster_processes import eventually
from policies import PLAIN_MODEL

from liftbridge.client import Tls

_CONFIG = """\
tls:
  key: {server.key}
  cert: {server.cert}
  client:
    auth:
      enabled: true
      ca: {authority.cert}
    authz:
      enabled: true
      model: {model}
      policy: {policy}
activity.stream.enabled: true
cursors.stream.partitions: 1
"""


class SecureBroker:
    """A broker, its authority, and a policy that tests change. With ``beside``, it joins the cluster of another one, which has
    to run."""

    def __init__(self, folder: Path, policy: str, *, beside: "SecureBroker | None" = None) -> None:
        folder.mkdir(exist_ok=True)
        self.authority = beside.authority if beside else Authority(folder)
        self.certificates: dict[str, Certificate] = {}
        self.policy = folder / "policy.csv"
        self.policy.write_text(policy)
        model, config = folder / "model.conf", folder / "liftbridge.yaml"
        model.write_text(PLAIN_MODEL)
        server = self.authority.server()
        config.write_text(_CONFIG.format(server=server, authority=self.authority, model=model, policy=self.policy))
        self.process = BrokerProcess(folder / "data", "--config", str(config))
        if beside:
            nats_url = beside.process.nats_url
            self.process = BrokerProcess(
                folder / "data", "--config", str(config), nats_url=nats_url, server_id="another", bootstrap=()
            )

    def certificate(self, name: str) -> Certificate:
        if name not in self.certificates:
            self.certificates[name] = self.authority.client(name)
        return self.certificates[name]

    def tls(self, name: str) -> Tls:
        certificate = self.certificate(name)
        return Tls(ca=self.authority.cert, certificate=certificate.cert, key=certificate.key)

    def client(self, name: str) -> ApiClient:
        return ApiClient(self.process.address, self.tls(name).channel_credentials())

    def cli(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        files = self.certificate(name)
        tls = ["--tls-ca", str(self.authority.cert), "--tls-cert", str(files.cert), "--tls-key", str(files.key)]
        command = [sys.executable, "-m", "liftbridge", *arguments, "--server", self.process.address, *tls]
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)

    def start(self) -> None:
        """Returns when clients are served."""
        self.process.launch()
        eventually(lambda: "Serving clients on" in self.process.log(), timeout_s=30)

    async def reload(self, policy: str) -> str:
        """Changes the policy, and returns what the server says to that."""
        self.policy.write_text(policy)
        before = self.process.log()
        os.kill(self.process.pid, signal.SIGHUP)
        await asyncio.to_thread(eventually, lambda: "ermissions" in self.process.log().removeprefix(before))
        return self.process.log().removeprefix(before)
