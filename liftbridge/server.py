"""One broker, from its start to its stop. What it is made of, and what each part is handed, is in :mod:`liftbridge.wiring`.

Start: stable store, transport, the endpoints' addresses, the cluster (found, begun or joined; consensus replays metadata),
endpoints, registration of this start (which begins new leader epochs), partitions, and then the health checks say "serving".
Stop: what this server leads is handed over, and then the same, backward.
"""

import asyncio
import contextlib
import gc
import logging
from collections.abc import Coroutine
from typing import Any

from liftbridge.addresses import join_address
from liftbridge.broker.authorization import Permissions
from liftbridge.checking import load_needed_keys, refuse_rules_without_authorization
from liftbridge.clock import SystemClock
from liftbridge.cluster.identity import load_identity
from liftbridge.cluster.node import ClusterNode, random_id
from liftbridge.config import Settings
from liftbridge.errors import LiftbridgeError, StorageError
from liftbridge.interfaces.consensus import Consensus, ConsensusStatus
from liftbridge.interfaces.endpoint import Endpoint
from liftbridge.interfaces.events import MetadataEvent
from liftbridge.metadata.assignments import LocalAssignments
from liftbridge.metadata.state import MetadataState
from liftbridge.partition.manager import PartitionManager
from liftbridge.plugin_manager import PluginManager
from liftbridge.stream_settings import describe_duration, describe_retention
from liftbridge.tasks import end_tasks
from liftbridge.version import version
from liftbridge.wiring import Parts, Services, Setup, make_endpoints, make_node, make_parts, make_services

logger = logging.getLogger(__name__)

_RETRY_S = 0.5
_STOP_GRACE_S = 5.0
_GARBAGE_THRESHOLD = 20_000


