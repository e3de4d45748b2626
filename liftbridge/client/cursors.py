"""Cursors: offsets that the cluster remembers (reference: the original's partitioning of ``__cursors``)."""

import zlib
from typing import Any

from liftbridge.client.brokers import Brokers, Deadline
from liftbridge.errors import FailedPrecondition, NotFound
from liftbridge.protocol.generated import api_pb2 as api

_STREAM = "__cursors"


def cursor_partition(cursor_id: str, stream: str, partition: int, partitions: int) -> int:
    """Which partition, of so many, of the stream of cursors keeps this one."""
    return zlib.crc32(f"{cursor_id},{stream},{partition}".encode()) % partitions


class Cursors:
    """Asks whoever keeps a cursor."""

    def __init__(self, brokers: Brokers) -> None:
        self._brokers = brokers

    async def require(self, deadline: Deadline) -> None:
        """Raises FailedPrecondition where the servers keep no cursors."""
        try:
            await self._brokers.stream(_STREAM, deadline)
        except NotFound:
            raise _no_cursors() from None

    async def set(self, cursor_id: str, stream: str, partition: int, offset: int, deadline: Deadline) -> None:
        """Durable, and on every replica in sync."""
        request = api.SetCursorRequest(stream=stream, partition=partition, cursorId=cursor_id, offset=offset)
        await self._call("SetCursor", request, deadline)

    async def fetch(self, cursor_id: str, stream: str, partition: int, deadline: Deadline) -> int | None:
        """What was set last; None when nothing was."""
        request = api.FetchCursorRequest(stream=stream, partition=partition, cursorId=cursor_id)
        response = await self._call("FetchCursor", request, deadline)
        return None if response.offset == -1 else int(response.offset)

    async def _call(self, method: str, request: Any, deadline: Deadline) -> Any:
        def partition(count: int) -> int:
            return cursor_partition(request.cursorId, request.stream, request.partition, count)

        try:
            return await self._brokers.call_leader(method, request, deadline, stream=_STREAM, partition=partition)
        except NotFound:
            raise _no_cursors() from None


def _no_cursors() -> FailedPrecondition:
    return FailedPrecondition("this cluster keeps no cursors: set cursors.stream.partitions on its servers, as to 3")
