"""Every partition on this server: opened, led, cleaned and closed as the assignments say.

Level-triggered: whoever changes metadata hands over the assignments as they are now, and the manager works off the
difference. A log that is damaged or can't be opened stays listed with what is wrong, and the others run.
"""

import asyncio
import logging
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from liftbridge.clock import Clock
from liftbridge.errors import LiftbridgeError, LogClosed, LogDeleted, StorageError, TransportError, Unavailable
from liftbridge.interfaces.log import LogStorage
from liftbridge.interfaces.transport import Subscription, Transport
from liftbridge.partition.assignment import Assignment
from liftbridge.partition.ingress import SubjectIngress
from liftbridge.partition.leader import PartitionLeader
from liftbridge.partition.partition import Partition, PartitionKey
from liftbridge.partition.subscription import PartitionSubscription

logger = logging.getLogger(__name__)

#: Disk syncs of different partitions run side by side, up to this many.
_SYNC_THREADS = 4
_SUBSCRIBE_RETRY_S = 0.5


@dataclass(slots=True)
class LocalPartition:
    """A partition on this server. ``damage`` says why it can't be used, None when it can."""

    assignment: Assignment
    partition: Partition | None = None
    leader: PartitionLeader | None = None
    ingress: Subscription | None = None
    damage: str | None = None

    @property
    def is_leader(self) -> bool:
        return self.leader is not None

    @property
    def high_watermark(self) -> int:
        return self.partition.high_watermark if self.partition else 0

    @property
    def end_offset(self) -> int:
        return self.partition.log.end_offset if self.partition else 0

    @property
    def received_first_ns(self) -> int:
        return self.partition.received_first_ns if self.partition else 0

    @property
    def received_latest_ns(self) -> int:
        return self.partition.received_latest_ns if self.partition else 0


