"""Authorization around the broker: what is asked, when, how often, and what a client hears."""

import asyncio
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from liftbridge.broker.api import CallContext
from liftbridge.broker.authorization import AuthorizedBroker, Permissions
from liftbridge.errors import ConfigError, NotFound, PermissionDenied
from liftbridge.interfaces.authorizer import Authorizer
from liftbridge.partition.refusal import Refusal, RefusalKind
from liftbridge.protocol.generated import api_pb2 as api
from liftbridge.testing.scripted_broker import ScriptedBroker, frame, unframe

ALICE, NOBODY = CallContext(identity="alice"), CallContext()
Question = tuple[str, str, str]


class Rules(Authorizer):
    """Allows what is in the set; remembers what it was asked."""

    def __init__(self, *allowed: Question) -> None:
        self.allowed = set(allowed)
        self.asked: list[Question] = []
        self.mistake: Exception | None = None

    async def load(self) -> None:
        if self.mistake is not None:
            raise self.mistake

    def allows(self, identity: str, method: str, resource: str) -> bool:
        self.asked.append((identity, method, resource))
        return (identity, method, resource) in self.allowed


class NoStreams:
    """Targets where no stream exists: what gets here was allowed."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def find(self, stream: str, partition: int, ack_policy: int) -> Refusal:
        self.found.append(stream)
        return Refusal(RefusalKind.NO_SUCH_PARTITION, f"no such stream: {stream}")


class Sink:
    def __init__(self) -> None:
        self.answers: list[api.PublishResponse] = []

    def send(self, framed: bytes) -> None:
        self.answers += [api.PublishResponse.FromString(one) for one in unframe(framed)]

    def resume(self) -> None:
        """Nothing waits."""


class World:
    """An authorized broker between a scripted one and rules."""

    def __init__(self, *allowed: Question) -> None:
        self.rules = Rules(*allowed)
        self.permissions = Permissions(self.rules)
        self.inner = ScriptedBroker()
        self.targets = NoStreams()
        publishing: Any = SimpleNamespace(
            targets=self.targets, inboxes=SimpleNamespace(next=lambda: "inbox"), refusal_for_size=lambda _size: None
        )
        self.broker = AuthorizedBroker(self.inner, publishing, self.permissions)


def denied(method: str, resource: str) -> Any:
    text = f"The client is not authorized to call {method} on resource {resource}"
    return pytest.raises(PermissionDenied, check=lambda error: str(error) == text)


# --- unary calls ------------------------------------------------------------------------------------------------------

CALLS: dict[str, tuple[Any, str]] = {
    "CreateStream": (api.CreateStreamRequest(name="s", subject="x"), "s"),
    "DeleteStream": (api.DeleteStreamRequest(name="s"), "s"),
    "PauseStream": (api.PauseStreamRequest(name="s"), "s"),
    "SetStreamReadonly": (api.SetStreamReadonlyRequest(name="s"), "s"),
    "FetchMetadata": (api.FetchMetadataRequest(streams=["s"]), "*"),
    "FetchPartitionMetadata": (api.FetchPartitionMetadataRequest(stream="s"), "s"),
    "PublishToSubject": (api.PublishToSubjectRequest(subject="a.b"), "a.b"),
    "SetCursor": (api.SetCursorRequest(stream="s", cursorId="c"), "s"),
    "FetchCursor": (api.FetchCursorRequest(stream="s", cursorId="c"), "s"),
    "JoinConsumerGroup": (api.JoinConsumerGroupRequest(groupId="g", streams=["s"]), "g"),
    "LeaveConsumerGroup": (api.LeaveConsumerGroupRequest(groupId="g"), "g"),
    "FetchConsumerGroupAssignments": (api.FetchConsumerGroupAssignmentsRequest(groupId="g"), "g"),
    "ReportConsumerGroupCoordinator": (api.ReportConsumerGroupCoordinatorRequest(groupId="g"), "g"),
}


def test_every_call_of_the_api_is_tested_here() -> None:
    methods = {method.name for method in api.DESCRIPTOR.services_by_name["API"].methods}
    assert methods == set(CALLS) | {"Publish", "PublishAsync", "Subscribe"}


@pytest.mark.parametrize("method", CALLS)
async def test_a_unary_call_is_passed_on_only_where_its_resource_is_allowed(method: str) -> None:
    request, resource = CALLS[method]
    world = World(("alice", method, resource), ("bob", "Other", resource), ("bob", method, "other"))
    handler = world.broker.unary_handlers()[method]
    world.inner.answers[method] = answer = getattr(api, f"{method}Response")()
    assert await handler(request, ALICE) is answer
    assert world.inner.requests == [(method, request)]
    assert world.inner.calls == [ALICE]
    with denied(method, resource):
        await handler(request, CallContext(identity="bob"))
    assert len(world.inner.requests) == 1


def test_a_call_whose_resource_nobody_knows_is_not_offered() -> None:
    world = World()
    unary = {"Dance": lambda request, call: asyncio.sleep(0)}
    world.inner.unary_handlers = lambda: unary  # type: ignore[method-assign]
    with pytest.raises(KeyError, match="Dance"):
        world.broker.unary_handlers()


async def test_who_has_no_verified_name_may_do_nothing_whatever_the_rules() -> None:
    world = World(("", "FetchMetadata", "*"))
    with pytest.raises(PermissionDenied, match="Common Name"):
        await world.broker.unary_handlers()["FetchMetadata"](api.FetchMetadataRequest(), NOBODY)
    assert world.rules.asked == []


async def test_acks_to_a_subject_of_the_clients_choice_are_publishing_to_it() -> None:
    world = World(("alice", "Publish", "s"), ("alice", "PublishToSubject", "s"), ("alice", "PublishToSubject", "mine"))
    publish = world.broker.unary_handlers()["PublishToSubject"]
    with denied("PublishToSubject", "yours"):
        await publish(api.PublishToSubjectRequest(subject="s", ackInbox="yours"), ALICE)
    with denied("PublishToSubject", "yours"):
        world.broker.publish(api.PublishRequest(stream="s", ackInbox="yours").SerializeToString(), ALICE, Reply())
    assert world.inner.requests == []
    await publish(api.PublishToSubjectRequest(subject="s", ackInbox="mine"), ALICE)
    world.broker.publish(api.PublishRequest(stream="s", ackInbox="mine").SerializeToString(), ALICE, Reply())
    assert len(world.inner.requests) == 2


# --- publishing -------------------------------------------------------------------------------------------------------


class Reply:
    """A Publish call's answer."""

    def __init__(self) -> None:
        self.response: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def succeed(self, response: bytes) -> None:
        self.response.set_result(response)

    def fail(self, error: BaseException) -> None:
        self.response.set_exception(error)


