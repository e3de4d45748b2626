"""What every endpoint must do, whatever its wire format. Subclass :class:`EndpointSuite`, give it ``endpoint`` and a
``client`` of your format, and run pytest with pytest-asyncio in auto mode."""

import asyncio
from abc import ABC, abstractmethod
from typing import Any

import pytest

from liftbridge.errors import FailedPrecondition, LiftbridgeError, NotFound, ResourceExhausted, Status, Unavailable
from liftbridge.interfaces.endpoint import Endpoint
from liftbridge.protocol.generated import api_pb2 as api
from liftbridge.testing.endpoint_lifecycle_suite import EndpointLifecycleSuite
from liftbridge.testing.scripted_broker import ScriptedBroker, frame

_TIMEOUT_S = 10.0


class CallFailed(Exception):
    """A call ended with an error, as the client was told."""

    def __init__(self, status: Status, text: str) -> None:
        super().__init__(f"{status.name}: {text}")
        self.status = status
        self.text = text


class ClientSession(ABC):
    """A PublishAsync call, from the client's side."""

    @abstractmethod
    async def send(self, request: api.PublishRequest) -> None:
        """Waits while the endpoint doesn't read."""

    @abstractmethod
    async def receive(self) -> api.PublishResponse | None:
        """The next answer; None at the end. Raises CallFailed."""

    @abstractmethod
    async def finish(self) -> None:
        """There are no more requests."""

    @abstractmethod
    def abort(self) -> None:
        """The client goes away."""


class ClientSubscription(ABC):
    """A Subscribe call, from the client's side."""

    @abstractmethod
    async def receive(self) -> api.Message | None:
        """The next message; None at the end. Raises CallFailed."""

    @abstractmethod
    def cancel(self) -> None:
        """The client goes away."""


class EndpointClient(ABC):
    """How the suite talks to the endpoint: what an author of one writes once, over a client library of the format."""

    @abstractmethod
    async def call(self, method: str, request: Any, *, timeout_s: float | None = None) -> Any:
        """Any call but PublishAsync and Subscribe. Returns the response, raises CallFailed. ``timeout_s`` is a deadline
        that the endpoint is told."""

    @abstractmethod
    def publish_session(self) -> ClientSession:
        """Opens a PublishAsync call."""

    @abstractmethod
    def subscribe(self, request: api.SubscribeRequest) -> ClientSubscription:
        """Opens a Subscribe call."""


def value(number: int) -> api.PublishRequest:
    """A message that tells its number."""
    return api.PublishRequest(stream="s", value=b"%d" % number, correlationId=str(number))


def message(offset: int, size_bytes: int = 10) -> api.Message:
    """A message that tells its offset."""
    return api.Message(offset=offset, value=bytes(size_bytes))


async def soon(event: asyncio.Event) -> None:
    """Fails when it takes too long."""
    async with asyncio.timeout(_TIMEOUT_S):
        await event.wait()


