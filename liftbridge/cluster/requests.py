"""Questions to the metadata leader, and its answers: from other servers, from servers that want to join, from operators."""

import asyncio
import logging
from collections.abc import Callable

from google.protobuf.message import DecodeError

from liftbridge.clock import Clock
from liftbridge.cluster.control import ControllerCore, Suspicion
from liftbridge.cluster.coordinators import CoordinatorReport, CoordinatorReports, ReportRefused
from liftbridge.cluster.operations import Operations, Prepare, Refusal, Unfinished
from liftbridge.cluster.picture import cluster_picture
from liftbridge.errors import ConsensusError, NotLeader, PayloadTooLarge, ProposalDropped, ProposalTimeout
from liftbridge.interfaces.consensus import Consensus
from liftbridge.metadata.commands import encode_command
from liftbridge.metadata.model import Applied, Refused, ServerStatus
from liftbridge.metadata.snapshots import outcome_to_proto
from liftbridge.metadata.state import MetadataState
from liftbridge.protocol.generated import internal_pb2 as internal

logger = logging.getLogger(__name__)

_TRY_AGAIN = internal.ControlError.TRY_AGAIN
_OUTCOME_UNKNOWN = internal.ControlError.OUTCOME_UNKNOWN
_REFUSED = internal.ControlError.REFUSED


#: To who asked a leader that lost its place meanwhile.
LEADER_CHANGED = internal.ControlReply(
    error=internal.ControlError(kind=_OUTCOME_UNKNOWN, text="the metadata leader changed")
).SerializeToString()


class ControlRequests:
    """Answers for one term of leading. ``wake`` lets the controller look at once at what was reported; ``prepare`` tells
    leaders that live what they are about to lose."""

    def __init__(
        self,
        consensus: Consensus,
        state: MetadataState,
        core: ControllerCore,
        clock: Clock,
        *,
        wake: Callable[[], None],
        report_window_s: float,
        prepare: Prepare,
        cluster_id: str,
        server_id: str,
    ) -> None:
        self._consensus = consensus
        self._state = state
        self._core = core
        self._clock = clock
        self._wake = wake
        self._cluster_id = cluster_id
        self._reports = CoordinatorReports(state, int(report_window_s * 1e9))
        self._operations = Operations(consensus, state, prepare, server_id, clock)
        self._joining = asyncio.Lock()

    async def answer(self, payload: bytes) -> bytes | None:
        """A ControlReply to a ControlRequest; None to what is none."""
        try:
            request = internal.ControlRequest.FromString(payload)
        except DecodeError:
            logger.warning("A request of %d bytes to the controller was ignored: it makes no sense", len(payload))
            return None
        return (await self._answer(request)).SerializeToString()

    async def _answer(self, request: internal.ControlRequest) -> internal.ControlReply:
        if request.cluster_id not in ("", self._cluster_id):
            return _error(
                _REFUSED,
                f"server {request.sender} belongs to another cluster ({request.cluster_id}, not {self._cluster_id})",
            )
        try:
            return await self._carry_out(request, request.timeout_ms / 1000)
        except (NotLeader, ProposalDropped, Unfinished) as error:
            return _error(_TRY_AGAIN, str(error))
        except ProposalTimeout as error:
            return _error(_OUTCOME_UNKNOWN, str(error))
        except (Refusal, ReportRefused, PayloadTooLarge, ConsensusError) as error:
            return _error(_REFUSED, str(error))

    async def _carry_out(self, request: internal.ControlRequest, timeout_s: float) -> internal.ControlReply:
        match request.WhichOneof("request"):
            case "proposal":
                outcome = await self._consensus.propose(request.proposal, timeout_s=timeout_s)
                assert isinstance(outcome, Applied | Refused)
                return internal.ControlReply(outcome=outcome_to_proto(outcome))
            case "suspect_leader":
                return self._suspect(request.suspect_leader)
            case "report_coordinator":
                return await self._take_report(request.report_coordinator, timeout_s)
            case "read_index":
                await self._consensus.barrier(timeout_s=timeout_s)
                return internal.ControlReply(read_index=self._state.applied_index)
            case "join":
                return await self._join(request.join.server_id, timeout_s)
            case "show_cluster":
                now_ns = self._clock.monotonic_ns()
                picture = cluster_picture(self._state, self._consensus.status(), self._core, self._cluster_id, now_ns)
                return internal.ControlReply(cluster=picture)
            case "drain_server":
                return _done(await self._operations.drain(request.drain_server.server_id, timeout_s))
            case "remove_server":
                remove = request.remove_server
                accept_loss = remove.accept_loss
                return _done(await self._operations.remove(remove.server_id, timeout_s, accept_loss=accept_loss))
            case "transfer_leader":
                return _done(await self._operations.transfer(request.transfer_leader, timeout_s))
        return _error(_REFUSED, "the metadata leader doesn't know what is asked for; it may run an older version")

    def _suspect(self, report: internal.SuspectLeader) -> internal.ControlReply:
        suspicion = Suspicion(
            report.stream_id, report.partition, report.leader_epoch, report.reporter, report.incarnation
        )
        problem = self._core.suspect(suspicion, self._clock.monotonic_ns())
        if problem:
            return _error(_REFUSED, problem)
        self._wake()
        return _done("reported")

    async def _take_report(self, message: internal.ReportCoordinator, timeout_s: float) -> internal.ControlReply:
        """Answers once the group has another coordinator, if this report was the last one that it took."""
        report = CoordinatorReport(message.group_id, message.consumer_id, message.coordinator, message.epoch)
        change = self._reports.add(report, self._clock.monotonic_ns())
        if change is not None:
            logger.warning("Members of group %s don't reach its coordinator %s", report.group_id, report.coordinator)
            await self._consensus.propose(encode_command(change), timeout_s=timeout_s)
        return _done("reported")

    async def _join(self, server_id: str, timeout_s: float) -> internal.ControlReply:
        """Makes the server a learner; it gets its vote once it is registered."""
        known = self._state.servers.get(server_id)
        if known is not None and known.status is ServerStatus.GONE:
            raise Refusal(f'server ID "{server_id}" belonged to a server that was removed; take another one')
        if known is not None:
            raise Refusal(
                f'server ID "{server_id}" belongs to a server of this cluster, whose data this server doesn\'t have. If that '
                f"data is lost, run: liftbridge cluster remove {server_id}; and start this server with another ID"
            )
        async with self._joining:
            status = self._consensus.status()
            if server_id not in (*status.voters, *status.learners):
                await self._consensus.add_learner(server_id, timeout_s=timeout_s)
                logger.info("Server %s joins the metadata group", server_id)
        return internal.ControlReply(cluster_id=self._cluster_id)


def _error(kind: "internal.ControlError.Kind", text: str) -> internal.ControlReply:
    return internal.ControlReply(error=internal.ControlError(kind=kind, text=text))


def _done(text: str) -> internal.ControlReply:
    return internal.ControlReply(done=text)
