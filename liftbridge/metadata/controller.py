"""Changes to metadata, on any server: proposed to the metadata group, with the outcome as a client may hear it."""

import asyncio
from collections.abc import Mapping, Sequence

from liftbridge.clock import Clock
from liftbridge.errors import (
    AlreadyExists,
    FailedPrecondition,
    InternalError,
    InvalidRequest,
    LiftbridgeError,
    NotFound,
    RequestError,
)
from liftbridge.interfaces.consensus import Consensus
from liftbridge.metadata.asking import ControllerClient
from liftbridge.metadata.catching_up import CatchingUp
from liftbridge.metadata.commands import (
    ActivityPublished,
    ChangePartitions,
    ChangeServer,
    Command,
    CreateStream,
    DeleteStream,
    JoinGroup,
    LeaveGroup,
    PartitionChange,
    PausePartitions,
    RegisterServer,
    ResumePartitions,
    SetReadonly,
)
from liftbridge.metadata.config import StreamConfig
from liftbridge.metadata.model import Applied, GroupState, RefusalReason, Refused, ServerStatus, StreamState
from liftbridge.metadata.placement import PlacementPolicy, place
from liftbridge.metadata.proposing import Proposer
from liftbridge.metadata.state import MetadataState
from liftbridge.protocol.generated import internal_pb2 as internal

_ERRORS: dict[RefusalReason, type[RequestError]] = {
    RefusalReason.STREAM_EXISTS: AlreadyExists,
    RefusalReason.NO_SUCH_STREAM: NotFound,
    RefusalReason.BAD_PLACEMENT: InvalidRequest,
    RefusalReason.UNKNOWN_COMMAND: InternalError,
    RefusalReason.SERVER_REMOVED: FailedPrecondition,
    RefusalReason.NO_SUCH_SERVER: NotFound,
    RefusalReason.OTHER_START: FailedPrecondition,
    RefusalReason.STILL_IN_USE: FailedPrecondition,
    RefusalReason.NO_SUCH_PARTITION: NotFound,
    RefusalReason.NO_SUCH_STREAM_TO_CONSUME: FailedPrecondition,
    RefusalReason.ALREADY_A_MEMBER: FailedPrecondition,
    RefusalReason.NO_SUCH_GROUP: NotFound,
    RefusalReason.NOT_A_MEMBER: FailedPrecondition,
    RefusalReason.GROUP_CHANGED: FailedPrecondition,
}
#: Changes in one command: far below what a message carries, with IDs of any sensible length.
MAX_CHANGES = 250
_EXPIRE_S = 5.0
_CATCH_UP_S = 5.0


