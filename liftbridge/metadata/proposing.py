"""Proposing commands on any server: at the metadata leader directly, elsewhere by asking it (*propagating*).

Every command carries a request ID, and an attempt whose outcome is unknown is repeated with the same one until the
time is over. The state machine remembers outcomes by that ID, so however often a command is committed, it takes
effect once and has one outcome.
"""

import asyncio
import secrets
from itertools import count

from liftbridge.clock import Clock
from liftbridge.errors import (
    ConsensusError,
    DeadlineExceeded,
    FailedPrecondition,
    InternalError,
    NotLeader,
    ProposalDropped,
    ProposalTimeout,
    Unavailable,
)
from liftbridge.interfaces.consensus import Consensus, ConsensusStatus
from liftbridge.metadata.asking import ControllerClient, NoAnswerYet
from liftbridge.metadata.commands import Command, encode_command
from liftbridge.metadata.model import Applied, Refused
from liftbridge.metadata.snapshots import outcome_from_proto
from liftbridge.metadata.state import MetadataState
from liftbridge.protocol.generated import internal_pb2 as internal

_PAUSE_S = 0.02
#: Without a leader for so long it isn't an election any more, which takes a second or two.
_LEADERLESS_S = 5.0
#: A leader that lost its place without knowing gets no answer.
_BARRIER_S = 1.0


class Proposer:
    """Proposes for one server. All methods run on the event loop."""

    def __init__(self, consensus: Consensus, state: MetadataState, client: ControllerClient, clock: Clock) -> None:
        self._consensus = consensus
        self._state = state
        self._client = client
        self._clock = clock
        self._prefix = secrets.token_urlsafe(9)
        self._numbers = count(1)
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._leaderless_since_ns: int | None = clock.monotonic_ns()
        state.subscribe_applied(self._wake)
        consensus.on_leader_change(self._note_leader)

    def _note_leader(self, status: ConsensusStatus) -> None:
        if status.leader:
            self._leaderless_since_ns = None
        elif self._leaderless_since_ns is None:
            self._leaderless_since_ns = self._clock.monotonic_ns()

    def require_leader(self) -> None:
        """Raises Unavailable, with what an operator can do, when there has been no metadata leader for longer than
        elections take."""
        status = self._consensus.status()
        if self._leaderless_since_ns is None or status.leader:
            return
        silence_s = (self._clock.monotonic_ns() - self._leaderless_since_ns) / 1e9
        if silence_s > _LEADERLESS_S:
            voters = ", ".join(sorted(status.voters))
            raise Unavailable(
                f"no metadata leader for {silence_s:.0f} s, so streams, consumer groups and servers can't be changed: that "
                f"takes a majority of the servers {voters}. Start those that are down; their logs say whether they reach NATS"
            )

    async def propose(self, command: Command, *, timeout_s: float, patient: bool = False) -> Applied | Refused:
        """Returns the outcome once the command is committed and, when it was accepted, applied on this server too.

        Raises DeadlineExceeded when that isn't known in time, and, unless ``patient``, Unavailable as ``require_leader``:
        it may still happen.
        """
        data = encode_command(command, f"{self._prefix}-{next(self._numbers)}")
        deadline_ns = self._clock.monotonic_ns() + int(timeout_s * 1e9)
        problem = "raft operation timed out"
        while (remaining_s := self._remaining_s(deadline_ns)) > 0:
            try:
                outcome = await self._attempt(data, remaining_s)
            except (NotLeader, ProposalDropped, ProposalTimeout, NoAnswerYet) as error:
                problem = f"raft operation timed out: {error}"
                if not patient:
                    self.require_leader()
                await asyncio.sleep(min(_PAUSE_S, remaining_s))
                continue
            except ConsensusError as error:
                raise InternalError(str(error)) from error
            if isinstance(outcome, Applied):
                await self._catch_up(outcome.index, deadline_ns)
            return outcome
        raise DeadlineExceeded(problem)

    async def _attempt(self, data: bytes, remaining_s: float) -> Applied | Refused:
        if self._consensus.status().is_leader:
            outcome = await self._consensus.propose(data, timeout_s=remaining_s)
            assert isinstance(outcome, Applied | Refused)
            return outcome
        try:
            reply = await self._client.ask_once(internal.ControlRequest(proposal=data), timeout_s=remaining_s)
        except FailedPrecondition as error:
            raise InternalError(str(error)) from error
        return outcome_from_proto(reply.outcome)

    async def catch_up(self, *, timeout_s: float) -> None:
        """Returns once everything that was committed before the call is applied on this server. Raises Unavailable when
        that isn't known in time."""
        deadline_ns = self._clock.monotonic_ns() + int(timeout_s * 1e9)
        problem = "there is no metadata leader"
        while (remaining_s := self._remaining_s(deadline_ns)) > 0:
            try:
                return await self._catch_up(await self._read_index(remaining_s), deadline_ns)
            except (ConsensusError, NoAnswerYet, FailedPrecondition, DeadlineExceeded) as error:
                self.require_leader()
                problem = str(error)
                await asyncio.sleep(min(_PAUSE_S, max(0.0, self._remaining_s(deadline_ns))))
        raise Unavailable(f"this server can't tell whether its metadata is the latest: {problem}")

    async def _read_index(self, remaining_s: float) -> int:
        if self._consensus.status().is_leader:
            await self._consensus.barrier(timeout_s=min(remaining_s, _BARRIER_S))
            return self._state.applied_index
        request = internal.ControlRequest(read_index=internal.ReadIndex())
        return (await self._client.ask_once(request, timeout_s=remaining_s)).read_index

    async def _catch_up(self, index: int, deadline_ns: int) -> None:
        """What was committed through this server is seen on it afterwards."""
        if self._state.applied_index >= index:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((index, future))
        try:
            async with asyncio.timeout(self._remaining_s(deadline_ns)):
                await future
        except TimeoutError:
            raise DeadlineExceeded("committed, but this server has not heard of it yet") from None

    def _wake(self) -> None:
        applied = self._state.applied_index
        for index, future in self._waiting:
            if index <= applied and not future.done():
                future.set_result(None)
        self._waiting = [(index, future) for index, future in self._waiting if not future.done()]

    def _remaining_s(self, deadline_ns: int) -> float:
        return (deadline_ns - self._clock.monotonic_ns()) / 1e9
