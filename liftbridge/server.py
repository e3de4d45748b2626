"""The composition root: picks the providers, wires the parts, starts and stops them in order. The only file that sees all.

Start: stable store, transport, the cluster (found, begun or joined; consensus replays metadata), endpoints, registration of
this start (which begins new leader epochs), partitions, and then the health checks say "serving". Stop: what this server
leads is handed over, and then the same, backward.
"""

import asyncio
import contextlib
import gc
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from liftbridge.activity import ActivityPublisher
from liftbridge.broker.broker import Broker
from liftbridge.broker.cluster_metadata import ClusterMetadataHandlers
from liftbridge.broker.cursors import CursorHandlers
from liftbridge.broker.forwarded import ForwardServer
from liftbridge.broker.forwarding import Forwarder
from liftbridge.broker.group_subscriptions import GroupAccess
from liftbridge.broker.groups import GroupHandlers, GroupTimeouts
from liftbridge.broker.inboxes import InboxNames
from liftbridge.broker.pausing import PauseHandlers
from liftbridge.broker.publishing import Publishing, SubjectMirror
from liftbridge.broker.streams import EncryptionRules, StreamHandlers
from liftbridge.broker.subscribing import Subscribing
from liftbridge.broker.targets import TargetTable
from liftbridge.clock import SystemClock
from liftbridge.cluster.control import ControlSettings
from liftbridge.cluster.forming import Bootstrap
from liftbridge.cluster.handing_over import HandingOver
from liftbridge.cluster.identity import Identity, load_identity
from liftbridge.cluster.node import ClusterNode, NodeSettings, random_id
from liftbridge.cluster.starting import StartedLeaders
from liftbridge.config import Settings
from liftbridge.cursors import Cursors
from liftbridge.errors import ConfigError, LiftbridgeError, StorageError
from liftbridge.groups.coordinator import GroupCoordinator
from liftbridge.groups.readers import GroupReaders
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
from liftbridge.keys import load_keys
from liftbridge.metadata.assignments import LocalAssignments
from liftbridge.metadata.controller import MetadataController
from liftbridge.metadata.known_servers import KnownServers
from liftbridge.metadata.resuming import Resumer
from liftbridge.metadata.state import MetadataState
from liftbridge.partition.auto_pause import AutoPauser
from liftbridge.partition.cleaner import Cleaner
from liftbridge.partition.manager import PartitionManager
from liftbridge.partition.replication.exchange import ReplicationExchange
from liftbridge.plugin_manager import PluginManager
from liftbridge.stream_settings import (
    activity_settings,
    describe_duration,
    describe_retention,
    exchange_limits,
    internal_streams,
    stream_defaults,
)
from liftbridge.version import version

logger = logging.getLogger(__name__)

