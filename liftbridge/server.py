"""The composition root: picks the providers, wires the parts, starts and stops them in order. The only file that sees all.

Start: stable store, transport, consensus (which replays metadata), endpoints, registration of this start (which begins new
leader epochs), partitions, and then the health checks say "serving". Stop: the same, backward.
"""

import asyncio
import contextlib
import gc
import json
import logging
import secrets
import signal
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import uvloop

from liftbridge.broker.broker import Broker
from liftbridge.broker.cluster_metadata import ClusterMetadataHandlers
from liftbridge.broker.inboxes import InboxNames
from liftbridge.broker.publishing import Publishing, SubjectMirror
from liftbridge.broker.streams import StreamHandlers
from liftbridge.broker.targets import TargetTable
from liftbridge.clock import SystemClock
from liftbridge.config import Settings
from liftbridge.errors import ConfigError, LiftbridgeError, StorageError
from liftbridge.interfaces.consensus import Consensus, ConsensusStatus
from liftbridge.interfaces.context import ConsensusContext, EndpointContext, LogStorageContext, PluginContext
from liftbridge.interfaces.endpoint import Endpoint
from liftbridge.interfaces.events import MetadataEvent
from liftbridge.interfaces.index import IndexStorage
from liftbridge.interfaces.log import LogStorage
from liftbridge.interfaces.provider import Seam
from liftbridge.interfaces.routing import SubjectRouter
from liftbridge.interfaces.stable import StableStore
from liftbridge.interfaces.transport import Transport
from liftbridge.metadata.asking import ControllerClient
from liftbridge.metadata.assignments import LocalAssignments
from liftbridge.metadata.commands import RegisterServer
from liftbridge.metadata.config import StreamDefaults
from liftbridge.metadata.controller import MetadataController
from liftbridge.metadata.state import MetadataState
from liftbridge.partition.cleaner import Cleaner
from liftbridge.partition.durability import Durability
from liftbridge.partition.manager import PartitionManager
from liftbridge.plugin_manager import PluginManager
from liftbridge.version import version

logger = logging.getLogger(__name__)

_REGISTER_TIMEOUT_S = 30.0
_RETRY_S = 0.5
_STOP_GRACE_S = 5.0
_GARBAGE_THRESHOLD = 20_000
_ID_CHARACTERS = string.digits + string.ascii_letters


def run(settings: Settings, plugins: PluginManager) -> int:
    """Runs a server until SIGINT or SIGTERM; returns the exit code."""
    return uvloop.run(_run(settings, plugins))


async def _run(settings: Settings, plugins: PluginManager) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    server = Server(settings, plugins)
    starting = asyncio.create_task(server.start())
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            await stop.wait()
        logger.info("Shutting down...")
    finally:
        for task in (starting, stopping):
            task.cancel()
        await asyncio.gather(starting, stopping, return_exceptions=True)
        await server.stop()
    return 0


@dataclass(slots=True)
class _Parts:
    """The chosen providers' objects."""

    stable: StableStore
    index: IndexStorage
    logs: LogStorage
    transport: Transport
    consensus: Consensus
    router: SubjectRouter


