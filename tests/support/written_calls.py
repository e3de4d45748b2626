"""Calls of subscriptions whose answers a test writes."""

import asyncio
from collections.abc import Callable
from typing import Any

from liftbridge.errors import RequestError
from liftbridge.protocol.generated import api_pb2 as api

ACCEPTED = api.Message().SerializeToString()


class Call:
    """One that connects at once, and accepts the subscription."""

    def __init__(
        self, on_responses: Callable[[list[bytes]], None], on_end: Callable[[RequestError | None], None]
    ) -> None:
        self.bring = on_responses
        self.end = on_end
        self.request = api.SubscribeRequest()
        self.acknowledged: list[bytes] = []
        self.closed = asyncio.Event()

    def send(self, request: bytes) -> None:
        self.request.ParseFromString(request)

    def send_no_more(self) -> None:
        pass

    async def connect(self, timeout_s: float) -> None:
        self.bring([ACCEPTED])

    def acknowledge(self, responses: list[bytes]) -> None:
        self.acknowledged += responses

    def close(self) -> None:
        self.closed.set()


class OneBroker:
    """Leads everything."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    async def stream(self, *_: Any, **__: Any) -> None:
        pass

    def leader_address(self, *_: Any) -> str:
        return "leader:1"

    def stream_call(self, address: str, method: str, **callbacks: Any) -> Call:
        self.calls.append(Call(**callbacks))
        return self.calls[-1]


def messages(*offsets: int) -> list[bytes]:
    return [api.Message(offset=offset).SerializeToString() for offset in offsets]
