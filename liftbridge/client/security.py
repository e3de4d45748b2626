"""How a client and a server know each other."""

import pkgutil
import ssl
from dataclasses import dataclass
from pathlib import Path

import grpc

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
        """Raises ConfigError for a file that can't be read, and for one of certificate and key without the other."""
        if (self.certificate is None) != (self.key is None):
            raise ConfigError("a client certificate needs both: the certificate and its key")
        return grpc.ssl_channel_credentials(_read(self.ca), _read(self.key), _read(self.certificate))

    def context(self) -> ssl.SSLContext:
        """The same for connections that aren't grpcio's."""
        roots = pkgutil.get_data("grpc._cython", "_credentials/roots.pem") if self.ca is None else _read(self.ca)
        assert roots is not None
        context = ssl.create_default_context(cadata=roots.decode())
        if self.certificate is not None and self.key is not None:
            context.load_cert_chain(self.certificate, self.key)
        context.set_alpn_protocols(["h2"])
        return context


def _read(path: Path | str | None) -> bytes | None:
    if path is None:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"can't read {path}: {error.strerror}") from error