async def test_a_publish_is_passed_on_only_to_streams_that_are_allowed() -> None:
    world = World(("alice", "Publish", "s"))
    reply = Reply()
    world.broker.publish(api.PublishRequest(stream="s", value=b"x").SerializeToString(), ALICE, reply)
    assert api.PublishResponse.FromString(await reply.response).ack.stream == "s"
    with denied("Publish", "t"):
        world.broker.publish(api.PublishRequest(stream="t").SerializeToString(), ALICE, reply)
    assert [request.stream for _, request in world.inner.requests] == ["s"]


async def test_a_stream_that_is_named_twice_in_one_request_is_the_last_one() -> None:
    """That is what protobuf makes of it, and so what is published to."""
    world = World(("alice", "Publish", "s"))
    twice = api.PublishRequest(stream="s").SerializeToString() + api.PublishRequest(stream="t").SerializeToString()
    with denied("Publish", "t"):
        world.broker.publish(twice, ALICE, Reply())
    sink = Sink()
    world.broker.publish_session(ALICE, sink).publish(b"\0" + len(twice).to_bytes(4, "big") + twice)
    assert [answer.asyncError.code for answer in sink.answers] == [api.PublishAsyncError.PERMISSION_DENIED]


async def test_a_session_refuses_what_is_not_allowed_and_goes_on() -> None:
    world = World(("alice", "Publish", "s"))
    sink = Sink()
    session = world.broker.publish_session(ALICE, sink)
    requests = [api.PublishRequest(stream=stream, correlationId=str(n)) for n, stream in enumerate("sttsst")]
    assert session.publish(b"".join(frame(request) for request in requests))
    text = "The client is not authorized to call Publish on resource t"
    assert [(one.correlationId, one.asyncError.message) for one in sink.answers] == [
        ("0", "no such stream: s"),
        ("1", text),
        ("2", text),
        ("3", "no such stream: s"),
        ("4", "no such stream: s"),
        ("5", text),
    ]
    assert sink.answers[1].asyncError.code == api.PublishAsyncError.PERMISSION_DENIED
    assert set(world.targets.found) == {"s"}
    await session.finish()


