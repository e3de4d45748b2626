"""Cursors: where a consumer stands in a partition, kept in the stream ``__cursors``.

A cursor lives in one partition of that stream, chosen by its name, and the leader of it answers. Setting one is a publish
that all replicas in sync have to hold. Asking for one looks into a table of the latest cursors, which the leader makes
by reading what is committed, once for its leader epoch, and brings up to date at each question. So what was acked is
seen, whatever compaction or a kill left of the log. The table takes memory for each cursor of the partitions led here
(about 200 bytes), and none for how often they are set.
"""

import asyncio
import contextlib
import logging
from binascii import crc32
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from google.protobuf.message import DecodeError

from liftbridge.errors import (
    FailedPrecondition,
    InternalError,
    LiftbridgeError,
    OffsetOutOfRange,
    RequestError,
    Unavailable,
)
from liftbridge.metadata.model import CURSORS_STREAM, StreamState
from liftbridge.metadata.state import MetadataState
from liftbridge.partition.leader import PartitionLeader
from liftbridge.partition.local import LocalPartition
from liftbridge.partition.manager import PartitionManager
from liftbridge.partition.outcome import Outcome
from liftbridge.partition.pending import ACK_ALL, PendingRun
from liftbridge.partition.reading import read_forward
from liftbridge.partition.refusal import Refusal, RefusalKind
from liftbridge.protocol.generated import api_pb2 as api
from liftbridge.protocol.generated import internal_pb2 as internal
from liftbridge.protocol.record_batch import RECORD_PREFIX_BYTES, iter_records
from liftbridge.protocol.record_encoding import KEY_TAG, VALUE_TAG
from liftbridge.protocol.varint import encode_text

logger = logging.getLogger(__name__)

#: The answer for a cursor that was never set.
UNKNOWN = -1

_CHUNK_BYTES = 256 * 1024
#: For who isn't waited for: a millisecond or two of the event loop.
_SMALL_CHUNK_BYTES = 16 * 1024
_STREAM_TIMEOUT_S = 3.0
_START_TIMEOUT_S = 1.0
_SETTLE_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Cursor:
    """Names one cursor. Neither the stream nor the partition need exist."""

    cursor_id: str
    stream: str
    partition: int

    @property
    def name(self) -> bytes:
        """What clients know, too: they choose the partition by it."""
        return f"{self.cursor_id},{self.stream},{self.partition}".encode()

    @property
    def key(self) -> bytes:
        """The key of its records: the name, and where that could be another cursor's, because of commas in the parts, also
        the length of the first one."""
        if "," in self.cursor_id or "," in self.stream:
            return self.name + b",%d" % len(self.cursor_id)
        return self.name

    def partition_of(self, count: int) -> int:
        """Which of ``count`` partitions of the stream of cursors it is in."""
        return crc32(self.name) % count

    def record_fields(self, offset: int) -> bytes:
        """Key and value of the record that sets it."""
        value = internal.Cursor(
            stream=self.stream, partition=self.partition, cursor_id=self.cursor_id, offset=offset
        ).SerializeToString()
        return encode_text(KEY_TAG[0], self.key) + encode_text(VALUE_TAG[0], value)


class CursorTable:
    """The latest offset of each cursor in the committed records of one partition, up to ``next_offset``. What is no
    cursor is passed over: anybody can publish to the stream."""

    def __init__(self) -> None:
        self.next_offset = 0
        self._offsets: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._offsets)

    def get(self, cursor: Cursor) -> int:
        return self._offsets.get(cursor.key, UNKNOWN)

    def add(self, framed: bytes, next_offset: int) -> None:
        """Takes framed messages in their order; ``next_offset`` is where they end."""
        for message in _messages(framed):
            if not message.key:
                continue
            if not message.value:
                self._offsets.pop(message.key, None)
                continue
            try:
                self._offsets[message.key] = internal.Cursor.FromString(message.value).offset
            except DecodeError:
                logger.warning("%s, offset %d: not a cursor", CURSORS_STREAM, message.offset)
        self.next_offset = next_offset


def _messages(framed: bytes) -> Iterator[api.Message]:
    for record in iter_records(framed):
        yield api.Message.FromString(framed[record.start + RECORD_PREFIX_BYTES : record.end])


@dataclass(slots=True)
class _Reading:
    """A table and who brings it up to date: one at a time."""

    table: CursorTable
    lock: asyncio.Lock


