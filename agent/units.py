"""Weir's units, where systemd runs this host: packaging/systemd.  What the agent tells systemd of itself.

Guard and slice require each other: a slice that was stopped, and so lost its cgroup, is not started again without the
guard, and neither is anything in it.
"""
from __future__ import annotations

import os
import socket
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Final

from agent.processes import ENVIRONMENT

NAME: Final = "weir"                  # [runtime] name that the units are for
GUARD, SLICE = "weir-guard.service", "weir.slice"
STOPPING: Final = 300.0               # seconds that the units of crews may take to end
_MANAGED: Final = Path("/run/systemd/system")          # sd_booted(3)


def end_crews(name: str) -> None:
    """Every unit in the slice, then guard and agent; the block stays.  No error where there is no systemd."""
    if name == NAME and _systemctl("is-active", "--quiet", GUARD):
        _systemctl("stop", SLICE)


def forget_guard(name: str) -> None:
    """What was released is not in place: the next unit in the slice has to bring the guard up again."""
    if name == NAME and _systemctl("is-active", "--quiet", GUARD):
        _systemctl("stop", GUARD)


def _systemctl(*words: str) -> bool:
    if os.geteuid() != 0 or not _MANAGED.is_dir():
        return False
    try:
        return subprocess.run(["systemctl", *words], env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=STOPPING).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


def tell_systemd(*lines: str) -> None:
    """sd_notify(3); nothing where nobody listens."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.connect("\0" + path[1:] if path.startswith("@") else path)
        one.send("\n".join(lines).encode())
