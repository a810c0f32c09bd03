"""Asking for another signing key: of the recorder that runs, or done here where none does."""
from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from enforcer.recording import notes
from enforcer.recording.recorder import take_lock
from enforcer.recording.signing import load_signer, make_following, name_key, promote_following
from enforcer.recording.store import newest_key, open_store
from enforcer.words.errors import RecordingError

WAIT: Final = 60.0                    # seconds for the recorder


def change_key(recording: Path, reason: str = "") -> tuple[str, str]:
    """Names of the key before and of the new one.  Raises RecordingError, OSError, sqlite3.Error."""
    status = recording.stat()
    if os.geteuid() not in (0, status.st_uid):
        raise RecordingError("only root or the recorder's user may change its key")
    before = newest_key(recording)
    if before is None:
        raise RecordingError(f"{recording}: there is no recording yet")
    caller = os.geteuid(), os.getegid()
    by = notes.name_user(caller[0])
    os.setegid(status.st_gid)
    os.seteuid(status.st_uid)         # what is made here must be the recorder's own
    try:
        try:
            lock = take_lock(recording, 0)
        except RecordingError:
            _ask(recording, reason, caller)
        else:
            try:
                _change_here(recording, {"uid": str(caller[0]), "user": by, "reason": reason})
            finally:
                os.close(lock)
    finally:
        os.seteuid(caller[0])
        os.setegid(caller[1])
    after = newest_key(recording)
    if after is None or after == before:
        raise RecordingError("the recorder did not change its key: its log says why")
    return name_key(before), name_key(after)


def _ask(recording: Path, reason: str, caller: tuple[int, int]) -> None:
    os.seteuid(caller[0])             # the note's owner is who asks
    left = notes.leave_note(recording, notes.Note("rekey", {"reason": reason}))
    until = time.monotonic() + WAIT
    while left is not None and left.exists():
        if time.monotonic() > until:
            raise RecordingError("the recorder did not answer in time; it may still do it")
        time.sleep(0.05)


def _change_here(recording: Path, by: dict[str, str]) -> None:
    os.umask(0o027)
    store = open_store(recording, load_signer(recording, newest_key(recording)))
    store.begin()
    operations = [(session, number) for session, _ in store.live() for number in store.open_operations(session)]
    following = store.rekey(make_following(recording), operations, by)
    promote_following(recording)
    following.begin()
    following.tell("continued", {"file": following.path.name})
    following.checkpoint()
    following.commit()
    following.sync()
    following.close()