class Cursors:
    """Sets and fetches cursors on the server that leads their partition. All methods run on the event loop.

    ``catch_up`` returns once this server knows the metadata that was committed before the call. ``expected``: the settings
    ask for cursors, so a stream that isn't there yet soon will be.
    """

    def __init__(
        self,
        state: MetadataState,
        partitions: PartitionManager,
        *,
        server_id: str,
        catch_up: Callable[[], Awaitable[None]],
        expected: bool,
    ) -> None:
        self._state = state
        self._partitions = partitions
        self._server_id = server_id
        self._catch_up = catch_up
        self._expected = expected
        #: By leader, which is another object in each leader epoch: what was read in an earlier one doesn't count.
        self._readings: WeakKeyDictionary[PartitionLeader, _Reading] = WeakKeyDictionary()
        self._waiting: list[asyncio.Future[None]] = []
        state.subscribe(self._wake)

    async def set(self, cursor: Cursor, offset: int) -> None:
        """Returns once all replicas in sync hold it. Raises a RequestError when it isn't stored, and Unavailable when
        nobody knows. May take until the replicas answer."""
        fields = cursor.record_fields(offset)
        while True:
            number, local, leader = await self._find_leader(cursor)
            if local.handing_over:
                raise _not_leader(number)
            refusal = await _append(leader, fields)
            if refusal is None:
                return
            if refusal.kind is not RefusalKind.NOT_LEADER or local.leader is leader:
                raise _error_of(refusal, number)

    async def fetch(self, cursor: Cursor) -> int:
        """The offset that was set last, ``UNKNOWN`` if none was: never older than what was acked before the call, by
        whichever leader."""
        number, local, leader = await self._find_leader(cursor)
        if not await local.wait_settled(_SETTLE_TIMEOUT_S) and local.leader is leader:
            raise Unavailable(
                f"cursors partition {number} doesn't know yet how much of it is committed: a replica is missing, try again"
            )
        await self._catch_up()
        if local.leader is not leader or not self._is_current(leader):
            raise _not_leader(number)
        return (await self._read_committed(leader)).get(cursor)

    def _is_current(self, leader: PartitionLeader) -> bool:
        """Whether the latest metadata has no later leader: then nobody else can have acked anything that isn't here."""
        key = leader.partition.key
        partition = self._state.partition(key.stream_id, key.partition)
        return partition is not None and partition.leader_epoch == leader.leader_epoch

    async def known_here(self, cursors: Iterable[Cursor]) -> Mapping[Cursor, int]:
        """Those of the cursors that are in partitions which this server leads, and were set: what is committed of them here,
        without asking anybody. Leaves out a partition that can't be read now. May be cancelled, and called again."""
        stream = self._state.streams.get(CURSORS_STREAM)
        if stream is None:
            return {}
        by_number: dict[int, list[Cursor]] = defaultdict(list)
        for cursor in cursors:
            by_number[cursor.partition_of(len(stream.partitions))].append(cursor)
        known: dict[Cursor, int] = {}
        for number, some in by_number.items():
            local = self._partitions.get(CURSORS_STREAM, number)
            if local is None or local.leader is None or local.role is None or not local.role.settled:
                continue
            try:
                table = await self._read_committed(local.leader, _SMALL_CHUNK_BYTES)
            except LiftbridgeError as error:
                logger.debug("cursors partition %d can't be read now: %s", number, error)
                continue
            known |= {one: offset for one in some if (offset := table.get(one)) != UNKNOWN}
        return known

    async def _read_committed(self, leader: PartitionLeader, chunk_bytes: int = _CHUNK_BYTES) -> CursorTable:
        """The table, with all that is committed now."""
        partition = leader.partition
        reading = self._readings.setdefault(leader, _Reading(CursorTable(), asyncio.Lock()))
        table, stop = reading.table, partition.high_watermark
        async with reading.lock:
            while table.next_offset < stop:
                if partition.end_reason is not None:
                    raise partition.end_reason
                start = max(table.next_offset, partition.log.start_offset)
                try:
                    table.add(*read_forward(partition, start, stop, chunk_bytes))
                except OffsetOutOfRange:
                    if start >= partition.log.start_offset:
                        raise  # else the cleaner, in its own thread, was here just now
                if table.next_offset < stop:
                    await asyncio.sleep(0)
        return table

    # --- who answers --------------------------------------------------------------------------------------------------

    async def _find_leader(self, cursor: Cursor) -> tuple[int, LocalPartition, PartitionLeader]:
        """Raises FailedPrecondition when another server leads the cursor's partition."""
        stream = await self._stream()
        number = cursor.partition_of(len(stream.partitions))
        local = self._partitions.get(CURSORS_STREAM, number)
        if local is not None and local.damage is not None:
            raise InternalError(f"cursors partition {number} is offline: {local.damage}")
        if stream.partitions[number].leader != self._server_id:
            raise _not_leader(number)
        if local is None or local.leader is None:
            local = await self._wait_leading(number)
        if local is None or local.leader is None:
            raise _not_leader(number)
        return number, local, local.leader

    async def _wait_leading(self, number: int) -> LocalPartition | None:
        """This server is to lead the partition, and is about to; or it isn't the leader any more by now."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START_TIMEOUT_S):
                return await self._partitions.wait_leading(CURSORS_STREAM, number)
        return None

    async def _stream(self) -> StreamState:
        stream = self._state.streams.get(CURSORS_STREAM)
        if stream is None and self._expected:
            stream = await self._wait_for_stream()
        if stream is None:
            raise InternalError("Cursors stream does not exist")
        return stream

    async def _wait_for_stream(self) -> StreamState | None:
        """The metadata leader makes it when the cluster begins; never, if its own settings don't ask for it."""
        stream = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STREAM_TIMEOUT_S):
                while (stream := self._state.streams.get(CURSORS_STREAM)) is None:
                    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    self._waiting.append(future)
                    await future
        return stream

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)


async def _append(leader: PartitionLeader, fields: bytes) -> Refusal | None:
    outcome = Outcome()
    leader.submit(
        PendingRun(
            items=(fields,),
            item_bytes=len(fields),
            subject=leader.partition.subject,
            ack_policy=ACK_ALL,
            acks=outcome,
            correlation_ids=(b"",),
        )
    )
    return await outcome.future


def _not_leader(number: int) -> FailedPrecondition:
    return FailedPrecondition(f"Server not leader for cursors partition {number}")


def _error_of(refusal: Refusal, number: int) -> RequestError:
    if refusal.kind is RefusalKind.NOT_LEADER:
        return _not_leader(number)
    if refusal.kind in (RefusalKind.TOO_FEW_REPLICAS, RefusalKind.OUTCOME_UNKNOWN):
        return Unavailable(refusal.message)
    return InternalError(refusal.message)