class PartitionManager:
    """Owns the partitions of one server. All methods run on the event loop."""

    def __init__(self, storage: LogStorage, transport: Transport, clock: Clock) -> None:
        self._storage = storage
        self._transport = transport
        self._clock = clock
        self._partitions: dict[tuple[str, int], LocalPartition] = {}
        self._group_readers: dict[tuple[PartitionKey, str], tuple[int, PartitionSubscription]] = {}
        self._sync_executor = ThreadPoolExecutor(_SYNC_THREADS, "liftbridge-sync")
        self._changed = asyncio.Condition()
        #: Set when partitions came or went, or got other settings; whoever waits for it clears it.
        self.roles_changed = asyncio.Event()
        self.version = 0

    # --- looking up ---------------------------------------------------------------------------------------------------

    def get(self, stream: str, partition: int) -> LocalPartition | None:
        """The partition on this server, None when it has none."""
        return self._partitions.get((stream, partition))

    def __iter__(self) -> Iterator[LocalPartition]:
        return iter(self._partitions.values())

    async def wait_started(self, stream_id: int, timeout_s: float) -> None:
        """Returns once every partition of the stream that this server leads is up (or known to be damaged), or the time
        is over."""

        def started() -> bool:
            mine = [local for local in self if local.assignment.key.stream_id == stream_id and local.assignment.leads]
            return bool(mine) and all(local.is_leader or local.damage for local in mine)

        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(started), timeout_s)
            except TimeoutError:
                logger.warning("stream %d: its partitions are not all started after %.1f s", stream_id, timeout_s)

    # --- reconciling --------------------------------------------------------------------------------------------------

    async def reconcile(self, assignments: Iterable[Assignment]) -> None:
        """Makes the running partitions what the assignments say. One call at a time."""
        wanted = {(one.key.stream, one.key.partition): one for one in assignments}
        for name, local in list(self._partitions.items()):
            target = wanted.get(name)
            if target is None or target.key != local.assignment.key:
                await self._delete(name, local)
        for name, target in wanted.items():
            local = self._partitions.setdefault(name, LocalPartition(target))
            await self._follow(local, target)
        self.version += 1
        self.roles_changed.set()
        async with self._changed:
            self._changed.notify_all()

    def remove_orphans(self) -> None:
        """Removes logs on disk whose streams are gone. For once after the first reconcile that knows all streams."""
        known = {local.assignment.key.log_id for local in self}
        for log_id in self._storage.list_logs():
            if log_id not in known:
                logger.info("removing the log of deleted stream %d, partition %d", log_id.stream_id, log_id.partition)
                self._storage.remove(log_id)

    async def _follow(self, local: LocalPartition, target: Assignment) -> None:
        previous, local.assignment = local.assignment, target
        if local.damage is not None:
            return
        if local.partition is None:
            self._open(local)
        if local.partition is None:
            return
        if local.leader is not None and (not target.leads or target.leader_epoch != previous.leader_epoch):
            await self._stop_leading(local)
        if target.leads and local.leader is None:
            await self._start_leading(local)

    def _open(self, local: LocalPartition) -> None:
        assignment = local.assignment
        try:
            log = self._storage.open(assignment.key.log_id, assignment.log_settings)
        except StorageError as error:
            local.damage = str(error)
            logger.error("%s is offline: %s", assignment.key, error)
            return
        local.partition = Partition(assignment.key, log, assignment.subject)

    async def _start_leading(self, local: LocalPartition) -> None:
        assignment, partition = local.assignment, local.partition
        assert partition is not None
        leader = PartitionLeader(
            partition, assignment.leader_epoch, assignment.leader_settings, self._clock, self._sync_executor
        )
        ingress = SubjectIngress(leader, self._transport, assignment.key.stream, assignment.base_subject)
        local.ingress = await self._subscribe(assignment, ingress)
        local.leader = leader

    async def _subscribe(self, assignment: Assignment, ingress: SubjectIngress) -> Subscription:
        while True:
            try:
                return await self._transport.subscribe(
                    assignment.subject, ingress.receive, queue=assignment.group, echo=bool(assignment.group)
                )
            except TransportError as error:
                logger.warning('subject "%s": can\'t subscribe yet: %s', assignment.subject, error)
                await asyncio.sleep(_SUBSCRIBE_RETRY_S)

    async def _stop_leading(self, local: LocalPartition) -> None:
        ingress, local.ingress = local.ingress, None
        leader, local.leader = local.leader, None
        if ingress is not None:
            await ingress.unsubscribe()
        if leader is not None:
            await leader.close()

    async def _delete(self, name: tuple[str, int], local: LocalPartition) -> None:
        del self._partitions[name]
        await self._stop_leading(local)
        if local.partition is not None:
            local.partition.end(LogDeleted("commit log was deleted"))
            local.partition.log.delete()
        else:
            self._storage.remove(local.assignment.key.log_id)

    # --- consumer groups ----------------------------------------------------------------------------------------------

    def attach_group_reader(
        self, key: PartitionKey, group: str, epoch: int, subscription: PartitionSubscription
    ) -> bool:
        """Makes ``subscription`` the group's only one on the partition and ends the one before. False, and nothing
        changes, when a subscription of a higher epoch holds the place."""
        current = self._group_readers.get((key, group))
        if current is not None:
            if current[0] > epoch:
                return False
            current[1].displace()
        self._group_readers[key, group] = (epoch, subscription)
        return True

    def detach_group_reader(self, key: PartitionKey, group: str, subscription: PartitionSubscription) -> None:
        """The subscription ended by itself."""
        current = self._group_readers.get((key, group))
        if current is not None and current[1] is subscription:
            del self._group_readers[key, group]

    # --- stopping -----------------------------------------------------------------------------------------------------

    def end_readers(self) -> None:
        """The server is about to stop: running subscriptions end, so that their clients look for another server."""
        for local in self._partitions.values():
            if local.partition is not None:
                local.partition.end(Unavailable("the server is shutting down"))

    async def close(self) -> None:
        """Stops leading, ends the readers and closes every log cleanly."""
        for local in self._partitions.values():
            await self._stop_leading(local)
            if local.partition is not None:
                local.partition.end(LogClosed("commit log was closed"))
                try:
                    local.partition.log.close()
                except LiftbridgeError as error:
                    logger.error("%s: didn't close cleanly: %s", local.assignment.key, error)
        self._partitions.clear()
        self._sync_executor.shutdown()
