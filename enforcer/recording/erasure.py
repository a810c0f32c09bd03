"""Erasure: salt and content of blobs are taken out of every file, and a signed event says so.

The event goes first: what is gone is always accounted for.  A file that a reader keeps busy makes it fail, and it can
be asked for again: it is the same for blobs that are gone already.
"""
from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path

from enforcer.recording.signing import Signer
from enforcer.recording.store import Store, erase_in


def erase_everywhere(
    store: Store, files: Iterable[Path], signer: Signer, digests: tuple[bytes, ...], by: str, reason: str,
) -> None:
    """`store` is the open file, with nothing pending.  Raises sqlite3.Error, OSError."""
    now, boot = time.time_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    erasure = signer.sign_erasure(now, boot, tuple(sorted(set(digests))), by, reason)
    store.erase(erasure)
    for path in files:
        if path != store.path:
            erase_in(path, erasure)


def read_erased(files: Iterable[Path]) -> set[bytes]:
    """Digests that were erased.  Raises sqlite3.Error."""
    found: set[bytes] = set()
    for path in files:
        db = sqlite3.connect(path)
        try:
            found.update(row[0] for row in db.execute("SELECT digest FROM erased"))
        finally:
            db.close()
    return found
