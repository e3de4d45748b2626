"""This server as a member of its cluster: from finding it to leaving it in good order."""

import asyncio
import contextlib
import logging
import secrets
import string
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from liftbridge.addresses import join_address
from liftbridge.clock import Clock
from liftbridge.cluster.control import ControlSettings
from liftbridge.cluster.controller import ClusterController
from liftbridge.cluster.forming import Bootstrap, find_membership
from liftbridge.cluster.heartbeats import Heartbeats
from liftbridge.cluster.identity import Identity, begin_run, end_run, note_registered, save_identity
from liftbridge.cluster.operations import burden
from liftbridge.cluster.presence import Presence
from liftbridge.errors import (
    ConfigError,
    ConsensusError,
    DeadlineExceeded,
    FailedPrecondition,
    LiftbridgeError,
    Unavailable,
)
from liftbridge.interfaces.consensus import Consensus
from liftbridge.interfaces.transport import Transport
from liftbridge.metadata.asking import ControllerClient
from liftbridge.metadata.commands import RegisterServer
from liftbridge.metadata.controller import MetadataController
from liftbridge.metadata.internal_streams import InternalStream, InternalStreams
from liftbridge.metadata.model import ServerStatus
from liftbridge.metadata.placement import PlacementPolicy, is_live
from liftbridge.metadata.state import MetadataState
from liftbridge.partition.troubles import Troubles
from liftbridge.tasks import end_tasks

logger = logging.getLogger(__name__)

_REMIND_S = 5.0
#: What one step of draining may take before it is taken for hopeless.
_STEP_S = 2.0
_GOODBYE_S = 1.0
_ID_CHARACTERS = string.digits + string.ascii_letters


def random_id() -> str:
    """22 letters and digits: for servers, starts of servers and clusters."""
    return "".join(secrets.choice(_ID_CHARACTERS) for _ in range(22))


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What an operator may choose. Raises ConfigError for what can't work."""

    bootstrap: Bootstrap
    heartbeat_s: float = 0.25
    control: ControlSettings = field(default_factory=ControlSettings)
    internal_streams: tuple[InternalStream, ...] = ()

    def __post_init__(self) -> None:
        longest_s = self.control.session_timeout_s / 2
        if self.heartbeat_s > longest_s:
            raise ConfigError(
                f"clustering.session.heartbeat is {self.heartbeat_s:g}s; with clustering.session.timeout at "
                f"{self.control.session_timeout_s:g}s it must be at most {longest_s:g}s"
            )