class MetadataController:
    """What a server asks of the metadata group. Everything may take until the metadata group has a leader, and raises
    DeadlineExceeded when the time is over: then it may still happen. What clients ask for doesn't wait for a leader that
    has been missing for longer than elections take: that raises Unavailable, and may still happen too."""

    def __init__(
        self,
        consensus: Consensus,
        state: MetadataState,
        policy: PlacementPolicy,
        clock: Clock,
        client: ControllerClient,
        *,
        server_id: str,
        incarnation: str,
    ) -> None:
        self._consensus = consensus
        self._state = state
        self._policy = policy
        self._clock = clock
        self._client = client
        self._server_id = server_id
        self._incarnation = incarnation
        self._proposer = Proposer(consensus, state, client, clock)
        self._catching_up = CatchingUp(lambda: self._proposer.catch_up(timeout_s=_CATCH_UP_S))
        self._isr_changes: list[tuple[PartitionChange, asyncio.Future[bool]]] = []
        self._sending: set[asyncio.Task[None]] = set()

    async def catch_up(self) -> None:
        """Returns once everything that was committed before the call is applied on this server. Takes a question to the
        metadata leader, which all who call meanwhile share. Raises Unavailable when there is no answer for 5 s."""
        await self._catching_up.now()

    def servers(self) -> Sequence[str]:
        """The servers that partitions may be placed on. One that is down counts: it will hold its replica when it is
        back."""
        usable = (ServerStatus.LIVE, ServerStatus.DOWN)
        return tuple(sorted(one.server_id for one in self._state.servers.values() if one.status in usable))

    async def register_server(self, command: RegisterServer, *, timeout_s: float) -> None:
        """Makes this start of a server known; where it leads, new leader epochs begin. Raises FailedPrecondition for a
        server that was removed."""
        await self._propose(command, timeout_s, patient=True)

    async def change_status(
        self, server_id: str, status: ServerStatus, *, incarnation: str = "", timeout_s: float
    ) -> None:
        """Says what the cluster may expect of a server; with an incarnation, only of that start of it."""
        await self._propose(ChangeServer(server_id, status, incarnation), timeout_s, patient=True)

    # --- streams ------------------------------------------------------------------------------------------------------

    async def create_stream(
        self,
        *,
        name: str,
        subject: str,
        group: str,
        config: StreamConfig,
        partitions: int,
        replication_factor: int,
        timeout_s: float,
    ) -> StreamState:
        """Creates a stream and returns it as committed."""
        placements = place(
            self._state,
            self._policy,
            stream=name,
            partitions=partitions,
            replication_factor=replication_factor,
            servers=self.servers(),
        )
        command = CreateStream(name, subject, group, config, self._clock.time_ns(), placements)
        applied = await self._propose(command, timeout_s)
        stream = self._state.stream_by_id(applied.index)
        if stream is None:
            raise NotFound(f"stream {name} was deleted again while it was being created")
        return stream

    async def delete_stream(self, name: str, *, timeout_s: float) -> None:
        """Deletes a stream and its data. A server that lags may not know the stream yet: so it is asked for, always."""
        await self._propose(DeleteStream(name), timeout_s)

    async def pause(self, stream: str, partitions: Sequence[int], *, resume_all: bool, timeout_s: float) -> int:
        """Pauses partitions of the stream, all of them when none is named. Returns the index of the change, 0 if
        all was so before."""
        command = PausePartitions(stream, tuple(partitions), resume_all, self._clock.time_ns())
        return _index_of_change(await self._propose(command, timeout_s))

    async def pause_idle(self, stream: str, leader_epochs: Mapping[int, int], timeout_s: float = 5.0) -> None:
        """Pauses partitions that have these leader epochs still."""
        command = PausePartitions(
            stream, tuple(leader_epochs), False, self._clock.time_ns(), tuple(leader_epochs.values())
        )
        await self._propose(command, timeout_s, patient=True)

    async def resume(self, stream: str, partitions: Sequence[int], *, timeout_s: float) -> None:
        """Resumes partitions of the stream, all of them if the latest pause said so. No matter if they aren't paused."""
        await self._propose(ResumePartitions(stream, tuple(partitions), self._clock.time_ns()), timeout_s, patient=True)

    async def set_readonly(self, stream: str, partitions: Sequence[int], readonly: bool, *, timeout_s: float) -> int:
        """Closes partitions of the stream to publishers, all of them when none is named, or opens them again. Returns the
        index of the change, 0 if all was so before."""
        command = SetReadonly(stream, tuple(partitions), readonly, self._clock.time_ns())
        return _index_of_change(await self._propose(command, timeout_s))

    async def activity_published(self, up_to_index: int, timeout_s: float) -> None:
        """The activity stream has every event up to this index, so nobody need remember them."""
        await self._propose(ActivityPublished(up_to_index), timeout_s, patient=True)

    # --- consumer groups ----------------------------------------------------------------------------------------------

    async def join_group(
        self, group_id: str, consumer_id: str, streams: Sequence[str], *, timeout_s: float
    ) -> GroupState:
        """Makes the consumer a member, and returns the group as it is then or later."""
        await self._propose(JoinGroup(group_id, consumer_id, tuple(streams)), timeout_s)
        group = self._state.groups.get(group_id)
        if group is None:
            raise NotFound("consumer group does not exist")
        return group

    async def leave_group(self, group_id: str, consumer_id: str, *, timeout_s: float) -> None:
        """As the consumer itself wants."""
        await self._propose(LeaveGroup(group_id, consumer_id), timeout_s)

    async def expire_member(self, command: LeaveGroup) -> None:
        """As the coordinator wants; nothing happens when the consumer, or its coordinator, isn't the same any more."""
        await self._proposer.propose(command, timeout_s=_EXPIRE_S, patient=True)

    async def report_coordinator(
        self, group_id: str, consumer_id: str, coordinator: str, epoch: int, *, timeout_s: float
    ) -> None:
        """As a consumer that can't reach it wants. When enough of its group say so too, another server is chosen, which
        this server knows afterwards."""
        report = internal.ReportCoordinator(
            group_id=group_id, consumer_id=consumer_id, coordinator=coordinator, epoch=epoch
        )
        self._proposer.require_leader()
        await self._client.ask(internal.ControlRequest(report_coordinator=report), timeout_s=timeout_s)
        await self.catch_up()

    # --- partitions ---------------------------------------------------------------------------------------------------

    async def change_isr(
        self, stream_id: int, partition: int, partition_epoch: int, isr: Sequence[str], *, timeout_s: float
    ) -> bool:
        """Asks for another ISR, for the leader of the partition. False when it is stale: the partition has another
        epoch by now, or a server that is to come in isn't live; look at the assignment again. True: committed, and
        applied on this server.

        Changes that are asked for in one turn of the event loop are proposed together.
        """
        change = PartitionChange(stream_id, partition, partition_epoch, isr=tuple(isr))
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._isr_changes.append((change, future))
        if len(self._isr_changes) == 1:
            task = asyncio.create_task(self._send_isr_changes(timeout_s))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        return await future

    async def _send_isr_changes(self, timeout_s: float) -> None:
        await asyncio.sleep(0)
        waiting, self._isr_changes = self._isr_changes, []
        for start in range(0, len(waiting), MAX_CHANGES):
            batch = waiting[start : start + MAX_CHANGES]
            command = ChangePartitions(tuple(change for change, _ in batch))
            try:
                applied = await self._propose(command, timeout_s, patient=True)
            except LiftbridgeError as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), accepted in zip(batch, applied.accepted, strict=True):
                if not future.done():
                    future.set_result(accepted)

    async def suspect_leader(self, stream_id: int, partition: int, leader_epoch: int, *, timeout_s: float) -> bool:
        """Reports, as a member of the ISR, that the leader of this epoch doesn't answer. When enough of the others that
        live say so too, another one is elected. False when that epoch is over, or this server is not in the ISR."""
        report = internal.SuspectLeader(
            stream_id=stream_id,
            partition=partition,
            leader_epoch=leader_epoch,
            reporter=self._server_id,
            incarnation=self._incarnation,
        )
        try:
            await self._client.ask(internal.ControlRequest(suspect_leader=report), timeout_s=timeout_s)
        except FailedPrecondition:
            return False
        return True

    # ------------------------------------------------------------------------------------------------------------------

    async def _propose(self, command: Command, timeout_s: float, *, patient: bool = False) -> Applied:
        outcome = await self._proposer.propose(command, timeout_s=timeout_s, patient=patient)
        if isinstance(outcome, Refused):
            raise _ERRORS[outcome.reason](outcome.message)
        return outcome


def _index_of_change(applied: Applied) -> int:
    return 0 if applied.accepted == (False,) else applied.index
