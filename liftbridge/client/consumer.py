"""A member of a consumer group: the messages of the partitions that it is assigned."""

import asyncio
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from liftbridge.client.brokers import Brokers, Deadline
from liftbridge.client.cursors import Cursors
from liftbridge.client.membership import Membership
from liftbridge.client.positions import StartAt, StopAt
from liftbridge.client.records import Message
from liftbridge.client.subscription import GroupPlace, Subscription
from liftbridge.errors import LiftbridgeError, RequestError

logger = logging.getLogger(__name__)

_Place = tuple[str, int]
#: For a cursor to be set or fetched, while its leader may have died.
_CURSOR_S = 5.0


@dataclass(eq=False, slots=True)
class _Reader:
    """One assigned partition. Offsets are -1 before the first message; ``committed`` is what its cursor says."""

    task: "asyncio.Task[None] | None" = None
    handed_out: int = -1
    processed: int = -1
    committed: int = -1
    ended: asyncio.Event = field(default_factory=asyncio.Event)


class Consumer:
    """Use it as ``async with client.consumer("group", ["stream"]) as consumer`` and ``async for message in consumer``.

    *What holds*: each message is handed to some member at least once. A message counts as processed when the loop asks for
    the next one; every ``checkpoint_interval_s``, when a partition goes to another member and at the end, a cursor remembers
    how far each partition is processed, and whoever gets the partition goes on behind it. So what was processed since
    the last checkpoint of a member that died comes again. At any time one member reads a partition; within it the
    order holds. A member that the group gave up, because it was silent for too long, joins again.
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
        self._waiting: asyncio.Queue[tuple[_Reader, Message]] = asyncio.Queue(max_waiting)
        self._current: tuple[_Reader, Message] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def assignments(self) -> frozenset[tuple[str, int]]:
        """The partitions that this member reads now, as (stream, partition)."""
        return frozenset(self._readers)

    async def __aenter__(self) -> Self:
        """Joins. Raises FailedPrecondition when a stream doesn't exist or the consumer ID is taken."""
        await self._membership.join()
        self._tasks.append(asyncio.create_task(self._keep_assigned()))
        if self._checkpoint_interval_s is not None:
            self._tasks.append(asyncio.create_task(self._keep_checkpoints(self._checkpoint_interval_s)))
        return self

    async def __aexit__(self, *error: object) -> None:
        """Commits what was processed, and leaves the group."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for place in list(self._readers):
            await self._stop_reading(place)
        await self._membership.leave()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        """The next message of any partition. It never ends by itself."""
        self._finish_current()
        while True:
            reader, message = await self._waiting.get()
            if not reader.ended.is_set():
                reader.handed_out = message.offset
                self._current = (reader, message)
                return message

    def _finish_current(self) -> None:
        if self._current is not None:
            reader, message = self._current
            reader.processed = max(reader.processed, message.offset)
            self._current = None

    async def commit(self) -> None:
        """Remembers that everything handed out so far, the current message too, is processed. Raises what keeps a cursor
        from being set."""
        for reader in self._readers.values():
            reader.processed = max(reader.processed, reader.handed_out)
        await self._commit_processed()

    # --- assignments --------------------------------------------------------------------------------------------------

    async def _keep_assigned(self) -> None:
        while True:
            try:
                await self._membership.refresh()
            except LiftbridgeError as error:
                logger.info("consumer group %s: %s", self._group_id, error)
            await self._reconcile()
            await asyncio.sleep(self._membership.interval_s)

    async def _reconcile(self) -> None:
        assigned = self._membership.assignments
        for place, reader in list(self._readers.items()):
            if place not in assigned or reader.ended.is_set():
                await self._stop_reading(place)
        for place in assigned - self._readers.keys():
            reader = self._readers[place] = _Reader()
            reader.task = asyncio.create_task(self._read(place, reader))

    async def _stop_reading(self, place: _Place) -> None:
        reader = self._readers.pop(place)
        reader.ended.set()
        if reader.task is not None:
            reader.task.cancel()
            await asyncio.gather(reader.task, return_exceptions=True)
        try:
            await self._checkpoint(place, reader)
        except RequestError as error:
            logger.warning("consumer group %s: what was processed of %s comes again: %s", self._group_id, place, error)

    def _place_in_group(self) -> GroupPlace:
        """As of now: a partition's next leader wants to hear the present generation."""
        return GroupPlace(self._group_id, self.consumer_id, self._membership.epoch)

    async def _read(self, place: _Place, reader: _Reader) -> None:
        """Until it is cancelled, another member takes over, or the partition can't be read: then it is tried again
        with the next sign of life."""
        stream, partition = place
        try:
            cursor = await self._cursors.fetch(self._cursor_id, stream, partition, Deadline(_CURSOR_S))
            reader.committed = reader.processed = -1 if cursor is None else cursor
            subscription = Subscription(
                self._brokers,
                stream,
                partition,
                start=self._start if cursor is None else StartAt.offset(cursor + 1),
                stop=StopAt.never(),
                resume=True,
                place=self._place_in_group,
            )
            async with subscription:
                async for message in subscription:
                    await self._waiting.put((reader, message))
        except LiftbridgeError as error:
            logger.info("consumer group %s: partition %d of stream %s: %s", self._group_id, partition, stream, error)
        finally:
            reader.ended.set()

    # --- checkpoints --------------------------------------------------------------------------------------------------

    @property
    def _cursor_id(self) -> str:
        return f"__group:{self._group_id}"

    async def _keep_checkpoints(self, interval_s: float) -> None:
        while True:
            await asyncio.sleep(interval_s)
            try:
                await self._commit_processed()
            except RequestError as error:
                logger.warning("consumer group %s: no checkpoint, the next one follows: %s", self._group_id, error)

    async def _commit_processed(self) -> None:
        await asyncio.gather(*(self._checkpoint(place, reader) for place, reader in list(self._readers.items())))

    async def _checkpoint(self, place: _Place, reader: _Reader) -> None:
        processed = reader.processed
        if processed > reader.committed:
            await self._cursors.set(self._cursor_id, *place, processed, Deadline(_CURSOR_S))
            reader.committed = max(reader.committed, processed)
