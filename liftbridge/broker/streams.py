"""CreateStream and DeleteStream. Texts and their order are the original's (reference: its API, sections 4.1 and 4.2)."""

from typing import Protocol

from liftbridge.broker.api import CallContext
from liftbridge.broker.deadlines import remaining_s
from liftbridge.broker.validation import (
    RESERVED_STREAMS,
    check_group,
    check_stream_name,
    check_subject,
    partition_count,
    replication_factor,
    stream_config,
)
from liftbridge.clock import Clock
from liftbridge.errors import InvalidRequest
from liftbridge.interfaces.routing import SubjectRouter
from liftbridge.metadata.controller import MetadataController
from liftbridge.protocol.generated import api_pb2 as api

#: How long a create that committed waits for the leaders to run.
_START_TIMEOUT_S = 5.0


class Leaders(Protocol):
    """Waits for the leaders of streams."""

    async def wait_until_done(self, stream_id: int, index: int, timeout_s: float) -> None: ...


class StreamHandlers:
    """The control calls that change streams."""

    def __init__(self, controller: MetadataController, leaders: Leaders, router: SubjectRouter, clock: Clock) -> None:
        self._controller = controller
        self._leaders = leaders
        self._router = router
        self._clock = clock

    async def create_stream(self, request: api.CreateStreamRequest, call: CallContext) -> api.CreateStreamResponse:
        """Answers once the stream is committed and its leaders run."""
        if not request.name:
            raise InvalidRequest("Name cannot be empty")
        check_subject(request.subject, self._router)
        check_stream_name(request.name)
        check_group(request.group)
        partitions = partition_count(request, self._router)
        config = stream_config(request)
        stream = await self._controller.create_stream(
            name=request.name,
            subject=request.subject,
            group=request.group,
            config=config,
            partitions=partitions,
            replication_factor=replication_factor(request, len(self._controller.servers())),
            timeout_s=remaining_s(call, self._clock),
        )
        await self._leaders.wait_until_done(stream.stream_id, stream.stream_id, _START_TIMEOUT_S)
        return api.CreateStreamResponse()

    async def delete_stream(self, request: api.DeleteStreamRequest, call: CallContext) -> api.DeleteStreamResponse:
        """Answers once the deletion is committed."""
        if request.name in RESERVED_STREAMS:
            raise InvalidRequest("Stream is reserved")
        await self._controller.delete_stream(request.name, timeout_s=remaining_s(call, self._clock))
        return api.DeleteStreamResponse()
