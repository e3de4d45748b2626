"""One partition on this server: its log, how much of it is committed, and who waits for more."""

import asyncio
import logging
from collections import Counter
from dataclasses import dataclass

from liftbridge.errors import LiftbridgeError, LogClosed, LogDeleted, OffsetOutOfRange, ProtocolError, StorageError
from liftbridge.interfaces.log import LogId, PartitionLog
from liftbridge.partition.refusal import RefusalKind
from liftbridge.partition.troubles import Trouble, TroubleKind, Troubles
from liftbridge.protocol.record_batch import iter_batches

logger = logging.getLogger(__name__)

_SAYS_NOTHING_OF_THE_DISK = (LogClosed, LogDeleted, OffsetOutOfRange)
#: There is room again when so much is free: a batch of the largest kind, and not just the next small one.
_ROOM_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class PartitionKey:
    """Which partition. ``stream_id`` tells a stream from a deleted one of the same name."""

    stream: str
    partition: int
    stream_id: int

    @property
    def log_id(self) -> LogId:
        return LogId(self.stream_id, self.partition)

    def __str__(self) -> str:
        return f'partition {self.partition} of stream "{self.stream}"'


@dataclass(frozen=True, slots=True)
class PartitionFigures:
    """What is said of a partition. Times are of the first message that the log held when this server first looked, and of
    the latest that it ever got; 0 for none."""

    high_watermark: int = 0
    end_offset: int = 0
    received_first_ns: int = 0
    received_latest_ns: int = 0


class Partition:
    """The committed part of a log, and its readers' waiting room.

    ``high_watermark`` is exclusive: readers see offsets below it. It never goes back while this object lives, unless an
    operator let a replica lead that doesn't hold what was committed.
    """

    def __init__(self, key: PartitionKey, log: PartitionLog, subject: str, troubles: Troubles | None = None) -> None:
        """``troubles`` hears when the disk takes nothing."""
        self.key = key
        self.log = log
        self.subject = subject
        self.high_watermark = log.start_offset
        #: Known to the leader: it takes no messages, so who has read all has reached the end.
        self.readonly = False
        #: Running subscriptions.
        self.subscribers = 0
        #: By leaders on this server.
        self.refused_messages: Counter[RefusalKind] = Counter()
        #: Dropped although they counted as committed.
        self.lost_messages = 0
        self._first_timestamp_ns = 0
        self.end_reason: LiftbridgeError | None = None
        #: The body of the batch that was appended last and its base offset: what a reader at the tail wants next.
        self.last_body: tuple[int, bytes] = (-1, b"")
        self._waiting: list[asyncio.Future[None]] = []
        self._troubles = troubles or Troubles()
        #: The disk refused the last append, and isn't known to have room again.
        self.cannot_store = False
        self._refused_bytes = 0

    def advance_high_watermark(self, offset: int) -> None:
        """Commits everything below ``offset`` and wakes the readers. Never goes back."""
        if offset > self.high_watermark:
            self.high_watermark = offset
            self.wake_readers()

    def retract_high_watermark(self, offset: int) -> None:
        """Takes back what counted as committed: the leader proved that it isn't, and an alarm was raised. Readers behind
        ``offset`` wait until it is passed again."""
        self.lost_messages += max(0, self.high_watermark - offset)
        self.high_watermark = min(self.high_watermark, offset)

    async def wait_for_change(self) -> None:
        """Returns when the high watermark moved, the partition ended, or somebody else woke the readers. Look first and
        then wait, without awaiting anything in between, and no change is missed. Cancelling is safe."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            await future
        except asyncio.CancelledError:
            self._waiting = [other for other in self._waiting if other is not future]
            raise

    @property
    def ends_here(self) -> bool:
        """Whether nothing will come behind what is committed, as long as the partition stays readonly."""
        return self.readonly and self.high_watermark >= self.log.end_offset

    def set_readonly(self, readonly: bool) -> None:
        """The leader takes no messages any more, or takes them again."""
        if readonly != self.readonly:
            self.readonly = readonly
            self.wake_readers()

    def figures(self) -> "PartitionFigures":
        """As of now."""
        log = self.log
        if not self._first_timestamp_ns and log.end_offset > log.start_offset:
            self._first_timestamp_ns = _first_timestamp_ns(log)
        return PartitionFigures(self.high_watermark, log.end_offset, self._first_timestamp_ns, log.last_timestamp_ns)

    # --- the disk -----------------------------------------------------------------------------------------------------

    def append_failed(self, error: StorageError, size_bytes: int) -> bool:
        """Takes note that so many bytes were not stored; True if that is news. An error that says nothing of the disk
        always is."""
        if isinstance(error, _SAYS_NOTHING_OF_THE_DISK):
            return True
        news, self.cannot_store = not self.cannot_store, True
        self._refused_bytes = max(self._refused_bytes, size_bytes)
        if news:
            self._troubles.add(Trouble(self.key.log_id, TroubleKind.CANNOT_STORE, str(error)))
        return news

    def check_room(self) -> bool:
        """Whether the disk takes records now, as far as the storage can say without storing any. Only this ends
        ``cannot_store``: a small append may succeed where the next large one doesn't."""
        try:
            self.log.check_room(max(_ROOM_BYTES, self._refused_bytes))
        except StorageError as error:
            self.append_failed(error, 0)
            return False
        self._note_room()
        return True

    def _note_room(self) -> None:
        if self.cannot_store:
            self.cannot_store, self._refused_bytes = False, 0
            self._troubles.remove(self.key.log_id)
            logger.info("%s: there is room again", self.key)

    # ------------------------------------------------------------------------------------------------------------------

    def end(self, reason: LiftbridgeError) -> None:
        """The partition is closed, deleted or led elsewhere: readers get ``reason`` instead of more messages."""
        if self.end_reason is None:
            self.end_reason = reason
            self.wake_readers()

    def wake_readers(self) -> None:
        """Makes every waiting reader look again."""
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)


def _first_timestamp_ns(log: PartitionLog) -> int:
    """Of the first batch; 0 when it can't be read, which whoever wants its messages hears of."""
    try:
        first = log.read(log.start_offset, stop=log.end_offset, max_bytes=1)
        return next((batch.timestamp_ns for batch in iter_batches(first)), 0)
    except (StorageError, ProtocolError):
        return 0
