"""One subscriber of a partition: where it starts, where it stops, and reading at its own pace.

Positions follow the original (reference: its API, section 5), with its defects mended: time lookups are right at
segment borders, a stop offset that is no longer there still stops, and a reverse subscription can stop and ends
cleanly.
"""

from dataclasses import dataclass

from liftbridge.errors import InternalError, InvalidRequest, LiftbridgeError, OffsetOutOfRange, ResourceExhausted
from liftbridge.partition.partition import Partition
from liftbridge.partition.reading import read_backward, read_forward
from liftbridge.protocol.generated import api_pb2 as api

#: "No end" for forward subscriptions.
UNBOUNDED = 1 << 62

STOP_REACHED = "Stop offset reached"
START_REACHED = "Beginning of partition reached"
STREAM_EMPTY = "Stream is empty"
READONLY_END = "End of readonly partition"


@dataclass(frozen=True, slots=True)
class ReadRange:
    """What a subscription covers. Forward: ``[start, stop)``. Reverse: from below ``start`` down to ``stop``."""

    start: int
    stop: int
    reverse: bool = False


def resolve_range(partition: Partition, request: api.SubscribeRequest) -> ReadRange:
    """Turns positions into offsets, as of now. Raises the RequestError that the client gets."""
    start = _start_offset(partition, request)
    if request.reverse:
        return _reverse_range(partition, request, start)
    last = _stop_offset(partition, request)
    if last is None and partition.readonly and start < partition.log.end_offset:
        last = partition.log.end_offset - 1  # the original stops there, even if the partition is opened again meanwhile
    if last is not None and last < start:
        raise InvalidRequest(f"Stop offset is before start offset: {last} < {start}")
    begin = max(partition.log.start_offset, min(start, partition.high_watermark))
    return ReadRange(begin, UNBOUNDED if last is None else last + 1)


def _start_offset(partition: Partition, request: api.SubscribeRequest) -> int:
    first, committed_end = partition.log.start_offset, partition.high_watermark
    match request.startPosition:
        case api.StartPosition.NEW_ONLY:
            return committed_end
        case api.StartPosition.OFFSET:
            return max(0, request.startOffset)
        case api.StartPosition.EARLIEST:
            return first
        case api.StartPosition.LATEST:
            return max(first, committed_end - 1)
        case api.StartPosition.TIMESTAMP:
            found = partition.log.offset_for_time(request.startTimestamp)
            return committed_end if found is None else min(found, committed_end)
    raise InvalidRequest(f"Unknown StartPosition {request.startPosition}")


def _stop_offset(partition: Partition, request: api.SubscribeRequest) -> int | None:
    """The last offset to deliver, None for no end."""
    match request.stopPosition:
        case api.StopPosition.STOP_ON_CANCEL:
            return None
        case api.StopPosition.STOP_OFFSET:
            return None if request.stopOffset == -1 else request.stopOffset
        case api.StopPosition.STOP_LATEST:
            _refuse_empty(partition)
            return partition.high_watermark - 1
        case api.StopPosition.STOP_TIMESTAMP:
            _refuse_empty(partition)
            later = partition.log.offset_for_time(request.stopTimestamp + 1)
            end = partition.high_watermark if later is None else min(later, partition.high_watermark)
            if end <= partition.log.start_offset:
                raise InternalError(
                    "Failed to lookup offset for timestamp: timestamp is before the beginning of the log"
                )
            return end - 1
    raise InvalidRequest(f"Unknown StopPosition {request.stopPosition}")


def _reverse_range(partition: Partition, request: api.SubscribeRequest, start: int) -> ReadRange:
    _refuse_empty(partition)
    first = partition.log.start_offset
    upper = min(start + 1, partition.high_watermark)
    match request.stopPosition:
        case api.StopPosition.STOP_ON_CANCEL:
            lower = first
        case api.StopPosition.STOP_TIMESTAMP:
            found = partition.log.offset_for_time(request.stopTimestamp)
            lower = partition.high_watermark if found is None else found
        case _:
            last = _stop_offset(partition, request)
            lower = first if last is None else last
    if lower >= max(upper, 1):
        raise InvalidRequest(f"Stop offset is after start offset of a reverse subscription: {lower} > {upper - 1}")
    return ReadRange(upper, max(lower, first), reverse=True)


def _refuse_empty(partition: Partition) -> None:
    if partition.high_watermark <= partition.log.start_offset:
        raise ResourceExhausted(STREAM_EMPTY)


class PartitionSubscription:
    """Reads a range of one partition (see :class:`liftbridge.broker.api.Subscription`)."""

    def __init__(self, partition: Partition, read_range: ReadRange) -> None:
        self._partition = partition
        self._next = read_range.start
        self._stop = read_range.stop
        self._reverse = read_range.reverse
        self._displaced = False
        self._closed = False
        partition.subscribers += 1

    async def read(self, max_bytes: int) -> bytes:
        """Framed messages; waits for the next one. Empty once displaced."""
        while not self._is_over():
            if self._reverse:
                return self._read_backward(max_bytes)
            if self._next >= self._stop:
                raise ResourceExhausted(STOP_REACHED)
            partition = self._partition
            if self._next < partition.high_watermark:
                framed = self._read_forward(max_bytes)
                if framed:
                    return framed
            elif partition.end_reason is not None:
                raise partition.end_reason
            elif partition.ends_here:
                raise ResourceExhausted(READONLY_END)
            else:
                await partition.wait_for_change()
        return b""

    def _read_forward(self, max_bytes: int) -> bytes:
        partition = self._partition
        self._raise_if_closed()
        while True:
            self._next = max(self._next, partition.log.start_offset)
            stop = min(self._stop, partition.high_watermark)
            try:
                framed, self._next = read_forward(partition, self._next, stop, max_bytes)
                return framed
            except OffsetOutOfRange:
                if self._next >= partition.log.start_offset:
                    raise  # else retention, in its own thread, was here just now

    def _read_backward(self, max_bytes: int) -> bytes:
        self._raise_if_closed()
        lower = max(self._stop, self._partition.log.start_offset)
        if self._next > lower:
            framed, self._next = read_backward(self._partition, self._next, lower, max_bytes)
            if framed:
                return framed
        raise ResourceExhausted(STOP_REACHED if lower > self._partition.log.start_offset else START_REACHED)

    def _raise_if_closed(self) -> None:
        reason: LiftbridgeError | None = self._partition.end_reason
        if reason is not None:
            raise reason

    def _is_over(self) -> bool:
        """Whether it ends without an error."""
        return self._displaced

    def displace(self) -> None:
        """Another member of the consumer group takes over: the call ends without an error."""
        self._displaced = True
        self._partition.wake_readers()

    def close(self) -> None:
        """A subscription holds nothing but its place. Idempotent."""
        if not self._closed:
            self._closed = True
            self._partition.subscribers -= 1


class EndedSubscription:
    """One that is accepted and ends at once (see :class:`liftbridge.broker.api.Subscription`)."""

    def __init__(self, reason: LiftbridgeError) -> None:
        self._reason = reason

    async def read(self, max_bytes: int) -> bytes:
        """Raises the reason."""
        del max_bytes
        raise self._reason

    def close(self) -> None:
        """Nothing to give back."""
