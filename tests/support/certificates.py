"""Certificates made for one test: an authority, and what it signs."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

__all__ = ["Authority", "Certificate"]

#: What the key of an authority is for.
_MAY_SIGN: Final = x509.KeyUsage(
    key_cert_sign=True,
    crl_sign=True,
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True)
class Certificate:
    """A certificate and the key to it, as files."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates; its own is in the file :attr:`file`.

    Args:
        folder: for the files.
        name: of the authority, and of its file.
        complete: False: what it signs does not say with which key, as many a private authority's does not.
    """

    def __init__(self, folder: Path, name: str = "authority", *, complete: bool = True) -> None:
        self._folder = folder
        self._complete = complete
        self._name = _named(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        builder = _valid(self._name, self._name, self._key, expired=False)
        itself = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        # Python 3.13 and newer insist on these three, as RFC 5280 does.
        itself = itself.add_extension(_MAY_SIGN, critical=True)
        itself = itself.add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(itself.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))

    def issue(self, name: str, *, host: str = "127.0.0.1", expired: bool = False) -> Certificate:
        """A certificate of *host*, in files called *name*; files of this name are replaced."""
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            identity: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            identity = x509.DNSName(host)
        builder = _valid(_named(name), self._name, key, expired=expired)
        builder = builder.add_extension(x509.SubjectAlternativeName([identity]), critical=False)
        if self._complete:
            ours = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
            builder = builder.add_extension(ours, critical=False)
        files = Certificate(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        files.certificate.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM))
        files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return files


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _valid(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, *, expired: bool
) -> x509.CertificateBuilder:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    return (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(yesterday - timedelta(days=1))
        .not_valid_after(yesterday if expired else yesterday + timedelta(days=30))
    )
