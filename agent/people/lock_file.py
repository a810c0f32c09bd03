"""STATE/locks.json: what is locked out, over restarts.

Root's, replaced whole, on the disk before anybody is told.  Where it is there and cannot be read as a whole, the agent
does not start and the block stays: who was locked out must not get in because a file is damaged.
"""
from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final

import msgspec

from agent.contract.locks import MOST, Lock
from agent.layout import LayoutError, write_whole

NAME: Final = "locks.json"
LIMIT: Final = 8 << 20                # bytes; MOST of the longest take less
ADVICE: Final = "put a good one in its place, or move it away: then nothing is locked"
_Locks = Annotated[tuple[Lock, ...], msgspec.Meta(max_length=MOST)]


def read_locks(path: Path) -> tuple[Lock, ...]:
    """None of them where there is no such file.  Raises LayoutError where there is, and it is not right."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return ()
    except OSError as reason:
        raise LayoutError(f"{path}: {reason.strerror}; {ADVICE}") from None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != 0 or found.st_mode & 0o022:
            raise LayoutError(f"{path} is not a file that only root may write; {ADVICE}")
        with open(fd, "rb", closefd=False) as file:
            content = file.read(LIMIT + 1)
        locks = msgspec.json.decode(content, type=_Locks)
    except (OSError, ValueError) as reason:
        raise LayoutError(f"{path} cannot be read: {reason}; {ADVICE}") from None
    finally:
        os.close(fd)
    if len(content) > LIMIT or len({(one.kind, one.name) for one in locks}) != len(locks):
        raise LayoutError(f"{path} is too long, or locks the same twice; {ADVICE}")
    return locks


def write_locks(path: Path, locks: Iterable[Lock]) -> None:
    """Blocks.  It is on the disk when this returns.  Raises OSError, and then what was there is there, or what is
    new."""
    write_whole(path, msgspec.json.format(msgspec.json.encode(tuple(locks)), indent=1) + b"\n", 0o600)
