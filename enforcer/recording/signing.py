"""The recorder's key, and the statements that it signs: checkpoints and erasures.  Ed25519, RFC 8032."""
from __future__ import annotations

import os
from hashlib import blake2b
from pathlib import Path
from typing import Final

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from enforcer.words.errors import RecordingError
from enforcer.words.events import ERASURE, Erasure

PRIVATE: Final = "signing.key"
PUBLIC: Final = "signing.pub"


class Checkpoint(msgspec.Struct, frozen=True):
    """Events `seq_from` to `seq_to`, both included, lie between two heads of the chain."""

    seq_from: int
    seq_to: int
    head_before: bytes
    head: bytes
    merkle_root: bytes
    at: int                           # nanoseconds UTC


def render_checkpoint(recording: bytes, key_id: str, checkpoint: Checkpoint) -> bytes:
    """What is signed: lines of ASCII text, each ended by a newline (docs/recording.md)."""
    return (
        "weir checkpoint 1\n"
        f"recording {recording.hex()}\n"
        f"events {checkpoint.seq_from} {checkpoint.seq_to}\n"
        f"before {checkpoint.head_before.hex()}\n"
        f"head {checkpoint.head.hex()}\n"
        f"merkle {checkpoint.merkle_root.hex()}\n"
        f"at {checkpoint.at}\n"
        f"key {key_id}\n"
    ).encode()


def render_erasure(at: int, monotonic: int, digests: tuple[bytes, ...], by: str, reason: str) -> bytes:
    """What is signed: the canonical bytes of the event's other fields."""
    return msgspec.msgpack.encode((ERASURE, at, monotonic, digests, by, reason))


def name_key(public: bytes) -> str:
    """First 16 hex digits of the public key's BLAKE2b-256."""
    return blake2b(public, digest_size=32).hexdigest()[:16]


def verify(public: bytes, signature: bytes, text: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, text)
    except (InvalidSignature, ValueError):
        return False
    return True


class Signer:
    """Made by load_signer(); never shown."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = private.public_key().public_bytes_raw()
        self.key_id = name_key(self.public)

    def sign_checkpoint(self, recording: bytes, checkpoint: Checkpoint) -> bytes:
        return self._private.sign(render_checkpoint(recording, self.key_id, checkpoint))

    def sign_erasure(self, at: int, monotonic: int, digests: tuple[bytes, ...], by: str, reason: str) -> Erasure:
        signature = self._private.sign(render_erasure(at, monotonic, digests, by, reason))
        return Erasure(ERASURE, at, monotonic, digests, by, reason, signature)


def load_signer(directory: Path) -> Signer:
    """The key in `directory`, made at the first start.  Raises RecordingError, OSError."""
    path = directory / PRIVATE
    try:
        private = serialization.load_pem_private_key(path.read_bytes(), None)
    except FileNotFoundError:
        if any(directory.glob("recording-*.sqlite")):
            raise RecordingError(f"{path} is gone: put it back, or move the recording away with its {PUBLIC}") from None
        private = Ed25519PrivateKey.generate()
        _write(path, private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()), 0o600)
    except (ValueError, TypeError) as reason:
        raise RecordingError(f"{path} holds no key: move it away, or put the right one back") from reason
    if not isinstance(private, Ed25519PrivateKey):
        raise RecordingError(f"{path} holds no Ed25519 key")
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    known = directory / PUBLIC
    if not known.exists() or known.read_bytes() != public:
        _write(known, public, 0o644)
    return Signer(private)


def _write(path: Path, content: bytes, mode: int) -> None:
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with open(fd, "wb") as file:
        os.fchmod(fd, mode)
        file.write(content)
        file.flush()
        os.fsync(fd)
    fresh.rename(path)
