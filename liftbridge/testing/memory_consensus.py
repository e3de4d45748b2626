"""The in-memory twin of consensus: members of one process share one log. No network, no disk, no elections that last.

What survives a stop is in the :class:`MemoryConsensusGroup`: a member made again with the same server ID restarts.
"""

import asyncio
from collections.abc import Callable, Sequence

from liftbridge.errors import ConsensusError, NotLeader, ProposalTimeout, StorageError
from liftbridge.interfaces.consensus import Consensus, ConsensusStatus, StateMachine


class MemoryConsensusGroup:
    """What the members share. The first running, connected voter leads, as long as a majority of voters is."""

    def __init__(self, *, snapshot_every: int = 64) -> None:
        self.name = ""
        self.voters: set[str] = set()
        self.learners: set[str] = set()
        self.leader = ""
        self.term = 0
        self.log: dict[int, bytes] = {}
        self.commit_index = 0
        self.snapshot: tuple[int, bytes] | None = None
        self.members: dict[str, MemoryConsensus] = {}
        self.changed = asyncio.Event()
        self._isolated: set[str] = set()
        self._snapshot_every = snapshot_every

    def isolate(self, server_id: str) -> None:
        """Cuts a member off from all others."""
        self._isolated.add(server_id)
        self.settle()

    def heal(self) -> None:
        """Connects everybody again."""
        self._isolated.clear()
        self.settle()

    def reaches(self, server_id: str) -> bool:
        is_member = server_id in self.voters or server_id in self.learners
        return is_member and server_id in self.members and server_id not in self._isolated

    def commit(self, command: bytes) -> object:
        """Commits a command of the leader's and returns the result of applying it there."""
        self.commit_index += 1
        self.log[self.commit_index] = command
        result = self.members[self.leader].catch_up()
        for server_id in list(self.members):
            if self.reaches(server_id):
                self.members[server_id].catch_up()
        if len(self.log) >= self._snapshot_every:
            self.snapshot = self.commit_index, self.members[self.leader].snapshot()
            self.log.clear()
        return result

    def settle(self) -> None:
        """Chooses the leader anew if it must, and lets everybody know and catch up."""
        self.changed.set()
        if not self._can_lead(self.leader):
            self.leader = next(filter(self._can_lead, sorted(self.voters)), "")
            self.term += bool(self.leader)
        for server_id, member in list(self.members.items()):
            if self.reaches(server_id) and self.leader:
                member.catch_up()
            member.see_leader(self.leader if self.reaches(server_id) else "")

    def hand_over(self, server_id: str) -> None:
        self.leader = server_id
        self.term += 1
        self.settle()

    def _can_lead(self, server_id: str) -> bool:
        reachable = sum(map(self.reaches, self.voters))
        return server_id in self.voters and self.reaches(server_id) and reachable > len(self.voters) // 2


class MemoryConsensus(Consensus):
    """One member of a :class:`MemoryConsensusGroup`."""

    def __init__(self, server_id: str, group: MemoryConsensusGroup) -> None:
        self._server_id = server_id
        self._group = group
        self._state_machine: StateMachine | None = None
        self._applied_index = 0
        self._leader = ""
        self._callbacks: list[Callable[[ConsensusStatus], None]] = []
        self._stopped = asyncio.Event()

    async def is_stored(self) -> bool:
        return self._is_member() and self._group.commit_index > 0

    async def start(self, state_machine: StateMachine, *, bootstrap: Sequence[str] = (), group: str = "") -> None:
        if self._group.name and group and self._group.name != group:
            raise StorageError(f"what is stored belongs to the group {self._group.name}, not {group}")
        self._group.name = self._group.name or group
        self._state_machine = state_machine
        if not self._group.voters:
            self._group.voters.update(bootstrap)
        self._group.members[self._server_id] = self
        self._group.settle()

    async def propose(self, command: bytes, *, timeout_s: float) -> object:
        self._require_lead()
        await asyncio.sleep(0)
        if self._stopped.is_set():
            raise ProposalTimeout("this server is stopping")
        self._require_lead()
        return self._group.commit(command)

    async def barrier(self, *, timeout_s: float) -> int:
        self._require_lead()
        return self._applied_index

    def on_leader_change(self, callback: Callable[[ConsensusStatus], None]) -> None:
        self._callbacks.append(callback)

    def status(self) -> ConsensusStatus:
        return ConsensusStatus(
            server_id=self._server_id,
            leader=self._leader,
            term=self._group.term,
            commit_index=self._applied_index,
            applied_index=self._applied_index,
            last_index=self._applied_index,
            voters=tuple(sorted(self._group.voters)) if self._is_member() else (),
            learners=tuple(sorted(self._group.learners)) if self._is_member() else (),
        )

    async def add_voter(self, server_id: str, *, timeout_s: float) -> None:
        self._require_lead()
        self._group.learners.add(server_id)
        await self._until_reached(server_id, timeout_s)
        self._group.learners.discard(server_id)
        self._group.voters.add(server_id)
        self._group.settle()

    async def add_learner(self, server_id: str, *, timeout_s: float) -> None:
        self._require_lead()
        if server_id not in self._group.voters:
            self._group.learners.add(server_id)
        self._group.settle()

    async def remove_member(self, server_id: str, *, timeout_s: float) -> None:
        self._require_lead()
        if self._group.voters == {server_id}:
            raise ConsensusError(f"{server_id} is the only voter of the group, so it can't be removed")
        self._group.voters.discard(server_id)
        self._group.learners.discard(server_id)
        self._group.settle()

    async def transfer_leadership(self, server_id: str, *, timeout_s: float) -> None:
        self._require_lead()
        if server_id not in self._group.voters:
            raise ConsensusError(f"{server_id} is no voter of the group, so it can't lead it")
        await self._until_reached(server_id, timeout_s)
        self._group.hand_over(server_id)

    async def stop(self) -> None:
        self._stopped.set()
        if self._group.members.get(self._server_id) is self:
            del self._group.members[self._server_id]
            self.see_leader("")
            self._group.settle()

    # --- what the group calls -----------------------------------------------------------------------------------------

    def catch_up(self) -> object:
        """Applies what is committed and missing here; returns the last result."""
        assert self._state_machine is not None
        snapshot = self._group.snapshot
        if snapshot is not None and snapshot[0] > self._applied_index:
            self._applied_index = snapshot[0]
            self._state_machine.restore(snapshot[1])
        result: object = None
        while self._applied_index < self._group.commit_index:
            self._applied_index += 1
            result = self._state_machine.apply(self._applied_index, self._group.log[self._applied_index])
        return result

    def snapshot(self) -> bytes:
        assert self._state_machine is not None
        return self._state_machine.snapshot()

    def see_leader(self, leader: str) -> None:
        if leader != self._leader:
            self._leader = leader
            for callback in self._callbacks:
                callback(self.status())

    def _is_member(self) -> bool:
        return self._server_id in self._group.voters or self._server_id in self._group.learners

    def _require_lead(self) -> None:
        if self._leader != self._server_id:
            raise NotLeader(self._leader)

    async def _until_reached(self, server_id: str, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not self._group.reaches(server_id):
                    self._group.changed.clear()
                    await self._group.changed.wait()
        except TimeoutError:
            raise ProposalTimeout(f"{server_id} can't be reached") from None
        self._group.settle()
