"""One partition on this server: its log, how much of it is committed, and who waits for more."""

import asyncio
from dataclasses import dataclass

from liftbridge.errors import LiftbridgeError
from liftbridge.interfaces.log import LogId, PartitionLog


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


class Partition:
    """The committed part of a log, and its readers' waiting room.

    ``high_watermark`` is exclusive: readers see offsets below it. It never goes back while this object lives, unless an
    operator let a replica lead that doesn't hold what was committed.
    """

    def __init__(self, key: PartitionKey, log: PartitionLog, subject: str) -> None:
        self.key = key
        self.log = log
        self.subject = subject
        self.high_watermark = log.start_offset
        self.received_first_ns = 0
        self.received_latest_ns = 0
        self.end_reason: LiftbridgeError | None = None
        #: The body of the batch that was appended last and its base offset: what a reader at the tail wants next.
        self.last_body: tuple[int, bytes] = (-1, b"")
        self._waiting: list[asyncio.Future[None]] = []

    def advance_high_watermark(self, offset: int) -> None:
        """Commits everything below ``offset`` and wakes the readers. Never goes back."""
        if offset > self.high_watermark:
            self.high_watermark = offset
            self.wake_readers()

    def retract_high_watermark(self, offset: int) -> None:
        """Takes back what counted as committed: the leader proved that it isn't, and an alarm was raised. Readers behind
        ``offset`` wait until it is passed again."""
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
