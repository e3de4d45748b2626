"""One simulated server: the real one, with plugins that stand for NATS, the disk and the network of its clients."""

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import MappingProxyType, SimpleNamespace
from typing import Any
from unittest import mock

from metadata_states import NoPolicy

from liftbridge import config
from liftbridge.cluster.identity import Identity
from liftbridge.config import Settings
from liftbridge.errors import LiftbridgeError
from liftbridge.interfaces.consensus import Consensus
from liftbridge.interfaces.endpoint import Endpoint
from liftbridge.interfaces.provider import Seam
from liftbridge.metadata.model import PartitionState
from liftbridge.metadata.state import MetadataState
from liftbridge.partition.local import LocalPartition
from liftbridge.partition.replication.exchange import ExchangeLimits
from liftbridge.server import Server
from liftbridge.stream_settings import exchange_limits
from liftbridge_raft_builtin import plugin as raft_plugin
from liftbridge_raft_builtin.consensus import RaftConsensus
from liftbridge_raft_builtin.driver import Driver, RaftOptions
from liftbridge_routing_subjects.router import NatsSubjectRouter
from simulation.disk import Disk
from simulation.network import MAX_PAYLOAD_BYTES, Network, SimulatedTransport
from simulation.process import Process, ProcessClock

NAMESPACE = "sim"
_DECLARED = raft_plugin.liftbridge_add_settings()
_DEFAULTS = config.load(_DECLARED, environment={})


def settings_for(disk: Disk, changes: Mapping[str, Any]) -> Settings:
    """The defaults, with small sizes. ``data.dir`` is the disk itself: see ``simulated_system``."""
    values = {
        **_DEFAULTS.values_by_name,
        "data.dir": disk,
        "clustering.namespace": NAMESPACE,
        "clustering.server.id": disk.server_id,
        "clustering.replication.max.bytes": MAX_PAYLOAD_BYTES // 2,
        "clustering.raft.snapshot.threshold": 25,
        "clustering.raft.snapshot.trailing": 5,
        "clustering.rebalance.interval": 2.0,
        "clustering.replica.max.leader.timeout": 3.0,
        "clustering.drain.timeout": 3.0,
        **changes,
    }
    return replace(_DEFAULTS, values_by_name=MappingProxyType(values))


class ClientEndpoint(Endpoint):
    """Hands the broker's API to simulated clients."""

    def __init__(self, broker: Any) -> None:
        self.broker = broker
        self.open = False

    async def start(self) -> None:
        self.open = True

    @property
    def port(self) -> int:
        return 9292

    def set_serving(self, serving: bool) -> None:
        """Nobody asks."""

    async def stop(self, *, grace_s: float) -> None:
        self.open = False


class _Plugins:
    """What a server asks its plugin manager."""

    policy = NoPolicy()

    def __init__(self, server: "SimulatedServer") -> None:
        self._create: dict[Seam, Callable[[Any], Any]] = {
            Seam.STABLE_STORE: lambda _context: server.mount.stable,
            Seam.LOG_STORAGE: lambda _context: server.mount,
            Seam.INDEX_STORAGE: lambda _context: SimpleNamespace(close=lambda: None),
            Seam.TRANSPORT: lambda _context: server.transport,
            Seam.SUBJECT_ROUTER: lambda _context: NatsSubjectRouter(),
            Seam.CONSENSUS: server.make_consensus,
            Seam.ENDPOINT: server.make_endpoint,
        }

    def provider(self, seam: Seam, _name: str) -> Any:
        return SimpleNamespace(create=self._create[seam])

    def check_endpoints(self, names: Sequence[str]) -> None:
        """The one that there is serves clients."""
        assert names

    def notify(self, _hook: str, **_arguments: Any) -> None:
        """Nobody observes."""


