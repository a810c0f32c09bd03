"""Client certificates of Weir's own: an authority a target, which the server trusts, and certificates for minutes.

The authority's key stays with the agent (docs/decisions/0001); the enforcer is given one certificate and its key, for
one user.  An authority is never replaced by itself: the server would not know the new one.
"""
from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from agent.credential.trust import (
    AUTHORITY_LIFE,
    CLOCKS,
    NEXT,
    Authority,
    authority_directory,
    finish_promotion,
    load_pair,
    promote,
    render_certificate,
    render_key,
    write_file,
)
from agent.settings.credential_table import NAME_LIMIT

STEM: Final = "client-ca"
LIFE: Final = timedelta(minutes=10)   # of a certificate; a handshake is made with it in the first half
BEHIND: Final = timedelta(minutes=5)  # how far the server's clock may be behind


class AuthorityError(Exception):
    """What is wrong with the authority that is there, and what would be right."""


def client_authority(state: Path, target: str) -> Authority:
    """The target's; made where there is none.  Raises AuthorityError, OSError, and ValueError for a target's name that
    is no file's."""
    (state / "ca").mkdir(mode=0o755, exist_ok=True)
    directory = authority_directory(state, target)
    with locked(directory):
        finish_promotion(directory, STEM)
        if not (directory / f"{STEM}.pem").exists():
            return _make(directory, target)
        found = load_pair(directory, STEM)
    if found is None:
        raise AuthorityError(f"{directory}/{STEM}.key is not the key of {STEM}.pem, or not root's alone (mode 0600); "
                             "remove both for a new authority, and give that to the server")
    if found.certificate.not_valid_after_utc <= datetime.now(UTC):
        raise AuthorityError(f"{directory}/{STEM}.pem has expired; remove it for a new authority, and give that to the "
                             "server")
    return found


def next_client_authority(state: Path, target: str) -> x509.Certificate | None:
    """Of the one that a rotation has prepared.  Raises OSError, ValueError."""
    found = load_pair(authority_directory(state, target), NEXT + STEM)
    return found.certificate if found else None


def prepare_rotation(state: Path, target: str) -> Authority:
    """The next one, which signs nothing until `finish_rotation`: the server is given it first.  As client_authority."""
    client_authority(state, target)
    directory = authority_directory(state, target)
    with locked(directory):
        return load_pair(directory, NEXT + STEM) or _make(directory, target, NEXT + STEM)


def finish_rotation(state: Path, target: str) -> Authority:
    """From here on the next one signs.  Raises AuthorityError where none was prepared, and as client_authority."""
    client_authority(state, target)
    directory = authority_directory(state, target)
    with locked(directory):
        if load_pair(directory, NEXT + STEM) is None:
            raise AuthorityError(f"no new authority is prepared for {target}: weir ca rotate {target} --clients "
                                 "--prepare first, and give the server what it prints")
        promote(directory, STEM)
    return client_authority(state, target)


def issue(authority: Authority, user: str) -> tuple[str, str, datetime]:
    """(certificate, key, end) for a user of the target's, PEM."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC).replace(microsecond=0)
    issuer = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    end = min(now + LIFE, authority.certificate.not_valid_after_utc)
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, user)]))
        .issuer_name(authority.certificate.subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - BEHIND).not_valid_after(end)
        .add_extension(x509.BasicConstraints(False, None), critical=True)
        .add_extension(x509.KeyUsage(True, False, False, False, False, False, False, False, False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False))
    signed = builder.sign(authority.key, hashes.SHA256())
    return render_certificate(signed).decode(), render_key(key).decode(), end


def _make(directory: Path, target: str, stem: str = STEM) -> Authority:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Weir"),
                         x509.NameAttribute(NameOID.COMMON_NAME, f"Weir client authority for {target}"[:NAME_LIMIT])])
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)      # keyCertSign, cRLSign
    builder = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - CLOCKS).not_valid_after(now + AUTHORITY_LIFE)
        .add_extension(x509.BasicConstraints(True, 0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False))
    made = Authority(builder.sign(key, hashes.SHA256()), key)
    # The key first: of a crash in between nobody has the certificate, and the pair is made anew.
    write_file(directory / f"{stem}.key", render_key(key), 0o600)
    write_file(directory / f"{stem}.pem", render_certificate(made.certificate), 0o644)
    return made


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """The agent and `weir ca` may make it at the same moment."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
