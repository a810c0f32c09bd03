"""What a process that parses the bytes of peers must not have, and what it gives away before it does."""
from __future__ import annotations

import ctypes
import os
import resource
from pathlib import Path
from typing import Final

from enforcer.words.errors import PlatformError

_PR_SET_DUMPABLE: Final = 4           # linux/prctl.h
_PR_SET_NO_NEW_PRIVS: Final = 38
_CAPABILITIES: Final = ("CapInh", "CapPrm", "CapEff", "CapAmb")


def check_privileges() -> None:
    """PlatformError where this process holds anything that it could lose to a peer's bytes."""
    if 0 in os.getresuid() or 0 in os.getresgid():
        raise PlatformError("it never runs as root: it is started by the agent, as a user of its own")
    lines = Path("/proc/self/status").read_text().splitlines()
    found = dict(line.split(":", 1) for line in lines if ":" in line)
    held = [name for name in _CAPABILITIES if int(found[name], 16)]
    if held:
        raise PlatformError(f"it holds capabilities ({', '.join(held)}): it must have none")


def harden() -> None:
    """No core dump, no ptrace by others of the same user, nothing gained by exec."""
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in ((_PR_SET_DUMPABLE, 0), (_PR_SET_NO_NEW_PRIVS, 1)):
        if libc.prctl(option, value, 0, 0, 0) != 0:
            raise PlatformError(f"prctl({option}): {os.strerror(ctypes.get_errno())}")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
