"""Certificates and keys in PEM files, and what to say of files that aren't: the same for servers and clients."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from liftbridge.errors import ConfigError

_CERTIFICATE, _KEY = b"-----BEGIN CERTIFICATE-----", b"PRIVATE KEY-----"
_MISMATCHES = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH")


def load_certificate(context: ssl.SSLContext, certificate: Path | str, key: Path | str) -> None:
    """The context shows this certificate, whose private key is in the other file. Raises ConfigError, which names the file
    that is wrong, and how; nobody is asked for a passphrase."""
    _require(certificate, _CERTIFICATE, "certificate")
    _require(key, _KEY, "private key")

    def no_passphrase() -> str:
        raise ConfigError(
            f"{key} is encrypted, and there is nobody to type the passphrase: give a key without one, as "
            f"'openssl pkey -in {key}' prints it"
        )

    try:
        context.load_cert_chain(certificate, key, no_passphrase)
    except ssl.SSLError as error:
        if error.reason in _MISMATCHES:
            raise ConfigError(f"{key} is not the private key of the certificate in {certificate}") from error
        client_context(certificate)  # or is it the certificate?
        raise ConfigError(
            f"{key} is damaged: no private key in PEM can be read in it ({error.reason or error})"
        ) from error


def client_context(authorities: Path | str) -> ssl.SSLContext:
    """Trusts the certificates in the file, and nobody else. Raises ConfigError, as above."""
    with _certificates_in(authorities):
        return ssl.create_default_context(cafile=authorities)


def trust(context: ssl.SSLContext, authorities: Path | str) -> None:
    """The context trusts the certificates in the file, too. Raises ConfigError, as above."""
    with _certificates_in(authorities):
        context.load_verify_locations(authorities)


@contextmanager
def _certificates_in(path: Path | str) -> Iterator[None]:
    """Around what reads them."""
    _require(path, _CERTIFICATE, "certificate")
    try:
        yield
    except ssl.SSLError as error:
        raise ConfigError(
            f"{path} is damaged: no certificate in PEM can be read in it ({error.reason or error})"
        ) from error


def read_pem(path: Path | str) -> bytes:
    """Raises ConfigError."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"can't read {path}: {error.strerror}") from error


def _require(path: Path | str, mark: bytes, wanted: str) -> None:
    content = read_pem(path)
    if mark in content:
        return
    for other_mark, other in ((_CERTIFICATE, "certificate"), (_KEY, "private key")):
        if other_mark in content:
            raise ConfigError(f"{path} holds a {other}, and a {wanted} is wanted: are two files mixed up?")
    raise ConfigError(f"{path} holds no {wanted} in PEM, which begins with a line like {_begin(wanted)}")


def _begin(wanted: str) -> str:
    return f"-----BEGIN {wanted.upper()}-----"
