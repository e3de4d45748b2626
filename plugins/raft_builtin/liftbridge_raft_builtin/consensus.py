"""Drives the Raft core on the event loop: persists, sends, applies, and answers proposals.

One task works off the core's work lists, one after the other. Writing blocks on the disk, so it runs in a worker
thread; what arrives meanwhile waits for the next list, and so shares its write. A group of one needs no clock and
sleeps when nothing is proposed.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from liftbridge.errors import (
    ConsensusError,
    LiftbridgeError,
    NotLeader,
    ProposalDropped,
    ProposalTimeout,
    ProtocolError,
    TransportError,
)
from liftbridge.interfaces.consensus import Consensus, ConsensusStatus, StateMachine
from liftbridge.interfaces.stable import StableStore
from liftbridge.interfaces.transport import Delivery, Subscription, Transport
from liftbridge_raft_builtin.codec import MessageDecoder, encode_message
from liftbridge_raft_builtin.core.node import RaftNode
from liftbridge_raft_builtin.core.types import Entry, EntryKind, Membership, Ready, Role, Snapshot
from liftbridge_raft_builtin.store import RaftStore

logger = logging.getLogger(__name__)

_SNAPSHOT_PART_BYTES = 256 * 1024
_RETRY_S = 0.05


@dataclass(frozen=True, slots=True)
class RaftTimes:
    """How fast the group notices things. An election begins after one to two election time-outs without a leader."""

    heartbeat_s: float = 0.1
    election_s: float = 1.0

    @property
    def election_ticks(self) -> int:
        return max(2, round(self.election_s / self.heartbeat_s))


class RaftConsensus(Consensus):
    """See :class:`liftbridge.interfaces.consensus.Consensus`."""

    def __init__(
        self,
        server_id: str,
        namespace: str,
        transport: Transport,
        stable_store: StableStore,
        *,
        times: RaftTimes,
        snapshot_threshold: int,
        trailing_entries: int,
        random_ticks: Callable[[int], int] = random.SystemRandom().randrange,
    ) -> None:
        self._server_id = server_id
        self._subject_prefix = f"{namespace}.raft.builtin."
        self._transport = transport
        self._store = RaftStore(stable_store)
        self._times = times
        self._snapshot_threshold = snapshot_threshold
        self._trailing_entries = trailing_entries
        self._random_ticks = random_ticks
        self._decoder = MessageDecoder()
        self._node: RaftNode | None = None
        self._state_machine: StateMachine | None = None
        self._applied_index = 0
        self._proposals: dict[int, tuple[int, asyncio.Future[object]]] = {}
        self._callbacks: list[Callable[[ConsensusStatus], None]] = []
        self._told_leader: str | None = None
        self._work = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._subscription: Subscription | None = None
        self._failure: LiftbridgeError | None = None

    async def start(self, state_machine: StateMachine, *, bootstrap: Sequence[str] = ()) -> None:
        hard_state, log = await asyncio.to_thread(self._store.load)
        if log.last_index == 0 and bootstrap:
            first = Snapshot(1, 1, Membership(tuple(sorted(bootstrap))), state_machine.snapshot())
            await asyncio.to_thread(self._store.save_snapshot, first, 0)
            hard_state, log = await asyncio.to_thread(self._store.load)
        self._state_machine = state_machine
        if log.snapshot.index:
            state_machine.restore(log.snapshot.data)
        self._applied_index = log.snapshot.index
        node = self._node = RaftNode(
            self._server_id,
            log,
            hard_state,
            election_ticks=self._times.election_ticks,
            heartbeat_ticks=1,
            random_ticks=self._random_ticks,
        )
        self._subscription = await self._transport.subscribe(self._subject_prefix + self._server_id, self._receive)
        if node.membership.voters == (self._server_id,):
            node.campaign()
        self._tasks = [asyncio.create_task(self._work_off()), asyncio.create_task(self._keep_time())]
        self._work.set()

    # --- proposals ----------------------------------------------------------------------------------------------------

    async def propose(self, command: bytes, *, timeout_s: float) -> object:
        return await self._propose(EntryKind.COMMAND, command, None, timeout_s)

    async def barrier(self, *, timeout_s: float) -> int:
        await self._propose(EntryKind.NOOP, b"", None, timeout_s)
        return self._applied_index

    async def _propose(self, kind: EntryKind, data: bytes, membership: Membership | None, timeout_s: float) -> object:
        node = self._leading_node()
        if membership is None:
            index: int | None = node.propose(kind, data)
        else:
            index = node.change_membership(membership)
        if index is None:
            raise ProposalDropped("another membership change is under way; try again")
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self._proposals[index] = (node.term, future)
        self._work.set()
        try:
            return await asyncio.wait_for(future, timeout_s)
        except TimeoutError:
            raise ProposalTimeout(f"no majority in {timeout_s:.1f} s; the change may still happen") from None
        finally:
            if self._proposals.get(index, (0, None))[1] is future:
                del self._proposals[index]

    def _leading_node(self) -> RaftNode:
        if self._failure is not None:
            raise ConsensusError(f"consensus stopped: {self._failure}") from self._failure
        node = self._node
        if node is None or node.role is not Role.LEADER:
            raise NotLeader(node.leader if node else "")
        return node

    # --- members ------------------------------------------------------------------------------------------------------

    async def add_learner(self, server_id: str, *, timeout_s: float) -> None:
        membership = self._leading_node().membership
        if server_id not in membership.members:
            changed = Membership(membership.voters, (*membership.learners, server_id))
            await self._propose(EntryKind.MEMBERSHIP, b"", changed, timeout_s)

    async def add_voter(self, server_id: str, *, timeout_s: float) -> None:
        async with asyncio.timeout(timeout_s):
            await self.add_learner(server_id, timeout_s=timeout_s)
            while not self._has_caught_up(server_id):
                await asyncio.sleep(self._times.heartbeat_s)
            membership = self._leading_node().membership
            if server_id in membership.voters:
                return
            changed = Membership(
                tuple(sorted((*membership.voters, server_id))),
                tuple(one for one in membership.learners if one != server_id),
            )
            await self._propose(EntryKind.MEMBERSHIP, b"", changed, timeout_s)

    def _has_caught_up(self, server_id: str) -> bool:
        node = self._leading_node()
        return server_id in node.progress and node.progress[server_id].match_index >= node.commit_index

    async def remove_member(self, server_id: str, *, timeout_s: float) -> None:
        membership = self._leading_node().membership
        if server_id not in membership.members:
            return
        if membership.voters == (server_id,):
            raise ConsensusError(f"{server_id} is the last voter and can't be removed")
        changed = Membership(
            tuple(one for one in membership.voters if one != server_id),
            tuple(one for one in membership.learners if one != server_id),
        )
        await self._propose(EntryKind.MEMBERSHIP, b"", changed, timeout_s)

    async def transfer_leadership(self, server_id: str, *, timeout_s: float) -> None:
        node = self._leading_node()
        if server_id not in node.membership.voters:
            raise ConsensusError(f"{server_id} is no voter")
        node.transfer_leadership(server_id)
        self._work.set()
        try:
            async with asyncio.timeout(timeout_s):
                while node.leader in (self._server_id, ""):
                    await asyncio.sleep(self._times.heartbeat_s)
        except TimeoutError:
            raise ProposalTimeout(f"{server_id} didn't take over in {timeout_s:.1f} s") from None

    # --- state --------------------------------------------------------------------------------------------------------

    def on_leader_change(self, callback: Callable[[ConsensusStatus], None]) -> None:
        self._callbacks.append(callback)

    def status(self) -> ConsensusStatus:
        node = self._node
        if node is None:
            return ConsensusStatus(self._server_id, "", 0, 0, 0, 0, (), ())
        return ConsensusStatus(
            self._server_id,
            node.leader,
            node.term,
            node.commit_index,
            self._applied_index,
            node.log.last_index,
            node.membership.voters,
            node.membership.learners,
        )

    async def stop(self) -> None:
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._subscription is not None:
            await self._subscription.unsubscribe()
            self._subscription = None
        self._fail_proposals(ProposalTimeout("this server stopped; the change may still happen"))

    # --- driving the core ---------------------------------------------------------------------------------------------

    def _receive(self, deliveries: list[Delivery]) -> None:
        assert self._node is not None
        for delivery in deliveries:
            for payload in delivery.payloads:
                try:
                    decoded = self._decoder.decode(payload)
                except ProtocolError as error:
                    logger.warning("dropped a message on %s: %s", delivery.subject, error)
                    continue
                if decoded is not None:
                    self._node.step(*decoded)
        self._work.set()

    async def _keep_time(self) -> None:
        """Ticks while there is somebody to hear from."""
        assert self._node is not None
        while True:
            await asyncio.sleep(self._times.heartbeat_s)
            if self._node.membership.members != (self._server_id,):
                self._node.tick()
                self._work.set()

    async def _work_off(self) -> None:
        assert self._node is not None
        try:
            while True:
                await self._work.wait()
                self._work.clear()
                while ready := self._node.take_ready():
                    await self._handle(self._node, ready)
                self._tell_leader_change()
        except LiftbridgeError as error:
            logger.exception("consensus stopped")
            self._failure = error
            self._fail_proposals(error)

    async def _handle(self, node: RaftNode, ready: Ready) -> None:
        if ready.hard_state or ready.entries or ready.snapshot:
            await asyncio.to_thread(self._store.save, ready)
        node.persisted(ready)
        for member, message in ready.messages:
            payloads = encode_message(self._server_id, message, max_bytes=_SNAPSHOT_PART_BYTES)
            with contextlib.suppress(TransportError):  # the protocol repeats what is lost
                self._transport.publish(self._subject_prefix + member, payloads)
        if ready.snapshot is not None:
            assert self._state_machine is not None
            self._state_machine.restore(ready.snapshot.data)
            self._applied_index = ready.snapshot.index
        for entry in ready.committed:
            self._apply(entry)
        if self._applied_index - node.log.snapshot.index >= self._snapshot_threshold:
            await self._take_snapshot(node)

    def _apply(self, entry: Entry) -> None:
        assert self._state_machine is not None
        result = None
        if entry.kind is EntryKind.COMMAND:
            result = self._state_machine.apply(entry.index, entry.data)
        self._applied_index = entry.index
        term, future = self._proposals.pop(entry.index, (0, None))
        if future is not None and not future.done():
            if term == entry.term:
                future.set_result(result)
            else:
                future.set_exception(ProposalDropped("another leader put something else in its place"))

    async def _take_snapshot(self, node: RaftNode) -> None:
        assert self._state_machine is not None
        snapshot, first_index = node.compact(self._state_machine.snapshot(), self._trailing_entries)
        await asyncio.to_thread(self._store.save_snapshot, snapshot, first_index)

    def _tell_leader_change(self) -> None:
        status = self.status()
        if status.leader != self._told_leader:
            self._told_leader = status.leader
            for callback in self._callbacks:
                callback(status)

    def _fail_proposals(self, error: LiftbridgeError) -> None:
        proposals, self._proposals = self._proposals, {}
        for _, future in proposals.values():
            if not future.done():
                future.set_exception(error)
