"""CreateStream and DeleteStream. Texts and their order are the original's (reference: its API, sections 4.1 and 4.2)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
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
from liftbridge.errors import FailedPrecondition, InvalidRequest
from liftbridge.interfaces.routing import SubjectRouter
from liftbridge.metadata.config import StreamConfig
from liftbridge.metadata.controller import MetadataController
from liftbridge.protocol.generated import api_pb2 as api

#: How long a create that committed waits for the leaders to run.
_START_TIMEOUT_S = 5.0


class Leaders(Protocol):
    """Waits for the leaders of streams."""

    async def wait_until_done(self, stream_id: int, index: int, timeout_s: float) -> None: ...


@dataclass(frozen=True, slots=True)
class EncryptionRules:
    """Whether this server could encrypt, and which streams it would that don't say."""

    has_keys: bool
    default_for: Callable[[str], bool]

    def decided(self, name: str, config: StreamConfig) -> StreamConfig:
        """With its encryption settled for good: what is stored must stay readable when a default changes. Raises
        FailedPrecondition when it can't be."""
        encryption = self.default_for(name) if config.encryption is None else config.encryption
        if encryption and not self.has_keys:
            raise FailedPrecondition(
                "Failed on preconditions for stream's encryption handler: this server has no encryption key; set "
                "LIFTBRIDGE_ENCRYPTION_KEY, or say with encryption.keys where the keys are"
            )
        return replace(config, encryption=encryption)


class StreamHandlers:
    """The control calls that change streams."""

    def __init__(
        self,
        controller: MetadataController,
        leaders: Leaders,
        router: SubjectRouter,
        clock: Clock,
        encryption: EncryptionRules,
    ) -> None:
        self._controller = controller
        self._leaders = leaders
        self._router = router
        self._clock = clock
        self._encryption = encryption

    async def create_stream(self, request: api.CreateStreamRequest, call: CallContext) -> api.CreateStreamResponse:
        """Answers once the stream is committed and its leaders run."""
        if not request.name:
            raise InvalidRequest("Name cannot be empty")
        check_subject(request.subject, self._router)
        check_stream_name(request.name)
        check_group(request.group)
        partitions = partition_count(request, self._router)
        config = self._encryption.decided(request.name, stream_config(request))
        if not 0 <= request.replicationFactor <= len(self._controller.servers()):
            await self._controller.catch_up()  # this server may not know yet of servers that came just now
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
