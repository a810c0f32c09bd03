"""The running command that an approval may stand for.  Pure.

A process is told by its pid and when it started, which no other has until the host is started anew.  It may become
another program, by execve(2), and stays the same process: so what runs, and with which arguments, belongs to it too.
"""
from __future__ import annotations

from typing import Final

from agent.contract.owner import Owner

SEEN: Final = ("mark", "cgroup")      # attributions by which the process is the one that asks: not another's tunnel


def tell_running(owner: Owner) -> tuple[str, ...]:
    """All that tells it, and who is behind it; empty where any of it is not known: then nothing may stand for it."""
    process = owner.process
    if process is None or owner.attribution not in SEEN:
        return ()
    if process.pid <= 0 or process.started <= 0 or not process.exe or not process.exe_sha256 or not process.argv:
        return ()
    return (str(process.pid), str(process.started), process.exe, process.exe_sha256, str(len(process.argv)),
            *process.argv, str(owner.uid), owner.login, owner.cgroup)
