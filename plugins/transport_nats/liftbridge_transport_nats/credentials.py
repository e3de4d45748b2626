"""What was configured for signing in to NATS, in nats-py's words."""

import ssl
from collections.abc import Mapping
from typing import Any

from liftbridge.certificates import client_context, load_certificate
from liftbridge.errors import ConfigError

_NAMES = {
    "user": "user",
    "password": "password",
    "token": "token",
    "credentials": "user_credentials",
    "nkey": "nkeys_seed",
}


def connect_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Options for nats-py's ``connect``. ``settings`` are those of ``transport.nats``, without that prefix. Raises
    ConfigError for files that can't be used and for settings that need another one."""
    if settings["user"] and not settings["password"]:
        raise ConfigError("transport.nats.user needs transport.nats.password")
    options: dict[str, Any] = {
        theirs: str(settings[ours]) for ours, theirs in _NAMES.items() if settings[ours] not in (None, "")
    }
    for name in ("credentials", "nkey"):
        if settings[name]:
            _check_readable(f"transport.nats.{name}", settings[name])
    context = _tls_context(settings)
    return options if context is None else {**options, "tls": context}


def _check_readable(name: str, path: Any) -> None:
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise ConfigError(f"{name}: can't read {path}: {error.strerror}") from error


def _tls_context(settings: Mapping[str, Any]) -> ssl.SSLContext | None:
    ca, cert, key = (settings[f"tls.{part}"] for part in ("ca", "cert", "key"))
    if not (ca or cert or key):
        return None
    if bool(cert) != bool(key):
        raise ConfigError("transport.nats.tls.cert and transport.nats.tls.key go together; only one is set")
    try:
        context = client_context(ca) if ca else ssl.create_default_context()
        if cert:
            load_certificate(context, cert, key)
    except ConfigError as error:
        raise ConfigError(f"transport.nats.tls: {error}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
