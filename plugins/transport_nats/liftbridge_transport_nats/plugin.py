"""The hooks of the NATS transport."""

from liftbridge.hookspecs import hookimpl
from liftbridge.interfaces.context import PluginContext
from liftbridge.interfaces.provider import Provider
from liftbridge.interfaces.settings import Setting, SettingKind
from liftbridge.interfaces.transport import Transport


@hookimpl
def liftbridge_add_settings() -> list[Setting]:
    return [
        Setting(
            "transport.nats.servers",
            SettingKind.LIST,
            ("nats://127.0.0.1:4222",),
            "URLs of NATS servers, tried in turn. Ignored with an embedded server: then it is that one.",
            aliases=("nats.servers",),
        ),
        Setting("transport.nats.user", SettingKind.STRING, "", "User name.", aliases=("nats.user",)),
        Setting("transport.nats.password", SettingKind.STRING, "", "Password.", aliases=("nats.password",)),
        Setting("transport.nats.token", SettingKind.STRING, "", "Authentication token."),
        Setting("transport.nats.credentials", SettingKind.PATH, None, "Credentials file (JWT and seed)."),
        Setting("transport.nats.nkey", SettingKind.PATH, None, "File with an NKey seed."),
        Setting(
            "transport.nats.tls.ca", SettingKind.PATH, None, "File with the CAs to trust.", aliases=("nats.tls.ca",)
        ),
        Setting("transport.nats.tls.cert", SettingKind.PATH, None, "Our certificate file.", aliases=("nats.tls.cert",)),
        Setting("transport.nats.tls.key", SettingKind.PATH, None, "Our key file.", aliases=("nats.tls.key",)),
        Setting("transport.nats.reconnect.wait", SettingKind.DURATION, 0.25, "Wait between two attempts to reconnect."),
        Setting(
            "transport.nats.buffer.max.size",
            SettingKind.SIZE,
            8 * 1024 * 1024,
            "Bytes that wait to be sent, at most, while NATS is slow or away; beyond it, publishes are refused.",
        ),
        Setting(
            "transport.nats.links",
            SettingKind.BOOLEAN,
            True,
            "Servers also connect to each other, each at the address from which it reaches NATS, for replication and "
            "forwarding. Where they can't, and with TLS, that goes over NATS.",
        ),
        Setting(
            "transport.nats.embedded",
            SettingKind.BOOLEAN,
            False,
            "Run a nats-server as a child process, which ends with the broker.",
            aliases=("nats.embedded",),
        ),
        Setting(
            "transport.nats.embedded.listen",
            SettingKind.STRING,
            "127.0.0.1:4222",
            "Where the embedded nats-server listens; port 0 takes any free one.",
        ),
        Setting(
            "transport.nats.embedded.config",
            SettingKind.PATH,
            None,
            "Configuration file of the embedded nats-server; implies that there is one.",
            aliases=("nats.embedded.config",),
        ),
    ]


@hookimpl
def liftbridge_transport() -> Provider:
    return Provider("nats", "any NATS deployment, or an embedded nats-server", _create)


def _create(context: PluginContext) -> Transport:
    from liftbridge_transport_nats.transport import NatsTransport

    return NatsTransport(context.settings, namespace=context.namespace, server_id=context.server_id)
