"""Every partition on this server: opened, led, cleaned and closed as the assignments say.

Level-triggered: whoever changes metadata hands over the assignments as they are now, and the manager works off the
difference. A log that is damaged or can't be opened stays listed with what is wrong, and the others run.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from liftbridge.clock import Clock
from liftbridge.errors import LiftbridgeError, LogClosed, LogDeleted, StorageError, Unavailable
from liftbridge.interfaces.keys import KeyRing
from liftbridge.interfaces.log import LogId, LogStorage, PartitionLog
from liftbridge.interfaces.transport import Transport
from liftbridge.partition.assignment import Assignment
from liftbridge.partition.encryption import encrypted
from liftbridge.partition.local import LocalPartition
from liftbridge.partition.partition import Partition, PartitionKey
from liftbridge.partition.replication.cluster import Servers
from liftbridge.partition.replication.exchange import ReplicationExchange
from liftbridge.partition.replication.fetching import FollowedPartition
from liftbridge.partition.roles import FollowerRole, LeaderRole, PausedRole, Roles
from liftbridge.partition.troubles import Trouble, TroubleKind, Troubles
from liftbridge.tasks import end_tasks

logger = logging.getLogger(__name__)

#: Disk syncs of different partitions run side by side, up to this many.
_SYNC_THREADS = 4
#: How long publishers wait for the next leader, before the present one goes on.
HAND_OVER_S = 2.0

_T = TypeVar("_T")


class PartitionManager:
    """Owns the partitions of one server. All methods run on the event loop."""

    def __init__(
        self,
        storage: LogStorage,
        transport: Transport,
        clock: Clock,
        exchange: ReplicationExchange,
        servers: Servers,
        *,
        server_id: str,
        wake: Callable[[PartitionKey], None] = lambda _key: None,
        keys: KeyRing | None = None,
        troubles: Troubles | None = None,
    ) -> None:
        self._storage = storage
        self._keys = keys
        self._troubles = troubles or Troubles()
        self._partitions: dict[tuple[str, int], LocalPartition] = {}
        self._sync_executor = ThreadPoolExecutor(_SYNC_THREADS, "liftbridge-sync")
        #: Opening may scan a whole segment, and heartbeats must not wait for it. One thread: the storage wants no more.
        self._storage_executor = ThreadPoolExecutor(1, "liftbridge-storage")
        #: Held while partitions change.
        self._changing = asyncio.Lock()
        self._renewals: set[asyncio.Task[None]] = set()
        self._deletions: set[asyncio.Task[None]] = set()
        self._roles = Roles(transport, clock, self._sync_executor, exchange, servers, server_id, wake)
        self._changed = asyncio.Condition()
        self._reconciled_index = 0
        self._on_reconciled: list[Callable[[], None]] = []
        #: Set when partitions came or went, or got other settings; whoever waits for it clears it.
        self.roles_changed = asyncio.Event()
        self.version = 0

    # --- looking up ---------------------------------------------------------------------------------------------------

    def get(self, stream: str, partition: int) -> LocalPartition | None:
        """The partition on this server, None when it has none."""
        return self._partitions.get((stream, partition))

    def __iter__(self) -> Iterator[LocalPartition]:
        return iter(self._partitions.values())

    def subscribe(self, callback: Callable[[], None]) -> None:
        """Calls back after each reconcile; the callback only takes note."""
        self._on_reconciled.append(callback)

    async def wait_reconciled(self, index: int, timeout_s: float) -> None:
        """Returns once what runs is what metadata said at this index, or the time is over."""
        async with self._changed:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._changed.wait_for(lambda: self._reconciled_index >= index)
            except TimeoutError:
                logger.warning("what was committed at index %d doesn't run yet after %.1f s", index, timeout_s)

    async def wait_serving(self, stream: str, number: int, timeout_s: float) -> None:
        """Returns once this server's replica can be read, or is known to be damaged, or the time is over."""

        def serves() -> bool:
            local = self.get(stream, number)
            return local is not None and (local.damage is not None or isinstance(local.role, LeaderRole | FollowerRole))

        async with self._changed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._changed.wait_for(serves)

    async def wait_leading(self, stream: str, number: int) -> LocalPartition:
        """Returns the partition once this server leads it, which it may not do any more by then."""
        local: LocalPartition | None = None

        def leads() -> bool:
            nonlocal local
            local = self.get(stream, number)
            return local is not None and local.is_leader

        async with self._changed:
            await self._changed.wait_for(leads)
        assert local is not None
        return local

    # --- reconciling --------------------------------------------------------------------------------------------------

    async def reconcile(self, assignments: Iterable[Assignment], index: int = 0) -> None:
        """Makes the running partitions what the assignments say, which are those of metadata at ``index``. One call at a
        time."""
        async with self._changing:
            await self._make_run({(one.key.stream, one.key.partition): one for one in assignments})
        self.version += 1
        self._reconciled_index = index
        self.roles_changed.set()
        for callback in self._on_reconciled:
            callback()
        async with self._changed:
            self._changed.notify_all()

    async def _make_run(self, wanted: dict[tuple[str, int], Assignment]) -> None:
        for name, local in list(self._partitions.items()):
            target = wanted.get(name)
            if target is None or target.key != local.assignment.key:
                await self._delete(name, local)
        for name, target in wanted.items():
            local = self._partitions.setdefault(name, LocalPartition(target))
            await self._follow(local, target)

    async def remove_orphans(self) -> None:
        """Removes logs on disk whose streams are gone. For once after the first reconcile that knows all streams."""
        async with self._changing:
            known = {local.assignment.key.log_id for local in self}
            for log_id in await self._on_disk(self._storage.list_logs):
                if log_id not in known:
                    logger.info("removing the log of deleted stream %d, partition %d", *log_id)
                    await self._remove(log_id, partial(self._storage.remove, log_id))

    async def _remove(self, log_id: LogId, remove: Callable[[], None]) -> None:
        """What can't be removed is an orphan: the next start tries again."""
        try:
            await self._on_disk(remove)
        except StorageError as error:
            logger.error("stream %d, partition %d was deleted, and its log is still there: %s", *log_id, error)

    async def _on_disk(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._storage_executor, work)

    async def _follow(self, local: LocalPartition, target: Assignment) -> None:
        local.assignment = target
        if local.damage is not None:
            return
        if local.role is not None and local.role.fits(target):
            self._roles.go_on(local.role, target)
        elif target.paused:
            await self._pause(local, target)
        else:
            await self._change_role(local, target)

    async def _change_role(self, local: LocalPartition, target: Assignment) -> None:
        if local.partition is None:
            await self._open(local)
        if local.partition is None:
            await self._finish(local)
            return
        if target.leads:
            await self._lead(local, target, local.partition)
        else:
            await self._stop_listening(local)
            given_up = local.change_role(None)
            if given_up is not None:
                self._roles.give_up(given_up)
            self._start_following(local, target, local.partition)
        local.partition.wake_readers()

    def _start_following(self, local: LocalPartition, target: Assignment, partition: Partition) -> None:
        def begin_anew(followed: FollowedPartition) -> None:
            _keep(self._renewals, self._begin_anew(local, followed))

        local.change_role(self._roles.follow(target, partition, begin_anew))

    async def _begin_anew(self, local: LocalPartition, followed: FollowedPartition) -> None:
        """Puts a new log in the place of one that holds nothing and that the leader can't continue."""
        async with self._changing:
            role, partition = local.role, local.partition
            if partition is None or not isinstance(role, FollowerRole) or role.followed is not followed:
                return
            key = local.assignment.key
            logger.warning("%s: the leader ends below what retention removed here; beginning anew", key)
            local.change_role(None)
            self._roles.give_up(role)
            partition.end(Unavailable("this replica begins anew"))
            self._forget(local)
            await self._remove(key.log_id, partition.log.delete)
            await self._open(local)
            if local.partition is not None:
                self._start_following(local, local.assignment, local.partition)
        async with self._changed:
            self._changed.notify_all()

    async def _lead(self, local: LocalPartition, target: Assignment, partition: Partition) -> None:
        """What is published from the end of the old role to the beginning of the new one waits in a room."""
        before = local.change_role(None)
        room = before.room if isinstance(before, PausedRole) else self._roles.room(target)
        local.deliver_to(room)
        if before is not None and not isinstance(before, PausedRole):
            self._roles.give_up(before)
        if local.listener is None:
            local.listener = await self._roles.listen(target, room)
        role = self._roles.lead(target, partition)
        local.change_role(role)
        local.deliver_to(role.leader)
        room.hand_over(role.leader)

    async def _pause(self, local: LocalPartition, target: Assignment) -> None:
        """The log is closed. The leader goes on listening, and nothing is lost from the end of its role on."""
        paused = PausedRole(self._roles.room(target)) if target.leads else None
        if paused is None:
            await self._stop_listening(local)
        else:
            local.deliver_to(paused.room)
            if local.listener is None:
                local.listener = await self._roles.listen(target, paused.room)
        before = local.change_role(paused)
        if before is not None:
            await self._roles.finish(before)
        if local.partition is not None:
            local.last_figures, partition = local.partition.figures(), local.partition
            self._forget(local)
            await self._close(partition)

    def _forget(self, local: LocalPartition) -> None:
        """Its log is closed: what comes of it is new."""
        local.partition = None
        self._troubles.remove(local.assignment.key.log_id)

    async def _open(self, local: LocalPartition) -> None:
        assignment = local.assignment
        try:
            log = await self._on_disk(partial(self._open_log, assignment))
        except StorageError as error:
            local.damage = str(error)
            self._troubles.add(Trouble(assignment.key.log_id, TroubleKind.CANNOT_OPEN, local.damage))
            logger.error("%s is offline: %s", assignment.key, error)
            return
        local.partition = Partition(assignment.key, log, assignment.subject, self._troubles)

    def _open_log(self, assignment: Assignment) -> PartitionLog:
        log_id, settings = assignment.key.log_id, assignment.log_settings
        log = self._storage.open(log_id, settings)
        if not assignment.encrypted:
            return log
        return encrypted(log, self._keys, log_id, key_bytes=settings.segment_max_bytes)

    async def _stop_listening(self, local: LocalPartition) -> None:
        listener, local.listener = local.listener, None
        if listener is not None:
            await listener.subscription.unsubscribe()

    async def _finish(self, local: LocalPartition) -> None:
        await self._stop_listening(local)
        role = local.change_role(None)
        if role is not None:
            await self._roles.finish(role)

    async def _delete(self, name: tuple[str, int], local: LocalPartition) -> None:
        """Goes on when the server stops meanwhile: who asked for it was told that it is gone."""
        del self._partitions[name]
        await asyncio.shield(_keep(self._deletions, self._end_and_remove(local)))

    async def _end_and_remove(self, local: LocalPartition) -> None:
        await self._finish(local)
        log_id, partition = local.assignment.key.log_id, local.partition
        if partition is None:
            await self._remove(log_id, partial(self._storage.remove, log_id))
        else:
            local.partition = None
            partition.end(LogDeleted("commit log was deleted"))
            await self._remove(log_id, partition.log.delete)
        self._troubles.remove(log_id)

    # --- handing over -------------------------------------------------------------------------------------------------

    async def hand_over(self, log_id: LogId, leader_epoch: int, timeout_s: float) -> bool:
        """Another server shall lead: takes nothing more from publishers that can wait, and returns True once all that was
        taken is committed and answered. False when that takes too long, or this server doesn't lead in that epoch. When
        nobody else leads after ``HAND_OVER_S``, this server goes on."""
        local = next((one for one in self if one.assignment.key.log_id == log_id), None)
        leader = local.leader if local is not None else None
        if local is None or leader is None or leader.leader_epoch != leader_epoch:
            return False
        self._stop_taking(local)
        end_offset = leader.next_end_offset
        try:
            async with asyncio.timeout(timeout_s):
                while local.leader is leader and leader.partition.high_watermark < end_offset:
                    await leader.partition.wait_for_change()
        except TimeoutError:
            return False
        return local.leader is leader

    def _stop_taking(self, local: LocalPartition) -> None:
        role, local.handing_over = local.role, True
        self.version += 1

        def go_on() -> None:
            if local.handing_over and local.role is role:
                local.handing_over = False
                self.version += 1

        asyncio.get_running_loop().call_later(HAND_OVER_S, go_on)

    # --- stopping -----------------------------------------------------------------------------------------------------

    def end_readers(self) -> None:
        """The server is about to stop: running subscriptions end, so that their clients look for another server."""
        for local in self._partitions.values():
            if local.partition is not None:
                local.partition.end(Unavailable("the server is shutting down"))

    async def close(self) -> None:
        """Ends all roles, ends the readers and closes every log cleanly."""
        await end_tasks(self._renewals)
        await asyncio.gather(*self._deletions)
        for local in self._partitions.values():
            await self._finish(local)
            if local.partition is not None:
                await self._close(local.partition)
        self._partitions.clear()
        self._sync_executor.shutdown()
        self._storage_executor.shutdown()

    async def _close(self, partition: Partition) -> None:
        partition.end(LogClosed("commit log was closed"))
        try:
            await self._on_disk(partition.log.close)
        except LiftbridgeError as error:
            logger.error("%s: didn't close cleanly: %s", partition.key, error)


def _keep(tasks: set[asyncio.Task[None]], work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Runs the work as a task that is in the set until it ends."""
    task = asyncio.get_running_loop().create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task
