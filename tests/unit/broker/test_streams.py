"""CreateStream at a server whose metadata is behind."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from liftbridge.broker.streams import EncryptionRules, StreamHandlers
from liftbridge.clock import SystemClock
from liftbridge.errors import InvalidRequest
from liftbridge.protocol.generated import api_pb2 as api


class LaggingController:
    """Knows two of the three servers until it catches up."""

    def __init__(self) -> None:
        self.known = ["a", "b"]
        self.caught_up = 0
        self.created: list[dict[str, Any]] = []

    def servers(self) -> list[str]:
        return self.known

    async def catch_up(self) -> None:
        self.caught_up += 1
        self.known = ["a", "b", "c"]

    async def create_stream(self, **fields: Any) -> SimpleNamespace:
        self.created.append(fields)
        return SimpleNamespace(stream_id=1)


class Leaders:
    async def wait_until_done(self, stream_id: int, index: int, timeout_s: float) -> None:
        pass


class Router:
    def validate(self, subject: str) -> None:
        pass

    def partition_subject(self, subject: str, number: int) -> str:
        return subject


async def create(replication_factor: int) -> LaggingController:
    controller = LaggingController()
    handlers = StreamHandlers(
        cast(Any, controller),
        Leaders(),
        cast(Any, Router()),
        SystemClock(),
        EncryptionRules(has_keys=False, default_for=lambda _: False),
    )
    request = api.CreateStreamRequest(name="s", subject="s", replicationFactor=replication_factor)
    await handlers.create_stream(request, cast(Any, SimpleNamespace(deadline_ns=None)))
    return controller


@pytest.mark.parametrize(("asked", "replicas"), [(3, 3), (-1, 3)])
async def test_a_server_that_came_just_now_counts(asked: int, replicas: int) -> None:
    controller = await create(asked)
    assert controller.caught_up == 1
    assert controller.created[0]["replication_factor"] == replicas


async def test_what_the_known_servers_are_enough_for_asks_nobody() -> None:
    assert (await create(2)).caught_up == 0


async def test_more_replicas_than_there_are_servers_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="cluster size 3"):
        await create(4)
