"""`weir verify`: the standalone verifier's code, with the faster signature check of `cryptography`."""
from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from enforcer.recording import signing
from enforcer.recording.weir_verify import Report, parse_key, verify_files
from enforcer.words.errors import RecordingError


def verify(paths: Iterable[Path], keys: Iterable[bytes] = (), expect: Iterable[tuple[int, bytes]] = ()) -> Report:
    """Files of one recording, or its directory; `keys` are raw Ed25519 public keys, `expect` heads by event number.
    Raises weir_verify.Unreadable."""
    return verify_files(paths, keys, expect, signing.verify)


def read_key(path: Path) -> bytes:
    """Raises RecordingError."""
    try:
        return parse_key(path.read_bytes())
    except OSError as reason:
        raise RecordingError(f"{path}: {reason.strerror}") from reason
    except ValueError as reason:
        raise RecordingError(f"{path}: {reason}") from reason
