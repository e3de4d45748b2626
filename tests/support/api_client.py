"""The Liftbridge API over grpc.aio, as thin as can be: one method a call, messages in and out."""

from collections.abc import AsyncIterator
from typing import Any

import grpc

from liftbridge.protocol.generated import api_pb2 as api


class ApiClient:
    """Use as ``async with ApiClient(address) as client``. Calls by name: ``await client("CreateStream", name=...)``."""

    def __init__(self, address: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        if credentials is None:
            self.channel = grpc.aio.insecure_channel(address)
        else:
            self.channel = grpc.aio.secure_channel(address, credentials)

    async def __aenter__(self) -> "ApiClient":
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.channel.close()

    async def __call__(self, method: str, *, timeout: float | None = 10, **fields: Any) -> Any:
        call = self.channel.unary_unary(
            f"/proto.API/{method}",
            request_serializer=getattr(api, f"{method}Request").SerializeToString,
            response_deserializer=getattr(api, f"{method}Response").FromString,
        )
        return await call(getattr(api, f"{method}Request")(**fields), timeout=timeout)

    def publish_async(self) -> Any:
        """The two-way stream, for ``write`` and ``read``."""
        return self.channel.stream_stream(
            "/proto.API/PublishAsync",
            request_serializer=api.PublishRequest.SerializeToString,
            response_deserializer=api.PublishResponse.FromString,
        )()

    def subscribe(self, **fields: Any) -> Any:
        """The raw call, whose first message says "subscribed"."""
        return self.channel.unary_stream(
            "/proto.API/Subscribe",
            request_serializer=api.SubscribeRequest.SerializeToString,
            response_deserializer=api.Message.FromString,
        )(api.SubscribeRequest(**fields))

    async def messages(self, count: int | None = None, **fields: Any) -> list[api.Message]:
        """Subscribes and returns ``count`` messages, or, without a count, all until the stop that was asked for."""
        return [message async for message in self.iterate(count, **fields)]

    async def iterate(self, count: int | None = None, **fields: Any) -> AsyncIterator[api.Message]:
        call = self.subscribe(**fields)
        handshake = await call.read()
        assert handshake == api.Message(), "the first message must be empty"
        received = 0
        try:
            while received != count:
                message = await call.read()
                if message is grpc.aio.EOF:
                    return
                received += 1
                yield message
        except grpc.aio.AioRpcError as error:
            if count is not None or error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
        finally:
            call.cancel()


def fails_with(code: grpc.StatusCode, text: str) -> Any:
    """``with fails_with(code, text):`` for the error of a call."""
    import pytest

    return pytest.raises(grpc.aio.AioRpcError, check=lambda error: error.code() is code and text in error.details())
