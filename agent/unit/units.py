"""Weir's units, where systemd runs this host: packaging/systemd.  What the agent tells systemd of itself.

systemd removes the cgroup of a slice that is stopped; before the slice is started again the guard runs.
"""
from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from agent.processes import ENVIRONMENT

NAME: Final = "weir"                  # [runtime] name that the units are for
SLICE: Final = "weir.slice"
AGENT: Final = "weir-agent.service"
STOPPING: Final = 300.0               # seconds that the units of crews may take to end
MANAGED: Final = Path("/run/systemd/system")           # sd_booted(3)
PLACES: Final = (Path("/etc/systemd/system"), Path("/lib/systemd/system"))      # ./bootstrap's units, the package's


def has_agent() -> bool:
    """Whether the agent of the default configuration is systemd's to start."""
    return MANAGED.is_dir() and any((place / AGENT).exists() for place in PLACES)


def stop_slice(name: str) -> None:
    """Every unit in it ends, and it does not count as started any more: the next one has to bring the guard up.  No
    error where there is no systemd."""
    if name == NAME and _systemctl("is-active", "--quiet", SLICE):
        _systemctl("stop", SLICE)


def _systemctl(*words: str) -> bool:
    if os.geteuid() != 0 or not MANAGED.is_dir():
        return False
    try:
        return subprocess.run(["systemctl", *words], env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=STOPPING).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False


def tell_systemd(*lines: str, descriptors: Sequence[int] = ()) -> None:
    """sd_notify(3); nothing where nobody listens."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.connect("\0" + path[1:] if path.startswith("@") else path)
        said = os.fsencode("\n".join(lines))
        if descriptors:
            socket.send_fds(one, [said], list(descriptors))
        else:
            one.send(said)
