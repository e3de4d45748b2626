"""A broker that says what a test tells it to say, and remembers what an endpoint asked. It implements
``liftbridge.broker.api.BrokerApi`` without storing anything."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any

from liftbridge.errors import LiftbridgeError, ProtocolError
from liftbridge.interfaces.figures import ClusterFigures, GroupPosition, ReplicaFigures, ServerFigures
from liftbridge.protocol.generated import api_pb2 as api

_PREFIX_BYTES = 5
_STREAMING = ("Publish", "PublishAsync", "Subscribe")
_METHODS = {
    method.name: method
    for method in api.DESCRIPTOR.services_by_name["API"].methods
    if method.name not in _STREAMING
}  # fmt: skip
#: A server that is alone and well.
ALONE = ServerFigures(
    connected=True,
    holds_lease=True,
    metadata_leader="server",
    is_metadata_leader=True,
    term=1,
    commit_index=1,
    applied_index=1,
    cluster=ClusterFigures({"live": 1}, streams=0, partitions=0, offline_partitions=0, under_replicated_partitions=0),
    groups=(),
    events={},
)
#: The response of a call, or what it raises.
Answer = Any


def frame(message: Any) -> bytes:
    """A message as endpoints and the broker pass them: behind a zero byte and its length in four."""
    encoded = message.SerializeToString()
    return b"\0" + len(encoded).to_bytes(4, "big") + bytes(encoded)


def unframe(framed: bytes) -> list[bytes]:
    """The messages of a chunk. Raises ProtocolError for a chunk that doesn't consist of whole ones."""
    messages, position = [], 0
    while position < len(framed):
        start = position + _PREFIX_BYTES
        end = start + int.from_bytes(framed[position + 1 : start], "big")
        if end > len(framed) or framed[position]:
            raise ProtocolError(f"{len(framed) - position} bytes at the end are no whole message")
        messages.append(framed[start:end])
        position = end
    return messages


class ScriptedBroker:
    """What happened is in the lists; what is to happen is in the other attributes.

    ``answers`` maps a method's name to its response, to an error, or to a coroutine function that takes request and call
    context; without one, the response is empty. ``publish_outcome`` is an error, or None for an ack.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, Any]] = []
        self.calls: list[Any] = []
        self.answers: dict[str, Answer] = {}
        self.publish_outcome: LiftbridgeError | None = None
        self.sessions: list[ScriptedSession] = []
        #: A session takes so many messages, and then asks the endpoint to stop reading until ``resume``.
        self.session_room = 1 << 30
        self.subscriptions: list[ScriptedSubscription] = []
        self.subscribe_outcome: LiftbridgeError | None = None
        self.source: Callable[[], Awaitable[bytes]] = _nothing
        self.server_figures = ALONE
        self.replicas: list[ReplicaFigures] = []
        self.positions: list[GroupPosition] = []

    def unary_handlers(self) -> Mapping[str, Callable[[Any, Any], Awaitable[Any]]]:
        return {name: self._handler(name) for name in _METHODS}

    def _handler(self, name: str) -> Callable[[Any, Any], Awaitable[Any]]:
        async def handle(request: Any, call: Any) -> Any:
            self.requests.append((name, request))
            self.calls.append(call)
            answer = self.answers.get(name, getattr(api, f"{name}Response")())
            if isinstance(answer, BaseException):
                raise answer
            return await answer(request, call) if callable(answer) else answer

        return handle

    def publish(self, request: bytes, call: Any, reply: Any) -> asyncio.Task[None] | None:
        parsed = _parsed(request)
        self.requests.append(("Publish", parsed))
        self.calls.append(call)
        loop = asyncio.get_running_loop()
        if self.publish_outcome is not None:
            loop.call_soon(reply.fail, self.publish_outcome)
        else:
            ack = api.Ack(stream=parsed.stream, offset=len(self.requests) - 1, correlationId=parsed.correlationId)
            loop.call_soon(reply.succeed, api.PublishResponse(ack=ack).SerializeToString())
        return None

    def publish_session(self, call: Any, sink: Any) -> "ScriptedSession":
        self.calls.append(call)
        self.sessions.append(ScriptedSession(sink, self.session_room))
        return self.sessions[-1]

    async def subscribe(self, request: Any, call: Any) -> "ScriptedSubscription":
        self.requests.append(("Subscribe", request))
        self.calls.append(call)
        if self.subscribe_outcome is not None:
            raise self.subscribe_outcome
        self.subscriptions.append(ScriptedSubscription(self.source))
        return self.subscriptions[-1]

    def figures(self) -> ServerFigures:
        return self.server_figures

    def replica_figures(self) -> Iterator[ReplicaFigures]:
        return iter(self.replicas)

    async def group_positions(self) -> AsyncIterator[GroupPosition]:
        for one in self.positions:
            yield one


class ScriptedSession:
    """Acks each message with the next offset, at once."""

    def __init__(self, sink: Any, room: int) -> None:
        self.received: list[Any] = []
        self.finished = False
        self.aborted = asyncio.Event()
        self._sink = sink
        self._room = room

    def publish(self, framed: bytes) -> bool:
        acks = []
        for message in unframe(framed):
            request = _parsed(message)
            ack = api.Ack(stream=request.stream, offset=len(self.received), correlationId=request.correlationId)
            self.received.append(request)
            acks.append(frame(api.PublishResponse(ack=ack, correlationId=request.correlationId)))
        if acks:
            self._sink.send(b"".join(acks))
        return len(self.received) < self._room

    def resume(self, room: int) -> None:
        """Takes so many messages more."""
        self._room = len(self.received) + room
        self._sink.resume()

    async def finish(self) -> None:
        self.finished = True

    def abort(self) -> None:
        self.aborted.set()


class ScriptedSubscription:
    """Gives what the broker's ``source`` gives; an empty chunk ends it, an error ends it with that."""

    def __init__(self, source: Callable[[], Awaitable[bytes]]) -> None:
        self.read_bytes = 0
        self.closed = asyncio.Event()
        self._source = source

    async def read(self, max_bytes: int) -> bytes:
        assert not self.closed.is_set(), "read after close"
        chunk = await self._source()
        self.read_bytes += len(chunk)
        return chunk

    def close(self) -> None:
        self.closed.set()


def _parsed(request: bytes) -> Any:
    try:
        return api.PublishRequest.FromString(request)
    except Exception as error:
        raise ProtocolError(f"no PublishRequest: {error}") from error


async def _nothing() -> bytes:
    await asyncio.Event().wait()
    return b""
