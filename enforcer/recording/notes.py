"""Reading is an event: who reads the recording through Weir leaves a note, which the recorder takes.

Notes lie in RECORDING/reads, mode 3730: members of the auditors' group may add files, not list or change them.  Whose a
note is, the kernel says (the file's owner), not the note.  An erasure is asked for in the same way, and done only for
root and the recorder's own user.
"""
from __future__ import annotations

import os
import pwd
import re
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from enforcer.words.errors import RecordingError

READS: Final = "reads"
MODE: Final = 0o3730
LIMIT: Final = 256 << 10              # bytes of one note
AT_ONCE: Final = 100                  # notes a turn
_NAME: Final = re.compile(r"note-[0-9a-f]{32}")
_HALF: Final = re.compile(r"\.note-[0-9a-f]{32}")
_BAD: Final = re.compile(r"\.bad-[0-9a-f]{16}")          # what cannot be removed
HALF: Final = 60.0                    # seconds after which nobody finishes a half note


class Note(msgspec.Struct, frozen=True):
    name: str                         # "read" | "exported" | "erase"
    detail: dict[str, str]
    digests: tuple[bytes, ...] = ()   # of "erase"


def make_spool(recording: Path) -> None:
    """The recorder's part.  Raises OSError."""
    path = recording / READS
    path.mkdir(mode=0o700, exist_ok=True)
    path.chmod(MODE)


def leave_note(recording: Path, note: Note) -> Path | None:
    """The note's file; None where `recording` is no live one but a copy.  RecordingError where it cannot be left: then
    nothing may be read either."""
    spool = recording / READS
    if not spool.is_dir():
        return None
    name = f"note-{os.urandom(16).hex()}"
    path, fresh = spool / name, spool / f".{name}"
    try:
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        with open(fd, "wb") as file:
            os.fchmod(fd, 0o644)
            file.write(msgspec.msgpack.encode(note))
        fresh.rename(path)
    except OSError as reason:
        raise RecordingError(f"reading is recorded, and {spool} cannot be written: {reason.strerror}") from reason
    return path


def take_notes(recording: Path) -> Iterator[tuple[Path, Note | None, int]]:
    """(file, note, uid of who left it); the note is None where it cannot be understood.  The caller deletes the file
    when the note is in the recording."""
    spool = recording / READS
    with os.scandir(spool) as entries:
        names = [entry.name for entry in entries]
    for name in islice((one for one in names if _NAME.fullmatch(one)), AT_ONCE):
        try:
            note, uid = _read(spool / name)
        except OSError:
            note, uid = None, -1
        yield spool / name, note, uid
    for name in islice((one for one in names if not (_NAME.fullmatch(one) or _BAD.fullmatch(one))), AT_ONCE):
        if not _HALF.fullmatch(name) or _is_left(spool / name):
            remove(spool / name)


def _is_left(path: Path) -> bool:
    """Who made it died before it could give it its name.  Unlike other times, nobody sets ctime."""
    try:
        return time.time() - path.lstat().st_ctime > HALF
    except OSError:
        return False


def _read(path: Path) -> tuple[Note | None, int]:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        state = os.fstat(fd)
        if not stat.S_ISREG(state.st_mode) or state.st_size > LIMIT or state.st_nlink != 1:
            return None, state.st_uid
        try:
            return msgspec.msgpack.decode(os.read(fd, LIMIT), type=Note), state.st_uid
        except (ValueError, RecursionError):       # msgspec's own, bytes that are no UTF-8, depth
            return None, state.st_uid
    finally:
        os.close(fd)


def remove(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            path.rename(path.with_name(f".bad-{os.urandom(8).hex()}"))   # somebody made a directory: out of the way
        else:
            path.unlink()


def name_user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