class Server:
    """One broker in this process."""

    def __init__(self, settings: Settings, plugins: PluginManager) -> None:
        self._settings = settings
        self._plugins = plugins
        self._clock = SystemClock()
        self._data_dir: Path = settings["data.dir"]
        self._namespace: str = settings["clustering.namespace"]
        self._incarnation = _random_id()
        self._state = MetadataState()
        self._changed = asyncio.Event()
        self._exit = contextlib.AsyncExitStack()
        self._endpoints: list[Endpoint] = []
        self._partitions: PartitionManager | None = None
        self._parts: _Parts | None = None
        self.server_id = ""

    # --- starting -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Returns once clients are served. Raises a LiftbridgeError that says what is in the way."""
        self.server_id = self._load_server_id()
        self._print_settings()
        parts = self._parts = self._create_parts()
        self._exit.callback(parts.stable.close)
        self._exit.push_async_callback(parts.transport.stop)
        await parts.transport.start()
        self._exit.callback(parts.index.close)
        self._exit.callback(parts.logs.close)
        partitions = self._partitions = PartitionManager(parts.logs, parts.transport, self._clock)
        self._exit.push_async_callback(partitions.close)
        await self._start_consensus(parts.consensus)
        client = ControllerClient(parts.transport, self._namespace, self._clock, cluster_id="", sender=self.server_id)
        controller = MetadataController(
            parts.consensus,
            self._state,
            self._plugins.policy,
            self._clock,
            client,
            server_id=self.server_id,
            incarnation=self._incarnation,
        )
        await self._start_endpoints(self._make_broker(parts, partitions, controller))
        await self._register(controller)
        assignments = LocalAssignments(
            self._state, self.server_id, self._incarnation, parts.router, stream_defaults(self._settings)
        )
        await self._reconcile(assignments, partitions)
        partitions.remove_orphans()
        self._run_in_background(self._keep_reconciled(assignments, partitions))
        self._run_in_background(Cleaner(partitions, self._clock).run())
        for endpoint in self._endpoints:
            endpoint.set_serving(True)
        self._plugins.notify("liftbridge_broker_started", server_id=self.server_id, address=self.address)
        _tune_garbage_collector()
        logger.info("Serving clients on %s", self.address)

    @property
    def address(self) -> str:
        """Where clients are told to connect."""
        return f"{self._advertised_host()}:{self._endpoints[0].port}"

    def _create_parts(self) -> _Parts:
        settings = self._settings
        context = self._context(PluginContext)
        stable = self._create(Seam.STABLE_STORE, settings["storage.stable"], context)
        index = self._create(Seam.INDEX_STORAGE, settings["storage.index"], context)
        transport = self._create(Seam.TRANSPORT, settings["transport"], context)
        return _Parts(
            stable=stable,
            index=index,
            transport=transport,
            logs=self._create(Seam.LOG_STORAGE, settings["storage.log"], self._context(LogStorageContext, index=index)),
            consensus=self._create(
                Seam.CONSENSUS,
                settings["clustering.consensus"],
                self._context(ConsensusContext, transport=transport, stable_store=stable),
            ),
            router=self._create(Seam.SUBJECT_ROUTER, settings["routing"], context),
        )

    def _context(self, kind: type[Any], **more: Any) -> Any:
        return kind(
            server_id=self.server_id,
            namespace=self._namespace,
            data_dir=self._data_dir,
            clock=self._clock,
            settings=self._settings,
            **more,
        )

    def _create(self, seam: Seam, name: str, context: PluginContext) -> Any:
        return self._plugins.provider(seam, name).create(context)

    async def _start_consensus(self, consensus: Consensus) -> None:
        self._state.subscribe(self._changed.set)
        consensus.on_leader_change(self._leader_changed)
        self._exit.push_async_callback(consensus.stop)
        await consensus.start(self._state, bootstrap=self._bootstrap())
        self._state.subscribe_events(self._tell_observers)
        if not consensus.status().voters:
            raise ConfigError(
                "failed to start Raft node: this server belongs to no metadata group. Start the first server of a "
                "cluster with --raft-bootstrap-seed"
            )

    def _bootstrap(self) -> Sequence[str]:
        peers = self._settings["clustering.raft.bootstrap.peers"]
        if peers:
            return tuple(sorted({self.server_id, *peers}))
        return (self.server_id,) if self._settings["clustering.raft.bootstrap.seed"] else ()

    def _make_broker(self, parts: _Parts, partitions: PartitionManager, controller: MetadataController) -> Broker:
        publishing = Publishing(
            targets=TargetTable(self._state, partitions, parts.router),
            transport=parts.transport,
            mirror=SubjectMirror(parts.transport),
            router=parts.router,
            inboxes=InboxNames(self._namespace),
            max_message_bytes=self._settings["clustering.replication.max.bytes"],
        )
        return Broker(
            self._state,
            partitions,
            publishing,
            StreamHandlers(controller, partitions, parts.router, self._clock),
            ClusterMetadataHandlers(self._state, partitions),
        )

    async def _start_endpoints(self, broker: Broker) -> None:
        context = self._context(EndpointContext, broker=broker, version=version())
        for name in self._settings["endpoints"]:
            endpoint: Endpoint = self._create(Seam.ENDPOINT, name, context)
            await endpoint.start()
            self._endpoints.append(endpoint)
        if not self._endpoints:
            raise ConfigError("endpoints: name at least one; without an endpoint no client can connect")

    async def _register(self, controller: MetadataController) -> None:
        """Makes this start known; tries again until the group has a leader."""
        command = RegisterServer(self.server_id, self._advertised_host(), self._endpoints[0].port, self._incarnation)
        deadline_ns = self._clock.monotonic_ns() + int(_REGISTER_TIMEOUT_S * 1e9)
        while True:
            try:
                await controller.register_server(command, timeout_s=_REGISTER_TIMEOUT_S)
                return
            except LiftbridgeError as error:
                if self._clock.monotonic_ns() > deadline_ns:
                    raise
                logger.debug("can't register yet: %s", error)
                await asyncio.sleep(_RETRY_S)

    def _advertised_host(self) -> str:
        host: str = self._settings.get("endpoint.grpc.host") or ""
        listen: str = self._settings.get("endpoint.grpc.listen") or ""
        return host or listen.rpartition(":")[0] or "localhost"

    # --- running ------------------------------------------------------------------------------------------------------

    async def _keep_reconciled(self, assignments: LocalAssignments, partitions: PartitionManager) -> None:
        """Makes what runs what metadata says, each time it changes."""
        while True:
            await self._changed.wait()
            try:
                await self._reconcile(assignments, partitions)
            except StorageError:
                logger.exception("reconciling failed and is tried again")
                await asyncio.sleep(_RETRY_S)
                self._changed.set()

    async def _reconcile(self, assignments: LocalAssignments, partitions: PartitionManager) -> None:
        self._changed.clear()
        await partitions.reconcile(assignments.current())

    def _run_in_background(self, work: Any) -> None:
        task = asyncio.create_task(work)
        task.add_done_callback(_log_crash)

        async def end() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        self._exit.push_async_callback(end)

    def _leader_changed(self, status: ConsensusStatus) -> None:
        if status.is_leader:
            logger.info("Server became metadata leader, performing leader promotion actions")
        else:
            logger.info("Metadata leader is now %s", status.leader or "unknown")

    def _tell_observers(self, event: MetadataEvent) -> None:
        self._plugins.notify("liftbridge_metadata_applied", event=event)

    # --- stopping -----------------------------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Ends the calls, closes the logs cleanly and leaves. Idempotent."""
        if self._endpoints:
            self._plugins.notify("liftbridge_broker_stopping", server_id=self.server_id)
        for endpoint in self._endpoints:
            endpoint.set_serving(False)
        if self._partitions is not None:
            self._partitions.end_readers()
        for endpoint in self._endpoints:
            await endpoint.stop(grace_s=_STOP_GRACE_S)
        self._endpoints.clear()
        await self._exit.aclose()

    # --- identity -----------------------------------------------------------------------------------------------------

    def _load_server_id(self) -> str:
        """The ID in the data directory, which outlives the configured one; a new directory gets the configured one or
        a random one."""
        path = self._data_dir / "server.json"
        wanted: str = self._settings["clustering.server.id"]
        try:
            self._data_dir.mkdir(parents=True, exist_ok=True)
            if path.exists():
                stored: str = json.loads(path.read_text())["server_id"]
                if wanted and wanted != stored:
                    logger.warning(
                        "server ID %s from the data directory is used, not the configured %s", stored, wanted
                    )
                return stored
            server_id = wanted or _random_id()
            path.write_text(json.dumps({"server_id": server_id, "format": 1}))
        except (OSError, ValueError, KeyError) as error:
            raise StorageError(f"data directory {self._data_dir}: {path.name}: {error}") from error
        return server_id

    def _print_settings(self) -> None:
        settings = self._settings
        logger.info("Liftbridge Version:        %s", version())
        logger.info("Server ID:                 %s", self.server_id)
        logger.info("Namespace:                 %s", self._namespace)
        logger.info("Default Retention Policy:  %s", describe_retention(settings))
        auto_pause = settings["streams.auto.pause.time"]
        logger.info("Default Partition Pausing: %s", describe_duration(auto_pause) if auto_pause else "disabled")