async def test_who_may_not_publish_does_not_hear_whether_the_stream_exists() -> None:
    world = World()
    sink = Sink()
    world.broker.publish_session(ALICE, sink).publish(frame(api.PublishRequest(stream="s", correlationId="1")))
    assert [one.asyncError.code for one in sink.answers] == [api.PublishAsyncError.PERMISSION_DENIED]
    assert world.targets.found == []


async def test_a_message_that_wants_no_ack_is_refused_aloud() -> None:
    world = World()
    sink = Sink()
    request = api.PublishRequest(stream="s", correlationId="1", ackPolicy=api.NONE)
    world.broker.publish_session(ALICE, sink).publish(frame(request))
    assert [one.asyncError.code for one in sink.answers] == [api.PublishAsyncError.PERMISSION_DENIED]


# --- subscribing ------------------------------------------------------------------------------------------------------


async def test_a_subscription_is_opened_only_where_it_is_allowed() -> None:
    world = World(("alice", "Subscribe", "s"))
    world.inner.subscribe_outcome = NotFound("No such partition")
    with denied("Subscribe", "t"):
        await world.broker.subscribe(api.SubscribeRequest(stream="t"), ALICE)
    assert world.inner.requests == [], "a denied member of a group displaces nobody"
    with pytest.raises(NotFound):
        await world.broker.subscribe(api.SubscribeRequest(stream="s"), ALICE)


async def test_a_subscription_ends_before_the_first_message_that_is_not_allowed_any_more() -> None:
    world = World(("alice", "Subscribe", "s"))
    chunks: asyncio.Queue[bytes] = asyncio.Queue()
    world.inner.source = chunks.get
    subscription = await world.broker.subscribe(api.SubscribeRequest(stream="s"), ALICE)
    chunks.put_nowait(b"one")
    assert await subscription.read(100) == b"one"
    waiting = asyncio.create_task(subscription.read(100))
    world.rules.allowed.clear()
    await world.permissions.load()
    chunks.put_nowait(b"two")
    with denied("Subscribe", "s"):
        await waiting
    subscription.close()
    assert world.inner.subscriptions[0].closed.is_set()


# --- answers that are remembered --------------------------------------------------------------------------------------


async def test_a_question_is_asked_once_until_there_are_other_rules() -> None:
    world = World(("alice", "Publish", "s"))
    session = world.broker.publish_session(ALICE, Sink())
    for _ in range(3):
        session.publish(frame(api.PublishRequest(stream="s")) + frame(api.PublishRequest(stream="t")))
    assert world.rules.asked == [("alice", "Publish", "s"), ("alice", "Publish", "t")]
    world.rules.allowed = {("alice", "Publish", "t")}
    assert not world.permissions.allows("alice", "Publish", "t"), "not loaded yet"
    await world.permissions.load()
    assert world.permissions.allows("alice", "Publish", "t")
    assert not world.permissions.allows("alice", "Publish", "s")


async def test_rules_that_cannot_be_loaded_change_nothing() -> None:
    world = World(("alice", "Publish", "s"))
    world.permissions.allows("alice", "Publish", "s")
    world.rules.mistake = ConfigError("line 3")
    with pytest.raises(ConfigError):
        await world.permissions.load()
    assert world.permissions.allows("alice", "Publish", "s")


@pytest.mark.parametrize("name", [lambda n: f"name-{n}", lambda n: f"{n}" * 100_000], ids=["many", "long"])
def test_names_that_clients_make_up_fill_no_memory(name: Callable[[int], str]) -> None:
    permissions = Permissions(Rules())
    for n in range(10_100 if len(name(1)) < 1000 else 10):
        permissions.allows("eve", "Publish", name(n))
    assert sum(len(resource) for _, _, resource in permissions._answers) < 200_000
    assert len(permissions._answers) <= 10_000


async def test_a_long_name_is_told_back_in_part() -> None:
    world = World()
    with denied("DeleteStream", "x" * 255):
        await world.broker.unary_handlers()["DeleteStream"](api.DeleteStreamRequest(name="x" * 5000), ALICE)


def test_denials_are_logged_for_who_looks_for_them(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "liftbridge.broker.authorization")
    permissions = Permissions(Rules())
    for _ in range(3):
        permissions.allows("eve", "Publish", "s")
    assert len(caplog.messages) == 1
    assert "eve" in caplog.text
