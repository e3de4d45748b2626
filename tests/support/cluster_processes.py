"""Several real brokers on one real nats-server, each in a process of its own."""

import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from broker_process import BrokerProcess
from cables import Cables
from nats_process import NatsProcess

from liftbridge.protocol.generated import api_pb2 as api

SEED = ("--raft-bootstrap-seed",)


class ClusterProcesses:
    """Servers by ID. Nothing runs before ``start``. With ``cables``, those to NATS can be cut. Without ``links``, a server
    whose cable is cut reaches nobody. ``program`` is what their Python runs."""

    def __init__(
        self,
        folder: Path,
        *,
        namespace: str = "test",
        cables: bool = False,
        links: bool = True,
        program: tuple[str, ...] = ("-m", "liftbridge"),
    ) -> None:
        self.folder = folder
        self.namespace = namespace
        self.nats = NatsProcess()
        self.nats.start()
        self.cables = Cables(self.nats.port) if cables else None
        self.links = links
        self.program = program
        self.servers: dict[str, BrokerProcess] = {}

    def add(self, server_id: str, *arguments: str, bootstrap: tuple[str, ...] = ()) -> BrokerProcess:
        """A server that isn't started yet."""
        links = "true" if self.links else "false"
        server = self.servers[server_id] = BrokerProcess(
            self.folder / server_id,
            *("--namespace", self.namespace, "--set", f"transport.nats.links={links}"),
            *arguments,
            nats_url=self.cables.lay(server_id) if self.cables else self.nats.url,
            server_id=server_id,
            bootstrap=bootstrap,
            program=self.program,
        )
        return server

    def form(self, *server_ids: str) -> None:
        """The first one begins the cluster, the others join; returns when all serve clients."""
        for number, server_id in enumerate(server_ids):
            self.add(server_id, bootstrap=SEED if number == 0 else ())
        self.start(*server_ids)

    def start(self, *server_ids: str) -> None:
        """At once; returns when they serve clients."""
        for server_id in server_ids:
            self.servers[server_id].launch()
        for server_id in server_ids:
            self.servers[server_id].wait_until_serving()

    def running(self) -> list[BrokerProcess]:
        return [server for server in self.servers.values() if server.running]

    def call(self, server_id: str, method: str, *, timeout: float = 10, **fields: Any) -> Any:
        """One unary call to one server."""
        with grpc.insecure_channel(self.servers[server_id].address) as channel:
            call = channel.unary_unary(
                f"/proto.API/{method}",
                request_serializer=getattr(api, f"{method}Request").SerializeToString,
                response_deserializer=getattr(api, f"{method}Response").FromString,
            )
            return call(getattr(api, f"{method}Request")(**fields), timeout=timeout, wait_for_ready=True)

    def operate(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``liftbridge cluster ...``, as an operator types it."""
        command = [sys.executable, "-m", "liftbridge", "cluster", *arguments]
        command += ["--nats-servers", self.nats.url, "--namespace", self.namespace]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def partition(self, server_id: str, stream: str, number: int = 0) -> api.PartitionMetadata:
        """As that server knows it."""
        (metadata,) = self.call(server_id, "FetchMetadata", streams=[stream]).streamMetadata
        return metadata.partitions[number]

    def stop(self) -> None:
        servers = self.running()
        with ThreadPoolExecutor(max(1, len(servers))) as pool:
            list(pool.map(BrokerProcess.stop, servers))
        self._stop_network()

    def kill(self) -> None:
        for server in self.running():
            server.kill()
        self._stop_network()

    def _stop_network(self) -> None:
        cables, self.cables = self.cables, None
        if cables is not None:
            cables.stop()
        self.nats.stop()


def eventually(condition: Callable[[], Any], timeout_s: float = 15.0) -> Any:
    """What the condition returns once that is true. An error of a call, or a failed assertion, counts as not yet."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            result = condition()
            if result:
                return result
            problem: object = f"it returned {result!r}"
        except (grpc.RpcError, AssertionError) as error:
            problem = error
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {problem}")
        time.sleep(0.05)
