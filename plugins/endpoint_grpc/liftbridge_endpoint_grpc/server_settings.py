"""What the endpoint is told: where to listen and what to accept, from settings that were checked."""

import ssl
from dataclasses import dataclass, field

from liftbridge_endpoint_grpc.http2.limits import ConnectionLimits


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Where to listen and what to accept."""

    host: str
    port: int
    advertised_host: str = "127.0.0.1"
    max_message_bytes: int = 4 * 1024 * 1024
    max_connections: int = 10_000
    tls: ssl.SSLContext | None = None
    limits: ConnectionLimits = field(default_factory=ConnectionLimits)
