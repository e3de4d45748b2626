"""Which parts a server has, and what each is handed: everything is made here, and nothing is started.

In this order: :func:`make_parts`, :func:`make_node`, :func:`make_services`, :func:`make_endpoints`. Together with
:mod:`liftbridge.server`, which calls them, the only place that sees everything.
"""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from liftbridge.activity import ActivityPublisher
from liftbridge.broker.api import BrokerApi
from liftbridge.broker.authorization import AuthorizedBroker, Permissions
from liftbridge.broker.broker import Broker
from liftbridge.broker.cluster_metadata import ClusterMetadataHandlers
from liftbridge.broker.cursors import CursorHandlers
from liftbridge.broker.figures import FiguresSource
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
from liftbridge.clock import Clock
from liftbridge.cluster.control import ControlSettings
from liftbridge.cluster.forming import Bootstrap
from liftbridge.cluster.handing_over import HandingOver
from liftbridge.cluster.identity import Identity
from liftbridge.cluster.node import ClusterNode, NodeSettings
from liftbridge.cluster.starting import StartedLeaders
from liftbridge.config import Settings
from liftbridge.cursors import Cursors
from liftbridge.errors import LiftbridgeError
from liftbridge.groups.coordinator import GroupCoordinator
from liftbridge.groups.readers import GroupReaders
from liftbridge.interfaces.consensus import Consensus
from liftbridge.interfaces.context import ConsensusContext, EndpointContext, LogStorageContext, PluginContext
from liftbridge.interfaces.endpoint import Endpoint
from liftbridge.interfaces.index import IndexStorage
from liftbridge.interfaces.keys import KeyRing
from liftbridge.interfaces.log import LogStorage
from liftbridge.interfaces.provider import Seam
from liftbridge.interfaces.routing import SubjectRouter
from liftbridge.interfaces.stable import StableStore
from liftbridge.interfaces.transport import Transport
from liftbridge.metadata.assignments import LocalAssignments
from liftbridge.metadata.controller import MetadataController
from liftbridge.metadata.known_servers import KnownServers
from liftbridge.metadata.resuming import Resumer
from liftbridge.metadata.state import MetadataState
from liftbridge.partition.auto_pause import AutoPauser
from liftbridge.partition.checkpoints import Checkpoints
from liftbridge.partition.cleaner import Cleaner
from liftbridge.partition.manager import PartitionManager
from liftbridge.partition.replication.exchange import ReplicationExchange
from liftbridge.partition.room import RoomWatch
from liftbridge.partition.troubles import Troubles
from liftbridge.plugin_manager import PluginManager
from liftbridge.settings import chosen_providers
from liftbridge.stream_settings import activity_settings, exchange_limits, internal_streams, stream_defaults
from liftbridge.version import version


@dataclass(frozen=True, slots=True)
class Setup:
    """What is known before anything is made: who this server is in this start of it, and how it is to be."""

    settings: Settings
    plugins: PluginManager
    clock: Clock
    server_id: str
    incarnation: str
    #: Empty until consensus has replayed what is stored.
    state: MetadataState
    keys: KeyRing | None
    #: What is wrong with this server's partitions: the cluster hears of it.
    troubles: Troubles = field(default_factory=Troubles)

    @property
    def namespace(self) -> str:
        return str(self.settings["clustering.namespace"])

    @property
    def data_dir(self) -> Path:
        path: Path = self.settings["data.dir"]
        return path


# --- what plugins provide ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Parts:
    """What the chosen providers made, but for the endpoints."""

    stable: StableStore
    index: IndexStorage
    logs: LogStorage
    transport: Transport
    consensus: Consensus
    router: SubjectRouter
    #: None without authorization.
    permissions: Permissions | None


def make_parts(setup: Setup) -> Parts:
    """By the providers that the settings name. Raises ConfigError for settings that make no sense to one of them."""
    settings = setup.settings
    context = _context(setup, PluginContext)
    stable = _create(setup, Seam.STABLE_STORE, settings["storage.stable"], context)
    index = _create(setup, Seam.INDEX_STORAGE, settings["storage.index"], context)
    transport = _create(setup, Seam.TRANSPORT, settings["transport"], context)
    for_logs = _context(setup, LogStorageContext, index=index)
    for_consensus = _context(setup, ConsensusContext, transport=transport, stable_store=stable)
    return Parts(
        stable=stable,
        index=index,
        logs=_create(setup, Seam.LOG_STORAGE, settings["storage.log"], for_logs),
        transport=transport,
        consensus=_create(setup, Seam.CONSENSUS, settings["clustering.consensus"], for_consensus),
        router=_create(setup, Seam.SUBJECT_ROUTER, settings["routing"], context),
        permissions=_make_permissions(setup, context),
    )


