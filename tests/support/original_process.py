"""The original Liftbridge, a binary that lies beside this project, as a process that a test starts, kills and starts again."""

import lzma
import platform
import time
from pathlib import Path

from broker_process import BrokerProcess
from cluster_processes import SEED, ClusterProcesses
from nats_process import NatsProcess

_PACKED = Path(__file__).parents[2].parent / "shared" / "peer" / "liftbridge.xz"
_QUIET = {"telemetry.enabled": "false", "logging.level": "error", "host": "127.0.0.1"}


def why_it_cannot_run() -> str:
    """Empty where it can."""
    if not _PACKED.is_file():
        return "the original's binary isn't at ../shared/peer/liftbridge.xz, beside this project"
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return "the original's binary is for linux/amd64"
    return ""


def unpack(folder: Path) -> Path:
    """The binary, which takes half a second."""
    binary = folder / "liftbridge"
    binary.write_bytes(lzma.decompress(_PACKED.read_bytes()))
    binary.chmod(0o755)
    return binary


class OriginalProcess(BrokerProcess):
    """Like ours; ``settings`` are of its config file. Without ``nats_url`` it gets a nats-server of its own, which stays
    when it is killed."""

    def __init__(
        self,
        binary: Path,
        data_dir: Path,
        settings: dict[str, str],
        *,
        nats_url: str = "",
        server_id: str = "original",
        bootstrap: tuple[str, ...] = SEED,
    ) -> None:
        self._nats = None if nats_url else NatsProcess()
        if self._nats is not None:
            self._nats.start()
            nats_url = self._nats.url
        super().__init__(data_dir, nats_url=nats_url, server_id=server_id, bootstrap=bootstrap)
        self._binary = binary
        self._config = data_dir.with_suffix(".yaml")
        self._config.write_text("".join(f"{name}: {value}\n" for name, value in {**_QUIET, **settings}.items()))

    def command(self) -> list[str]:
        flags = {"--data-dir": self.data_dir, "--port": self.port, "--id": self.server_id}
        flags |= {"--nats-servers": self.nats_url, "--config": self._config}
        return [str(self._binary), *(str(word) for flag in flags.items() for word in flag), *self.bootstrap]

    def discard(self) -> None:
        """SIGKILL, since SIGTERM is no clean stop for it."""
        if self.running:
            self.kill()
        if self._nats is not None:
            self._nats.stop()


class Flavour:
    """Makes servers of one kind. ``settings`` are those that both kinds know."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._folder = folder
        self._binary = unpack(folder) if self.is_original else folder
        self._made: list[BrokerProcess | ClusterProcesses] = []

    @property
    def is_original(self) -> bool:
        return self.name == "original"

    def start(self, name: str, settings: dict[str, str]) -> BrokerProcess:
        """A server with a nats-server of its own."""
        server = self.make(name, settings)
        server.start()
        return server

    def make(self, name: str, settings: dict[str, str]) -> BrokerProcess:
        """One that isn't started yet."""
        server = self._make(self._folder / name, settings)
        self._made.append(server)
        return server

    def start_cluster(self, settings: dict[str, str]) -> ClusterProcesses:
        """Servers a, b and c."""
        folder = self._folder / f"cluster{len(self._made)}"
        folder.mkdir()
        cluster = ClusterProcesses(folder)
        self._made.append(cluster)
        for server_id in "abc":
            bootstrap = SEED if server_id == "a" else ()
            server = self._make(folder / server_id, settings, cluster.nats.url, server_id, bootstrap)
            cluster.servers[server_id] = server
        cluster.start("a", "b", "c")
        _wait_for_three(cluster)
        return cluster

    def stop(self) -> None:
        """Whatever it started."""
        for one in self._made:
            if isinstance(one, BrokerProcess):
                one.discard()
            else:
                one.kill()

    def _make(
        self,
        data_dir: Path,
        settings: dict[str, str],
        nats_url: str = "",
        server_id: str = "server",
        bootstrap: tuple[str, ...] = SEED,
    ) -> BrokerProcess:
        if self.is_original:
            return OriginalProcess(
                self._binary, data_dir, settings, nats_url=nats_url, server_id=server_id, bootstrap=bootstrap
            )
        arguments = [word for setting in settings.items() for word in ("--set", "=".join(setting))]
        return BrokerProcess(data_dir, *arguments, nats_url=nats_url, server_id=server_id, bootstrap=bootstrap)


def _wait_for_three(cluster: ClusterProcesses) -> None:
    """The original serves clients before it is in the cluster."""
    deadline = time.monotonic() + 30
    while len(cluster.call("a", "FetchMetadata").brokers) < 3:
        assert time.monotonic() < deadline, "the servers don't find each other"
        time.sleep(0.2)
