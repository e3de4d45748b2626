"""The follower's rules, for one partition and one leader epoch: what to ask for, and what to do with the answers."""

import logging
from bisect import bisect_right

from liftbridge.errors import ProtocolError
from liftbridge.interfaces.records import RecordBatch
from liftbridge.partition.replication.replica import Replica
from liftbridge.protocol.record_batch import HEADER_BYTES, decode_header, encode_batch, iter_batches, iter_records

logger = logging.getLogger(__name__)


class FollowerReplication:
    """Changes its log only on the word of the leader of ``leader_epoch``; without an answer it keeps what it has.

    Every answer must be of that epoch: the caller sorts out others.
    """

    def __init__(self, replica: Replica, leader_epoch: int, name: str) -> None:
        self._replica = replica
        self._name = name
        self.leader_epoch = leader_epoch
        epochs = replica.log.epochs
        self._last_epoch = epochs[-1].leader_epoch if epochs else 0
        #: Whether all that is held is known to be the leader's; what isn't may not be called committed.
        self.agrees = False
        #: Where to go on when the leader no longer keeps what comes next.
        self._resume_offset: int | None = None
        #: Committed records that the leader made this server drop: more than none means that data was lost.
        self.lost_records = 0

    @property
    def next_offset(self) -> int:
        """The offset to ask for."""
        return self._replica.log.end_offset if self._resume_offset is None else self._resume_offset

    @property
    def last_epoch(self) -> int:
        """The leader epoch of the record before ``next_offset``; 0 when the leader need not compare. A log that retention has
        emptied agrees with every leader: what was below its end was committed. It must not count as one that holds nothing,
        or it would be in no ISR before the next record."""
        if self._resume_offset is not None:
            return 0
        return self.leader_epoch if self.is_stranded else self._last_epoch

    @property
    def is_stranded(self) -> bool:
        """Whether nothing is held, behind what retention removed. When the leader ends below that, because all who were in
        sync lost power, this log can't be continued by anything: only a new one can."""
        return 0 < self._replica.log.start_offset == self._replica.log.end_offset

    def take_slice(self, offset: int, high_watermark: int, data: bytes | memoryview) -> bool:
        """Appends what continues the log; whether there was anything. What continues another position is ignored: it
        answers an older question. Raises ProtocolError for damaged batches and StorageError when the disk refuses; then
        nothing was appended."""
        appended = False
        if offset == self.next_offset:
            if len(data):
                appended = self._append(offset, list(iter_batches(data)))
            self._note_agreement()
        if self.agrees:
            self.take_high_watermark(high_watermark)
        return appended

    def _note_agreement(self) -> None:
        if not self.agrees:
            self.agrees = True
            self._replica.wake_readers()

    def take_high_watermark(self, leader_high_watermark: int) -> None:
        """Nobody can vouch for records that he doesn't hold."""
        self._replica.advance_high_watermark(min(leader_high_watermark, self._replica.log.end_offset))

    def _append(self, offset: int, batches: list[RecordBatch]) -> bool:
        if batches[0].base_offset < offset:
            batches[0] = _records_from(batches[0], offset)
        epoch = self._last_epoch
        for batch in batches:
            if not epoch <= batch.leader_epoch <= self.leader_epoch:
                raise ProtocolError(f"{self._name}: leader epoch {batch.leader_epoch} after {epoch} at offset {offset}")
            epoch = batch.leader_epoch
        self._replica.log.append(batches, after_gap=True)
        self._replica.last_body = (batches[-1].base_offset, batches[-1].data)
        self._last_epoch = epoch
        self._resume_offset = None
        return True

    def take_diverging(self, epoch: int, end_offset: int) -> bool:
        """Drops what the leader can't have, and says whether that brought the logs closer. One answer may not be enough:
        the next fetch tells. False when nothing is left to drop: see ``is_stranded``."""
        log = self._replica.log
        before = self.next_offset
        self._resume_offset = None
        if epoch:  # else the leader knows nothing of epochs up to ours, only where the later ones begin
            starts = log.epochs
            place = bisect_right(starts, epoch, key=lambda start: start.leader_epoch)
            end_offset = min(end_offset, starts[place].start_offset if place < len(starts) else log.end_offset)
        self._truncate(end_offset, epoch)
        return self.next_offset < before

    def take_out_of_range(self, start_offset: int) -> None:
        """The leader's log begins behind our position. What is committed here was removed there by retention and can
        stay; the rest nobody can compare any more."""
        log = self._replica.log
        self._truncate(min(log.end_offset, max(self._replica.high_watermark, log.start_offset)), self._last_epoch)
        self._resume_offset = max(start_offset, log.end_offset)

    def _truncate(self, end_offset: int, epoch: int) -> None:
        """``epoch`` is the leader's for what is below ``end_offset``."""
        replica = self._replica
        log = replica.log
        end_offset = max(end_offset, log.start_offset)
        self.agrees = False
        replica.last_body = (-1, b"")
        if end_offset < replica.high_watermark:
            lost = replica.high_watermark - end_offset
            self.lost_records += lost
            logger.critical(
                "%s: DATA LOSS: the leader of epoch %d doesn't hold %d committed records from offset %d on; dropping them",
                self._name,
                self.leader_epoch,
                lost,
                end_offset,
            )
        if end_offset < log.end_offset:
            logger.info(
                "%s: dropping %d records from offset %d on, which the leader of epoch %d doesn't hold",
                self._name,
                log.end_offset - end_offset,
                end_offset,
                self.leader_epoch,
            )
            behind_gap = self._begins_a_batch(end_offset)
            log.truncate(end_offset)
            if behind_gap and log.end_offset < end_offset:
                self._fill_gap(end_offset, epoch)
        replica.retract_high_watermark(log.end_offset)
        epochs = log.epochs
        self._last_epoch = epochs[-1].leader_epoch if epochs else 0

    def _begins_a_batch(self, offset: int) -> bool:
        log = self._replica.log
        return decode_header(log.read(offset, stop=log.end_offset, max_bytes=1)).base_offset == offset

    def _fill_gap(self, end_offset: int, epoch: int) -> None:
        """Puts a batch without records up to where the gap ended. This log went on there because the leader of then had
        removed what comes before, so that was committed; and whoever is in an ISR must end no lower than what is
        committed, or would give offsets away again as a leader."""
        log = self._replica.log
        epochs = log.epochs
        filler = encode_batch(
            b"",
            base_offset=log.end_offset,
            end_offset=end_offset,
            record_count=0,
            leader_epoch=max(epoch, epochs[-1].leader_epoch if epochs else 0),
            timestamp_ns=log.last_timestamp_ns,
        )
        log.append([filler])


def _records_from(batch: RecordBatch, offset: int) -> RecordBatch:
    """The batch without its records below ``offset``."""
    body = batch.data[HEADER_BYTES:]
    kept = [record for record in iter_records(body) if record.offset >= offset]
    return encode_batch(
        body[kept[0].start :] if kept else b"",
        base_offset=offset,
        end_offset=batch.end_offset,
        record_count=len(kept),
        leader_epoch=batch.leader_epoch,
        timestamp_ns=batch.timestamp_ns,
        attributes=batch.data[5],
    )
