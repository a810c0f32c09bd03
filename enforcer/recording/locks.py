"""Who may read the recording may also take SQLite's locks on it, and keep the recorder from writing.

Then the recorder ends, as for any other error, and shuts the directory; the next one says in the recording who it was,
and opens it again after a while.  Where a lock is in its way, too, it gives the newest file and its -shm new inodes, on
which nobody has one.  Readers that were there read on in what they had opened.  So nobody stops the recorder for more
than some seconds a minute.
"""
from __future__ import annotations

import fcntl
import gc
import logging
import os
import shutil
import sqlite3
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from enforcer.recording.signing import Signer
from enforcer.recording.store import Store, list_files, open_store
from enforcer.words.errors import RecordingError

LOG = logging.getLogger("weir.recorder")

OPEN, SHUT = 0o2750, 0o2700           # of the recording's directory
SHUT_FOR: Final = 60.0                # seconds
FOUND: Final = ".locked"              # in it: who had the lock
_FLOCK: Final = struct.Struct("hhqqi")     # struct flock of 64-bit Linux
# What a writer needs alone: WAL_WRITE_LOCK and WAL_RECOVER_LOCK of -shm (wal.c), and the file's bytes from PENDING_BYTE
# to the end of the SHARED ones (os.h), as it goes into WAL mode.
_SHM: Final = (120, 3)
_FILE: Final = (0x40000000, 512)


def shut_out(directory: Path, reason: BaseException) -> None:
    """A recorder ends: where it is because of such a lock, who has one is kept from taking it again."""
    if not _is_locked(reason):
        return
    with suppress(OSError, IndexError):
        directory.chmod(SHUT)
        (directory / FOUND).write_bytes(msgspec.json.encode(_found(directory)))


def open_unlocked(directory: Path, signer: Signer) -> tuple[Store, dict[str, str]]:
    """The store, begun; and who was shut out for it, as an event's detail.  Raises RecordingError, sqlite3.Error,
    OSError."""
    found, store = _found_before(directory), None
    try:
        store = _begun(directory, signer)
    except (RecordingError, sqlite3.OperationalError) as reason:
        if not _is_locked(reason):
            raise
    if store is None:
        gc.collect()                  # whatever is open of it: at its end SQLite deletes -wal by its name
        found = _found(directory)
        directory.chmod(SHUT)
        _renew(list_files(directory)[-1])
        store = _begun(directory, signer)
    if not found:
        with suppress(PermissionError):
            directory.chmod(OPEN)
    (directory / FOUND).unlink(missing_ok=True)
    return store, found


def _is_locked(reason: BaseException) -> bool:
    cause = reason.__cause__ if isinstance(reason, RecordingError) else reason
    return isinstance(cause, sqlite3.OperationalError) and cause.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY


def _found(directory: Path) -> dict[str, str]:
    newest = list_files(directory)[-1]
    found = {"file": newest.name, **_holder(newest)}
    LOG.error("somebody holds SQLite's lock on %s and is shut out: %s", newest, found)
    return found


def _found_before(directory: Path) -> dict[str, str]:
    """By the recorder before this one."""
    try:
        return msgspec.json.decode((directory / FOUND).read_bytes(), type=dict[str, str])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError):
        return {"file": ""}


def _begun(directory: Path, signer: Signer) -> Store:
    store = open_store(directory, signer)
    try:
        store.begin()
    except sqlite3.Error:
        store.abandon()
        raise
    return store


def _renew(path: Path) -> None:
    """Other inodes with the same content; what is in -wal belongs to them as well."""
    fresh = path.with_name(f".{path.name}")
    shutil.copyfile(path, fresh)
    fresh.chmod(0o640)
    with open(fresh, "rb") as file:
        os.fdatasync(file.fileno())
    Path(f"{path}-shm").unlink(missing_ok=True)
    fresh.rename(path)


def _holder(path: Path) -> dict[str, str]:
    """Pid, uid and name of a process that has such a lock, as far as the kernel says.  Closing a file here gives this
    process' own locks on it back (fcntl(2)): it writes there no more."""
    for name, (start, length) in ((f"{path}-shm", _SHM), (str(path), _FILE)):
        try:
            with open(name, "rb") as file:
                asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
                kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(file, fcntl.F_GETLK, asked))
        except OSError:
            continue
        if kind != fcntl.F_UNLCK:
            return {"pid": str(pid), **_whose(pid)}
    return {}


def _whose(pid: int) -> dict[str, str]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    except OSError:
        return {}
    words = dict(line.split(":", 1) for line in lines if ":" in line)
    return {"uid": words["Uid"].split()[0], "name": words["Name"].strip()}