def _make_permissions(setup: Setup, context: PluginContext) -> Permissions | None:
    for name in chosen_providers(setup.settings, Seam.AUTHORIZER):
        return Permissions(_create(setup, Seam.AUTHORIZER, name, context))
    return None


def make_endpoints(setup: Setup, broker: BrokerApi) -> list[Endpoint]:
    """All that the settings name, in their order. Clients are told the address of the first."""
    authorizes = bool(chosen_providers(setup.settings, Seam.AUTHORIZER))
    context = _context(setup, EndpointContext, broker=broker, version=version(), needs_identities=authorizes)
    return [_create(setup, Seam.ENDPOINT, name, context) for name in setup.settings["endpoints"]]


def _context(setup: Setup, kind: type[Any], **more: Any) -> Any:
    return kind(
        server_id=setup.server_id,
        namespace=setup.namespace,
        data_dir=setup.data_dir,
        clock=setup.clock,
        settings=setup.settings,
        **more,
    )


def _create(setup: Setup, seam: Seam, name: str, context: PluginContext) -> Any:
    return setup.plugins.provider(seam, name).create(context)


# --- the way into the cluster -----------------------------------------------------------------------------------------


def make_node(setup: Setup, parts: Parts, identity: Identity, fail: Callable[[LiftbridgeError], None]) -> ClusterNode:
    """``fail`` gets what makes it impossible for this server to stay in its cluster."""
    return ClusterNode(
        parts.transport,
        parts.consensus,
        setup.state,
        setup.plugins.policy,
        setup.clock,
        identity,
        setup.data_dir,
        node_settings(setup.settings),
        incarnation=setup.incarnation,
        fail=fail,
        troubles=setup.troubles,
    )


def node_settings(settings: Settings) -> NodeSettings:
    """Raises ConfigError for heartbeats that can't keep a server alive."""
    return NodeSettings(
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
    )


# --- the kernel's own parts -------------------------------------------------------------------------------------------


