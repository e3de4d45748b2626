"""Certificates of our own, as an operator would have made them: one for ``localhost``, and those of an authority."""

import datetime
import ipaddress
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAY = datetime.timedelta(days=1)
_LOCALHOST = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])


class Certificate(NamedTuple):
    """PEM files."""

    cert: Path
    key: Path


def make_certificate(folder: Path) -> Certificate:
    """For localhost and 127.0.0.1, valid for a day, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("localhost")
    builder = _builder(name, name, key).add_extension(_LOCALHOST, critical=False).add_extension(_CA, critical=True)
    return _written(folder / "server", builder.sign(key, hashes.SHA256()), key)


class Authority:
    """Signs certificates; ``cert`` is its own. All are valid for a day."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(name)
        own = _builder(self._name, self._name, self._key).add_extension(_CA, critical=True)
        self.cert, _ = _written(folder / name, own.sign(self._key, hashes.SHA256()), self._key)

    def server(self) -> Certificate:
        """For localhost and 127.0.0.1, and for a server only."""
        return self._issue("server", _name("localhost"), ExtendedKeyUsageOID.SERVER_AUTH)

    def client(self, *names: str, expired: bool = False) -> Certificate:
        """With these Common Names: usually one."""
        return self._issue("-".join(names) or "nobody", _name(*names), ExtendedKeyUsageOID.CLIENT_AUTH, expired=expired)

    def _issue(
        self, file: str, subject: x509.Name, usage: x509.ObjectIdentifier, *, expired: bool = False
    ) -> Certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(subject, self._name, key, age=3 * _DAY if expired else datetime.timedelta(minutes=5))
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        if usage == ExtendedKeyUsageOID.SERVER_AUTH:
            builder = builder.add_extension(_LOCALHOST, critical=False)
        return _written(self._folder / file, builder.sign(self._key, hashes.SHA256()), key)


_CA = x509.BasicConstraints(ca=True, path_length=0)


def _name(*common_names: str) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, one) for one in common_names]
    return x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "tests"), *attributes])


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    *,
    age: datetime.timedelta = datetime.timedelta(minutes=5),
) -> x509.CertificateBuilder:
    start = datetime.datetime.now(datetime.UTC) - age
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + _DAY)
    )


def _written(path: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Certificate:
    files = Certificate(path.with_name(path.name + ".pem"), path.with_name(path.name + ".key"))
    files.cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files
