"""Names of files that root alone decides, and files that root reads for others.

A path is walked a step at a time, by lstat(2): every directory on the way is root's and nobody else may write it, so
nobody else can change what was looked at, neither between two steps nor later.  A link is followed where it is root's,
as everything in such a directory is.  What is read is looked at first by a descriptor that opens nothing (O_PATH): to
open a device is to use it.
"""
from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from agent.workload.view import CONTENT_LIMIT, LINK_LIMIT

_OTHERS_WRITE: Final = 0o022
_OTHERS_READ, _OTHERS_SEARCH = 0o004, 0o001


class NotRooted(Exception):
    """Who else decides."""


def resolve(path: str) -> str:
    """Without links.  What it leads to may be anybody's and anything.  Raises NotRooted; OSError where it leads
    nowhere."""
    names, place, links = path.split("/")[::-1], "/", 0
    while names:
        name = names.pop()
        if name == "..":
            place = posixpath.dirname(place)
        elif name not in ("", "."):
            _check_directory(place)
            step = posixpath.join(place, name)
            status = os.lstat(step)
            if not stat.S_ISLNK(status.st_mode):
                place = step
                continue
            if status.st_uid != 0:
                raise NotRooted(f"{step} is a link of another user's than root")
            if (links := links + 1) > LINK_LIMIT:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            target = os.readlink(step)
            place = "/" if target.startswith("/") else place
            names += target.split("/")[::-1]
    return place


def _check_directory(path: str) -> None:
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    if status.st_uid != 0 or status.st_mode & _OTHERS_WRITE:
        raise NotRooted(f"not only root may write {path}")


def read(path: str, right: Callable[[os.stat_result], bool]) -> bytes | None:
    """Of a regular file that is `right`, up to CONTENT_LIMIT; None of anything else, also of a link.  Raises
    OSError."""
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or not right(status):
            return None
        with open(f"/proc/self/fd/{fd}", "rb") as file:
            found = file.read(CONTENT_LIMIT + 1)
    finally:
        os.close(fd)
    return found if len(found) <= CONTENT_LIMIT else None


def is_roots(status: os.stat_result) -> bool:
    """Nobody else writes it."""
    return status.st_uid == 0 and not status.st_mode & _OTHERS_WRITE


def program(path: str) -> tuple[str, tuple[int, int, int, int]]:
    """Where a program is, without links, and what changes with it.  Raises NotRooted where not root alone decides what
    it is; OSError where there is none."""
    place = resolve(path)
    status = os.lstat(place)
    if not stat.S_ISREG(status.st_mode) or not status.st_mode & 0o111:
        raise NotRooted(f"{place} is no program")
    if not is_roots(status):
        raise NotRooted(f"not only root may write {place}")
    return place, (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)


def is_public(path: str) -> bool:
    """Whether everybody may read this file.  `path`: resolved.  Raises OSError."""
    searched = all(os.lstat(one).st_mode & _OTHERS_SEARCH for one in Path(path).parents)
    return searched and bool(os.lstat(path).st_mode & _OTHERS_READ)
