"""A Landlock domain with scopes: no abstract Unix socket and no process outside of the workload is reached.

Abstract names belong to the network namespace, which a workload may share with the host, so no view of the files hides
them.  No file system rights are handled: bubblewrap could not mount any more.  Source: landlock(7), linux/landlock.h.
"""
from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

SCOPES: Final = 6                     # ABI version that knows them: Linux 6.12
_CREATE_RULESET, _RESTRICT_SELF = 444, 446     # on every architecture
_VERSION: Final = 1                   # LANDLOCK_CREATE_RULESET_VERSION
_ABSTRACT_UNIX_SOCKET, _SIGNAL = 1, 2

_libc = ctypes.CDLL(None, use_errno=True)


def version() -> int:
    """Of the kernel's ABI; 0: none, or switched off."""
    return max(0, int(_libc.syscall(_CREATE_RULESET, None, 0, _VERSION)))


def enter_domain() -> None:
    """The calling process and what it starts; needs no_new_privs.  Nothing happens where the kernel has no scopes
    (`weir doctor` says so); OSError where it has and does not do it."""
    if version() < SCOPES:
        return
    attributes = struct.pack("=QQQ", 0, 0, _ABSTRACT_UNIX_SOCKET | _SIGNAL)
    ruleset = _libc.syscall(_CREATE_RULESET, attributes, len(attributes), 0)
    if ruleset < 0:
        raise OSError(ctypes.get_errno(), "landlock_create_ruleset")
    try:
        if _libc.syscall(_RESTRICT_SELF, ruleset, 0) != 0:
            raise OSError(ctypes.get_errno(), "landlock_restrict_self")
    finally:
        os.close(ruleset)
