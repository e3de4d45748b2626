"""SetCursor and FetchCursor. Texts and their order are the original's (reference: its API, section 9)."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from liftbridge.broker.api import CallContext
from liftbridge.broker.validation import MAX_NAME_BYTES
from liftbridge.cursors import Cursor, Cursors
from liftbridge.errors import DeadlineExceeded, InvalidRequest
from liftbridge.protocol.generated import api_pb2 as api

#: For calls without a deadline.
_TIMEOUT_S = 5.0
#: A cursor's record must be far below what a message may be; group names are a part of it.
_MAX_CURSOR_ID_BYTES = 1024

Result = TypeVar("Result")


class CursorHandlers:
    """The calls for cursors."""

    def __init__(self, cursors: Cursors) -> None:
        self._cursors = cursors

    async def set_cursor(self, request: api.SetCursorRequest, call: CallContext) -> api.SetCursorResponse:
        """Answers once all replicas in sync hold the cursor."""
        if request.offset < -1:
            raise InvalidRequest(f"Invalid offset {request.offset}: must be -1, for none, or more")
        await _in_time(self._cursors.set(_cursor_of(request), request.offset), call, "the cursor may be set")
        return api.SetCursorResponse()

    async def fetch_cursor(self, request: api.FetchCursorRequest, call: CallContext) -> api.FetchCursorResponse:
        """The offset set last, -1 when there is none."""
        offset = await _in_time(self._cursors.fetch(_cursor_of(request)), call, "the cursor wasn't read")
        return api.FetchCursorResponse(offset=offset)


def _cursor_of(request: api.SetCursorRequest | api.FetchCursorRequest) -> Cursor:
    if not request.stream:
        raise InvalidRequest("No stream provided")
    if not request.cursorId:
        raise InvalidRequest("No cursorId provided")
    for field, text, limit in (
        ("stream", request.stream, MAX_NAME_BYTES),
        ("cursorId", request.cursorId, _MAX_CURSOR_ID_BYTES),
    ):
        if len(text.encode()) > limit:
            raise InvalidRequest(f"Invalid {field}: it is longer than {limit} bytes")
    if request.partition < 0:
        raise InvalidRequest(f"Invalid partition {request.partition}: must be 0 or more")
    return Cursor(request.cursorId, request.stream, request.partition)


async def _in_time(work: Awaitable[Result], call: CallContext, outcome: str) -> Result:
    """The endpoint ends calls that have a deadline; the others end here."""
    try:
        async with asyncio.timeout(None if call.deadline_ns is not None else _TIMEOUT_S):
            return await work
    except TimeoutError:
        raise DeadlineExceeded(f"no answer from the cursors stream in {_TIMEOUT_S:g} s; {outcome}") from None
