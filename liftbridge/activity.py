"""The activity stream: what happens to streams and groups, as messages of ``__activity``.

Events wait in the metadata itself (:mod:`liftbridge.metadata.activity_outbox`) until they are in the stream, so whoever leads
the stream has all that are missing, in order. It knows from its own log which is the last one there, appends what comes
behind it, and now and then lets the metadata forget what is published. An event that can't be published holds up those
behind it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from liftbridge.errors import LiftbridgeError
from liftbridge.metadata.activity_outbox import ActivityEntry
from liftbridge.metadata.model import ACTIVITY_STREAM
from liftbridge.metadata.state import MetadataState
from liftbridge.partition.leader import PartitionLeader
from liftbridge.partition.manager import PartitionManager
from liftbridge.partition.outcome import Outcome
from liftbridge.partition.partition import Partition
from liftbridge.partition.pending import ACK_ALL, PendingRun
from liftbridge.partition.reading import read_backward
from liftbridge.partition.refusal import RefusalKind
from liftbridge.protocol.generated import api_pb2 as api
from liftbridge.protocol.record_batch import RECORD_PREFIX_BYTES, iter_records
from liftbridge.protocol.record_encoding import encode_value

logger = logging.getLogger(__name__)

_BATCH_EVENTS = 256
#: What is published is forgotten after so many events, or after a moment without new ones: each time is a change of metadata.
_FORGET_EVENTS = 1024
_FORGET_AFTER_S = 1.0
_FORGET_TIMEOUT_S = 5.0
_SETTLE_TIMEOUT_S = 5.0
#: How much of the log is looked through for the last event, behind whatever else was published to the stream.
_TAIL_BYTES = 16 * 1024 * 1024
_CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class ActivitySettings:
    """``publish_timeout_s``: an ack that takes longer is worth a warning. Back-off: the waits between two attempts to
    publish what was refused, doubled each time."""

    ack_policy: int = ACK_ALL
    publish_timeout_s: float = 5.0
    first_backoff_s: float = 1.0
    longest_backoff_s: float = 10.0


class ActivityPublisher:
    """Publishes while this server leads the activity stream. ``forget`` tells the metadata group up to which index the
    events are published; it may fail, and is called again."""

    def __init__(
        self,
        state: MetadataState,
        partitions: PartitionManager,
        settings: ActivitySettings,
        *,
        forget: Callable[[int, float], Awaitable[None]],
    ) -> None:
        self._state = state
        self._partitions = partitions
        self._settings = settings
        self._forget = forget
        self._changed = asyncio.Event()
        self._lost = 0
        state.subscribe(self._changed.set)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            local = await self._partitions.wait_leading(ACTIVITY_STREAM, 0)
            if not await local.wait_settled(_SETTLE_TIMEOUT_S):
                logger.warning("%s waits until its leader knows what of it is committed", ACTIVITY_STREAM)
            elif local.leader is not None:
                try:
                    await self._publish_as(local.leader)
                except LiftbridgeError as error:
                    logger.error("%s gets no events for now: %s", ACTIVITY_STREAM, error)
                    await asyncio.sleep(self._settings.first_backoff_s)

    async def _publish_as(self, leader: PartitionLeader) -> None:
        """For one leader epoch: from the last event in the log on."""
        last = last_event_id(leader.partition, self._state.applied_index)
        backoff_s = self._settings.first_backoff_s
        published = 0
        while not leader.stepped_down:
            self._changed.clear()
            self._report_lost()
            entries = self._state.activity.after(last, _BATCH_EVENTS)
            if entries and not await self._publish(leader, entries):
                await asyncio.sleep(0 if leader.stepped_down else backoff_s)
                backoff_s = min(2 * backoff_s, self._settings.longest_backoff_s)
                continue
            if entries:
                last, published = entries[-1].index, published + len(entries)
                backoff_s = self._settings.first_backoff_s
            if len(entries) == _BATCH_EVENTS and published < _FORGET_EVENTS:
                continue
            if published >= _FORGET_EVENTS or not await self._comes_more(last):
                await self._let_forget(last)
                published = 0

    async def _publish(self, leader: PartitionLeader, entries: Sequence[ActivityEntry]) -> bool:
        """Appends the events, all or none. True once they are stored as the ack policy asks; False if they aren't, and,
        only when the role ends, if nobody knows."""
        outcome = Outcome()
        leader.submit(
            PendingRun(
                items=[encode_value(entry.event) for entry in entries],
                item_bytes=None,
                subject=leader.partition.subject,
                ack_policy=self._settings.ack_policy,
                acks=outcome,
                correlation_ids=(b"",) * len(entries),
            )
        )
        # They are in the log: publishing them again when the ack is late would only store them twice.
        await asyncio.wait((outcome.future,), timeout=self._settings.publish_timeout_s)
        if not outcome.future.done():
            logger.warning("%s: events %s are stored, but replicas are missing", ACTIVITY_STREAM, _span(entries))
        refusal = await outcome.future
        if refusal is not None and refusal.kind is not RefusalKind.NOT_LEADER:
            logger.error("%s: events %s: %s", ACTIVITY_STREAM, _span(entries), refusal.message)
        return refusal is None

    async def _comes_more(self, last: int) -> bool:
        """Waits for what is to be done next. False when nothing came for a while, and there is something to forget."""
        due = next(iter(self._state.activity), None)
        is_due = due is not None and due.index <= last
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FORGET_AFTER_S if is_due else None):
                await self._changed.wait()
                return True
        return False

    async def _let_forget(self, last: int) -> None:
        try:
            await self._forget(last, _FORGET_TIMEOUT_S)
        except LiftbridgeError as error:
            logger.debug("%s: published events are kept a while longer: %s", ACTIVITY_STREAM, error)

    def _report_lost(self) -> None:
        lost, self._lost = self._state.activity.lost - self._lost, self._state.activity.lost
        if lost > 0:
            logger.error("%s: %d events were given up: nothing could be published for too long", ACTIVITY_STREAM, lost)


def _span(entries: Sequence[ActivityEntry]) -> str:
    first, last = entries[0].index, entries[-1].index
    return str(first) if first == last else f"{first} to {last}"


def last_event_id(partition: Partition, newest: int) -> int:
    """The ID of the last event in the log, committed or not; 0 if there is none. What isn't an event up to ``newest`` is
    passed over: anybody can publish to the stream."""
    upper, lower = partition.log.end_offset, partition.log.start_offset
    seen_bytes = 0
    while upper > lower and seen_bytes < _TAIL_BYTES:
        framed, upper = read_backward(partition, upper, lower, _CHUNK_BYTES)
        seen_bytes += len(framed)
        for record in iter_records(framed):
            message = api.Message.FromString(framed[record.start + RECORD_PREFIX_BYTES : record.end])
            with contextlib.suppress(DecodeError):
                event_id = api.ActivityStreamEvent.FromString(message.value).id
                if 0 < event_id <= newest:
                    return event_id
    return 0
