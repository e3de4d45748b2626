"""The files by which a client and a server know each other: what is wrong with them is said before anything connects."""

import ssl
from pathlib import Path

from certificates import Authority

from liftbridge.client import Tls


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
