"""PauseStream and SetStreamReadonly. Texts are the original's (reference: its API, sections 4.3 and 4.4)."""

from liftbridge.broker.api import CallContext
from liftbridge.broker.deadlines import remaining_s
from liftbridge.broker.validation import RESERVED_STREAMS
from liftbridge.clock import Clock
from liftbridge.errors import InvalidRequest
from liftbridge.metadata.controller import MetadataController
from liftbridge.protocol.generated import api_pb2 as api


class PauseHandlers:
    """The control calls that change what partitions take. Both answer once the change is committed."""

    def __init__(self, controller: MetadataController, clock: Clock) -> None:
        self._controller = controller
        self._clock = clock

    async def pause_stream(self, request: api.PauseStreamRequest, call: CallContext) -> api.PauseStreamResponse:
        """No partitions named means all of them."""
        _check_not_reserved(request.name)
        await self._controller.pause(
            request.name,
            request.partitions,
            resume_all=request.resumeAll,
            timeout_s=remaining_s(call, self._clock),
        )
        return api.PauseStreamResponse()

    async def set_stream_readonly(
        self, request: api.SetStreamReadonlyRequest, call: CallContext
    ) -> api.SetStreamReadonlyResponse:
        """No partitions named means all of them."""
        _check_not_reserved(request.name)
        await self._controller.set_readonly(
            request.name, request.partitions, request.readonly, timeout_s=remaining_s(call, self._clock)
        )
        return api.SetStreamReadonlyResponse()


def _check_not_reserved(name: str) -> None:
    """The cluster itself writes to its own streams, and clients' cursors are in one of them."""
    if name in RESERVED_STREAMS:
        raise InvalidRequest("Stream is reserved")
