"""Who may do what, around the broker's calls. Without authorization none of this is there.

A call is checked before anything else is done or said: a client that may not use a stream doesn't hear whether there is one.
What servers do by themselves (forwarding what was allowed, events, cursors' records) isn't a client's call and isn't checked, nor
are the figures that endpoints show to operators.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from operator import attrgetter
from typing import Any

from liftbridge.broker.api import BrokerApi, CallContext, PublishReply, ResponseSink, Subscription, UnaryHandler
from liftbridge.broker.api import PublishSession as PublishSessionApi
from liftbridge.broker.publishing import Publishing
from liftbridge.broker.session import PublishSession
from liftbridge.broker.targets import Target, Targets
from liftbridge.errors import PermissionDenied
from liftbridge.interfaces.authorizer import CLUSTER, Authorizer
from liftbridge.interfaces.figures import GroupPosition, ReplicaFigures, ServerFigures
from liftbridge.partition.refusal import Refusal, RefusalKind
from liftbridge.protocol.generated import api_pb2 as api
from liftbridge.protocol.publish_requests import RequestParser

logger = logging.getLogger(__name__)

#: Answers that are remembered, and the longest resource among them: clients make up names.
_MAX_ANSWERS = 10_000
_MAX_RESOURCE_CHARACTERS = 1024
#: Of such a name, so much is told back.
_TOLD_CHARACTERS = 255

#: What each unary call is about. A call that isn't here can't be offered with authorization.
_RESOURCES: Mapping[str, Callable[[Any], str]] = {
    "CreateStream": attrgetter("name"),
    "DeleteStream": attrgetter("name"),
    "PauseStream": attrgetter("name"),
    "SetStreamReadonly": attrgetter("name"),
    "FetchMetadata": lambda _request: CLUSTER,
    "FetchPartitionMetadata": attrgetter("stream"),
    "PublishToSubject": attrgetter("subject"),
    "SetCursor": attrgetter("stream"),
    "FetchCursor": attrgetter("stream"),
    "JoinConsumerGroup": attrgetter("groupId"),
    "LeaveConsumerGroup": attrgetter("groupId"),
    "FetchConsumerGroupAssignments": attrgetter("groupId"),
    "ReportConsumerGroupCoordinator": attrgetter("groupId"),
}


class Permissions:
    """The authorizer's answers, remembered until it has other rules. Everything runs on the event loop."""

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer
        self._answers: dict[tuple[str, str, str], bool] = {}

    async def load(self) -> None:
        """See :meth:`liftbridge.interfaces.authorizer.Authorizer.load`."""
        await self._authorizer.load()
        self._answers.clear()

    def check(self, identity: str, method: str, resource: str) -> None:
        """Raises PermissionDenied."""
        if not self.allows(identity, method, resource):
            raise PermissionDenied(denial(identity, method, resource))

    def check_inbox(self, identity: str, inbox: str) -> None:
        """For a call that names the subject of its acks: an ack is a message like others to whoever records that subject.
        Raises PermissionDenied."""
        if inbox:
            self.check(identity, "PublishToSubject", inbox)

    def allows(self, identity: str, method: str, resource: str) -> bool:
        """Whether the client may do that; whoever has no verified name may do nothing."""
        answer = self._answers.get((identity, method, resource))
        return self._ask(identity, method, resource) if answer is None else answer

    def _ask(self, identity: str, method: str, resource: str) -> bool:
        answer = bool(identity) and self._authorizer.allows(identity, method, resource)
        if not answer:
            logger.debug('client "%s": %s', identity, denial(identity, method, resource))
        if len(resource) <= _MAX_RESOURCE_CHARACTERS:
            if len(self._answers) >= _MAX_ANSWERS:
                self._answers.clear()
            self._answers[identity, method, resource] = answer
        return answer


def denial(identity: str, method: str, resource: str) -> str:
    """What a client hears; the text is the original's."""
    text = f"The client is not authorized to call {method} on resource {resource[:_TOLD_CHARACTERS]}"
    return text if identity else f"{text}: it has no verified name, which is the Common Name of its certificate"


class AuthorizedBroker:
    """See :class:`liftbridge.broker.api.BrokerApi`. Passes on what is allowed."""

    def __init__(self, broker: BrokerApi, publishing: Publishing, permissions: Permissions) -> None:
        self._broker = broker
        self._publishing = publishing
        self._permissions = permissions
        self._parser = RequestParser()

    def unary_handlers(self) -> Mapping[str, UnaryHandler]:
        return {method: self._checked(method, handler) for method, handler in self._broker.unary_handlers().items()}

    def _checked(self, method: str, handler: UnaryHandler) -> UnaryHandler:
        resource_of, permissions = _RESOURCES[method], self._permissions

        async def handle(request: Any, call: CallContext) -> Any:
            permissions.check(call.identity, method, resource_of(request))
            permissions.check_inbox(call.identity, getattr(request, "ackInbox", ""))
            return await handler(request, call)

        return handle

    def publish(self, request: bytes, call: CallContext, reply: PublishReply) -> asyncio.Task[None] | None:
        run = self._parser.parse_one(request)
        self._permissions.check(call.identity, "Publish", run.stream)
        self._permissions.check_inbox(call.identity, run.ack_inbox)
        return self._broker.publish(request, call, reply)

    def publish_session(self, call: CallContext, sink: ResponseSink) -> PublishSessionApi:
        """The session's ack inbox is never one that the client named."""
        allowed = _AllowedTargets(self._publishing.targets, self._permissions, call.identity)
        return PublishSession(self._publishing, allowed, sink)

    async def subscribe(self, request: api.SubscribeRequest, call: CallContext) -> Subscription:
        self._permissions.check(call.identity, "Subscribe", request.stream)
        subscription = await self._broker.subscribe(request, call)
        return _AllowedSubscription(subscription, self._permissions, call.identity, request.stream)

    def figures(self) -> ServerFigures:
        return self._broker.figures()

    def replica_figures(self) -> Iterator[ReplicaFigures]:
        return self._broker.replica_figures()

    def group_positions(self) -> AsyncIterator[GroupPosition]:
        return self._broker.group_positions()


class _AllowedTargets:
    """What one client may publish to. A session asks once for each run of messages to one partition."""

    def __init__(self, targets: Targets, permissions: Permissions, identity: str) -> None:
        self._targets = targets
        self._permissions = permissions
        self._identity = identity

    def find(self, stream: str, partition: int, ack_policy: int) -> Target | Refusal:
        if self._permissions.allows(self._identity, "Publish", stream):
            return self._targets.find(stream, partition, ack_policy)
        return Refusal(RefusalKind.NOT_ALLOWED, denial(self._identity, "Publish", stream))


class _AllowedSubscription:
    """Ends before the first message that its client may not read any more, because other rules were loaded."""

    def __init__(self, subscription: Subscription, permissions: Permissions, identity: str, stream: str) -> None:
        self._subscription = subscription
        self._permissions = permissions
        self._identity = identity
        self._stream = stream

    async def read(self, max_bytes: int) -> bytes:
        framed = await self._subscription.read(max_bytes)
        self._permissions.check(self._identity, "Subscribe", self._stream)
        return framed

    def close(self) -> None:
        self._subscription.close()
