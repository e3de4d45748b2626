"""What the metadata leader does for the cluster, while it leads: sessions, elections, joining servers, questions."""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence

from google.protobuf.message import DecodeError

from liftbridge.clock import Clock
from liftbridge.cluster.answering import Answering
from liftbridge.cluster.control import ControllerCore, ControlSettings
from liftbridge.cluster.handing_over import prepare_successors
from liftbridge.cluster.heartbeats import heartbeat_subject
from liftbridge.cluster.presence import server_subject
from liftbridge.cluster.requests import LEADER_CHANGED, ControlRequests
from liftbridge.cluster.telling import troubles_from_proto
from liftbridge.errors import ConsensusError, LiftbridgeError, NoResponders, TransportError
from liftbridge.interfaces.consensus import Consensus, ConsensusStatus
from liftbridge.interfaces.transport import Delivery, Transport
from liftbridge.metadata.asking import controller_subject
from liftbridge.metadata.commands import (
    ChangeCoordinators,
    ChangePartitions,
    ChangeServer,
    Command,
    CreateStream,
    PartitionChange,
    encode_command,
)
from liftbridge.metadata.internal_streams import InternalStreams
from liftbridge.metadata.placement import PlacementPolicy, is_live
from liftbridge.metadata.state import MetadataState
from liftbridge.partition.troubles import Troubles
from liftbridge.patience import subscribe_patiently
from liftbridge.protocol.generated import internal_pb2 as internal
from liftbridge.tasks import end_tasks

logger = logging.getLogger(__name__)

_TICK_S = 0.1
_PROPOSE_S = 5.0
_RETRY_S = 0.1
_PROMOTE_S = 30.0


