"""Asking for an erasure: of the recorder that runs, or done here where none does."""
from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from enforcer.recording import notes
from enforcer.recording.erasure import erase_everywhere
from enforcer.recording.read import Reader, open_recording
from enforcer.recording.recorder import take_lock
from enforcer.recording.signing import load_signer
from enforcer.recording.store import list_files, newest_key, open_store
from enforcer.words.errors import RecordingError

AT_ONCE: Final = 5000                 # digests of one event
WAIT: Final = 60.0                    # seconds for the recorder


def find_digests(reader: Reader, session: str, operation: int = 0) -> set[bytes]:
    """Digests of texts, parameters, errors, payload and streams of a session, or of one operation of it."""
    found: set[bytes] = set()
    for entry in reader.entries(session):
        event = entry.event
        if operation and getattr(event, "operation", operation) != operation:
            continue
        for name in ("text", "parameters", "error", "content", "sha256"):
            found.add(getattr(event, name, b""))
        found.update(getattr(event, "payload", ()))
    return found - {b""}


def erase(recording: Path, digests: Iterable[bytes], reason: str) -> int:
    """How many blobs are gone at return.  Raises RecordingError, OSError, sqlite3.Error."""
    wanted = sorted(set(digests))
    owner = recording.stat().st_uid
    if os.geteuid() not in (0, owner):
        raise RecordingError("only root or the recorder's user may erase")
    if not wanted:
        raise RecordingError("there is nothing to erase")
    by = notes.name_user(os.geteuid())
    before = os.geteuid(), os.getegid()
    os.setegid(recording.stat().st_gid)
    os.seteuid(owner)                 # what is made here must be the recorder's own
    try:
        try:
            lock = take_lock(recording, 0)
        except RecordingError:
            _ask(recording, wanted, reason, before)
        else:
            try:
                _erase_here(recording, wanted, by, reason)
            finally:
                os.close(lock)
    finally:
        os.seteuid(before[0])
        os.setegid(before[1])
    left = count_left(recording, wanted)
    if left:
        raise RecordingError(f"{left} of {len(wanted)} blobs are still there: try again; a reader may keep a file busy")
    return len(wanted)


def _ask(recording: Path, wanted: list[bytes], reason: str, caller: tuple[int, int]) -> None:
    os.seteuid(caller[0])             # the note's owner is who asks
    left = [notes.leave_note(recording, notes.Note("erase", {"reason": reason}, tuple(wanted[at:at + AT_ONCE])))
            for at in range(0, len(wanted), AT_ONCE)]
    until = time.monotonic() + WAIT
    while any(path is not None and path.exists() for path in left):
        if time.monotonic() > until:
            raise RecordingError("the recorder did not answer in time; it may still do it")
        time.sleep(0.05)


def _erase_here(recording: Path, wanted: list[bytes], by: str, reason: str) -> None:
    os.umask(0o027)
    signer = load_signer(recording, newest_key(recording))
    store = open_store(recording, signer)
    store.begin()
    for at in range(0, len(wanted), AT_ONCE):
        erase_everywhere(store, list_files(recording), signer, tuple(wanted[at:at + AT_ONCE]), by, reason)
    store.checkpoint()
    store.commit()
    store.sync()
    store.close()


def count_left(recording: Path, digests: Iterable[bytes]) -> int:
    wanted = set(digests)
    with open_recording(recording) as reader:
        return len({row[0] for db in reader.dbs for row in db.execute(
            "SELECT digest FROM blob WHERE body IS NOT NULL") if row[0] in wanted})
