"""The files by which a client and a server know each other: what is wrong with them is said before anything connects."""

import ssl
from pathlib import Path

import pytest
from certificates import Authority, make_certificate
from cryptography.hazmat.primitives import serialization

from liftbridge.client import Tls
from liftbridge.errors import ConfigError


def test_files_that_fit_are_used_by_both_kinds_of_connections(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    client = authority.client("alice")
    tls = Tls(ca=authority.cert, certificate=client.cert, key=str(client.key))
    tls.channel_credentials()
    assert len(tls.context().get_ca_certs()) == 1
    Tls().channel_credentials()


def test_both_kinds_of_connections_trust_the_same_certificates(tmp_path: Path) -> None:
    """grpcio isn't strict, and newer Pythons are."""
    context = Tls(ca=Authority(tmp_path).cert).context()
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_what_is_wrong_with_a_file_is_said_with_its_name(tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path)
    (tmp_path / "other").mkdir()
    other = make_certificate(tmp_path / "other")
    junk, missing, encrypted = tmp_path / "junk.pem", tmp_path / "missing.pem", tmp_path / "encrypted.key"
    junk.write_bytes(b"\xff junk")
    encrypted.write_bytes(
        serialization.load_pem_private_key(key.read_bytes(), None).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    for tls, said in (
        (Tls(ca=junk), f"{junk} holds no certificates"),
        (Tls(ca=key), f"{key} holds no certificates"),
        (Tls(ca=missing), f"can't read {missing}"),
        (Tls(ca=cert, certificate=cert), "needs both"),
        (Tls(ca=cert, key=key), "needs both"),
        (Tls(ca=cert, certificate=missing, key=key), f"can't read {missing}"),
        (Tls(ca=cert, certificate=cert, key=other.key), "are no certificate and its private key"),
        (Tls(ca=cert, certificate=junk, key=key), "are no certificate and its private key"),
        (Tls(ca=cert, certificate=cert, key=encrypted), f"{encrypted} is encrypted"),
    ):
        with pytest.raises(ConfigError) as caught:
            tls.channel_credentials()
        assert said in str(caught.value)