class SimulatedServer:
    """One start of a server, from the start of its process to the end of it."""

    def __init__(
        self,
        disk: Disk,
        process: Process,
        network: Network,
        chance: random.Random,
        settings: Settings,
        on_exit: Callable[["SimulatedServer", BaseException | None], None],
    ) -> None:
        self.server_id = disk.server_id
        self.disk = disk
        self.process = process
        self.mount = disk.mount()
        self.transport = SimulatedTransport(network, disk.server_id, process)
        self.endpoint: ClientEndpoint | None = None
        self.serving = False
        self.stopping = False
        self._chance = chance
        self._settings = settings
        self._on_exit = on_exit
        self._stop: asyncio.Event | None = None
        self.server: Server | None = None
        process.call_soon(self._begin)

    def _begin(self) -> None:
        self._stop = asyncio.Event()
        self.server = Server(self._settings, _Plugins(self))  # type: ignore[arg-type]
        self.disk.incarnations.add(self.incarnation)
        self.process.begin(self._run()).add_done_callback(self._ended)

    async def _run(self) -> None:
        """As ``liftbridge.server`` runs one until a signal."""
        server, stop = self.server, self._stop
        assert server is not None
        assert stop is not None
        stopping = asyncio.create_task(stop.wait())
        try:
            starting = asyncio.create_task(server.start())
            await asyncio.wait((starting, stopping, server.failed), return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                starting.cancel()
                await asyncio.wait((starting,))
                return
            starting.result()
            self.serving = True
            await asyncio.wait((stopping, server.failed), return_when=asyncio.FIRST_COMPLETED)
            if not server.failed.done():
                await server.drain()
        finally:
            stopping.cancel()
            self.serving = False
            await server.stop()

    def _ended(self, task: "asyncio.Task[None]") -> None:
        error = None if task.cancelled() else task.exception()
        if self.process.alive:
            self._on_exit(self, error)

    def stop(self) -> None:
        """SIGTERM."""
        self.stopping = True
        self.process.happen(lambda: self.process.call_soon(self._set_stop))

    def _set_stop(self) -> None:
        if self._stop is not None:
            self._stop.set()

    # --- plugins ------------------------------------------------------------------------------------------------------

    def make_consensus(self, context: Any) -> Consensus:
        settings = context.settings
        options = RaftOptions(
            heartbeat_s=settings["clustering.raft.heartbeat"],
            election_timeout_s=settings["clustering.raft.election.timeout"],
            snapshot_threshold_entries=settings["clustering.raft.snapshot.threshold"],
            trailing_entries=settings["clustering.raft.snapshot.trailing"],
            max_message_bytes=2048,
        )
        return RaftConsensus(
            Driver(
                self.server_id,
                context.namespace,
                context.transport,
                context.stable_store,
                options,
                self._chance.randrange,
            )
        )

    def make_endpoint(self, context: Any) -> Endpoint:
        self.endpoint = ClientEndpoint(context.broker)
        return self.endpoint

    # --- for clients and checks ---------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether a client can connect."""
        return self.process.alive and self.serving and self.endpoint is not None and self.endpoint.open

    @property
    def state(self) -> MetadataState | None:
        return self.server._state if self.server is not None else None

    @property
    def incarnation(self) -> str:
        return self.server._incarnation if self.server is not None else ""

    @property
    def locals(self) -> Iterator[LocalPartition]:
        partitions = self.server._partitions if self.server is not None else None
        return iter(partitions) if partitions is not None else iter(())

    @property
    def holds_lease(self) -> bool:
        node = self.server._node if self.server is not None else None
        return node is not None and node.holds_lease


def leads(local: LocalPartition, known: PartitionState | None) -> bool:
    """Whether a server leads the partition in the epoch that metadata has."""
    return local.leader is not None and known is not None and local.leader.leader_epoch == known.leader_epoch


def small_answers(settings: Mapping[str, Any]) -> ExchangeLimits:
    """So that followers need several to catch up."""
    limits = exchange_limits(settings)
    return replace(limits, serving=replace(limits.serving, answer_max_bytes=1000))


@contextmanager
def simulated_system(chance: random.Random, state_class: type[MetadataState]) -> Iterator[None]:
    """What servers take from the system comes from the simulation: time, random IDs, and the notes in the data
    directory."""
    letters = "0123456789abcdef"

    def random_id() -> str:
        return "".join(chance.choice(letters) for _ in range(8))

    def load_identity(disk: Disk, **_: Any) -> Identity:
        return Identity(disk.server_id, NAMESPACE, disk.cluster_id)

    def save_identity(disk: Disk, identity: Identity) -> None:
        if disk.mounted is not None:
            disk.cluster_id = identity.cluster_id

    with ExitStack() as patches:
        for name, substitute in {
            "liftbridge.server.SystemClock": ProcessClock,
            "liftbridge.server.MetadataState": state_class,
            "liftbridge.server.load_identity": load_identity,
            "liftbridge.server.random_id": random_id,
            "liftbridge.wiring.exchange_limits": small_answers,
            "liftbridge.server._tune_garbage_collector": lambda: None,
            "liftbridge.cluster.node.random_id": random_id,
            "liftbridge.cluster.node.save_identity": save_identity,
            "liftbridge.cluster.node.begin_run": lambda disk: disk.begin_run(),
            "liftbridge.cluster.node.note_registered": lambda disk: disk.note_registered(),
            "liftbridge.cluster.node.end_run": lambda disk: disk.end_run(),
        }.items():
            patches.enter_context(mock.patch(name, substitute))
        yield


def is_expected(error: BaseException | None) -> bool:
    """Whether a server may end like this."""
    return error is None or isinstance(error, LiftbridgeError)
