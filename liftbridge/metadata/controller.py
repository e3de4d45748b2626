"""Changes to metadata: proposed to the consensus group, with the outcome as a client may hear it."""

from collections.abc import Sequence

from liftbridge.clock import Clock
from liftbridge.errors import (
    AlreadyExists,
    DeadlineExceeded,
    InternalError,
    InvalidRequest,
    NotFound,
    NotLeader,
    ProposalDropped,
    ProposalTimeout,
)
from liftbridge.interfaces.consensus import Consensus
from liftbridge.metadata.commands import Command, CreateStream, DeleteStream, RegisterServer, encode_command
from liftbridge.metadata.config import StreamConfig
from liftbridge.metadata.placement import PlacementPolicy, place
from liftbridge.metadata.state import Applied, MetadataState, RefusalReason, Refused, StreamState

_ERRORS = {
    RefusalReason.STREAM_EXISTS: AlreadyExists,
    RefusalReason.NO_SUCH_STREAM: NotFound,
    RefusalReason.BAD_PLACEMENT: InvalidRequest,
    RefusalReason.UNKNOWN_COMMAND: InternalError,
}


class MetadataController:
    """Proposes commands. Runs on every server; only the metadata leader's proposals are accepted."""

    def __init__(self, consensus: Consensus, state: MetadataState, policy: PlacementPolicy, clock: Clock) -> None:
        self._consensus = consensus
        self._state = state
        self._policy = policy
        self._clock = clock

    @property
    def is_leader(self) -> bool:
        return self._consensus.status().is_leader

    def servers(self) -> Sequence[str]:
        """The members of the metadata group: where partitions may be placed."""
        status = self._consensus.status()
        return tuple(sorted({*status.voters, *status.learners}))

    async def register_server(self, command: RegisterServer, *, timeout_s: float) -> None:
        """Makes this start of a server known; its partitions begin new leader epochs."""
        await self._propose(command, timeout_s)

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
        if name in self._state.streams:
            raise AlreadyExists("stream already exists")
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
        stream = self._state.streams.get(name)
        if stream is None or stream.stream_id != applied.index:
            raise NotFound(f"stream {name} was deleted again while it was being created")
        return stream

    async def delete_stream(self, name: str, *, timeout_s: float) -> None:
        """Deletes a stream and its data."""
        if name not in self._state.streams:
            raise NotFound("stream does not exist")
        await self._propose(DeleteStream(name), timeout_s)

    async def _propose(self, command: Command, timeout_s: float) -> Applied:
        """Proposes, again if the proposal was surely dropped, until the time is over."""
        data = encode_command(command)
        deadline_ns = self._clock.monotonic_ns() + int(timeout_s * 1e9)
        while True:
            remaining_s = (deadline_ns - self._clock.monotonic_ns()) / 1e9
            if remaining_s <= 0:
                raise DeadlineExceeded("raft operation timed out")
            try:
                result = await self._consensus.propose(data, timeout_s=remaining_s)
            except ProposalDropped:
                continue
            except ProposalTimeout:
                raise DeadlineExceeded("raft operation timed out") from None
            except NotLeader as error:
                raise InternalError(str(error)) from error
            if isinstance(result, Refused):
                raise _ERRORS[result.reason](result.message)
            assert isinstance(result, Applied)
            return result
