"""TLS: the server's certificate, and who clients are by theirs."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from liftbridge.certificates import load_certificate, trust
from liftbridge.errors import ConfigError


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """Files in PEM, "" for none. With ``wants_clients``, a client must have a certificate that is signed by an authority in
    ``client_ca``, or without that file by one that the system trusts."""

    cert: str
    key: str
    wants_clients: bool = False
    client_ca: str = ""


def make_tls_context(settings: TlsSettings) -> ssl.SSLContext | None:
    """None for plain text. Raises ConfigError for files that can't be used and for settings that don't go together."""
    _check(settings)
    if not settings.cert:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    _load_own_certificate(context, settings)
    if settings.wants_clients:
        context.verify_mode = ssl.CERT_REQUIRED
        _load_authorities(context, settings.client_ca)
    return context


def _check(settings: TlsSettings) -> None:
    if bool(settings.cert) != bool(settings.key):
        raise ConfigError("endpoint.grpc.tls.cert and endpoint.grpc.tls.key go together")
    if settings.wants_clients and not settings.cert:
        raise ConfigError(
            "endpoint.grpc.tls.client.auth.enabled needs TLS: name the server's own certificate and key with "
            "endpoint.grpc.tls.cert (--tls-cert) and endpoint.grpc.tls.key (--tls-key)"
        )
    if settings.client_ca and not settings.wants_clients:
        raise ConfigError(
            "endpoint.grpc.tls.client.auth.ca is set, and no client would be asked for a certificate: set "
            "endpoint.grpc.tls.client.auth.enabled = true, or leave it out"
        )


def _load_own_certificate(context: ssl.SSLContext, settings: TlsSettings) -> None:
    try:
        load_certificate(context, settings.cert, settings.key)
    except ConfigError as error:
        raise ConfigError(f"failed to load TLS key pair: {error}") from error


def _load_authorities(context: ssl.SSLContext, path: str) -> None:
    if not path:
        context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
        return
    try:
        trust(context, path)
    except ConfigError as error:
        raise ConfigError(f"failed to load TLS client ca certificate: {error}") from error


def common_name(certificate: Mapping[str, Any] | None) -> str:
    """Who a verified certificate (as ``SSLObject.getpeercert`` shows it) is for. "" if it doesn't say, or not clearly."""
    subject = certificate.get("subject", ()) if certificate else ()
    names = [value for part in subject for name, value in part if name == "commonName"]
    return names[0] if len(names) == 1 else ""