class Server:
    """One broker in this process. All methods run on the event loop; ``start`` is called once."""

    def __init__(self, settings: Settings, plugins: PluginManager) -> None:
        """Raises ConfigError for settings that make no sense together."""
        plugins.check_endpoints(settings["endpoints"])
        self._settings = settings
        self._plugins = plugins
        refuse_rules_without_authorization(settings)
        self._keys = load_needed_keys(settings)
        self._incarnation = random_id()
        self._state = MetadataState()
        #: What was started, each with what ends it: ended backward.
        self._exit = contextlib.AsyncExitStack()
        self._endpoints: list[Endpoint] = []
        self._partitions: PartitionManager | None = None
        self._node: ClusterNode | None = None
        self._permissions: Permissions | None = None
        self._changed = asyncio.Event()
        self._led_metadata = False
        self._leaving = False
        #: "" until the data directory or the settings have said it.
        self.server_id = ""
        #: Gets what makes it impossible to go on; never a result.
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    # --- starting -----------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Returns once clients are served. Raises a LiftbridgeError that says what is in the way; ``stop`` then ends what
        was started."""
        identity = load_identity(
            self._settings["data.dir"],
            wanted_id=self._settings["clustering.server.id"],
            fallback_id=random_id(),
            namespace=self._settings["clustering.namespace"],
            log_storage=self._settings["storage.log"],
        )
        self.server_id = identity.server_id
        self._log_settings()
        setup = Setup(
            self._settings,
            self._plugins,
            SystemClock(),
            identity.server_id,
            self._incarnation,
            self._state,
            self._keys,
        )
        parts = make_parts(setup)
        await self._load_permissions(parts)
        await self._open(parts)
        await self._refuse_logs_without_metadata(parts)
        node = self._node = make_node(setup, parts, identity, self._fail)
        services = make_services(setup, parts, node)
        endpoints = make_endpoints(setup, services.broker)
        await self._bind(endpoints)
        await self._enter_cluster(parts.consensus, node)
        await self._start_listeners(services)
        await self._start_endpoints(endpoints)
        await node.register(self._endpoints[0].advertised_host, self._endpoints[0].port)
        await self._start_partitions(services)
        for one in services.background:
            self._run_in_background(one.run())
        for endpoint in self._endpoints:
            endpoint.set_serving(True)
        node.establish()
        self._plugins.notify("liftbridge_broker_started", server_id=self.server_id, address=self.address)
        _tune_garbage_collector()
        logger.info("Serving clients on %s", self.address)

    @property
    def address(self) -> str:
        """Where clients are told to connect."""
        return join_address(self._endpoints[0].advertised_host, self._endpoints[0].port)

    def _log_settings(self) -> None:
        settings = self._settings
        logger.info("Liftbridge Version:        %s", version())
        logger.info("Server ID:                 %s", self.server_id)
        logger.info("Namespace:                 %s", settings["clustering.namespace"])
        logger.info("Data Directory:            %s", settings["data.dir"])
        logger.info("Default Retention Policy:  %s", describe_retention(settings))
        auto_pause = settings["streams.auto.pause.time"]
        logger.info("Default Partition Pausing: %s", describe_duration(auto_pause) if auto_pause else "disabled")

    async def _load_permissions(self, parts: Parts) -> None:
        if parts.permissions is not None:
            await parts.permissions.load()
            self._permissions = parts.permissions

    async def _open(self, parts: Parts) -> None:
        self._exit.callback(parts.stable.close)
        self._exit.push_async_callback(parts.transport.stop)
        await parts.transport.start()
        self._exit.callback(parts.index.close)
        self._exit.callback(parts.logs.close)

    async def _refuse_logs_without_metadata(self, parts: Parts) -> None:
        """They would be removed, as those of streams that were deleted."""
        if parts.logs.list_logs() and not await parts.consensus.is_stored():
            raise StorageError(
                f"data directory {self._settings['data.dir']} holds messages, but not the metadata that says of which streams: "
                "was the stable store removed, or another storage.stable chosen? Bring it back, or begin with an empty "
                "--data-dir"
            )

    async def _bind(self, endpoints: list[Endpoint]) -> None:
        """Before anybody else hears of this server: if it can't have its address, nothing is left of it in the cluster."""
        for endpoint in endpoints:
            self._exit.push_async_callback(endpoint.stop, grace_s=0.0)
            await endpoint.bind()

    async def _enter_cluster(self, consensus: Consensus, node: ClusterNode) -> None:
        self._state.subscribe(self._changed.set)
        consensus.on_leader_change(self._leader_changed)
        self._exit.push_async_callback(consensus.stop)
        self._exit.push_async_callback(node.leave)
        await node.enter()
        self._state.subscribe_events(self._tell_observers)

    async def _start_listeners(self, services: Services) -> None:
        self._partitions = services.partitions
        self._exit.push_async_callback(services.resumer.stop)
        self._exit.push_async_callback(services.partitions.close)
        for listener in services.listeners:
            self._exit.push_async_callback(listener.stop)
            await listener.start()

    async def _start_endpoints(self, endpoints: list[Endpoint]) -> None:
        for endpoint in endpoints:
            await endpoint.start()
            self._endpoints.append(endpoint)

    async def _start_partitions(self, services: Services) -> None:
        await self._reconcile(services.assignments, services.partitions)
        await services.partitions.remove_orphans()
        self._run_in_background(self._keep_reconciled(services.assignments, services.partitions))

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

    async def reload(self) -> None:
        """Reads again who may do what; not to be called twice at a time. What is wrong is logged, and what held before
        holds on."""
        if self._permissions is None:
            logger.info("There is nothing to reload: authorization is off")
            return
        try:
            await self._permissions.load()
        except LiftbridgeError as error:
            logger.error("Authorization permissions are as before, because they can't be reloaded: %s", error)
        except Exception:
            logger.exception("Authorization permissions are as before, because reloading them failed")
        else:
            logger.info("Reloaded authorization permissions successfully")

    def _run_in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        task.add_done_callback(_log_crash)
        self._exit.push_async_callback(end_tasks, (task,))

    def _leader_changed(self, status: ConsensusStatus) -> None:
        led, self._led_metadata = self._led_metadata, status.is_leader
        if status.is_leader:
            logger.info("Server became metadata leader, performing leader promotion actions")
        elif led and not self._leaving:
            logger.warning("Server lost metadata leadership; the metadata leader is now %s", status.leader or "unknown")
        elif status.leader or not self._leaving:
            logger.info("Metadata leader is now %s", status.leader or "unknown")

    def _tell_observers(self, event: MetadataEvent) -> None:
        self._plugins.notify("liftbridge_metadata_applied", event=event)

    def _fail(self, error: LiftbridgeError) -> None:
        if not self.failed.done():
            self.failed.set_exception(error)

    # --- stopping -----------------------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Hands over to the other servers, if there are any; clients are served meanwhile."""
        self._leaving = True
        if self._node is not None:
            await self._node.drain(self._settings["clustering.drain.timeout"])

    async def stop(self) -> None:
        """Ends the calls, closes the logs cleanly and leaves. Idempotent."""
        self._leaving = True
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


def _log_crash(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.critical("a part of the server ended unexpectedly", exc_info=task.exception())


def _tune_garbage_collector() -> None:
    """What is here now stays, so it need not be looked at again; and batches make objects, not cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GARBAGE_THRESHOLD, 20, 50)
