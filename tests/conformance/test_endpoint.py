"""Every endpoint against its suite: those for clients driven by a client of their format."""

from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import Any, ClassVar

import grpc
import pytest
from registered import ProviderName, create

from liftbridge.errors import Status
from liftbridge.interfaces.endpoint import Endpoint
from liftbridge.interfaces.provider import Seam
from liftbridge.protocol.generated import api_pb2 as api
from liftbridge.testing.endpoint_lifecycle_suite import EndpointLifecycleSuite
from liftbridge.testing.endpoint_suite import (
    CallFailed,
    ClientSession,
    ClientSubscription,
    EndpointClient,
    EndpointSuite,
)
from liftbridge.testing.scripted_broker import ScriptedBroker


async def _checked(call: Awaitable[Any]) -> Any:
    try:
        response = await call
    except grpc.aio.AioRpcError as error:
        raise CallFailed(Status(error.code().value[0]), error.details() or "") from None
    return None if response is grpc.aio.EOF else response


class GrpcSession(ClientSession):
    def __init__(self, call: Any) -> None:
        self._call = call

    async def send(self, request: api.PublishRequest) -> None:
        await _checked(self._call.write(request))

    async def receive(self) -> Any:
        return await _checked(self._call.read())

    async def finish(self) -> None:
        await self._call.done_writing()

    def abort(self) -> None:
        self._call.cancel()


class GrpcSubscription(ClientSubscription):
    def __init__(self, call: Any) -> None:
        self._call = call

    async def receive(self) -> Any:
        return await _checked(self._call.read())

    def cancel(self) -> None:
        self._call.cancel()


class GrpcClient(EndpointClient):
    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel

    async def call(self, method: str, request: Any, *, timeout_s: float | None = None) -> Any:
        call = self._channel.unary_unary(
            f"/proto.API/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=getattr(api, f"{method}Response").FromString,
        )
        return await _checked(call(request, timeout=timeout_s))

    def publish_session(self) -> ClientSession:
        call = self._channel.stream_stream(
            "/proto.API/PublishAsync",
            request_serializer=api.PublishRequest.SerializeToString,
            response_deserializer=api.PublishResponse.FromString,
        )
        return GrpcSession(call())

    def subscribe(self, request: api.SubscribeRequest) -> ClientSubscription:
        call = self._channel.unary_stream(
            "/proto.API/Subscribe",
            request_serializer=api.SubscribeRequest.SerializeToString,
            response_deserializer=api.Message.FromString,
        )
        return GrpcSubscription(call(request))


class TestGrpc(EndpointSuite):
    provider: ClassVar[ProviderName] = (Seam.ENDPOINT, "grpc")

    @pytest.fixture
    def endpoint(self, broker: ScriptedBroker, tmp_path: Path) -> Endpoint:
        settings = {"endpoint.grpc.host": "127.0.0.1", "endpoint.grpc.port": 0}
        endpoint: Endpoint = create(self.provider, tmp_path, settings, broker=broker)
        return endpoint

    @pytest.fixture
    async def client(self, started: Endpoint) -> AsyncIterator[EndpointClient]:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{started.port}") as channel:
            yield GrpcClient(channel)


class TestPrometheus(EndpointLifecycleSuite):
    provider: ClassVar[ProviderName] = (Seam.ENDPOINT, "prometheus")

    @pytest.fixture
    def endpoint(self, broker: ScriptedBroker, tmp_path: Path) -> Endpoint:
        settings = {"endpoint.prometheus.listen": "127.0.0.1:0"}
        endpoint: Endpoint = create(self.provider, tmp_path, settings, broker=broker)
        return endpoint
