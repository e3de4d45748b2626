"""The leader's write path: runs in, batches appended, acks out.

Runs that arrive in one turn of the event loop become one append (natural batching: no timer, no wait when idle). The
order is: append, hand to followers and to the mirror, commit, ack. With durability ``sync`` what follows the append waits for
the disk in a worker thread, and everything appended meanwhile shares the next sync (group commit). Acks of policy LEADER leave
once the records are as durable here as the stream asks, those of policy ALL once the high watermark has passed them.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import chain, groupby
from operator import attrgetter
from typing import Protocol

from liftbridge.clock import Clock
from liftbridge.errors import StorageError
from liftbridge.interfaces.records import RecordBatch
from liftbridge.partition.durability import Durability
from liftbridge.partition.partition import Partition
from liftbridge.partition.pending import ACK_ALL, ANY_OFFSET, PendingRun
from liftbridge.partition.refusal import Refusal, RefusalKind
from liftbridge.partition.replication.leading import LeaderReplication
from liftbridge.protocol.record_batch import encode_batch
from liftbridge.protocol.record_encoding import encode_record, encode_records, encode_trailer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LeaderSettings:
    """How one partition's leader works. ``max_message_bytes`` bounds a message with its envelope."""

    durability: Durability = Durability.PAGE
    sync_interval_s: float = 1.0
    batch_max_messages: int = 1024
    batch_max_bytes: int = 256 * 1024
    max_message_bytes: int = 1024 * 1024
    max_unsynced_bytes: int = 16 * 1024 * 1024
    min_isr: int = 1
    check_expected_offsets: bool = False


@dataclass(slots=True)
class _Appended:
    """A run that is in the log, at ``base_offset``."""

    run: PendingRun
    base_offset: int
    reception_ns: int

    @property
    def end_offset(self) -> int:
        return self.base_offset + len(self.run.items)


#: What runs must have in common to be encoded together.
_SHAPE = attrgetter("subject", "reply", "lead", "item_bytes")
_MIRROR = attrgetter("mirror")


def _place(runs: list[PendingRun], base_offset: int, reception_ns: int) -> list[_Appended]:
    """Where the runs stand that were appended from ``base_offset`` on."""
    appended = []
    for run in runs:
        appended.append(_Appended(run, base_offset, reception_ns))
        base_offset += len(run.items)
    return appended


class Followers(Protocol):
    """The other replicas, as the leader's write path sees them."""

    def appending(self) -> None:
        """Records are appended later in this turn of the event loop."""

    def appended(self) -> None:
        """There are records for them."""

    def committed(self) -> None:
        """The high watermark moved: they are told, and :meth:`PartitionLeader.committed` is called."""