_RETRY_S = 0.5
_STOP_GRACE_S = 5.0
_GARBAGE_THRESHOLD = 20_000


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
        self._incarnation = random_id()
        self._state = MetadataState()
        self._changed = asyncio.Event()
        self._exit = contextlib.AsyncExitStack()
        self._endpoints: list[Endpoint] = []
        self._partitions: PartitionManager | None = None
        self._node: ClusterNode | None = None
        self._led_metadata = False
        self._controller: MetadataController | None = None
        self._keys = load_keys(settings["encryption.keys"])
        if settings["streams.encryption"] and self._keys is None:
            raise ConfigError("streams.encryption needs a key: say with encryption.keys where the keys are")
        self.server_id = ""
        #: Gets what makes it impossible to go on; never a result.
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # --- starting -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Returns once clients are served. Raises a LiftbridgeError that says what is in the way."""
        identity = load_identity(
            self._data_dir,
            wanted_id=self._settings["clustering.server.id"],
            fallback_id=random_id(),
            namespace=self._namespace,
        )
        self.server_id = identity.server_id
        self._print_settings()
        parts = self._create_parts()
        self._exit.callback(parts.stable.close)
        self._exit.push_async_callback(parts.transport.stop)
        await parts.transport.start()
        self._exit.callback(parts.index.close)
        self._exit.callback(parts.logs.close)
        node = self._node = self._make_node(parts, identity)
        controller = self._controller = await self._enter_cluster(parts.consensus, node)
        resumer = Resumer(self._state, controller)
        self._exit.push_async_callback(resumer.stop)
        partitions = self._partitions = await self._start_partitions(parts, controller, resumer)
        started = await self._answer_for_leaders(parts.transport, partitions)
        await self._hand_over_when_asked(parts.transport, partitions)
        publishing = await self._start_publishing(parts, partitions, resumer)
        cursors = self._make_cursors(partitions, controller)
        coordinator = self._make_coordinator(node, controller)
        groups = self._make_group_handlers(node, controller, coordinator)
        await self._start_endpoints(
            self._make_broker(parts, partitions, controller, started, publishing, cursors, groups, resumer)
        )
        await node.register(controller, self._advertised_host(), self._endpoints[0].port)
        assignments = LocalAssignments(
            self._state, self.server_id, self._incarnation, parts.router, stream_defaults(self._settings)
        )
        await self._reconcile(assignments, partitions)
        partitions.remove_orphans()
        self._run_in_background(self._keep_reconciled(assignments, partitions))
        self._run_in_background(Cleaner(partitions, self._clock).run())
        self._run_in_background(AutoPauser(partitions, self._clock, controller.pause_idle).run())
        self._run_in_background(coordinator.run())
        if self._settings["activity.stream.enabled"]:
            self._run_in_background(self._make_activity_publisher(partitions, controller).run())
        for endpoint in self._endpoints:
            endpoint.set_serving(True)
        node.establish()
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

    def _make_node(self, parts: _Parts, identity: Identity) -> ClusterNode:
        settings = self._settings
        return ClusterNode(
            parts.transport,
            parts.consensus,
            self._state,
            self._plugins.policy,
            self._clock,
            identity,
            self._data_dir,
            NodeSettings(
                Bootstrap(
                    seed=settings["clustering.raft.bootstrap.seed"],
                    peers=settings["clustering.raft.bootstrap.peers"],
                    max_voters=settings["clustering.raft.max.quorum.size"],
                ),
                heartbeat_s=settings["clustering.session.heartbeat"],
                control=ControlSettings(
                    session_timeout_s=settings["clustering.session.timeout"],
                    rebalance_interval_s=settings["clustering.rebalance.interval"],
                    report_window_s=settings["groups.coordinator.timeout"],
                ),
                internal_streams=internal_streams(settings),
            ),
            incarnation=self._incarnation,
            fail=self._fail,
        )

    def _fail(self, error: LiftbridgeError) -> None:
        if not self.failed.done():
            self.failed.set_exception(error)

    async def _enter_cluster(self, consensus: Consensus, node: ClusterNode) -> MetadataController:
        self._state.subscribe(self._changed.set)
        consensus.on_leader_change(self._leader_changed)
        self._exit.push_async_callback(consensus.stop)
        self._exit.push_async_callback(node.leave)
        controller = await node.enter()
        self._state.subscribe_events(self._tell_observers)
        return controller

    async def _start_partitions(
        self, parts: _Parts, controller: MetadataController, resumer: Resumer
    ) -> PartitionManager:
        servers = KnownServers(self._state)
        exchange = ReplicationExchange(
            parts.transport,
            self._clock,
            controller,
            servers,
            namespace=self._namespace,
            server_id=self.server_id,
            incarnation=self._incarnation,
            limits=exchange_limits(self._settings),
        )
        partitions = PartitionManager(
            parts.logs,
            parts.transport,
            self._clock,
            exchange,
            servers,
            server_id=self.server_id,
            wake=resumer.request,
            keys=self._keys,
        )
        self._exit.push_async_callback(partitions.close)
        self._exit.push_async_callback(exchange.stop)
        await exchange.start()
        return partitions

    async def _answer_for_leaders(self, transport: Transport, partitions: PartitionManager) -> StartedLeaders:
        started = StartedLeaders(
            transport, self._state, partitions, namespace=self._namespace, server_id=self.server_id
        )
        await started.start()
        self._exit.push_async_callback(started.stop)
        return started

    async def _hand_over_when_asked(self, transport: Transport, partitions: PartitionManager) -> None:
        handing_over = HandingOver(transport, partitions, namespace=self._namespace, server_id=self.server_id)
        await handing_over.start()
        self._exit.push_async_callback(handing_over.stop)

    async def _start_publishing(self, parts: _Parts, partitions: PartitionManager, resumer: Resumer) -> Publishing:
        targets = TargetTable(self._state, partitions, parts.router)
        names = {"namespace": self._namespace, "server_id": self.server_id}
        forwarder = Forwarder(
            parts.transport,
            targets,
            self._clock,
            incarnation=self._incarnation,
            resume=resumer.request,
            **names,
        )
        partitions.subscribe(forwarder.look_again)
        publishing = Publishing(
            targets=targets,
            transport=parts.transport,
            forwarder=forwarder,
            mirror=SubjectMirror(parts.transport),
            router=parts.router,
            inboxes=InboxNames(self._namespace),
            max_message_bytes=self._settings["clustering.replication.max.bytes"],
        )
        forwarded = ForwardServer(publishing, self._clock, **names)
        for one in (forwarder, forwarded):
            await one.start()
            self._exit.push_async_callback(one.stop)
        return publishing

    def _make_cursors(self, partitions: PartitionManager, controller: MetadataController) -> Cursors:
        return Cursors(
            self._state,
            partitions,
            server_id=self.server_id,
            catch_up=controller.catch_up,
            expected=bool(self._settings["cursors.stream.partitions"]),
        )

    def _make_activity_publisher(
        self, partitions: PartitionManager, controller: MetadataController
    ) -> ActivityPublisher:
        return ActivityPublisher(
            self._state,
            partitions,
            activity_settings(self._settings),
            forget=controller.activity_published,
        )

    def _make_coordinator(self, node: ClusterNode, controller: MetadataController) -> GroupCoordinator:
        return GroupCoordinator(
            self._state,
            self._clock,
            server_id=self.server_id,
            consumer_timeout_s=self._settings["groups.consumer.timeout"],
            holds_lease=lambda: node.holds_lease,
            catch_up=controller.catch_up,
            expire=controller.expire_member,
        )

    def _make_group_handlers(
        self, node: ClusterNode, controller: MetadataController, coordinator: GroupCoordinator
    ) -> tuple[GroupHandlers, GroupAccess]:
        timeouts = GroupTimeouts(
            self._settings["groups.consumer.timeout"], self._settings["groups.coordinator.timeout"]
        )
        access = GroupAccess(
            self._state,
            GroupReaders(self._state),
            self.server_id,
            catch_up=controller.catch_up,
            holds_lease=lambda: node.holds_lease,
        )
        return GroupHandlers(controller, coordinator, self._clock, timeouts), access

    def _make_broker(
        self,
        parts: _Parts,
        partitions: PartitionManager,
        controller: MetadataController,
        started: StartedLeaders,
        publishing: Publishing,
        cursors: Cursors,
        groups: tuple[GroupHandlers, GroupAccess],
        resumer: Resumer,
    ) -> Broker:
        group_handlers, group_access = groups
        return Broker(
            publishing,
            StreamHandlers(controller, started, parts.router, self._clock, self._encryption_rules()),
            ClusterMetadataHandlers(self._state, partitions),
            CursorHandlers(cursors),
            group_handlers,
            PauseHandlers(controller, self._state, started, self._clock),
            Subscribing(self._state, partitions, group_access, resumer, self.server_id),
        )

    def _encryption_rules(self) -> EncryptionRules:
        defaults_for = stream_defaults(self._settings)
        return EncryptionRules(self._keys is not None, lambda stream: defaults_for(stream).encryption)

    async def _start_endpoints(self, broker: Broker) -> None:
        context = self._context(EndpointContext, broker=broker, version=version())
        for name in self._settings["endpoints"]:
            endpoint: Endpoint = self._create(Seam.ENDPOINT, name, context)
            await endpoint.start()
            self._endpoints.append(endpoint)
        if not self._endpoints:
            raise ConfigError("endpoints: name at least one; without an endpoint no client can connect")

    def _advertised_host(self) -> str:
        return self._endpoints[0].advertised_host

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
        await partitions.reconcile(assignments.current(), self._state.applied_index)

    def _run_in_background(self, work: Any) -> None:
        task = asyncio.create_task(work)
        task.add_done_callback(_log_crash)

        async def end() -> None:
            while not task.done():  # a library's wait_for can lose a cancellation
                task.cancel()
                await asyncio.wait((task,), timeout=_RETRY_S)

        self._exit.push_async_callback(end)

    def _leader_changed(self, status: ConsensusStatus) -> None:
        led, self._led_metadata = self._led_metadata, status.is_leader
        if status.is_leader:
            logger.info("Server became metadata leader, performing leader promotion actions")
        elif led:
            logger.warning("Server lost metadata leadership; the metadata leader is now %s", status.leader or "unknown")
        else:
            logger.info("Metadata leader is now %s", status.leader or "unknown")

    def _tell_observers(self, event: MetadataEvent) -> None:
        self._plugins.notify("liftbridge_metadata_applied", event=event)

    # --- stopping -----------------------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Hands over to the other servers, if there are any; clients are served meanwhile."""
        if self._node is not None and self._controller is not None:
            await self._node.drain(self._controller, self._settings["clustering.drain.timeout"])

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
        if self._node is not None:
            self._node.note_clean_stop()
            self._node = None

    # ------------------------------------------------------------------------------------------------------------------

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
