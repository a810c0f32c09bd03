"""The rows of measures.py and roles.py, put in force on the calling process, which then executes what it is for.

What cannot be put in force raises, and the process is not started; but for Landlock where the kernel has none (before
5.13, or left out of `lsm=`), which is said, and PR_SET_MDWE before 6.3, which the filter stands for.
"""
from __future__ import annotations

import ctypes
import errno
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from agent.confined import calls
from agent.confined.measures import MEASURES, refused
from agent.confined.roles import Role
from agent.confined.view import NO_VIEW, places
from agent.workload import landlock
from agent.workload.seccomp import Rule, make_filter

LOG = logging.getLogger("weir.processes")

_PR_SET_MDWE, _REFUSE_EXEC_GAIN = 65, 1


class Confinement:
    """Made as root, before anything is given away; entered last.  Raises OSError."""

    def __init__(self, role: Role, code: Path, reads: Sequence[str], writes: Sequence[str]) -> None:
        abi = landlock.version() if role.files else 0
        self._domain = landlock.Domain(places(role, code, reads, writes)) if abi else None
        if role.files and not abi:
            LOG.warning("%s: %s", role.name, NO_VIEW)
        try:
            self._filter = make_filter(rules(role), errno.ENOSYS)
        except (RuntimeError, ValueError) as reason:
            raise OSError(errno.EINVAL, f"the filter of system calls cannot be made: {reason}") from None

    def enter(self) -> None:
        """Needs no_new_privs.  Raises OSError."""
        _refuse_writable_code()
        if self._domain is not None:
            self._domain.enter()
        try:
            self._filter.load()
        except (RuntimeError, ValueError) as reason:
            raise OSError(errno.EINVAL, f"the filter of system calls cannot be loaded: {reason}") from None


def rules(role: Role) -> Iterator[Rule]:
    """Pure.  What is named nowhere says ENOSYS."""
    never = refused()
    yield from (Rule(name, 0) for name in calls.ALLOWED if name not in never)
    yield from (Rule(name, errno.EPERM) for name in sorted(never))
    for measure in MEASURES:
        yield from measure.rules(role)


def _refuse_writable_code() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_MDWE, _REFUSE_EXEC_GAIN, 0, 0, 0) != 0 and ctypes.get_errno() != errno.EINVAL:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_MDWE)")