class Listener(Protocol):
    """Listens on subjects of the transport from its start to its stop."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class Background(Protocol):
    """Works until it is cancelled."""

    def run(self) -> Coroutine[Any, Any, None]: ...


@dataclass(frozen=True, slots=True)
class Services:
    """What a server in a cluster is made of. ``listeners`` are to be started in this order, and ``background`` is to be
    run once the partitions are there."""

    partitions: PartitionManager
    assignments: LocalAssignments
    resumer: Resumer
    listeners: tuple[Listener, ...]
    background: tuple[Background, ...]
    broker: BrokerApi


def make_services(setup: Setup, parts: Parts, node: ClusterNode) -> Services:
    """They work once the server has entered its cluster."""
    controller = node.controller
    resumer = Resumer(setup.state, controller)
    exchange, partitions = _make_partitions(setup, parts, controller, resumer)
    started = StartedLeaders(
        parts.transport, setup.state, partitions, namespace=setup.namespace, server_id=setup.server_id
    )
    handing_over = HandingOver(parts.transport, partitions, namespace=setup.namespace, server_id=setup.server_id)
    targets = TargetTable(setup.state, partitions, parts.router)
    forwarder = _make_forwarder(setup, parts, targets, resumer)
    partitions.subscribe(forwarder.look_again)
    publishing = _make_publishing(setup, parts, targets, forwarder)
    coordinator = _make_coordinator(setup, node, controller)
    cursors = _make_cursors(setup, partitions, controller)
    background: list[Background] = [
        Cleaner(partitions, setup.clock),
        Checkpoints(partitions),
        AutoPauser(partitions, setup.clock, controller.pause_idle),
        RoomWatch(partitions, setup.troubles),
        coordinator,
    ]
    broker = Broker(
        publishing,
        StreamHandlers(controller, started, parts.router, setup.clock, _encryption_rules(setup)),
        ClusterMetadataHandlers(setup.state, partitions),
        CursorHandlers(cursors),
        GroupHandlers(controller, coordinator, setup.clock, _group_timeouts(setup)),
        PauseHandlers(controller, setup.state, started, setup.clock),
        Subscribing(setup.state, partitions, _make_group_access(setup, node, controller), resumer, setup.server_id),
        _make_figures(setup, parts, node, partitions, cursors),
    )
    if setup.settings["activity.stream.enabled"]:
        background.append(_make_activity_publisher(setup, partitions, controller))
    return Services(
        partitions=partitions,
        assignments=LocalAssignments(
            setup.state, setup.server_id, setup.incarnation, parts.router, stream_defaults(setup.settings)
        ),
        resumer=resumer,
        listeners=(
            exchange,
            started,
            handing_over,
            forwarder,
            ForwardServer(publishing, setup.clock, namespace=setup.namespace, server_id=setup.server_id),
        ),
        background=tuple(background),
        broker=broker if parts.permissions is None else AuthorizedBroker(broker, publishing, parts.permissions),
    )


def _make_figures(
    setup: Setup, parts: Parts, node: ClusterNode, partitions: PartitionManager, cursors: Cursors
) -> FiguresSource:
    return FiguresSource(
        setup.state,
        partitions,
        cursors,
        server_id=setup.server_id,
        status=parts.consensus.status,
        connected=lambda: parts.transport.connected,
        holds_lease=lambda: node.holds_lease,
    )


def _make_partitions(
    setup: Setup, parts: Parts, controller: MetadataController, resumer: Resumer
) -> tuple[ReplicationExchange, PartitionManager]:
    servers = KnownServers(setup.state)
    exchange = ReplicationExchange(
        parts.transport,
        setup.clock,
        controller,
        servers,
        namespace=setup.namespace,
        server_id=setup.server_id,
        incarnation=setup.incarnation,
        limits=exchange_limits(setup.settings),
    )
    partitions = PartitionManager(
        parts.logs,
        parts.transport,
        setup.clock,
        exchange,
        servers,
        server_id=setup.server_id,
        wake=resumer.request,
        keys=setup.keys,
        troubles=setup.troubles,
    )
    return exchange, partitions


def _make_forwarder(setup: Setup, parts: Parts, targets: TargetTable, resumer: Resumer) -> Forwarder:
    return Forwarder(
        parts.transport,
        targets,
        setup.clock,
        namespace=setup.namespace,
        server_id=setup.server_id,
        incarnation=setup.incarnation,
        resume=resumer.request,
    )


def _make_publishing(setup: Setup, parts: Parts, targets: TargetTable, forwarder: Forwarder) -> Publishing:
    return Publishing(
        targets=targets,
        transport=parts.transport,
        forwarder=forwarder,
        mirror=SubjectMirror(parts.transport),
        router=parts.router,
        inboxes=InboxNames(setup.namespace),
        max_message_bytes=setup.settings["clustering.replication.max.bytes"],
    )


def _make_cursors(setup: Setup, partitions: PartitionManager, controller: MetadataController) -> Cursors:
    return Cursors(
        setup.state,
        partitions,
        server_id=setup.server_id,
        catch_up=controller.catch_up,
        expected=bool(setup.settings["cursors.stream.partitions"]),
    )


def _make_activity_publisher(
    setup: Setup, partitions: PartitionManager, controller: MetadataController
) -> ActivityPublisher:
    return ActivityPublisher(
        setup.state, partitions, activity_settings(setup.settings), forget=controller.activity_published
    )


def _make_coordinator(setup: Setup, node: ClusterNode, controller: MetadataController) -> GroupCoordinator:
    return GroupCoordinator(
        setup.state,
        setup.clock,
        server_id=setup.server_id,
        consumer_timeout_s=setup.settings["groups.consumer.timeout"],
        holds_lease=lambda: node.holds_lease,
        catch_up=controller.catch_up,
        expire=controller.expire_member,
    )


def _make_group_access(setup: Setup, node: ClusterNode, controller: MetadataController) -> GroupAccess:
    return GroupAccess(
        setup.state,
        GroupReaders(setup.state),
        setup.server_id,
        catch_up=controller.catch_up,
        holds_lease=lambda: node.holds_lease,
    )


def _group_timeouts(setup: Setup) -> GroupTimeouts:
    return GroupTimeouts(setup.settings["groups.consumer.timeout"], setup.settings["groups.coordinator.timeout"])


def _encryption_rules(setup: Setup) -> EncryptionRules:
    defaults_for = stream_defaults(setup.settings)
    return EncryptionRules(setup.keys is not None, lambda stream: defaults_for(stream).encryption)
