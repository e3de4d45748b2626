"""How a client and a server know each other."""

import pkgutil
import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

from liftbridge.certificates import client_context, load_certificate, read_pem
from liftbridge.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Tls:
    """Files in PEM. Without ``ca``, the authorities that grpcio trusts. ``certificate`` and ``key`` are for servers that
    want to know their clients. ``server_name`` stands in for the host where that is not in the server's certificate."""

    ca: Path | str | None = None
    certificate: Path | str | None = None
    key: Path | str | None = None
    server_name: str | None = None

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Raises ConfigError as ``context`` does: grpcio alone would take any file, and then never connect."""
        self.context()
        files = (None if path is None else read_pem(path) for path in (self.ca, self.key, self.certificate))
        return grpc.ssl_channel_credentials(*files)

    def context(self) -> ssl.SSLContext:
        """The same for connections that aren't grpcio's. Raises ConfigError for a file that can't be read or isn't what it
        should be, naming it, and for one of certificate and key without the other."""
        if (self.certificate is None) != (self.key is None):
            raise ConfigError("a client certificate needs both: the certificate and its key")
        context = _trusting_as_grpcio_does() if self.ca is None else client_context(self.ca)
        # Python 3.13 refuses certificates without fields that many authorities leave out. grpcio doesn't, and both must trust
        # the same.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if self.certificate is not None and self.key is not None:
            load_certificate(context, self.certificate, self.key)
        context.set_alpn_protocols(["h2"])
        return context


def _trusting_as_grpcio_does() -> ssl.SSLContext:
    roots = pkgutil.get_data("grpc._cython", "_credentials/roots.pem")
    assert roots is not None
    return ssl.create_default_context(cadata=roots.decode())