def _log_crash(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.critical("a part of the server ended unexpectedly", exc_info=task.exception())


def _tune_garbage_collector() -> None:
    """What is here now stays, so it need not be looked at again; and batches make objects, not cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GARBAGE_THRESHOLD, 20, 50)


def _random_id() -> str:
    return "".join(secrets.choice(_ID_CHARACTERS) for _ in range(22))


# --- settings -> what the parts understand ----------------------------------------------------------------------------


def stream_defaults(settings: Settings) -> Callable[[str], StreamDefaults]:
    """The defaults for a stream of a given name: the server's, changed by the templates that match, in their order."""
    plain = _defaults(settings)
    templates = settings.templates

    def defaults_for(stream: str) -> StreamDefaults:
        matching = [template for template in templates if fnmatchcase(stream, template.match)]
        if not matching:
            return plain
        values: dict[str, Any] = dict(settings)
        for template in matching:
            values.update(template.settings)
        return _defaults(values)

    return defaults_for


def _defaults(settings: Mapping[str, Any]) -> StreamDefaults:
    def nanoseconds(name: str) -> int:
        return int(settings[name] * 1e9)

    return StreamDefaults(
        retention_max_bytes=settings["streams.retention.max.bytes"],
        retention_max_messages=settings["streams.retention.max.messages"],
        retention_max_age_ns=nanoseconds("streams.retention.max.age"),
        cleaner_interval_ns=nanoseconds("streams.cleaner.interval"),
        segment_max_bytes=settings["streams.segment.max.bytes"],
        segment_max_age_ns=nanoseconds("streams.segment.max.age") or nanoseconds("streams.retention.max.age"),
        min_isr=settings["clustering.min.insync.replicas"],
        durability=Durability(settings["streams.durability"]),
        sync_interval_s=settings["streams.durability.interval"],
        batch_max_messages=settings["batch.max.messages"],
        max_message_bytes=settings["clustering.replication.max.bytes"],
    )


def describe_retention(settings: Mapping[str, Any]) -> str:
    """The default retention policy, in the original's words."""
    parts = []
    if settings["streams.retention.max.messages"]:
        parts.append(f"Messages: {settings['streams.retention.max.messages']:,}")
    if settings["streams.retention.max.bytes"]:
        parts.append(f"Size: {_describe_size(settings['streams.retention.max.bytes'])}")
    if settings["streams.retention.max.age"]:
        parts.append(f"Age: {describe_duration(settings['streams.retention.max.age'])}")
    compact = "true" if settings["streams.compact.enabled"] else "false"
    return f"[{', '.join(parts) or 'no limits'}, Compact: {compact}]"


def _describe_size(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def describe_duration(seconds: float) -> str:
    """``1 week``, ``1 day 12 hours``, ``1 minute 30 seconds``."""
    parts = []
    rest = seconds
    for unit, length in (("week", 604_800), ("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1)):
        count, rest = divmod(rest, length)
        if count:
            parts.append(f"{int(count)} {unit}{'s' if count != 1 else ''}")
    if rest:
        parts.append(f"{round(rest * 1000)} ms")
    return " ".join(parts) or "0 seconds"
