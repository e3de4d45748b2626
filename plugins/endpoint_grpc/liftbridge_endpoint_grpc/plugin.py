"""The hooks of the gRPC endpoint."""

from typing import TYPE_CHECKING

from liftbridge.errors import ConfigError
from liftbridge.hookspecs import hookimpl
from liftbridge.interfaces.context import EndpointContext
from liftbridge.interfaces.endpoint import Endpoint
from liftbridge.interfaces.provider import Provider
from liftbridge.interfaces.settings import Setting, SettingKind

if TYPE_CHECKING:
    import ssl


#: Bound, these mean every address of the machine; nobody can connect to them.
_ANY_ADDRESS = ("0.0.0.0", "::")


@hookimpl
def liftbridge_add_settings() -> list[Setting]:
    return [
        Setting(
            "endpoint.grpc.listen",
            SettingKind.STRING,
            "",
            "Address to bind, as host:port. Unset: the host and port below, or every address if there is no host.",
            aliases=("listen",),
        ),
        Setting(
            "endpoint.grpc.host",
            SettingKind.STRING,
            "",
            "Host that clients are told to connect to (127.0.0.1 if unset, localhost with TLS); also bound when listen is "
            "unset.",
            aliases=("host",),
        ),
        Setting(
            "endpoint.grpc.port",
            SettingKind.INTEGER,
            9292,
            "Port to bind when listen is unset; 0 takes any free one.",
            check=lambda value: None if 0 <= value < 65_536 else "must be from 0 to 65535",
            aliases=("port",),
        ),
        Setting("endpoint.grpc.tls.cert", SettingKind.STRING, "", "Certificate file.", aliases=("tls.cert",)),
        Setting("endpoint.grpc.tls.key", SettingKind.STRING, "", "Key file.", aliases=("tls.key",)),
        Setting(
            "endpoint.grpc.max.message.size",
            SettingKind.SIZE,
            4 * 1024 * 1024,
            "Largest request that is read.",
            check=lambda value: None if value >= 1024 else "must be at least 1KiB",
        ),
        Setting(
            "endpoint.grpc.max.concurrent.streams",
            SettingKind.INTEGER,
            1000,
            "Calls that one connection may have open.",
            check=lambda value: None if value >= 1 else "must be at least 1",
        ),
        Setting(
            "endpoint.grpc.max.connections",
            SettingKind.INTEGER,
            10_000,
            "Connections that may be open; more are refused.",
            check=lambda value: None if value >= 1 else "must be at least 1",
        ),
    ]


@hookimpl
def liftbridge_endpoint() -> Provider:
    return Provider("grpc", "the Liftbridge API over gRPC (HTTP/2)", _create, capabilities=frozenset({"tls"}))


def _create(context: EndpointContext) -> Endpoint:
    from liftbridge_endpoint_grpc.http2.limits import ConnectionLimits
    from liftbridge_endpoint_grpc.server import GrpcEndpoint
    from liftbridge_endpoint_grpc.server_settings import ServerSettings

    settings = context.settings
    host, port = bind_address(
        settings["endpoint.grpc.listen"], settings["endpoint.grpc.host"], settings["endpoint.grpc.port"]
    )
    return GrpcEndpoint(
        context.broker,
        ServerSettings(
            host=host,
            port=port,
            advertised_host=advertised_host(
                settings["endpoint.grpc.host"], host, tls=bool(settings["endpoint.grpc.tls.cert"])
            ),
            max_message_bytes=settings["endpoint.grpc.max.message.size"],
            max_connections=settings["endpoint.grpc.max.connections"],
            tls=_tls_context(settings["endpoint.grpc.tls.cert"], settings["endpoint.grpc.tls.key"]),
            limits=ConnectionLimits(max_concurrent_streams=settings["endpoint.grpc.max.concurrent.streams"]),
        ),
        context.clock,
    )


def bind_address(listen: str, host: str, port: int) -> tuple[str, int]:
    """Where to bind."""
    if not listen:
        return host or "0.0.0.0", port
    bound_host, colon, bound_port = listen.rpartition(":")
    if not colon:
        raise ConfigError(f'endpoint.grpc.listen: could not parse address string "{listen}": no port')
    if not bound_port.isdigit() or int(bound_port) > 65_535:
        raise ConfigError(f'endpoint.grpc.listen: could not parse port "{bound_port}"')
    return bound_host.strip("[]") or "0.0.0.0", int(bound_port)


def advertised_host(configured: str, bound: str, *, tls: bool) -> str:
    """What clients are told to connect to. Unless the operator says it, an address: a name makes each client ask for
    it, and ``localhost`` may be ``::1``, where nobody listens. With TLS the name, because certificates have names."""
    if configured:
        return configured
    if bound not in _ANY_ADDRESS:
        return bound
    return "localhost" if tls else "127.0.0.1"


def _tls_context(cert: str, key: str) -> "ssl.SSLContext | None":
    if not cert and not key:
        return None
    if not cert or not key:
        raise ConfigError("endpoint.grpc.tls.cert and endpoint.grpc.tls.key go together")
    import ssl

    from liftbridge.certificates import load_certificate

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    try:
        load_certificate(context, cert, key)
    except ConfigError as error:
        raise ConfigError(f"failed to load TLS key pair: {error}") from error
    return context
