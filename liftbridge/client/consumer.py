"""A member of a consumer group: the messages of the partitions that it is assigned."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from liftbridge.client.brokers import Brokers, Deadline
from liftbridge.client.cursors import Cursors
from liftbridge.client.membership import Membership, StreamsGone
from liftbridge.client.positions import StartAt, StopAt
from liftbridge.client.records import Message
from liftbridge.client.subscription import GroupPlace, Subscription
from liftbridge.client.trouble import Trouble
from liftbridge.client.turns import Turns
from liftbridge.errors import InvalidRequest, LiftbridgeError, PermissionDenied, RequestError, Unimplemented
from liftbridge.protocol.generated import api_pb2 as api
from liftbridge.tasks import end_tasks

logger = logging.getLogger(__name__)

_Place = tuple[str, int]
#: For a cursor to be set or fetched, while its leader may have died.
_CURSOR_S = 5.0
#: Before a checkpoint that failed is tried again.
_RETRY_S = 1.0
#: How long nobody may lead a partition until a try to read it counts as failed.
_PATIENCE_S = 5.0
#: These answers stay the same, however often a member asks.
_HOPELESS = (InvalidRequest, PermissionDenied, Unimplemented, StreamsGone)


@dataclass(eq=False, slots=True)
class _Reader:
    """One assigned partition. Offsets are of the last message of which it is true, -1 for none; ``committed`` is what the
    group's cursor says. ``start`` is where it began, for want of a cursor."""

    task: "asyncio.Task[None] | None" = None
    start: StartAt | None = None
    received: int = -1
    handed_out: int = -1
    processed: int = -1
    committed: int = -1
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Consumer:
    """Use it as ``async with client.consumer("group", ["stream"]) as consumer`` and ``async for message in consumer``.

    *What holds*: each message is handed to some member at least once, and within a partition in the order of offsets. At
    any time one member reads a partition. A message counts as processed when the loop asks for the next one;
    every ``checkpoint_interval_s``, by ``commit``, when a partition goes to another member and at the end, a cursor remembers
    how far each partition is processed, and whoever gets the partition goes on behind it. So what was processed since the
    last cursor of a member that died comes again, and so does the message that the loop was left at. A member that lives
    hears nothing twice, whichever servers die, unless the group gives it up because it was silent for too long; then it
    joins again.

    *From when on*: a group that starts with new messages has its first cursor as soon as a member reads a partition with
    messages in it, and otherwise when the first message is processed. Should everybody die before that, the group starts
    anew, with what is new then. Who can't miss any message starts with ``StartAt.earliest()``.

    *What fails* is tried again: servers come back. When it lasts, the log says so at warning level. The iteration raises what
    no try can change: PermissionDenied, Unimplemented, InvalidRequest, and NotFound when all of its streams are deleted.
    """

    def __init__(
        self,
        brokers: Brokers,
        group_id: str,
        streams: Sequence[str],
        *,
        consumer_id: str = "",
        start: StartAt | None = None,
        checkpoint_interval_s: float | None = 5.0,
        max_waiting: int = 1000,
    ) -> None:
        self._brokers = brokers
        self._cursors = Cursors(brokers)
        self._group_id = group_id
        self.consumer_id = consumer_id or secrets.token_hex(11)
        self._membership = Membership(brokers, group_id, self.consumer_id, streams)
        self._start = start or StartAt.new()
        self._checkpoint_interval_s = checkpoint_interval_s
        self._readers: dict[_Place, _Reader] = {}
        #: None wakes who waits for a message that won't come.
        self._waiting: asyncio.Queue[tuple[_Reader, Message] | None] = asyncio.Queue(max_waiting)
        self._failure: BaseException | None = None
        self._turns = Turns()
        self._current: tuple[_Reader, Message] | None = None
        #: Something was processed of a partition without a cursor.
        self._has_first = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def assignments(self) -> frozenset[tuple[str, int]]:
        """The partitions that this member reads now, as (stream, partition)."""
        return frozenset(self._readers)

    async def __aenter__(self) -> Self:
        """Joins. Raises FailedPrecondition when a stream doesn't exist, the consumer ID is taken, or the servers keep no
        cursors: without them there would be no message, and no word of why."""
        await self._cursors.require(Deadline(_CURSOR_S))
        await self._membership.join()
        self._tasks.append(self._in_background(self._keep_assigned()))
        if self._checkpoint_interval_s is not None:
            self._tasks.append(self._in_background(self._keep_checkpoints(self._checkpoint_interval_s)))
        return self

    def _in_background(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """What it raises, the iteration raises."""

        def ended(task: "asyncio.Task[None]") -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                self._fail(error)

        task = asyncio.create_task(work)
        task.add_done_callback(ended)
        return task

    async def __aexit__(self, *error: object) -> None:
        """Commits what was processed, and leaves the group, as far as servers answer."""
        await end_tasks(self._tasks)
        await self._stop_reading(list(self._readers))
        try:
            await self._membership.leave()
        except RequestError as cause:
            logger.info("consumer group %s gives %s up by itself: %s", self._group_id, self.consumer_id, cause)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        """The next message of any partition. It never ends by itself; the wait for it may be cancelled. Raises what keeps this
        member from ever getting one."""
        if not self._tasks:
            raise InvalidRequest("join first: async with client.consumer(...) as consumer")
        self._finish_current()
        if self._turns.due:
            await self._turns.give()
        while self._failure is None:
            waiting = await self._waiting.get()
            if waiting is not None and not waiting[0].ended.is_set():
                reader, message = self._current = waiting
                reader.handed_out = message.offset
                return message
        raise self._failure

    def _finish_current(self) -> None:
        if self._current is not None:
            reader, message = self._current
            reader.processed = max(reader.processed, message.offset)
            self._current = None
            if reader.committed < 0:
                self._has_first.set()

    async def commit(self) -> None:
        """Remembers that everything handed out so far, the current message too, is processed. Raises what keeps a cursor
        from being set."""
        for reader in self._readers.values():
            reader.processed = max(reader.processed, reader.handed_out)
        await self._commit_processed()

    # --- assignments --------------------------------------------------------------------------------------------------

    async def _keep_assigned(self) -> None:
        trouble = Trouble(f"consumer group {self._group_id}: asking for partitions")
        while True:
            try:
                await self._membership.refresh()
            except _HOPELESS:
                raise
            except LiftbridgeError as error:
                trouble.failed(error)
            else:
                trouble.over()
            await self._reconcile()
            await asyncio.sleep(self._membership.interval_s)

    def _fail(self, error: BaseException) -> None:
        """Whoever asks for a message hears of it. Messages that wait weren't handed out, so another member gets them."""
        self._failure = self._failure or error
        with contextlib.suppress(asyncio.QueueFull):  # then nobody waits
            self._waiting.put_nowait(None)

    async def _reconcile(self) -> None:
        assigned = self._membership.assignments
        await self._stop_reading(
            [place for place, reader in self._readers.items() if place not in assigned or reader.ended.is_set()]
        )
        for place in assigned - self._readers.keys():
            reader = self._readers[place] = _Reader()
            reader.task = self._in_background(self._read(place, reader))

    async def _stop_reading(self, places: list[_Place]) -> None:
        readers = [self._readers.pop(place) for place in places]
        for reader in readers:
            reader.ended.set()
        await end_tasks(reader.task for reader in readers if reader.task is not None)
        await asyncio.gather(*map(self._last_checkpoint, places, readers))

    async def _last_checkpoint(self, place: _Place, reader: _Reader) -> None:
        try:
            await self._checkpoint(place, reader)
        except RequestError as error:
            logger.warning("consumer group %s: what was processed of %s comes again: %s", self._group_id, place, error)

    def _place_in_group(self) -> GroupPlace:
        """As of now: a partition's next leader wants to hear the present generation."""
        return GroupPlace(self._group_id, self.consumer_id, self._membership.epoch)

    async def _read(self, place: _Place, reader: _Reader) -> None:
        """Until it is cancelled, or another member takes over. What else ends it is tried again."""
        stream, partition = place
        trouble = Trouble(f"consumer group {self._group_id}: reading partition {partition} of stream {stream}")
        try:
            while True:
                try:
                    await self._read_on(place, reader, trouble)
                    return
                except _HOPELESS:
                    raise
                except LiftbridgeError as error:
                    trouble.failed(error)
                await asyncio.sleep(self._membership.interval_s)
        finally:
            reader.ended.set()

    async def _read_on(self, place: _Place, reader: _Reader, trouble: Trouble) -> None:
        """Behind what this member has. Raises what keeps the partition from being read."""
        subscription = Subscription(
            self._brokers,
            *place,
            start=await self._begin(place, reader),
            stop=StopAt.never(),
            resume=True,
            patience_s=_PATIENCE_S,
            place=self._place_in_group,
        )
        async with subscription:
            trouble.over()
            async for message in subscription:
                await self._waiting.put((reader, message))
                reader.received = message.offset

    async def _begin(self, place: _Place, reader: _Reader) -> StartAt:
        """Where to read from: behind what the group and this member have, if they have anything."""
        cursor = await self._cursors.fetch(self._cursor_id, *place, Deadline(_CURSOR_S))
        if cursor is not None:
            reader.committed = max(reader.committed, cursor)
        last = max(reader.committed, reader.received)
        if last >= 0:
            return StartAt.offset(last + 1)
        if reader.start is None:
            reader.start = await self._start_of_group(place)
        return reader.start

    async def _start_of_group(self, place: _Place) -> StartAt:
        """For a group that wants what is new, now becomes its first cursor."""
        if self._start.position != api.StartPosition.NEW_ONLY:
            return self._start
        newest = await self._brokers.newest_offset(*place, Deadline(_CURSOR_S))
        if newest is None:
            return self._start
        if newest >= 0:
            await self._cursors.set(self._cursor_id, *place, newest, Deadline(_CURSOR_S))
        return StartAt.offset(newest + 1)

    # --- checkpoints --------------------------------------------------------------------------------------------------

    @property
    def _cursor_id(self) -> str:
        return f"__group:{self._group_id}"

    async def _keep_checkpoints(self, interval_s: float) -> None:
        """Regularly, and at once when something of a partition is processed that has no cursor yet."""
        trouble = Trouble(f"consumer group {self._group_id}: remembering what is processed")
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval_s):
                    await self._has_first.wait()
            self._has_first.clear()
            try:
                await self._commit_processed()
            except _HOPELESS:
                raise
            except RequestError as error:
                trouble.failed(error)
                await asyncio.sleep(min(_RETRY_S, interval_s))
            else:
                trouble.over()

    async def _commit_processed(self) -> None:
        await asyncio.gather(*(self._checkpoint(place, reader) for place, reader in list(self._readers.items())))

    async def _checkpoint(self, place: _Place, reader: _Reader) -> None:
        processed = reader.processed
        if processed > reader.committed:
            await self._cursors.set(self._cursor_id, *place, processed, Deadline(_CURSOR_S))
            reader.committed = max(reader.committed, processed)