class ClusterController:
    """Runs on every server, and works on the one that leads the metadata group. ``max_voters`` 0 is no limit."""

    def __init__(
        self,
        transport: Transport,
        consensus: Consensus,
        state: MetadataState,
        policy: PlacementPolicy,
        clock: Clock,
        settings: ControlSettings,
        *,
        namespace: str,
        cluster_id: str,
        server_id: str,
        max_voters: int,
        internal_streams: InternalStreams,
        troubles: Troubles,
    ) -> None:
        self._transport = transport
        self._consensus = consensus
        self._state = state
        self._policy = policy
        self._clock = clock
        self._settings = settings
        self._namespace = namespace
        self._cluster_id = cluster_id
        self._server_id = server_id
        self._max_voters = max_voters
        self._internal_streams = internal_streams
        self._troubles = troubles
        self._changed = asyncio.Event()
        self._leader_changed = asyncio.Event()
        self._voters_due = asyncio.Event()
        self._probing_due = asyncio.Event()
        self._internal_streams_due = asyncio.Event()
        self._previous_leader = ""
        state.subscribe(self._changed.set)
        troubles.subscribe(self._changed.set)
        state.subscribe(self._voters_due.set)
        state.subscribe(self._probing_due.set)
        state.subscribe(self._internal_streams_due.set)
        consensus.on_leader_change(self._note_leader)
        transport.on_connection_change(lambda _connected: self._changed.set())

    def _note_leader(self, status: ConsensusStatus) -> None:
        if status.leader not in ("", self._server_id):
            self._previous_leader = status.leader
        self._leader_changed.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._leader_changed.clear()
            if not self._consensus.status().is_leader:
                await self._leader_changed.wait()
                continue
            term = asyncio.create_task(self._lead())
            lost = asyncio.create_task(self._leader_changed.wait())
            try:
                await asyncio.wait((term, lost), return_when=asyncio.FIRST_COMPLETED)
            finally:
                await end_tasks((term, lost))
            problem = None if term.cancelled() else term.exception()
            if isinstance(problem, LiftbridgeError):
                logger.warning("The controller begins again: %s", problem)
                await asyncio.sleep(_RETRY_S)
            elif problem is not None:
                logger.error("The controller failed and begins again", exc_info=problem)
                await asyncio.sleep(_RETRY_S)

    async def _lead(self) -> None:
        """One term. What was committed before it is known first."""
        await self._consensus.barrier(timeout_s=_PROPOSE_S)
        core = ControllerCore(self._server_id, self._state, self._policy, self._settings)
        requests = ControlRequests(
            self._consensus,
            self._state,
            core,
            self._clock,
            wake=self._changed.set,
            report_window_s=self._settings.report_window_s,
            prepare=self._prepare,
            cluster_id=self._cluster_id,
            server_id=self._server_id,
        )
        async with contextlib.AsyncExitStack() as exit_:
            subject = controller_subject(self._namespace)
            answering = Answering(self._transport, subject, requests.answer, farewell=LEADER_CHANGED)
            exit_.push_async_callback(answering.stop)
            await answering.start()
            heartbeats = await subscribe_patiently(
                self._transport, heartbeat_subject(self._namespace), self._hear(core)
            )
            exit_.push_async_callback(heartbeats.unsubscribe)
            async with asyncio.TaskGroup() as background:
                promoting = background.create_task(self._promote())
                probing = background.create_task(self._probe(core))
                keeping = background.create_task(self._keep_internal_streams())
                await self._decide(core)
                for task in (promoting, probing, keeping):
                    task.cancel()

    # --- deciding -----------------------------------------------------------------------------------------------------

    async def _decide(self, core: ControllerCore) -> None:
        while self._consensus.status().is_leader:
            self._changed.clear()
            if not self._transport.connected:
                core.forget_silence()  # it is this server that hears nobody
                await self._changed.wait()
                continue
            core.note_troubles(self._server_id, self._troubles)
            for command in core.plan(self._clock.monotonic_ns()):
                if isinstance(command, ChangePartitions):
                    await self._prepare([one for one in command.changes if core.is_planned(one)])
                await self._propose(command, look_again=self._changed)
            await self._wait_for_change()

    async def _prepare(self, changes: Sequence[PartitionChange]) -> None:
        """Gives leaders that live the time to answer their publishers before others take over."""
        await prepare_successors(self._transport, self._namespace, self._state, changes)

    async def _propose(self, command: Command, *, look_again: asyncio.Event) -> None:
        logger.info("Controller: %s", _describe(command))
        try:
            await self._consensus.propose(encode_command(command), timeout_s=_PROPOSE_S)
        except ConsensusError as error:
            # Not needed any more, or planned again: whichever it is, the next look at the state shows it.
            logger.warning("The controller's change was not committed: %s", error)
            look_again.set()
            await asyncio.sleep(_RETRY_S)

    async def _wait_for_change(self) -> None:
        """Time alone changes something only if there are others to be heard of."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TICK_S if self._has_others() else None):
                await self._changed.wait()

    def _has_others(self) -> bool:
        return any(server_id != self._server_id for server_id in self._state.servers)

    async def _keep_internal_streams(self) -> None:
        """The cluster's own streams are as the settings want them, whoever comes."""
        while True:
            self._internal_streams_due.clear()
            try:
                commands = list(self._internal_streams.plan(self._state, self._policy, self._clock.time_ns()))
            except LiftbridgeError as error:
                logger.error("The cluster's own streams can't be placed now: %s", error)
                commands = []
            for command in commands:
                await self._propose(command, look_again=self._internal_streams_due)
            await self._internal_streams_due.wait()

    # --- hearing ------------------------------------------------------------------------------------------------------

    def _hear(self, core: ControllerCore) -> Callable[[list[Delivery]], None]:
        def hear(deliveries: list[Delivery]) -> None:
            now_ns = self._clock.monotonic_ns()
            for delivery in deliveries:
                for payload in delivery.payloads:
                    self._take_heartbeat(core, delivery.reply, payload, now_ns)

        return hear

    def _take_heartbeat(self, core: ControllerCore, reply_subject: str, payload: bytes, now_ns: int) -> None:
        try:
            heartbeat = internal.Heartbeat.FromString(payload)
        except DecodeError:
            return
        if heartbeat.cluster_id != self._cluster_id or not self._consensus.status().is_leader:
            return
        if not core.heartbeat(heartbeat.server_id, heartbeat.incarnation, now_ns):
            return
        if core.note_troubles(heartbeat.server_id, troubles_from_proto(heartbeat)):
            self._changed.set()
        if not reply_subject:
            return
        status = self._consensus.status()
        reply = internal.HeartbeatReply(
            cluster_id=self._cluster_id,
            controller=self._server_id,
            term=status.term,
            number=heartbeat.number,
            index=status.last_index,  # what is on its way may be the election of a successor
        )
        try:
            self._transport.publish(reply_subject, [reply.SerializeToString()])
        except (TransportError, ValueError) as error:
            logger.debug("a heartbeat of %s was not answered: %s", heartbeat.server_id, error)

    # --- asking whether somebody is there -----------------------------------------------------------------------------

    async def _probe(self, core: ControllerCore) -> None:
        """Looks after those that are quiet. Who was killed is gone from the transport at once, which is sooner than a
        time-out; the metadata leader before this one has been quiet for long already."""
        before = self._state.servers.get(self._previous_leader)
        if before is not None and before.server_id != self._server_id:
            await self._look_for(core, before.server_id, before.incarnation)
        while True:
            self._probing_due.clear()
            if not self._has_others():
                await self._probing_due.wait()
            for server_id, incarnation in core.quiet(self._clock.monotonic_ns()):
                await self._look_for(core, server_id, incarnation)
            await asyncio.sleep(_TICK_S)

    async def _look_for(self, core: ControllerCore, server_id: str, incarnation: str) -> None:
        try:
            await self._transport.request(server_subject(self._namespace, server_id), b"", timeout_s=_TICK_S)
        except NoResponders:
            core.gone(server_id, incarnation)
            self._changed.set()
        except TransportError as error:
            logger.debug("server %s is quiet: %s", server_id, error)

    # --- voters -------------------------------------------------------------------------------------------------------

    async def _promote(self) -> None:
        """Gives live learners a vote, one after the other, up to the limit."""
        while True:
            self._voters_due.clear()
            learner = self._next_voter()
            if learner:
                try:
                    await self._consensus.add_voter(learner, timeout_s=_PROMOTE_S)
                    logger.info("Server %s votes in the metadata group now", learner)
                except ConsensusError as error:
                    logger.warning("Server %s can't vote in the metadata group yet: %s", learner, error)
                    await asyncio.sleep(_RETRY_S)
                continue
            await self._voters_due.wait()

    def _next_voter(self) -> str:
        status = self._consensus.status()
        if self._max_voters and len(status.voters) >= self._max_voters:
            return ""
        live = (one for one in status.learners if is_live(self._state, one))
        return next(live, "")


def _describe(command: Command) -> str:
    """For the log."""
    match command:
        case ChangeServer():
            return f"server {command.server_id} is {command.status.name.lower()}"
        case ChangePartitions():
            elected = sum(bool(one.leader) for one in command.changes)
            offline = sum(one.leader == "" for one in command.changes)
            told = {"get another leader": elected, "go offline": offline}
            details = ", ".join(f"{count} {what}" for what, count in told.items() if count)
            return f"{len(command.changes)} partitions change" + (f": {details}" if details else "")
        case ChangeCoordinators():
            return f"{len(command.changes)} consumer groups get another coordinator"
        case CreateStream():
            replicas = ", ".join(command.placements[0].replicas)
            return f"stream {command.name} is made, with {len(command.placements)} partitions on {replicas}"
    return type(command).__name__