class PartitionLeader:
    """Sequences what is published to one partition, for one leader epoch. All methods run on the event loop."""

    def __init__(
        self,
        partition: Partition,
        replication: LeaderReplication,
        settings: LeaderSettings,
        clock: Clock,
        sync_executor: Executor,
    ) -> None:
        self.partition = partition
        self.leader_epoch = replication.leader_epoch
        self.settings = settings
        self._replication = replication
        self._followers: Followers | None = None
        self._clock = clock
        self._sync_executor = sync_executor
        self._loop = asyncio.get_running_loop()
        self._pending: list[PendingRun] = []
        self._flush_scheduled = False
        self._unsynced: deque[_Appended] = deque()
        self._unsynced_bytes = 0
        self._uncommitted: deque[_Appended] = deque()
        self._uncommitted_bytes = 0
        self._sync_task: asyncio.Task[None] | None = None
        self._resume: list[Callable[[], None]] = []
        self._closed = False
        self.began_ns = clock.time_ns()

    def replicate(self, followers: Followers) -> None:
        """To be called before ``start``, if there are other replicas."""
        self._followers = followers

    def start(self) -> None:
        """What a kill left unsynced must not count as synced."""
        if self.settings.durability is Durability.SYNC:
            self._start_sync(0.0)

    # --- taking runs in -----------------------------------------------------------------------------------------------

    def submit(self, run: PendingRun) -> None:
        """Takes a run; its outcome is told to ``run.acks``, never raised."""
        refusal = self._refusal_at_the_door(run)
        if refusal is not None:
            self._refuse(run, refusal)
            return
        self._pending.append(run)
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush)
            if self._followers is not None:
                self._followers.appending()  # their turn comes right behind the flush

    @property
    def overloaded(self) -> bool:
        """Whether more waits for the disk or for followers than ``max_unsynced_bytes``: publishers that can wait should."""
        return self._unsynced_bytes + self._uncommitted_bytes > self.settings.max_unsynced_bytes

    @property
    def stepped_down(self) -> bool:
        """Whether this takes nothing more."""
        return self._closed

    @property
    def next_end_offset(self) -> int:
        """Where the log ends, at most, once all that was taken is appended."""
        return self.partition.log.end_offset + sum(len(run.items) for run in self._pending)

    def set_readonly(self, readonly: bool) -> None:
        """From now on. What was taken before is appended before."""
        if readonly and self._pending:
            self._flush()
        self.partition.set_readonly(readonly)

    def call_when_ready(self, callback: Callable[[], None]) -> None:
        """Calls back, once, when no longer ``overloaded``."""
        self._resume.append(callback)

    def _refusal_at_the_door(self, run: PendingRun) -> Refusal | None:
        if self._closed:
            return self._not_leader()
        if self.partition.readonly:
            return Refusal(RefusalKind.READONLY, f"readonly partition: {self.partition.key.partition}")
        in_sync = len(self._replication.isr)
        if run.ack_policy == ACK_ALL and in_sync < self.settings.min_isr:
            return Refusal(
                RefusalKind.TOO_FEW_REPLICAS,
                f"{self.partition.key} has {in_sync} replicas in sync, and ack policy ALL needs "
                f"{self.settings.min_isr}; nothing was stored",
            )
        return None

    def _not_leader(self) -> Refusal:
        return Refusal(RefusalKind.NOT_LEADER, f"this server no longer leads {self.partition.key}")

    def _refuse(self, run: PendingRun, refusal: Refusal) -> None:
        self.partition.refused_messages[refusal.kind] += len(run.items)
        if run.acks is not None:
            run.acks.refused(run, refusal)

    # --- appending ----------------------------------------------------------------------------------------------------

    def _flush(self) -> None:
        """Appends what has gathered."""
        self._flush_scheduled = False
        runs, self._pending = self._pending, []
        log = self.partition.log
        if self.settings.check_expected_offsets:
            runs = self._check_expected_offsets(runs, log.end_offset)
        if not runs:
            return
        now_ns = max(self._clock.time_ns(), log.last_timestamp_ns)
        batches, appended = self._encode(runs, log.end_offset, now_ns)
        try:
            log.append(batches)
        except StorageError as error:
            self._append_failed(error, runs, sum(len(batch.data) for batch in batches))
            return
        self.partition.last_body = (batches[-1].base_offset, batches[-1].data)
        if self._followers is not None:
            self._followers.appended()
        self._mirror(runs)
        if self.settings.durability is Durability.SYNC:
            self._unsynced.extend(appended)
            self._unsynced_bytes += sum(len(batch.data) for batch in batches)
            self._start_sync(0.0)
            return
        self._take_durable(appended, appended[-1].end_offset)
        if self.settings.durability is Durability.INTERVAL:
            self._start_sync(self.settings.sync_interval_s)

    def _append_failed(self, error: StorageError, runs: list[PendingRun], size_bytes: int) -> None:
        if self.partition.append_failed(error, size_bytes):
            logger.error(
                "%s: append failed: %s. Publishers are refused until there is room, or another server leads",
                self.partition.key,
                error,
            )
        for run in runs:
            self._refuse(run, Refusal(RefusalKind.STORAGE, f"not stored: {error}"))

    def _mirror(self, runs: list[PendingRun]) -> None:
        for mirror, mirrored in groupby(runs, _MIRROR) if len(runs) > 1 else ((runs[0].mirror, runs),):
            if mirror is not None:
                mirror.publish(list(mirrored))

    def _check_expected_offsets(self, runs: list[PendingRun], next_offset: int) -> list[PendingRun]:
        """Only what publishers expected to stand where it would: record by record, in order. Refusing one shifts nobody
        else, because the next is compared with the offset that it would really get."""
        accepted = []
        for run in runs:
            for i in range(len(run.items)):
                record = run.part(i, i + 1)
                if run.expected_offset in (ANY_OFFSET, next_offset):
                    accepted.append(record)
                    next_offset += 1
                else:
                    self._refuse(record, Refusal(RefusalKind.INCORRECT_OFFSET, "incorrect expected offset"))
        return accepted

    def _encode(
        self, runs: list[PendingRun], base_offset: int, now_ns: int
    ) -> tuple[list[RecordBatch], list[_Appended]]:
        if len(runs) == 1 and len(runs[0].items) == 1:
            return [self._encode_one(runs[0], base_offset, now_ns)], [_Appended(runs[0], base_offset, now_ns)]
        batches: list[RecordBatch] = []
        bodies: list[bytes] = []
        body_bytes = 0
        batch_base = offset = base_offset
        for shape, alike in groupby(runs, _SHAPE):
            subject, reply, lead, item_bytes = shape
            trailer = self._trailer(subject, reply, now_ns)
            for items in self._pieces(list(alike)):
                if bodies and (
                    body_bytes >= self.settings.batch_max_bytes
                    or offset - batch_base + len(items) > self.settings.batch_max_messages
                ):
                    batches.append(self._batch(bodies, batch_base, offset, now_ns))
                    bodies, body_bytes, batch_base = [], 0, offset
                body = encode_records(items, item_bytes, base_offset=offset, trailer=trailer, lead=lead)
                bodies.append(body)
                body_bytes += len(body)
                offset += len(items)
        batches.append(self._batch(bodies, batch_base, offset, now_ns))
        return batches, _place(runs, base_offset, now_ns)

    def _encode_one(self, run: PendingRun, base_offset: int, now_ns: int) -> RecordBatch:
        """The batch of a message that came alone."""
        trailer = self._trailer(run.subject, run.reply, now_ns)
        body = encode_record(run.items[0], base_offset, trailer=trailer, lead=run.lead)
        return self._batch([body], base_offset, base_offset + 1, now_ns)

    def _pieces(self, runs: list[PendingRun]) -> list[Sequence[bytes]]:
        """The items of runs of one shape, in pieces that fit a batch: publishers that send one message each are
        encoded together."""
        items = runs[0].items if len(runs) == 1 else list(chain.from_iterable(run.items for run in runs))
        count = len(items)
        if count == 1:
            return [items]
        average = max(1, sum(run.size_bytes() for run in runs) // count)
        step = max(1, min(self.settings.batch_max_messages, self.settings.batch_max_bytes // average))
        return [items] if count <= step else [items[i : i + step] for i in range(0, count, step)]

    def _trailer(self, subject: str, reply: str, now_ns: int) -> bytes:
        key = self.partition.key
        return encode_trailer(
            timestamp_ns=now_ns, stream=key.stream, partition=key.partition, subject=subject, reply=reply
        )

    def _batch(self, bodies: list[bytes], base_offset: int, end_offset: int, now_ns: int) -> RecordBatch:
        return encode_batch(
            bodies[0] if len(bodies) == 1 else b"".join(bodies),
            base_offset=base_offset,
            end_offset=end_offset,
            record_count=end_offset - base_offset,
            leader_epoch=self.leader_epoch,
            timestamp_ns=now_ns,
        )

    # --- committing ---------------------------------------------------------------------------------------------------

    def _take_durable(self, appended: list[_Appended], durable_end: int) -> None:
        """Everything in ``appended``, and in the log below ``durable_end``, is as durable here as the stream asks."""
        if self._replication.appended(durable_end):
            if self._followers is not None:
                self._followers.committed()
            else:
                self.committed()
        high_watermark = self.partition.high_watermark
        commit_ns = self._clock.time_ns()
        for one in appended:
            run = one.run
            if run.ack_policy == ACK_ALL and one.end_offset > high_watermark:
                self._uncommitted.append(one)
                self._uncommitted_bytes += run.size_bytes()
            elif run.acks is not None:
                run.acks.stored(run, one.base_offset, one.reception_ns, commit_ns)

    def committed(self) -> None:
        """The high watermark moved: publishers that wait for it hear so."""
        uncommitted = self._uncommitted
        if not uncommitted:
            return
        high_watermark = self.partition.high_watermark
        commit_ns = self._clock.time_ns()
        while uncommitted and uncommitted[0].end_offset <= high_watermark:
            one = uncommitted.popleft()
            self._uncommitted_bytes -= one.run.size_bytes()
            if one.run.acks is not None:
                one.run.acks.stored(one.run, one.base_offset, one.reception_ns, commit_ns)
        self._resume_publishers()

    def _resume_publishers(self) -> None:
        if self._resume and not self.overloaded:
            resume, self._resume = self._resume, []
            for callback in resume:
                callback()

    def _start_sync(self, delay_s: float) -> None:
        if self._sync_task is None and not self._closed:
            self._sync_task = self._loop.create_task(self._sync(delay_s))

    async def _sync(self, delay_s: float) -> None:
        """Syncs until nothing waits; one sync covers all that was appended before it began."""
        if delay_s:
            await asyncio.sleep(delay_s)
        try:
            while True:
                synced_end = await self._loop.run_in_executor(self._sync_executor, self.partition.log.sync)
                self._release(synced_end)
                if not self._unsynced:
                    return
        except StorageError as error:
            self._fail_unsynced(error)
        finally:
            self._sync_task = None

    def _release(self, synced_end: int) -> None:
        if self._closed:
            return
        released = []
        while self._unsynced and self._unsynced[0].end_offset <= synced_end:
            released.append(self._unsynced.popleft())
        self._unsynced_bytes = sum(one.run.size_bytes() for one in self._unsynced)
        if self.settings.durability is Durability.SYNC:
            self._take_durable(released, synced_end)
        self._resume_publishers()

    def _fail_unsynced(self, error: StorageError) -> None:
        logger.error("%s: sync failed, outcome of %d runs unknown: %s", self.partition.key, len(self._unsynced), error)
        unsynced, self._unsynced = list(self._unsynced), deque()
        self._unsynced_bytes = 0
        for one in unsynced:
            self._refuse(one.run, Refusal(RefusalKind.OUTCOME_UNKNOWN, f"may be lost at a power failure: {error}"))
        self._resume_publishers()

    # --- the end ------------------------------------------------------------------------------------------------------

    def step_down(self) -> None:
        """Another server leads, or will: takes nothing more and touches the log no more. Whoever waits gets an answer.
        Idempotent."""
        self._closed = True
        if self._sync_task is not None:
            self._sync_task.cancel()
        pending, self._pending = self._pending, []
        for run in pending:
            self._refuse(run, self._not_leader())
        waiting = [*self._uncommitted, *self._unsynced]
        self._uncommitted.clear()
        self._unsynced.clear()
        self._uncommitted_bytes = self._unsynced_bytes = 0
        for one in waiting:
            self._refuse(one.run, Refusal(RefusalKind.OUTCOME_UNKNOWN, "outcome unknown, leader changed"))
        self._resume_publishers()

    async def close(self) -> None:
        """The server stops: appends what was taken, waits for the disk where the mode asks for it, and steps down."""
        if self._pending and not self._closed:
            self._flush()
        if self._sync_task is not None and self._unsynced:
            await asyncio.gather(self._sync_task, return_exceptions=True)
        self.step_down()
