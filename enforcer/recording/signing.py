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
NEXT: Final = "signing-next.key"


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


def render_change(recording: bytes, before: bytes, after: bytes, at: int) -> bytes:
    """What both keys sign where one takes the other's place, by their public keys: lines as a checkpoint's."""
    return (
        "weir key 1\n"
        f"recording {recording.hex()}\n"
        f"before {before.hex()}\n"
        f"after {after.hex()}\n"
        f"at {at}\n"
    ).encode()


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

    def sign_change(self, recording: bytes, following: Signer, at: int) -> dict[str, str]:
        """The detail of the event that says so: whoever trusts either key knows the other by it."""
        text = render_change(recording, self.public, following.public, at)
        return {"before": self.public.hex(), "after": following.public.hex(), "at": str(at),
                "by_before": self._private.sign(text).hex(), "by_after": following._private.sign(text).hex()}

    def sign_erasure(self, at: int, monotonic: int, digests: tuple[bytes, ...], by: str, reason: str) -> Erasure:
        signature = self._private.sign(render_erasure(at, monotonic, digests, by, reason))
        return Erasure(ERASURE, at, monotonic, digests, by, reason, signature)


def load_signer(directory: Path, public: bytes | None = None) -> Signer:
    """The key in `directory`, made at the first start; `public`: the one that the newest file names.  A change of keys
    that somebody was killed in is finished, or it never was: by which of both the newest file is to be signed.  Raises
    RecordingError, OSError."""
    following = directory / NEXT
    if following.exists():
        private = _read(following)
        if private is not None and private.public_key().public_bytes_raw() == public:
            _sync_rename(following, directory / PRIVATE)
        elif private is None:
            following.unlink()
    path = directory / PRIVATE
    private = _read(path)
    if private is None:
        if any(directory.glob("recording-*.sqlite")):
            raise RecordingError(f"{path} is gone: put it back, or move the recording away with its {PUBLIC}") from None
        private = Ed25519PrivateKey.generate()
        _write(path, _render(private), 0o600)
    _publish(directory, private)
    return Signer(private)


def load_following(directory: Path) -> Signer | None:
    """The key that is to take the present one's place, where a change of keys has begun."""
    private = _read(directory / NEXT)
    return Signer(private) if private is not None else None


def make_following(directory: Path) -> Signer:
    """It, made and on the disk.  Raises OSError."""
    private = Ed25519PrivateKey.generate()
    _write(directory / NEXT, _render(private), 0o600)
    return Signer(private)


def forget_following(directory: Path) -> None:
    (directory / NEXT).unlink(missing_ok=True)


def promote_following(directory: Path) -> None:
    """The newest file is signed by it now: the key before is no more.  Raises OSError, RecordingError."""
    _sync_rename(directory / NEXT, directory / PRIVATE)
    private = _read(directory / PRIVATE)
    assert private is not None
    _publish(directory, private)


def _publish(directory: Path, private: Ed25519PrivateKey) -> None:
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    known = directory / PUBLIC
    if not known.exists() or known.read_bytes() != public:
        _write(known, public, 0o644)


def _render(private: Ed25519PrivateKey) -> bytes:
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def _read(path: Path) -> Ed25519PrivateKey | None:
    """None where there is none.  Raises RecordingError, OSError."""
    try:
        private = serialization.load_pem_private_key(path.read_bytes(), None)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as reason:
        raise RecordingError(f"{path} holds no key: move it away, or put the right one back") from reason
    if not isinstance(private, Ed25519PrivateKey):
        raise RecordingError(f"{path} holds no Ed25519 key")
    return private


def _sync_rename(source: Path, target: Path) -> None:
    source.rename(target)
    fd = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


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
