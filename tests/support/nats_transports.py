"""The transport on NATS as a server makes it, but quick to reconnect."""

from typing import Any

from liftbridge_transport_nats.plugin import liftbridge_add_settings
from liftbridge_transport_nats.transport import NatsTransport


def nats_transport(url: str, server_id: str, **changes: Any) -> NatsTransport:
    """``changes`` are settings of ``transport.nats``, with ``_`` for dots."""
    settings = {setting.name: setting.default for setting in liftbridge_add_settings()}
    settings["transport.nats.servers"] = (url,)
    settings["transport.nats.reconnect.wait"] = 0.02
    settings |= {f"transport.nats.{name.replace('_', '.')}": value for name, value in changes.items()}
    return NatsTransport(settings, namespace="test", server_id=server_id)
