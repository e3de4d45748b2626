"""What gRPC promises its clients, on a real broker with grpcio: deadlines, cancelling, compression, health, TLS."""

import asyncio
import contextlib
import socket
import ssl
from pathlib import Path
from typing import Any

import grpc
import pytest
from api_client import ApiClient, fails_with
from broker_process import BrokerProcess
from certificates import make_certificate
from grpc_health.v1 import health_pb2

from liftbridge.protocol.generated import api_pb2 as api

Code = grpc.StatusCode


async def create(client: ApiClient, stream: str) -> None:
    await client("CreateStream", name=stream, subject=stream)


# --- deadlines and cancelling -----------------------------------------------------------------------------------------


async def test_subscription_ends_at_its_deadline(client: ApiClient, stream: str) -> None:
    await create(client, stream)
    call = client.channel.unary_stream(
        "/proto.API/Subscribe",
        request_serializer=api.SubscribeRequest.SerializeToString,
        response_deserializer=api.Message.FromString,
    )(api.SubscribeRequest(stream=stream), timeout=0.3)
    assert await call.read() == api.Message()
    with fails_with(Code.DEADLINE_EXCEEDED, ""):
        await call.read()


async def test_publish_session_ends_at_its_deadline(client: ApiClient, stream: str) -> None:
    await create(client, stream)
    call = client.channel.stream_stream(
        "/proto.API/PublishAsync",
        request_serializer=api.PublishRequest.SerializeToString,
        response_deserializer=api.PublishResponse.FromString,
    )(timeout=0.3)
    await call.write(api.PublishRequest(stream=stream, value=b"x", correlationId="1"))
    assert (await call.read()).correlationId == "1"
    with fails_with(Code.DEADLINE_EXCEEDED, ""):
        await call.read()


async def test_publish_without_anybody_who_acks_ends_at_its_deadline(client: ApiClient) -> None:
    with fails_with(Code.DEADLINE_EXCEEDED, ""):
        await client("PublishToSubject", timeout=0.3, subject="nobody.listens", value=b"x")


async def test_cancelled_subscriptions_hold_no_places(client: ApiClient, stream: str) -> None:
    """Ten times as many as one connection may have open at a time would be refused."""
    await create(client, stream)
    for _ in range(20):
        calls = [client.subscribe(stream=stream) for _ in range(100)]
        assert [await call.read() for call in calls] == [api.Message()] * 100
        for call in calls:
            call.cancel()


async def test_many_calls_at_once_on_one_connection(client: ApiClient, stream: str) -> None:
    await create(client, stream)
    responses = await asyncio.gather(*(client("Publish", stream=stream, value=b"x") for _ in range(500)))
    assert sorted(response.ack.offset for response in responses) == list(range(500))


# --- messages ---------------------------------------------------------------------------------------------------------


async def test_compressed_requests_are_read(broker: BrokerProcess, stream: str) -> None:
    async with grpc.aio.insecure_channel(broker.address, compression=grpc.Compression.Gzip) as channel:
        client = ApiClient(broker.address)
        await client.channel.close()
        client.channel = channel
        await create(client, stream)
        await client("Publish", stream=stream, value=b"v" * 10_000)
        session = client.publish_async()
        for number in range(10):
            await session.write(api.PublishRequest(stream=stream, value=b"w" * 1000, correlationId=str(number)))
        assert [(await session.read()).correlationId for _ in range(10)] == [str(number) for number in range(10)]
        (first, *others) = await client.messages(11, stream=stream, startPosition=api.EARLIEST)
        assert first.value == b"v" * 10_000
        assert [one.value for one in others] == [b"w" * 1000] * 10


async def test_errors_keep_their_letters(client: ApiClient) -> None:
    with fails_with(Code.NOT_FOUND, "no such stream: größe-流"):
        await client("Publish", stream="größe-流", value=b"x")


@pytest.mark.parametrize(
    ("path", "text"),
    [("/proto.API/Nonsense", "unknown method Nonsense"), ("/no.Service/Call", "unknown service no.Service")],
)
async def test_unknown_calls_are_named(client: ApiClient, path: str, text: str) -> None:
    with fails_with(Code.UNIMPLEMENTED, text):
        await client.channel.unary_unary(path)(b"")


async def test_bytes_that_are_no_request_are_an_error_of_the_call(client: ApiClient, stream: str) -> None:
    for method in ("Publish", "CreateStream", "FetchMetadata"):
        with fails_with(Code.INTERNAL, "unmarshalling"):
            await client.channel.unary_unary(f"/proto.API/{method}")(b"\xff\xff\xff")
    await create(client, stream)


# --- health -----------------------------------------------------------------------------------------------------------


def health(channel: grpc.aio.Channel, method: str, service: str) -> Any:
    make = channel.unary_unary if method == "Check" else channel.unary_stream
    return make(
        f"/grpc.health.v1.Health/{method}",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )(health_pb2.HealthCheckRequest(service=service), timeout=10)


@pytest.mark.parametrize("service", ["", "proto.API"])
async def test_health_of_a_broker_that_serves(client: ApiClient, service: str) -> None:
    assert (await health(client.channel, "Check", service)).status == health_pb2.HealthCheckResponse.SERVING


async def test_health_of_an_unknown_service(client: ApiClient) -> None:
    with fails_with(Code.NOT_FOUND, ""):
        await health(client.channel, "Check", "nothing")


async def test_watching_health_tells_when_the_broker_stops(new_broker: BrokerProcess) -> None:
    new_broker.start()
    async with ApiClient(new_broker.address) as client:
        watch = health(client.channel, "Watch", "")
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        stopping = asyncio.create_task(asyncio.to_thread(new_broker.stop))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert await stopping == 0


# --- TLS --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


async def test_clients_with_tls_are_served_and_those_without_http2_hung_up_on(
    new_broker: BrokerProcess, folder: Path
) -> None:
    files = make_certificate(folder)
    new_broker.arguments += ["--tls-cert", str(files.cert), "--tls-key", str(files.key)]
    new_broker.launch()
    credentials = grpc.ssl_channel_credentials(files.cert.read_bytes())
    async with grpc.aio.secure_channel(f"localhost:{new_broker.port}", credentials) as channel:
        await asyncio.wait_for(channel.channel_ready(), 20)
        client = ApiClient(new_broker.address)
        await client.channel.close()
        client.channel = channel
        await create(client, "secret")
        assert (await client("Publish", stream="secret", value=b"x")).ack.offset == 0
        assert [one.value for one in await client.messages(1, stream="secret", startPosition=api.EARLIEST)] == [b"x"]
        (server,) = (await client("FetchMetadata")).brokers
        assert server.host == "127.0.0.1", "the host that was configured"
        await asyncio.to_thread(hung_up_without_http2, new_broker.port)
        await client("Publish", stream="secret", value=b"y")


def hung_up_without_http2(port: int) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        context.wrap_socket(plain) as tls,
        contextlib.suppress(ConnectionResetError, ssl.SSLEOFError),
    ):
        assert tls.recv(100) == b""
