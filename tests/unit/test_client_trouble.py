"""Failures of a consumer: those that last are told to people, and those that no try can change end it."""

import logging
from types import SimpleNamespace
from typing import Any, cast

import pytest

from liftbridge.client import Consumer, trouble
from liftbridge.client.brokers import Brokers
from liftbridge.client.metadata import ClusterMetadata, Group, Stream
from liftbridge.client.trouble import Trouble
from liftbridge.errors import (
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    RequestError,
    Unavailable,
    Unimplemented,
)
from liftbridge.protocol.generated import api_pb2 as api


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The time that failures see."""
    clock = SimpleNamespace(s=100.0)
    monkeypatch.setattr(trouble, "time", SimpleNamespace(monotonic=lambda: clock.s))
    return clock


def _warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_failures_that_last_are_warned_of_and_so_is_their_end(
    now: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    reading = Trouble("reading")
    for _ in range(40):
        reading.failed(Unavailable("away"))
        now.s += 1
    reading.over()
    assert _warnings(caplog) == [
        "reading: failing for 5 s, and tried on: away",
        "reading: failing for 35 s, and tried on: away",
        "reading: works again after 40 s",
    ]
    assert len(caplog.records) == 41


def test_failures_between_which_it_works_are_no_trouble(now: SimpleNamespace, caplog: pytest.LogCaptureFixture) -> None:
    reading = Trouble("reading")
    for _ in range(9):
        reading.failed(Unavailable("away"))
        now.s += 2
        reading.over()
    assert _warnings(caplog) == []


class Cluster:
    """Has a stream and a group, and answers as a test wants."""

    def __init__(self, answers: dict[str, RequestError | api.FetchConsumerGroupAssignmentsResponse]) -> None:
        self.answers = answers
        self.streams = {"s": Stream("s", "s", 1, ())}

    async def stream(self, name: str, *_: Any, **__: Any) -> None:
        pass

    async def fetch(self, *_: Any) -> ClusterMetadata:
        return ClusterMetadata({}, self.streams, {"g": Group("g", "a", 1)})

    async def address_of(self, *_: Any) -> str:
        return "a:1"

    async def call(self, method: str, *_: Any, **__: Any) -> Any:
        answer = self.answers[method]
        if isinstance(answer, RequestError):
            raise answer
        return answer

    async def call_until_done(self, method: str, *_: Any) -> Any:
        if method in self.answers:
            return await self.call(method)
        return getattr(api, f"{method}Response")(
            consumerTimeout=int(1e7), coordinatorTimeout=int(1e11), coordinator="a", epoch=1
        )

    async def call_leader(self, method: str, *_: Any, **__: Any) -> Any:
        return await self.call(method)


_NOTHING = api.FetchConsumerGroupAssignmentsResponse(epoch=1)
_ONE = api.FetchConsumerGroupAssignmentsResponse(
    epoch=1, assignments=[api.PartitionAssignment(stream="s", partitions=[0])]
)


async def _first_message_of(cluster: Cluster) -> object:
    consumer = Consumer(cast(Brokers, cluster), "g", ["s"])
    try:
        await consumer.__aenter__()
        return await anext(consumer)
    finally:
        cluster.answers["LeaveConsumerGroup"] = NotFound("no such group")
        await consumer.__aexit__()


@pytest.mark.timeout(20)
@pytest.mark.parametrize("error", [PermissionDenied("no"), Unimplemented("never heard"), InvalidRequest("bad")])
@pytest.mark.parametrize("method", ["FetchConsumerGroupAssignments", "FetchCursor"])
async def test_what_no_try_can_change_is_raised(error: RequestError, method: str) -> None:
    cluster = Cluster({"FetchConsumerGroupAssignments": _ONE, method: error})
    with pytest.raises(type(error), match=str(error)):
        await _first_message_of(cluster)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("instead", [{}, {"s": Stream("s", "s", 2, ())}], ids=["deleted", "created anew"])
async def test_a_member_whose_streams_are_gone_hears_so(
    instead: dict[str, Stream], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("liftbridge.client.membership._LOOK_EVERY_S", 0.0)
    cluster = Cluster({})

    async def answer(method: str, *_: Any, **__: Any) -> Any:
        cluster.streams = instead
        return _NOTHING

    cluster.call = answer  # type: ignore[method-assign]
    with pytest.raises(NotFound, match="consumer group g: deleted, so there is nothing to read: s"):
        await _first_message_of(cluster)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("method", ["FetchConsumerGroupAssignments", "FetchCursor"])
async def test_a_bug_is_raised_too_instead_of_silence(method: str) -> None:
    cluster = Cluster({"FetchConsumerGroupAssignments": _ONE})
    cluster.answers.pop(method, None)
    with pytest.raises(KeyError):
        await _first_message_of(cluster)


@pytest.mark.timeout(20)
async def test_a_member_that_was_given_up_and_cannot_join_again_hears_so() -> None:
    cluster = Cluster({})

    async def answer(method: str, *_: Any, **__: Any) -> Any:
        cluster.streams = {}
        cluster.answers["JoinConsumerGroup"] = FailedPrecondition("stream does not exist")
        cluster.call = Cluster.call.__get__(cluster)  # type: ignore[method-assign]
        raise FailedPrecondition("consumer is not a member of the consumer group")

    cluster.call = answer  # type: ignore[method-assign]
    with pytest.raises(NotFound, match="nothing to read: s"):
        await _first_message_of(cluster)
