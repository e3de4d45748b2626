"""What an endpoint sees of the broker.

*Framed* below means: each message preceded by five bytes, a zero byte and its length in four bytes, big endian; any
number of them back to back. It is how gRPC frames messages, how records stand in a batch, and so how whole chunks pass
between an endpoint and the log without being taken apart.

Everything runs on the event loop. Handlers raise :class:`liftbridge.errors.LiftbridgeError`; its ``status`` and text
are what the client gets. Anything else that is raised is a bug: answer INTERNAL and log it with its traceback.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from liftbridge.interfaces.figures import GroupPosition, ReplicaFigures, ServerFigures
from liftbridge.protocol.generated import api_pb2 as api

#: How long a publisher that set no deadline waits for its acks.
PUBLISH_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class CallContext:
    """Who calls and for how long. ``deadline_ns`` is on the monotonic clock, None when the client set none; the endpoint
    cancels what runs longer. ``identity`` is the verified name of the client's certificate, "" without one."""

    peer: str = ""
    identity: str = ""
    deadline_ns: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


class ResponseSink(Protocol):
    """Where a publish session's answers go: the endpoint's side of one PublishAsync call."""

    def send(self, framed: bytes) -> None:
        """Takes whole framed PublishResponses. Never blocks; called from the event loop, possibly inside ``publish``."""

    def resume(self) -> None:
        """The session takes more again, after ``publish`` returned False."""


class PublishSession(Protocol):
    """One PublishAsync call. Requests of a session to the same partition keep their order."""

    def publish(self, framed: bytes) -> bool:
        """Takes whole framed PublishRequests. Answers (acks and errors) go to the sink.

        False means: that was taken, but stop reading from this client until the sink's ``resume`` is called.
        Raises :class:`~liftbridge.errors.ProtocolError` for bytes that aren't PublishRequests: end the call then.
        """

    async def finish(self) -> None:
        """The client sent its last request: returns when everything is answered, after 5 s at the latest."""

    def abort(self) -> None:
        """The client is gone; answers are dropped. What was taken may still be stored. Idempotent."""


class Subscription(Protocol):
    """One Subscribe call that was accepted. Committed messages, in order, at the reader's pace."""

    async def read(self, max_bytes: int) -> bytes:
        """Framed Messages, about ``max_bytes`` of them and at least one; waits until there is one.

        Empty means that the subscription ended without an error (another member of its group took over). Raises the
        RequestError that ends the call: stop reached, readonly end, deleted, paused. Cancelling the wait loses
        nothing. Not to be called again before it returned.
        """

    def close(self) -> None:
        """The client is gone. Idempotent."""


class PublishReply(Protocol):
    """The endpoint's side of one Publish call. Exactly one of these is called, once, after ``publish`` returned."""

    def succeed(self, response: bytes) -> None:
        """The encoded PublishResponse."""

    def fail(self, error: BaseException) -> None:
        """As if a handler had raised it."""


#: A control call: takes the request and who calls, returns the response.
UnaryHandler = Callable[[Any, CallContext], Awaitable[Any]]


class BrokerApi(Protocol):
    """The broker's handlers."""

    def unary_handlers(self) -> Mapping[str, UnaryHandler]:
        """The handler of each unary call of ``proto.API`` but Publish, by method name (``"CreateStream"``), asked once
        at start. A handler of ``X`` takes an ``api.XRequest`` and returns an ``api.XResponse``."""

    def publish(self, request: bytes, call: CallContext, reply: PublishReply) -> asyncio.Task[None] | None:
        """Publishes the message of an encoded PublishRequest. Raises what a handler would, and then doesn't reply; a
        :class:`~liftbridge.errors.ProtocolError` means that the request isn't one. Cancel the task, if there is one,
        when the client is gone. A call without a deadline should end after ``PUBLISH_TIMEOUT_S``.

        This is no coroutine because a task, a future and a timer cost as much as storing the message."""

    def publish_session(self, call: CallContext, sink: ResponseSink) -> PublishSession:
        """Opens a PublishAsync session."""

    async def subscribe(self, request: api.SubscribeRequest, call: CallContext) -> Subscription:
        """Accepts or refuses a subscription. Once it returns, the endpoint sends one empty message (it means
        "subscribed", and every client waits for it) and then what ``read`` returns."""

    def figures(self) -> ServerFigures:
        """The server and its cluster in numbers, as of now. Cheap: what depends on the number of partitions is worked out
        anew only when metadata changed."""

    def replica_figures(self) -> Iterator[ReplicaFigures]:
        """Each partition here in numbers, as of when the iterator gets to it. A few microseconds each, so whoever shows
        thousands should let the event loop do something else in between."""

    def group_positions(self) -> AsyncIterator[GroupPosition]:
        """Where the consumer groups that have members stand in the partitions that these read, as far as this server keeps
        their cursors: all servers together have each of them once. The first time, and after a change of leader, it reads
        all cursors there are, which may take long; who stops asking finds what was read remembered."""
