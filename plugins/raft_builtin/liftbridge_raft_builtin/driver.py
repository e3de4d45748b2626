"""Drives a Raft core on the event loop: gives it time, disk, network and the state machine.

One task does the core's work, one ``Ready`` after the other. Writing blocks on the disk, so it happens in a worker
thread; what is proposed or received meanwhile goes into the next ``Ready`` and shares its write. A group of one has no
timer at all.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from liftbridge.errors import StorageError
from liftbridge.interfaces.consensus import ConsensusStatus, StateMachine
from liftbridge.interfaces.stable import StableStore
from liftbridge.interfaces.transport import Transport
from liftbridge_raft_builtin.core import CoreSettings, EntryKind, Message, RaftCore, Ready, Role, SafetyViolated
from liftbridge_raft_builtin.mailbox import Mailbox
from liftbridge_raft_builtin.storage import RaftStorage, first_work
from liftbridge_raft_builtin.waiting import Changes, Proposals, Reads

logger = logging.getLogger(__name__)

_TICKS_PER_HEARTBEAT = 3
_STORAGE_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class RaftOptions:
    """What an operator may choose. Defaults give another metadata leader about a second after one died."""

    heartbeat_s: float = 0.15
    election_timeout_s: float = 0.6
    snapshot_threshold_entries: int = 8192
    trailing_entries: int = 1024
    max_message_bytes: int = 256 * 1024

    @property
    def tick_s(self) -> float:
        return self.heartbeat_s / _TICKS_PER_HEARTBEAT

    def core_settings(self, max_data_bytes: int) -> CoreSettings:
        return CoreSettings(
            heartbeat_ticks=_TICKS_PER_HEARTBEAT,
            election_ticks=max(2 * _TICKS_PER_HEARTBEAT, round(self.election_timeout_s / self.tick_s)),
            max_message_bytes=min(self.max_message_bytes, max_data_bytes),
        )


class Driver:
    """One running member. Proposals, reads and changes wait in the objects of those names."""

    def __init__(
        self,
        server_id: str,
        namespace: str,
        transport: Transport,
        stable_store: StableStore,
        options: RaftOptions,
        random_below: Callable[[int], int] = random.randrange,
    ) -> None:
        self.server_id = server_id
        self.mailbox = Mailbox(transport, namespace, server_id)
        self.proposals = Proposals()
        self.reads = Reads()
        self.changes = Changes()
        self.callbacks: list[Callable[[ConsensusStatus], None]] = []
        self._storage = RaftStorage(stable_store)
        self._options = options
        self._random_below = random_below
        self._core: RaftCore | None = None
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._told_leader = ""
        self._snapshot_due_index = 0

    # --- starting and stopping ----------------------------------------------------------------------------------------

    async def is_stored(self) -> bool:
        return not await asyncio.to_thread(self._storage.is_empty)

    async def start(self, state_machine: StateMachine, bootstrap: Sequence[str], group: str = "") -> None:
        """Returns when everything known to be committed is applied; alone, when this server leads."""
        if group:
            await asyncio.to_thread(self._storage.enter_group, group)
        stored = await asyncio.to_thread(self._storage.load)
        if stored.is_empty and bootstrap:
            await asyncio.to_thread(self._storage.write, first_work(bootstrap))
            stored = await asyncio.to_thread(self._storage.load)
        settings = self._options.core_settings(self.mailbox.max_data_bytes)
        core = RaftCore(self.server_id, stored, settings, self._random_below)
        if stored.snapshot.index:
            state_machine.restore(stored.snapshot.data)
        self._snapshot_due_index = stored.snapshot.index + self._options.snapshot_threshold_entries
        self._core = core
        await self.mailbox.open(self._take, group)
        if core.membership.is_sole_voter(self.server_id):
            core.campaign()
        await self._work_off(core, state_machine)
        self._task = asyncio.create_task(self._run(core, state_machine), name="raft_builtin")
        self._task.add_done_callback(self._ended)

    async def stop(self) -> None:
        """Ends after the write that is under way, if any."""
        if self._stopping.is_set():
            return
        self._stop_taking_part("this server is stopping")
        await self.mailbox.close()
        if self._task is not None:
            await asyncio.wait([self._task])

    def _stop_taking_part(self, reason: str) -> None:
        self._stopping.set()
        self._wake.set()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.proposals.fail(reason)
        self.reads.fail(reason)
        self.changes.notify()
        self._tell_leader("")

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Ends this member's part for good: going on could do harm. The rest of the server lives on."""
        logger.critical("This server no longer takes part in the metadata group: %s", error, exc_info=error)
        self._stop_taking_part(f"this server no longer takes part in the metadata group: {error}")

    # --- looking ------------------------------------------------------------------------------------------------------

    @property
    def running_core(self) -> RaftCore | None:
        """None before the start, and after the end."""
        return None if self._stopping.is_set() else self._core

    def status(self) -> ConsensusStatus:
        core = self._core
        if core is None:
            return ConsensusStatus(self.server_id, "", 0, 0, 0, 0, (), ())
        log = core.log
        return ConsensusStatus(
            server_id=self.server_id,
            leader="" if self._stopping.is_set() else core.leader,
            term=core.term,
            commit_index=log.commit,
            applied_index=log.applied,
            last_index=log.last_index,
            voters=core.membership.voters,
            learners=core.membership.learners,
        )

    # --- what comes in ------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Something was asked of the core."""
        self._wake.set()

    def _take(self, message: Message) -> None:
        core = self.running_core
        if core is None:
            return
        try:
            core.step(message)
        except SafetyViolated as error:
            self._fail(error)
        self._wake.set()

    def _keep_time(self, core: RaftCore) -> None:
        if self._timer is None and core.needs_ticks and not self._stopping.is_set():
            self._timer = asyncio.get_running_loop().call_later(self._options.tick_s, self._tick, core)

    def _tick(self, core: RaftCore) -> None:
        self._timer = None
        core.tick()
        self._keep_time(core)
        self._wake.set()

    # --- work ---------------------------------------------------------------------------------------------------------

    async def _run(self, core: RaftCore, state_machine: StateMachine) -> None:
        while not self._stopping.is_set():
            await self._wake.wait()
            self._wake.clear()
            await self._work_off(core, state_machine)

    async def _work_off(self, core: RaftCore, state_machine: StateMachine) -> None:
        while not self._stopping.is_set() and (ready := core.ready()) is not None:
            if ready.must_persist and not await self._persist(ready):
                return
            self._finish(core, ready, state_machine)
            if core.log.applied >= self._snapshot_due_index:
                await self._take_snapshot(core, state_machine)
            if ready.committed:
                await asyncio.sleep(0)  # a long replay lets others run
        if not self._stopping.is_set():
            self._settle(core)

    async def _persist(self, ready: Ready) -> bool:
        """Tries until it succeeds: until then this member promises nothing. False when it is to stop meanwhile."""
        while True:
            try:
                await asyncio.to_thread(self._storage.write, ready)
                return not self._stopping.is_set()
            except StorageError:
                logger.exception("The state of the metadata group can't be stored; trying again")
            try:
                await asyncio.wait_for(self._stopping.wait(), _STORAGE_RETRY_S)
                return False
            except TimeoutError:
                continue

    def _finish(self, core: RaftCore, ready: Ready, state_machine: StateMachine) -> None:
        if ready.snapshot is not None:
            state_machine.restore(ready.snapshot.data)
            self.proposals.skipped_to(ready.snapshot.index)
            self._snapshot_due_index = ready.snapshot.index + self._options.snapshot_threshold_entries
        self.mailbox.send(ready.messages)
        for entry in ready.committed:
            result = state_machine.apply(entry.index, entry.data) if entry.kind is EntryKind.COMMAND else None
            self.proposals.applied(entry.index, entry.term, result)
        core.advance(ready)
        for token, index in ready.reads:
            self.reads.confirmed(token, index)
        self._settle(core)

    def _settle(self, core: RaftCore) -> None:
        """Tells everybody who waits what has become of it."""
        leading_term = core.term if core.role is Role.LEADER else None
        self.reads.settle(applied=core.log.applied, leading_term=leading_term, leader=core.leader)
        self.changes.notify()
        self._tell_leader(core.leader)
        self._keep_time(core)

    def _tell_leader(self, leader: str) -> None:
        if leader == self._told_leader:
            return
        self._told_leader = leader
        for callback in self.callbacks:
            try:
                callback(self.status())
            except Exception:
                logger.exception("A callback for changes of the metadata leader failed")

    async def _take_snapshot(self, core: RaftCore, state_machine: StateMachine) -> None:
        """Makes the log shorter. A failure costs nothing but room, so it is tried again only much later."""
        self._snapshot_due_index = core.log.applied + self._options.snapshot_threshold_entries
        snapshot = core.snapshot_of(state_machine.snapshot())
        try:
            await asyncio.to_thread(self._storage.write_snapshot, snapshot, self._options.trailing_entries)
        except StorageError:
            logger.exception("A snapshot of the metadata can't be stored")
            return
        core.compact(snapshot, self._options.trailing_entries)
