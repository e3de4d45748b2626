"""The hooks of the gRPC endpoint."""

from liftbridge.errors import ConfigError
from liftbridge.hookspecs import hookimpl
from liftbridge.interfaces.context import EndpointContext
from liftbridge.interfaces.endpoint import Endpoint
from liftbridge.interfaces.provider import Provider
from liftbridge.interfaces.settings import Setting, SettingKind

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
            "endpoint.grpc.tls.client.auth.enabled",
            SettingKind.BOOLEAN,
            False,
            "Clients need a certificate, whose Common Name says who they are.",
            aliases=("tls.client.auth.enabled",),
        ),
        Setting(
            "endpoint.grpc.tls.client.auth.ca",
            SettingKind.STRING,
            "",
            "Certificates of the authorities that sign those of clients. Unset: those that the system trusts.",
            aliases=("tls.client.auth.ca",),
        ),
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
    from liftbridge_endpoint_grpc.tls import TlsSettings, make_tls_context

    settings = context.settings
    tls = TlsSettings(
        settings["endpoint.grpc.tls.cert"],
        settings["endpoint.grpc.tls.key"],
        settings["endpoint.grpc.tls.client.auth.enabled"],
        settings["endpoint.grpc.tls.client.auth.ca"],
    )
    if context.needs_identities and not tls.wants_clients:
        raise ConfigError(
            "authorization is on, and goes by the names in clients' certificates, which no client is asked for: set "
            "endpoint.grpc.tls.client.auth.enabled = true"
        )
    host, port = bind_address(
        settings["endpoint.grpc.listen"], settings["endpoint.grpc.host"], settings["endpoint.grpc.port"]
    )
    return GrpcEndpoint(
        context.broker,
        ServerSettings(
            host=host,
            port=port,
            advertised_host=advertised_host(settings["endpoint.grpc.host"], host, tls=bool(tls.cert)),
            max_message_bytes=settings["endpoint.grpc.max.message.size"],
            max_connections=settings["endpoint.grpc.max.connections"],
            tls=make_tls_context(tls),
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
