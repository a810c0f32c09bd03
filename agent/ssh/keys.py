"""Keys as SSH has them: what an operator's files hold, and files of Weir's own that root alone reads.

Nothing of a private key stands in an error or a repr.
"""
from __future__ import annotations

import base64
import os
import stat
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import ssh

from agent.credential.trust import write_file

PrivateKey = ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
_PRIVATE: Final = (ed25519.Ed25519PrivateKey, ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)
_PUBLIC: Final = (ed25519.Ed25519PublicKey, ec.EllipticCurvePublicKey, rsa.RSAPublicKey)
_TYPES: Final = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")
RSA_LEAST: Final = 2048               # bits
KEY_LIMIT: Final = 1 << 16            # bytes of a file


class KeyWrong(ValueError):
    """What is wrong with a key, and what would be right."""


def parse_public(text: str) -> str:
    """`ssh-ed25519 AAAA...`, without its comment.  Raises KeyWrong."""
    words = text.split()
    if words and words[0].startswith(("SHA256:", "MD5:")):
        raise KeyWrong("it is a fingerprint and not the key")
    if len(words) > 2 and words[1] in _TYPES:
        raise KeyWrong("it is a line of known_hosts: without its first word it would be right")
    if len(words) < 2 or words[0] not in _TYPES:
        raise KeyWrong("it is no public key of a type that SSH hosts have")
    try:
        key = serialization.load_ssh_public_key(" ".join(words[:2]).encode())
    except (ValueError, UnsupportedAlgorithm):
        raise KeyWrong("its base64 is no key of that type") from None
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < RSA_LEAST:
        raise KeyWrong(f"it has {key.key_size} bits; {RSA_LEAST} at least would be right")
    return " ".join(words[:2])


def parse_private(content: bytes) -> PrivateKey:
    """OpenSSH's format or PEM.  Raises KeyWrong."""
    load = serialization.load_ssh_private_key if b"BEGIN OPENSSH PRIVATE KEY" in content else (
        serialization.load_pem_private_key)
    try:
        key = load(content, None)
    except TypeError:
        raise KeyWrong("is encrypted, and nobody is asked for a passphrase; a copy without one (ssh-keygen -p), "
                        "root's, mode 0600, would be right") from None
    except (ValueError, UnsupportedAlgorithm) as reason:
        said = str(reason).lower()
        if "password" in said or "encrypted" in said:
            raise KeyWrong("is encrypted, and nobody is asked for a passphrase; a copy without one (ssh-keygen -p), "
                            "root's, mode 0600, would be right") from None
        raise KeyWrong("holds no private key; one in OpenSSH's format or PEM would be right") from None
    if not isinstance(key, _PRIVATE):
        raise KeyWrong("holds a key of a type that SSH does not use; ed25519, ECDSA or RSA would be right")
    return key


def parse_certificate(text: str) -> ssh.SSHCertificate:
    """A user's, as in id_ed25519-cert.pub.  Raises KeyWrong."""
    try:
        found = serialization.load_ssh_public_identity(text.strip().encode("ascii"))
    except (ValueError, UnsupportedAlgorithm):
        raise KeyWrong("holds no certificate of OpenSSH's (id_ed25519-cert.pub)") from None
    if not isinstance(found, ssh.SSHCertificate) or found.type != ssh.SSHCertificateType.USER:
        raise KeyWrong("holds no certificate of a user; what ssh-keygen -s signs without -h would be right")
    return found


def belongs(certificate: ssh.SSHCertificate, key: PrivateKey) -> bool:
    public = certificate.public_key()
    return isinstance(public, _PUBLIC) and render_public(public) == render_public(key.public_key())


def render_public(key: ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> str:
    return key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


def render_private(key: PrivateKey) -> str:
    """OpenSSH's format."""
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH,
                             serialization.NoEncryption()).decode()


def fingerprint(public: str) -> str:
    """As ssh-keygen -l shows it, of "TYPE BASE64"."""
    digest = sha256(base64.b64decode(public.split()[1])).digest()
    return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


# files of Weir's own


def write_key(path: Path, key: PrivateKey) -> None:
    """Root's alone, by rename, with its .pub beside it.  Raises OSError."""
    # The key first: a crash in between leaves a .pub that does not match, and that is written anew.
    write_file(path, render_private(key).encode(), 0o600)
    write_file(path.with_name(f"{path.name}.pub"), f"{render_public(key.public_key())}\n".encode(), 0o644)


def load_key(path: Path) -> PrivateKey | None:
    """None where there is none, or somebody else could read or write it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with open(fd, "rb") as file:
            status = os.fstat(fd)
            key = parse_private(file.read(KEY_LIMIT))
    except (OSError, KeyWrong):
        return None
    private = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077
    return key if private else None
