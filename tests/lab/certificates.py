"""The lab's own certificate authority: what an operator's database has before Weir comes."""
from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFE = datetime.timedelta(days=30)


@dataclass(frozen=True)
class Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()


def make_authority(name: str = "Lab CA") -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    built = (
        _builder(subject, subject, key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Authority(built, key)


Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def make_leaf(
    authority: Authority, names: tuple[str, ...], addresses: tuple[str, ...], *, by_rsa: bool = False,
) -> tuple[str, str]:
    """(certificate PEM, key PEM) for a server, or for a client whose common name is `names[0]`."""
    key: Key = rsa.generate_private_key(65537, 2048) if by_rsa else ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    alternatives = [*map(x509.DNSName, names), *(x509.IPAddress(ipaddress.ip_address(one)) for one in addresses)]
    built = (
        _builder(subject, authority.certificate.subject, key)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(authority.key, hashes.SHA256())
    )
    return built.public_bytes(serialization.Encoding.PEM).decode(), private_pem(key)


def make_client(
    authority: Authority, name: str, organizations: tuple[str, ...] = (), life: datetime.timedelta = LIFE,
) -> tuple[str, str]:
    """(certificate PEM, key PEM) for a client: who it is, which groups it is in, and for how long from now on."""
    key = ec.generate_private_key(ec.SECP256R1())
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, one) for one in organizations]
    subject = x509.Name([*parts, x509.NameAttribute(NameOID.COMMON_NAME, name)])
    built = (
        _builder(subject, authority.certificate.subject, key, life)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(authority.key, hashes.SHA256())
    )
    return built.public_bytes(serialization.Encoding.PEM).decode(), private_pem(key)


def private_pem(key: Key) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Key, life: datetime.timedelta = LIFE,
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + life)
    )


def write(path: Path, text: str, mode: int = 0o644) -> Path:
    path.touch(mode=mode)
    path.chmod(mode)
    path.write_text(text)
    return path
