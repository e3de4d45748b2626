"""Files for TLS that can't be used: which one, and what is wrong with it, wherever they are given."""

import shutil
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from certificates import Certificate, make_certificate
from cryptography.hazmat.primitives import serialization

from liftbridge.certificates import client_context
from liftbridge.client import Client, Tls
from liftbridge.errors import ConfigError
from liftbridge_endpoint_grpc.tls import TlsSettings, make_tls_context
from liftbridge_transport_nats.credentials import connect_options


@pytest.fixture
def good(tmp_path: Path) -> Certificate:
    return make_certificate(tmp_path)


def _encrypted(good: Certificate) -> bytes:
    key: Any = serialization.load_pem_private_key(good.key.read_bytes(), None)
    return bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )


def _another(good: Certificate) -> bytes:
    folder = good.key.parent / "another"
    folder.mkdir()
    return make_certificate(folder).key.read_bytes()


def _damaged(path: Path) -> bytes:
    """Well framed, with garbage between."""
    first, *_, last = path.read_bytes().splitlines()
    return b"\n".join((first, b"Z2FyYmFnZQ==", last, b""))


_BAD_CERTIFICATES: list[tuple[Callable[[Certificate], bytes], str]] = [
    (
        lambda good: b"",
        "server.pem holds no certificate in PEM, which begins with a line like -----BEGIN CERTIFICATE-----",
    ),
    (lambda good: b"\xff\x00\xfe", "server.pem holds no certificate in PEM"),
    (lambda good: good.key.read_bytes(), "server.pem holds a private key, and a certificate is wanted"),
    (lambda good: _damaged(good.cert), "server.pem is damaged: no certificate in PEM can be read in it"),
]
_BAD_KEYS: list[tuple[Callable[[Certificate], bytes], str]] = [
    (lambda good: b"secret", "server.key holds no private key in PEM"),
    (lambda good: good.cert.read_bytes(), "server.key holds a certificate, and a private key is wanted"),
    (lambda good: _damaged(good.key), "server.key is damaged: no private key in PEM can be read in it"),
    (_another, "server.key is not the private key of the certificate in .*server.pem"),
    (_encrypted, "server.key is encrypted, and there is nobody to type the passphrase"),
]


def _client(ca: Path | None, certificate: Certificate | None) -> None:
    cert, key = certificate or (None, None)
    Client(["localhost:1"], tls=Tls(ca=ca, certificate=cert, key=key))


def _nats(ca: Path | None, certificate: Certificate | None) -> None:
    cert, key = certificate or (None, None)
    connect_options(
        {"user": "", "password": "", "token": "", "credentials": None, "nkey": None}
        | {"tls.ca": ca, "tls.cert": cert, "tls.key": key}
    )


def _server(ca: Path | None, certificate: Certificate | None) -> None:
    assert certificate is not None
    make_tls_context(TlsSettings(str(certificate.cert), str(certificate.key)))


@pytest.mark.parametrize("use", [_client, _nats, _server])
def test_good_files_are_taken(use: Callable[..., None], good: Certificate) -> None:
    use(good.cert, good)


@pytest.mark.parametrize("use", [_client, _nats, _server])
@pytest.mark.parametrize(("content", "said"), _BAD_CERTIFICATES)
def test_a_bad_certificate_is_named(
    use: Callable[..., None], content: Callable[[Certificate], bytes], said: str, good: Certificate
) -> None:
    good.cert.write_bytes(content(good))
    with pytest.raises(ConfigError, match=said):
        use(None, good)


@pytest.mark.parametrize("use", [_client, _nats, _server])
@pytest.mark.parametrize(("content", "said"), _BAD_KEYS)
def test_a_bad_key_is_named(
    use: Callable[..., None], content: Callable[[Certificate], bytes], said: str, good: Certificate
) -> None:
    good.key.write_bytes(content(good))
    with pytest.raises(ConfigError, match=said):
        use(None, good)


@pytest.mark.parametrize("use", [_client, _nats])
@pytest.mark.parametrize(("content", "said"), _BAD_CERTIFICATES)
def test_bad_authorities_are_named(
    use: Callable[..., None], content: Callable[[Certificate], bytes], said: str, good: Certificate
) -> None:
    good.cert.write_bytes(content(good))
    with pytest.raises(ConfigError, match=said):
        use(good.cert, None)


@pytest.mark.parametrize("use", [_client, _nats, _server])
def test_a_file_that_cannot_be_read_is_named(use: Callable[..., None], good: Certificate) -> None:
    for unreadable, why in ((good.cert.parent, "Is a directory"), (good.cert.parent / "absent", "No such file")):
        with pytest.raises(ConfigError, match=f"can't read {unreadable}: {why}"):
            use(None, Certificate(good.cert, unreadable))


def test_authorities_may_be_commented_in_any_language(good: Certificate) -> None:
    shutil.copy(good.cert, good.key)
    good.cert.write_bytes("Zürich\n".encode() + good.key.read_bytes())
    _client(good.cert, None)


def test_who_trusts_a_file_is_as_strict_as_python_is(good: Certificate) -> None:
    mine, python = client_context(good.cert), ssl.create_default_context()
    assert (mine.verify_flags, mine.verify_mode, mine.check_hostname) == (
        python.verify_flags,
        python.verify_mode,
        python.check_hostname,
    )
