"""Clients with certificates: who gets in, whom the broker is told of, and what an operator may get wrong."""

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from certificates import Authority, Certificate
from cryptography.hazmat.primitives import serialization

from liftbridge.clock import SystemClock
from liftbridge.errors import ConfigError
from liftbridge.protocol.generated import api_pb2 as api
from liftbridge.testing.scripted_broker import ScriptedBroker, frame
from liftbridge_endpoint_grpc.server import GrpcEndpoint, ServerSettings
from liftbridge_endpoint_grpc.tls import TlsSettings, common_name, make_tls_context


@pytest.fixture
def broker() -> ScriptedBroker:
    return ScriptedBroker()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def settings(authority: Authority) -> TlsSettings:
    server = authority.server()
    return TlsSettings(str(server.cert), str(server.key), wants_clients=True, client_ca=str(authority.cert))


@asynccontextmanager
async def serving(broker: ScriptedBroker, settings: TlsSettings) -> AsyncIterator[GrpcEndpoint]:
    endpoint = GrpcEndpoint(broker, ServerSettings("127.0.0.1", 0, tls=make_tls_context(settings)), SystemClock())
    await endpoint.start()
    try:
        yield endpoint
    finally:
        await endpoint.stop(grace_s=0.1)


@pytest.fixture
async def endpoint(broker: ScriptedBroker, settings: TlsSettings) -> AsyncIterator[GrpcEndpoint]:
    async with serving(broker, settings) as endpoint:
        yield endpoint


def connect(endpoint: GrpcEndpoint, authority: Authority, client: Certificate | None = None) -> grpc.aio.Channel:
    files = (None, None) if client is None else (client.key.read_bytes(), client.cert.read_bytes())
    credentials = grpc.ssl_channel_credentials(authority.cert.read_bytes(), *files)
    return grpc.aio.secure_channel(f"localhost:{endpoint.port}", credentials)


async def fetch_metadata(channel: grpc.aio.Channel) -> None:
    call = channel.unary_unary(
        "/proto.API/FetchMetadata",
        request_serializer=api.FetchMetadataRequest.SerializeToString,
        response_deserializer=api.FetchMetadataResponse.FromString,
    )
    await call(api.FetchMetadataRequest(), timeout=5)


# --- who gets in ------------------------------------------------------------------------------------------------------


async def test_every_call_says_whose_certificate_it_comes_with(
    broker: ScriptedBroker, endpoint: GrpcEndpoint, authority: Authority
) -> None:
    async with connect(endpoint, authority, authority.client("alice")) as channel:
        await fetch_metadata(channel)
        await channel.unary_unary("/proto.API/Publish")(api.PublishRequest(stream="s").SerializeToString())
        session = channel.stream_stream("/proto.API/PublishAsync")()
        await session.write(api.PublishRequest(stream="s", correlationId="1").SerializeToString())
        await session.read()
        broker.source = one_message()
        assert await channel.unary_stream("/proto.API/Subscribe")(b"").read() == b""
    assert [call.identity for call in broker.calls] == ["alice"] * 4


def one_message() -> Any:
    async def source() -> bytes:
        return frame(api.Message(value=b"x"))

    return source


