"""PauseStream and SetStreamReadonly. Texts are the original's (reference: its API, sections 4.3 and 4.4)."""

from liftbridge.broker.api import CallContext
from liftbridge.broker.deadlines import remaining_s
from liftbridge.broker.streams import Leaders
from liftbridge.broker.validation import RESERVED_STREAMS
from liftbridge.clock import Clock
from liftbridge.errors import InvalidRequest
from liftbridge.metadata.controller import MetadataController
from liftbridge.metadata.state import MetadataState
from liftbridge.protocol.generated import api_pb2 as api

_LEADERS_TIMEOUT_S = 2.0


class PauseHandlers:
    """The control calls that change what partitions take. Both answer once the change is committed and the leaders keep to
    it: what is published afterwards, on whichever server, finds it so."""

    def __init__(self, controller: MetadataController, state: MetadataState, leaders: Leaders, clock: Clock) -> None:
        self._controller = controller
        self._state = state
        self._leaders = leaders
        self._clock = clock

    async def pause_stream(self, request: api.PauseStreamRequest, call: CallContext) -> api.PauseStreamResponse:
        """No partitions named means all of them."""
        _check_not_reserved(request.name)
        index = await self._controller.pause(
            request.name,
            request.partitions,
            resume_all=request.resumeAll,
            timeout_s=remaining_s(call, self._clock),
        )
        await self._wait_for_leaders(request.name, index)
        return api.PauseStreamResponse()

    async def set_stream_readonly(
        self, request: api.SetStreamReadonlyRequest, call: CallContext
    ) -> api.SetStreamReadonlyResponse:
        """No partitions named means all of them."""
        _check_not_reserved(request.name)
        index = await self._controller.set_readonly(
            request.name, request.partitions, request.readonly, timeout_s=remaining_s(call, self._clock)
        )
        await self._wait_for_leaders(request.name, index)
        return api.SetStreamReadonlyResponse()

    async def _wait_for_leaders(self, name: str, index: int) -> None:
        """A leader that is away can't take anything either, so it isn't waited for long."""
        stream = self._state.streams.get(name)
        if stream is not None:
            await self._leaders.wait_until_done(stream.stream_id, index, _LEADERS_TIMEOUT_S)


def _check_not_reserved(name: str) -> None:
    """The cluster itself writes to its own streams, and clients' cursors are in one of them."""
    if name in RESERVED_STREAMS:
        raise InvalidRequest("Stream is reserved")
