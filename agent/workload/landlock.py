"""Landlock domains: what a process may reach of the files, and that it reaches no abstract Unix socket and no process
outside.

A workload is given the scopes alone (`enter_domain`): abstract names belong to the network namespace, which it may
share with the host, so no view of the files hides them, and bubblewrap could not mount any more where file system
rights are handled.  Weir's own processes are given all (`Domain`, agent/confined).  Source: landlock(7),
linux/landlock.h.
"""
from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

SCOPES: Final = 6                     # ABI version that knows them: Linux 6.12
_BIND: Final = 4                      # the same of ports: Linux 6.7
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446     # on every architecture
_VERSION: Final = 1                   # LANDLOCK_CREATE_RULESET_VERSION
_PATH_BENEATH: Final = 1
_ABSTRACT_UNIX_SOCKET, _SIGNAL = 1, 2
_BIND_TCP: Final = 1

# LANDLOCK_ACCESS_FS_*: the bit, and the ABI version that knows it first.
_RIGHTS: Final[Mapping[str, tuple[int, int]]] = {
    "execute": (0, 1), "write_file": (1, 1), "read_file": (2, 1), "read_dir": (3, 1), "remove_dir": (4, 1),
    "remove_file": (5, 1), "make_char": (6, 1), "make_dir": (7, 1), "make_reg": (8, 1), "make_sock": (9, 1),
    "make_fifo": (10, 1), "make_block": (11, 1), "make_sym": (12, 1), "refer": (13, 2), "truncate": (14, 3),
    "ioctl_dev": (15, 5),
}
_OF_FILES: Final = frozenset(("execute", "write_file", "read_file", "truncate", "ioctl_dev"))
READ: Final = frozenset(("read_file", "read_dir"))
EXECUTE: Final = frozenset(("execute", "read_file"))
USE: Final = frozenset(("read_file", "write_file"))            # of a device
OWN: Final = frozenset(("read_file", "read_dir", "write_file", "truncate", "make_reg", "make_dir", "remove_file",
                        "remove_dir", "refer"))

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Place:
    """A directory with all below it, or a file."""

    path: str
    rights: frozenset[str]
    needed: bool = False              # it is wrong if it is not there


def version() -> int:
    """Of the kernel's ABI; 0: none, or switched off."""
    return max(0, int(_libc.syscall(_CREATE_RULESET, None, 0, _VERSION)))


def enter_domain() -> None:
    """The calling process and what it starts; needs no_new_privs.  Nothing happens where the kernel has no scopes
    (`weir doctor` says so); OSError where it has and does not do it."""
    if version() < SCOPES:
        return
    ruleset = _create(0, 0, _ABSTRACT_UNIX_SOCKET | _SIGNAL)
    try:
        _restrict(ruleset)
    finally:
        os.close(ruleset)


class Domain:
    """Files by an allow-list; no TCP port is bound; with scopes.  As far as the kernel's ABI goes; there has to be one.
    It is made by who can open the places, and entered by who has given everything else away.  Raises OSError."""

    def __init__(self, places: Iterable[Place]) -> None:
        abi = version()
        self._known = {name: 1 << bit for name, (bit, since) in _RIGHTS.items() if since <= abi}
        self._ruleset = _create(sum(self._known.values()), _BIND_TCP if abi >= _BIND else 0,
                                _ABSTRACT_UNIX_SOCKET | _SIGNAL if abi >= SCOPES else 0)
        for place in places:
            self._add(place)

    def _add(self, place: Place) -> None:
        try:
            fd = os.open(place.path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            if place.needed:
                raise
            return
        try:
            rights = place.rights if stat.S_ISDIR(os.fstat(fd).st_mode) else place.rights & _OF_FILES
            allowed = sum(self._known.get(name, 0) for name in rights)
            attributes = struct.pack("=Qi", allowed, fd)
            if allowed and _libc.syscall(_ADD_RULE, self._ruleset, _PATH_BENEATH, attributes, 0) != 0:
                raise OSError(ctypes.get_errno(), f"landlock_add_rule of {place.path}")
        finally:
            os.close(fd)

    def enter(self) -> None:
        """The calling process and what it starts; needs no_new_privs.  Raises OSError."""
        try:
            _restrict(self._ruleset)
        finally:
            os.close(self._ruleset)


def _create(files: int, ports: int, scopes: int) -> int:
    attributes = struct.pack("=QQQ", files, ports, scopes)     # an older kernel wants zeros in what it does not know
    ruleset = int(_libc.syscall(_CREATE_RULESET, attributes, len(attributes), 0))
    if ruleset < 0:
        raise OSError(ctypes.get_errno(), "landlock_create_ruleset")
    return ruleset


def _restrict(ruleset: int) -> None:
    if _libc.syscall(_RESTRICT_SELF, ruleset, 0) != 0:
        raise OSError(ctypes.get_errno(), "landlock_restrict_self")
