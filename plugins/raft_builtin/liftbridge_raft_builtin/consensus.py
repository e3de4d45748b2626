"""The seam of consensus, spoken by a Raft member."""

import asyncio
from collections.abc import Callable, Sequence

from liftbridge.errors import ConsensusError, NotLeader, PayloadTooLarge, ProposalDropped, ProposalTimeout
from liftbridge.interfaces.consensus import Consensus, ConsensusStatus, StateMachine
from liftbridge_raft_builtin.core import Membership, RaftCore
from liftbridge_raft_builtin.driver import Driver
from liftbridge_raft_builtin.waiting import Future


class RaftConsensus(Consensus):
    """See :class:`liftbridge.interfaces.consensus.Consensus`."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    async def is_stored(self) -> bool:
        return await self._driver.is_stored()

    async def start(self, state_machine: StateMachine, *, bootstrap: Sequence[str] = (), group: str = "") -> None:
        await self._driver.start(state_machine, bootstrap, group)

    def on_leader_change(self, callback: Callable[[ConsensusStatus], None]) -> None:
        self._driver.callbacks.append(callback)

    def status(self) -> ConsensusStatus:
        return self._driver.status()

    async def stop(self) -> None:
        await self._driver.stop()

    # --- commands and reads -------------------------------------------------------------------------------------------

    async def propose(self, command: bytes, *, timeout_s: float) -> object:
        core, deadline_s = self._core(), _deadline_s(timeout_s)
        if len(command) > self._driver.mailbox.max_data_bytes:
            raise PayloadTooLarge(
                f"a metadata change of {len(command)} bytes can't be sent to other servers; the transport carries "
                f"{self._driver.mailbox.max_data_bytes}"
            )
        if core.transferee and not await self._until(lambda: not core.transferee, deadline_s):
            raise ProposalDropped(f"leadership is being handed to {core.transferee}")
        index = self._core().propose([command])
        return await self._outcome(self._driver.proposals.add(index, core.term), deadline_s)

    async def barrier(self, *, timeout_s: float) -> int:
        core, deadline_s = self._leading_core(), _deadline_s(timeout_s)
        token, future = self._driver.reads.add(core.term)
        core.read(token)
        applied = await self._outcome(future, deadline_s)
        assert isinstance(applied, int)
        return applied

    async def _outcome(self, future: Future, deadline_s: float) -> object:
        self._driver.wake()
        try:
            async with asyncio.timeout_at(deadline_s):
                return await future
        except TimeoutError:
            raise ProposalTimeout("no majority of the metadata group answered in time") from None

    def _core(self) -> RaftCore:
        core = self._driver.running_core
        if core is None:
            raise NotLeader
        return core

    def _leading_core(self) -> RaftCore:
        core = self._core()
        if core.leader != core.server_id:
            raise NotLeader(core.leader)
        return core

    # --- members ------------------------------------------------------------------------------------------------------

    async def add_learner(self, server_id: str, *, timeout_s: float) -> None:
        await self._ensure_member(server_id, _deadline_s(timeout_s))

    async def add_voter(self, server_id: str, *, timeout_s: float) -> None:
        deadline_s = _deadline_s(timeout_s)
        await self._ensure_member(server_id, deadline_s)
        core = self._leading_core()
        core.promote(server_id)
        self._driver.wake()

        def is_settled() -> bool:
            self._leading_core()
            return server_id in core.log.membership_at(core.log.applied).voters

        if not await self._until(is_settled, deadline_s):
            raise ProposalTimeout(f"{server_id} hasn't caught up in time; it stays a learner until it is added again")

    async def _ensure_member(self, server_id: str, deadline_s: float) -> None:
        await self._change(
            lambda now: now if server_id in now.members else now.with_learner(server_id),
            deadline_s,
        )

    async def remove_member(self, server_id: str, *, timeout_s: float) -> None:
        if self._leading_core().membership.is_sole_voter(server_id):
            raise ConsensusError(f"{server_id} is the only voter of the metadata group, so it can't be removed")
        await self._change(lambda now: now.without(server_id), _deadline_s(timeout_s))

    async def _change(self, change: Callable[[Membership], Membership], deadline_s: float) -> None:
        """Returns when the membership is committed as the change wants it; waits for other changes to end first."""
        core = self._leading_core()
        index: int | None = None

        def is_done() -> bool:
            nonlocal index
            leading = self._leading_core()
            if change(leading.membership) == leading.membership:
                return leading.log.membership_index <= leading.log.applied
            index = leading.change_membership(change)
            return index is not None

        if not await self._until(is_done, deadline_s):
            raise ProposalDropped("another change of the metadata group's members hasn't ended in time")
        if index is not None:
            await self._outcome(self._driver.proposals.add(index, core.term), deadline_s)

    async def transfer_leadership(self, server_id: str, *, timeout_s: float) -> None:
        core, deadline_s = self._leading_core(), _deadline_s(timeout_s)
        if server_id == core.server_id:
            return
        if server_id not in core.membership.voters:
            raise ConsensusError(f"{server_id} is no voter of the metadata group, so it can't lead it")
        core.transfer(server_id)
        self._driver.wake()

        def is_over() -> bool:
            return self._core().leader == server_id or (core.leader == core.server_id and not core.transferee)

        if not await self._until(is_over, deadline_s):
            raise ProposalTimeout(f"{server_id} hasn't taken over in time")
        if core.leader != server_id:
            raise ProposalDropped(f"{server_id} didn't take over; {core.server_id} still leads")

    async def _until(self, condition: Callable[[], bool], deadline_s: float) -> bool:
        return await self._driver.changes.until(condition, deadline_s)


def _deadline_s(timeout_s: float) -> float:
    return asyncio.get_running_loop().time() + timeout_s