class ClusterNode:
    """Call in this order: ``enter``, ``register``, ``establish``, ``drain``, ``leave``, ``note_clean_stop``.

    ``incarnation`` names this start. ``fail`` is called with what makes it impossible for this server to go on.
    """

    def __init__(
        self,
        transport: Transport,
        consensus: Consensus,
        state: MetadataState,
        policy: PlacementPolicy,
        clock: Clock,
        identity: Identity,
        data_dir: Path,
        settings: NodeSettings,
        *,
        incarnation: str,
        fail: Callable[[LiftbridgeError], None],
        troubles: Troubles | None = None,
    ) -> None:
        self._transport = transport
        self._consensus = consensus
        self._state = state
        self._policy = policy
        self._clock = clock
        self._identity = identity
        self._data_dir = data_dir
        self._settings = settings
        self._incarnation = incarnation
        self._fail = fail
        self._troubles = troubles or Troubles()
        self._address = ("", 0)
        self._client = ControllerClient(transport, identity.namespace, clock, cluster_id="", sender=identity.server_id)
        #: Asks the metadata group, once this server is in its cluster.
        self.controller = MetadataController(
            consensus, state, policy, clock, self._client, server_id=identity.server_id, incarnation=incarnation
        )
        self._presence = Presence(transport, identity, incarnation, lambda: self._address, fail)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Event()
        self._unclean = False
        self._established = False
        self._registered = False
        self._heartbeats: Heartbeats | None = None

    @property
    def holds_lease(self) -> bool:
        """Whether this server may act as the leader of the partitions that it leads: see Heartbeats."""
        return self._heartbeats is not None and self._heartbeats.holds_lease

    # --- coming -------------------------------------------------------------------------------------------------------

    async def enter(self) -> None:
        """Finds, begins or joins the cluster, and starts consensus. May take until there is a cluster. Raises ConfigError
        when this server can't be in it."""
        await self._presence.claim_server_id()
        membership = await find_membership(
            self._identity,
            self._settings.bootstrap,
            self._presence,
            self._client,
            self._incarnation,
            is_stored=await self._consensus.is_stored(),
            new_id=random_id,
        )
        self._identity = membership.identity
        self._client.cluster_id = self._identity.cluster_id
        save_identity(self._data_dir, self._identity)
        self._unclean = begin_run(self._data_dir)
        await self._presence.announce(self._identity.cluster_id)
        self._start("controller", self._make_controller().run())
        await self._consensus.start(self._state, bootstrap=membership.voters, group=self._identity.cluster_id)
        self._state.subscribe(self._look)

    def _make_controller(self) -> ClusterController:
        return ClusterController(
            self._transport,
            self._consensus,
            self._state,
            self._policy,
            self._clock,
            self._settings.control,
            namespace=self._identity.namespace,
            cluster_id=self._identity.cluster_id,
            server_id=self._identity.server_id,
            max_voters=self._settings.bootstrap.max_voters,
            internal_streams=InternalStreams(
                self._settings.internal_streams, max_replicas=self._settings.bootstrap.max_voters
            ),
            troubles=self._troubles,
        )

    async def register(self, host: str, port: int) -> None:
        """Makes this start known, and where clients reach it. May take until the metadata group has a leader."""
        self._address = (host, port)
        command = RegisterServer(self._identity.server_id, host, port, self._incarnation, self._unclean)
        if self._unclean:
            logger.warning("The machine went down without a clean stop: this server's copies have to catch up first")
        while True:
            try:
                await self.controller.register_server(command, timeout_s=_REMIND_S)
                break
            except DeadlineExceeded as error:
                logger.warning("Waiting for a metadata leader: %s", error)
        note_registered(self._data_dir)
        self._registered = True
        self._look()
        self._heartbeats = self._make_heartbeats()
        self._start("heartbeats", self._heartbeats.run())

    def _make_heartbeats(self) -> Heartbeats:
        return Heartbeats(
            self._transport,
            self._consensus,
            self._clock,
            namespace=self._identity.namespace,
            cluster_id=self._identity.cluster_id,
            server_id=self._identity.server_id,
            incarnation=self._incarnation,
            interval_s=self._settings.heartbeat_s,
            session_timeout_s=self._settings.control.session_timeout_s,
            troubles=self._troubles,
        )

    def establish(self) -> None:
        """Clients are served, and every log has been opened."""
        self._established = True
        self._presence.establish()

    def _look(self) -> None:
        """Whether this start still is the one that the cluster knows."""
        self._changed.set()
        server_id = self._identity.server_id
        server = self._state.servers.get(server_id)
        if not self._registered or server is None:
            return
        if server.status is ServerStatus.GONE:
            self._fail(
                FailedPrecondition(
                    f"server {server_id} was removed from the cluster; start it with another server ID and an empty data "
                    "directory"
                )
            )
        elif server.incarnation != self._incarnation:
            self._fail(
                FailedPrecondition(
                    f"another process registered as server {server_id} ({join_address(server.host, server.port)}); this one gives way"
                )
            )

    # --- leaving ------------------------------------------------------------------------------------------------------

    async def drain(self, timeout_s: float) -> None:
        """Hands over what this server leads, leaves the ISRs and says goodbye, as far as the time suffices and there are
        others to take over."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._drain(timeout_s)
        except (LiftbridgeError, TimeoutError) as error:
            left = burden(self._state, self._identity.server_id)
            logger.warning(
                "Not drained: %s; %d partitions and consumer groups are left to failover", error or "no time left", left
            )

    async def _drain(self, timeout_s: float) -> None:
        server_id = self._identity.server_id
        if not self._live_others() or not self._consensus.status().leader:
            return
        logger.info("Draining: handing over what this server leads")
        await self.controller.change_status(
            server_id, ServerStatus.DRAINING, incarnation=self._incarnation, timeout_s=min(timeout_s, _STEP_S)
        )
        await self._until_handed_over()
        if self._consensus.status().is_leader and not await self._hand_over_metadata():
            return
        await self._end("heartbeats")
        await self.controller.change_status(
            server_id, ServerStatus.DOWN, incarnation=self._incarnation, timeout_s=_GOODBYE_S
        )

    async def _until_handed_over(self) -> None:
        """Gives up when nobody leads the metadata group any more: everybody may be about to stop."""
        while burden(self._state, self._identity.server_id):
            self._changed.clear()
            led = bool(self._consensus.status().leader)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STEP_S):
                    await self._changed.wait()
                    continue
            if not led and not self._consensus.status().leader:
                raise Unavailable("there is no metadata leader")

    def _live_others(self) -> list[str]:
        return [one for one in self._state.servers if one != self._identity.server_id and is_live(self._state, one)]

    async def _hand_over_metadata(self) -> bool:
        voters = self._consensus.status().voters
        for successor in self._live_others():
            if successor in voters:
                try:
                    await self._consensus.transfer_leadership(successor, timeout_s=_STEP_S)
                    return True
                except ConsensusError as error:
                    logger.warning("Server %s didn't take over the metadata group: %s", successor, error)
        return False

    async def leave(self) -> None:
        """Takes no more part. Consensus and transport are stopped by who made them, afterwards."""
        for name in list(self._tasks):
            await self._end(name)
        await self._presence.close()

    def note_clean_stop(self) -> None:
        """Every log is closed. A start that ended before it had opened them knows nothing of what the one before it had
        written, or had lost: what was noted then stays."""
        if self._established:
            end_run(self._data_dir)

    # ------------------------------------------------------------------------------------------------------------------

    def _start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = self._tasks[name] = asyncio.create_task(work, name=name)
        task.add_done_callback(_log_crash)

    async def _end(self, name: str) -> None:
        task = self._tasks.pop(name, None)
        if task is not None:
            await end_tasks((task,))


def _log_crash(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and task.exception() is not None:
        logger.critical("%s ended unexpectedly", task.get_name(), exc_info=task.exception())