class EndpointSuite(EndpointLifecycleSuite):
    """The tests. ``endpoint`` and ``client`` must be overridden."""

    @pytest.fixture
    def client(self, started: Endpoint) -> EndpointClient:
        raise NotImplementedError("override the fixture client: connected to started.port")

    # --- calls --------------------------------------------------------------------------------------------------------

    async def test_a_request_reaches_its_handler_and_the_response_the_client(
        self, broker: ScriptedBroker, client: EndpointClient
    ) -> None:
        broker.answers["FetchCursor"] = api.FetchCursorResponse(offset=77)
        response = await client.call("FetchCursor", api.FetchCursorRequest(stream="s", cursorId="c"))
        assert response == api.FetchCursorResponse(offset=77)
        assert broker.requests == [("FetchCursor", api.FetchCursorRequest(stream="s", cursorId="c"))]

    async def test_every_call_has_a_handler(self, broker: ScriptedBroker, client: EndpointClient) -> None:
        for method in broker.unary_handlers():
            request = getattr(api, f"{method}Request")()
            assert await client.call(method, request) == getattr(api, f"{method}Response")()
        assert [name for name, _ in broker.requests] == list(broker.unary_handlers())

    @pytest.mark.parametrize("error", [NotFound("no such stream"), FailedPrecondition("paused: ü"), Unavailable("")])
    async def test_an_error_arrives_with_its_status_and_text(
        self, broker: ScriptedBroker, client: EndpointClient, error: LiftbridgeError
    ) -> None:
        broker.answers["DeleteStream"] = error
        with pytest.raises(CallFailed) as caught:
            await client.call("DeleteStream", api.DeleteStreamRequest(name="s"))
        assert (caught.value.status, caught.value.text) == (error.status, str(error))

    async def test_a_bug_is_an_internal_error_that_tells_no_secrets(
        self, broker: ScriptedBroker, client: EndpointClient
    ) -> None:
        broker.answers["DeleteStream"] = ZeroDivisionError("the password is 1234")
        with pytest.raises(CallFailed) as caught:
            await client.call("DeleteStream", api.DeleteStreamRequest(name="s"))
        assert caught.value.status is Status.INTERNAL
        assert "1234" not in caught.value.text

    async def test_a_slow_call_holds_up_no_other(self, broker: ScriptedBroker, client: EndpointClient) -> None:
        reached, go_on = asyncio.Event(), asyncio.Event()

        async def slow(request: Any, call: Any) -> Any:
            reached.set()
            await go_on.wait()
            return api.CreateStreamResponse()

        broker.answers["CreateStream"] = slow
        waiting = asyncio.ensure_future(client.call("CreateStream", api.CreateStreamRequest(name="s")))
        await soon(reached)
        assert await client.call("FetchMetadata", api.FetchMetadataRequest()) == api.FetchMetadataResponse()
        assert not waiting.done()
        go_on.set()
        assert await waiting == api.CreateStreamResponse()

    async def test_a_deadline_ends_the_call_and_its_handler(
        self, broker: ScriptedBroker, client: EndpointClient
    ) -> None:
        ended = asyncio.Event()

        async def endless(request: Any, call: Any) -> Any:
            assert call.deadline_ns is not None
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        broker.answers["CreateStream"] = endless
        with pytest.raises(CallFailed) as caught:
            await client.call("CreateStream", api.CreateStreamRequest(name="s"), timeout_s=0.2)
        assert caught.value.status is Status.DEADLINE_EXCEEDED
        await soon(ended)

    # --- publishing ---------------------------------------------------------------------------------------------------

    async def test_publish_returns_the_ack(self, broker: ScriptedBroker, client: EndpointClient) -> None:
        response = await client.call("Publish", value(5))
        assert (response.ack.stream, response.ack.correlationId) == ("s", "5")
        assert broker.requests == [("Publish", value(5))]

    async def test_publish_that_fails_says_why(self, broker: ScriptedBroker, client: EndpointClient) -> None:
        broker.publish_outcome = ResourceExhausted("the disk is full")
        with pytest.raises(CallFailed) as caught:
            await client.call("Publish", value(5))
        assert (caught.value.status, caught.value.text) == (Status.RESOURCE_EXHAUSTED, "the disk is full")

    async def test_a_session_takes_messages_in_order_and_answers_each(
        self, broker: ScriptedBroker, client: EndpointClient
    ) -> None:
        session = client.publish_session()
        for number in range(500):
            await session.send(value(number))
        answers = [await session.receive() for _ in range(500)]
        assert [answer and answer.correlationId for answer in answers] == [str(number) for number in range(500)]
        assert broker.sessions[0].received == [value(number) for number in range(500)]
        session.abort()

    async def test_a_session_that_the_client_finishes_ends_without_an_error(
        self, broker: ScriptedBroker, client: EndpointClient
    ) -> None:
        session = client.publish_session()
        await session.send(value(0))
        await session.finish()
        assert await session.receive() is not None
        assert await session.receive() is None
        assert broker.sessions[0].finished

    async def test_a_client_that_goes_away_aborts_its_session(
        self, broker: ScriptedBroker, client: EndpointClient
    ) -> None:
        session = client.publish_session()
        await session.send(value(0))
        await session.receive()
        session.abort()
        await soon(broker.sessions[0].aborted)

    async def test_a_client_is_not_read_while_its_session_asks_to_wait(
        self, broker: ScriptedBroker, client: EndpointClient
    ) -> None:
        """What is on the way already may still be handed over, and no more."""
        broker.session_room = 10
        session = client.publish_session()
        count, size_bytes = 1200, 50_000
        sending = asyncio.ensure_future(_send_all(session, count, size_bytes))
        answers = [await session.receive() for _ in range(10)]
        scripted = broker.sessions[0]
        received = -1
        while len(scripted.received) != received:  # until it stands still
            received = len(scripted.received)
            await asyncio.sleep(0.1)
        assert received < count / 2
        scripted.resume(1 << 30)
        answers += [await session.receive() for _ in range(count - 10)]
        await sending
        assert [answer and answer.correlationId for answer in answers] == [str(number) for number in range(count)]
        session.abort()

    # --- subscribing --------------------------------------------------------------------------------------------------

    async def test_a_subscription_begins_with_an_empty_message_and_goes_on_in_order(
        self, broker: ScriptedBroker, client: EndpointClient
    ) -> None:
        chunks = [b"".join(frame(message(10 * chunk + i)) for i in range(10)) for chunk in range(20)]
        broker.source = _source(chunks, Unavailable("no more"))
        subscription = client.subscribe(api.SubscribeRequest(stream="s"))
        assert await subscription.receive() == api.Message()
        assert [await subscription.receive() for _ in range(200)] == [message(offset) for offset in range(200)]
        with pytest.raises(CallFailed) as caught:
            await subscription.receive()
        assert (caught.value.status, caught.value.text) == (Status.UNAVAILABLE, "no more")

    async def test_a_subscription_may_end_without_an_error(
        self, broker: ScriptedBroker, client: EndpointClient
    ) -> None:
        broker.source = _source([frame(message(0))], None)
        subscription = client.subscribe(api.SubscribeRequest(stream="s"))
        assert [await subscription.receive() for _ in range(3)] == [api.Message(), message(0), None]
        await soon(broker.subscriptions[0].closed)

    async def test_a_refused_subscription_says_why(self, broker: ScriptedBroker, client: EndpointClient) -> None:
        broker.subscribe_outcome = NotFound("no such partition")
        with pytest.raises(CallFailed) as caught:
            await client.subscribe(api.SubscribeRequest(stream="s", partition=9)).receive()
        assert (caught.value.status, caught.value.text) == (Status.NOT_FOUND, "no such partition")
        assert broker.requests == [("Subscribe", api.SubscribeRequest(stream="s", partition=9))]

    async def test_a_client_that_goes_away_closes_its_subscription(
        self, broker: ScriptedBroker, client: EndpointClient
    ) -> None:
        subscription = client.subscribe(api.SubscribeRequest(stream="s"))
        await subscription.receive()
        subscription.cancel()
        await soon(broker.subscriptions[0].closed)

    async def test_a_client_that_does_not_read_is_not_read_for(
        self, broker: ScriptedBroker, client: EndpointClient
    ) -> None:
        chunk = b"".join(frame(message(number, 60_000)) for number in range(4))

        async def endless() -> bytes:
            await asyncio.sleep(0)
            return chunk

        broker.source = endless
        subscription = client.subscribe(api.SubscribeRequest(stream="s"))
        await subscription.receive()
        read_bytes = -1
        while broker.subscriptions[0].read_bytes != read_bytes:  # until it stands still
            read_bytes = broker.subscriptions[0].read_bytes
            assert read_bytes < 64 * 1024 * 1024
            await asyncio.sleep(0.2)
        subscription.cancel()

    # --- stopping -----------------------------------------------------------------------------------------------------

    async def test_stopping_lets_running_calls_end(
        self, broker: ScriptedBroker, client: EndpointClient, started: Endpoint
    ) -> None:
        reached, go_on = asyncio.Event(), asyncio.Event()

        async def slow(request: Any, call: Any) -> Any:
            reached.set()
            await go_on.wait()
            return api.CreateStreamResponse()

        broker.answers["CreateStream"] = slow
        waiting = asyncio.ensure_future(client.call("CreateStream", api.CreateStreamRequest(name="s")))
        await soon(reached)
        stopping = asyncio.ensure_future(started.stop(grace_s=_TIMEOUT_S))
        await asyncio.sleep(0.05)
        go_on.set()
        assert await waiting == api.CreateStreamResponse()
        async with asyncio.timeout(_TIMEOUT_S / 2):
            await stopping

    async def test_stopping_ends_what_would_not_end_as_unavailable(
        self, broker: ScriptedBroker, client: EndpointClient, started: Endpoint
    ) -> None:
        subscription = client.subscribe(api.SubscribeRequest(stream="s"))
        await subscription.receive()
        async with asyncio.timeout(_TIMEOUT_S / 2):
            await started.stop(grace_s=0.2)
        with pytest.raises(CallFailed) as caught:
            await subscription.receive()
        assert caught.value.status is Status.UNAVAILABLE
        await soon(broker.subscriptions[0].closed)

    async def test_after_stopping_nobody_is_served(self, client: EndpointClient, started: Endpoint) -> None:
        await started.stop(grace_s=0.1)
        await started.stop(grace_s=0.1)
        with pytest.raises(CallFailed):
            await client.call("FetchMetadata", api.FetchMetadataRequest(), timeout_s=0.5)


async def _send_all(session: ClientSession, count: int, size_bytes: int) -> None:
    for number in range(count):
        await session.send(api.PublishRequest(stream="s", value=bytes(size_bytes), correlationId=str(number)))


def _source(chunks: list[bytes], end: LiftbridgeError | None) -> Any:
    """Each chunk once, then the end."""
    left = iter(chunks)

    async def next_chunk() -> bytes:
        chunk = next(left, None)
        if chunk is None and end is not None:
            raise end
        return chunk or b""

    return next_chunk