async def test_a_client_without_a_certificate_gets_no_call_through(
    broker: ScriptedBroker, endpoint: GrpcEndpoint, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with connect(endpoint, authority) as channel:
        with pytest.raises(grpc.aio.AioRpcError, check=lambda error: error.code() is grpc.StatusCode.UNAVAILABLE):
            await fetch_metadata(channel)
    assert broker.requests == []
    assert caplog.messages == [], "anybody can make lines in the log"
    async with connect(endpoint, authority, authority.client("alice")) as channel:
        await fetch_metadata(channel)


async def test_certificates_that_prove_nothing_are_refused(
    broker: ScriptedBroker, endpoint: GrpcEndpoint, authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "stranger")
    for certificate in (stranger.client("mallory"), authority.client("late", expired=True), authority.server()):
        async with connect(endpoint, authority, certificate) as channel:
            with pytest.raises(grpc.aio.AioRpcError, check=lambda error: error.code() is grpc.StatusCode.UNAVAILABLE):
                await fetch_metadata(channel)
    assert broker.requests == []


async def test_a_certificate_that_nobody_verifies_is_no_identity(
    broker: ScriptedBroker, authority: Authority, settings: TlsSettings
) -> None:
    async with (
        serving(broker, TlsSettings(settings.cert, settings.key)) as endpoint,
        connect(endpoint, authority, authority.client("alice")) as channel,
    ):
        await fetch_metadata(channel)
    assert [call.identity for call in broker.calls] == [""]


@pytest.mark.parametrize("names", [(), ("alice", "bob")])
async def test_a_certificate_that_does_not_say_clearly_whose_it_is_is_nobodys(
    broker: ScriptedBroker, endpoint: GrpcEndpoint, authority: Authority, names: tuple[str, ...]
) -> None:
    async with connect(endpoint, authority, authority.client(*names)) as channel:
        await fetch_metadata(channel)
    assert [call.identity for call in broker.calls] == [""]


async def test_a_resumed_tls_session_is_the_same_clients(
    settings: TlsSettings, authority: Authority, broker: ScriptedBroker
) -> None:
    """Without showing the certificate again, as clients do to save time."""
    client = authority.client("alice")
    context = ssl.create_default_context(cafile=str(authority.cert))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.load_cert_chain(client.cert, client.key)
    context.set_alpn_protocols(["h2"])
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with serving(broker, settings) as endpoint:
        first = await asyncio.to_thread(handshake, endpoint.port, context, None)
        names = {connection._identity for connection in endpoint._connections}
        second = await asyncio.to_thread(handshake, endpoint.port, context, first.session)
        names |= {connection._identity for connection in endpoint._connections}
        assert second.session_reused
        assert names == {"alice"}
        first.close()
        second.close()


def handshake(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None) -> ssl.SSLSocket:
    """Returns when the server has spoken HTTP/2."""
    plain = socket.create_connection(("127.0.0.1", port), timeout=10)
    tls = context.wrap_socket(plain, server_hostname="localhost", session=session)
    assert tls.recv(9)
    return tls


# --- what may be wrong ------------------------------------------------------------------------------------------------


def test_without_a_file_the_systems_authorities_are_trusted(
    settings: TlsSettings, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.cert))
    context = make_tls_context(TlsSettings(settings.cert, settings.key, wants_clients=True))
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED
    subjects = [common_name(one) for one in context.get_ca_certs()]
    assert "authority" in subjects


def test_settings_that_do_not_go_together_are_refused(settings: TlsSettings) -> None:
    for wrong, said in (
        (TlsSettings("", "", wants_clients=True), "needs TLS"),
        (TlsSettings(settings.cert, ""), "go together"),
        (TlsSettings(settings.cert, settings.key, client_ca=settings.client_ca), "no client would be asked"),
    ):
        with pytest.raises(ConfigError, match=said):
            make_tls_context(wrong)
    assert make_tls_context(TlsSettings("", "")) is None


def test_authorities_that_cannot_be_read_are_named(settings: TlsSettings, tmp_path: Path) -> None:
    (tmp_path / "junk").write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    (tmp_path / "empty").touch()
    for file, said in (("nothing", "No such file"), ("junk", "no certificate in PEM"), ("empty", "no certificate")):
        path = str(tmp_path / file)
        with pytest.raises(ConfigError, match=f"failed to load TLS client ca certificate.*{said}") as caught:
            make_tls_context(TlsSettings(settings.cert, settings.key, wants_clients=True, client_ca=path))
        assert path in str(caught.value)


def test_a_key_with_a_password_is_refused_without_asking_for_it(settings: TlsSettings, tmp_path: Path) -> None:
    key = serialization.load_pem_private_key(Path(settings.key).read_bytes(), None)
    encrypted = tmp_path / "encrypted.key"
    encrypted.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    with pytest.raises(ConfigError, match="encrypted"):
        make_tls_context(TlsSettings(settings.cert, str(encrypted)))
