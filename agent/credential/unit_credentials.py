"""Credentials that systemd hands the agent's unit: files in $CREDENTIALS_DIRECTORY (systemd.exec(5), CREDENTIALS).

The directory is root's alone, mode 0500, as its files are, 0400; systemd reads and decrypts them when the unit starts.
The variable is the agent's: what it starts has an environment of its own.
"""
from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from typing import Final

VARIABLE: Final = "CREDENTIALS_DIRECTORY"


def open_credential(name: str, environment: Mapping[str, str] = os.environ) -> int:
    """A descriptor to read it by.  `name` has no slash.  Raises OSError, whose strerror says what would be right."""
    place = environment.get(VARIABLE, "")
    if not place:
        raise OSError(errno.ENOENT, "the agent was started without credentials of a unit; LoadCredential="
                      f"{name}:PATH in weir-agent.service would be right")
    directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _check(os.fstat(directory), place)
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY,
                       dir_fd=directory)
    except FileNotFoundError:
        raise OSError(errno.ENOENT, f"the agent's unit has no such credential; LoadCredential={name}:PATH, and a "
                      "restart of the agent, would be right") from None
    finally:
        os.close(directory)


def _check(status: os.stat_result, place: str) -> None:
    if status.st_uid not in (0, os.geteuid()) or stat.S_IMODE(status.st_mode) & 0o077:
        raise OSError(errno.EPERM, f"others than root reach {place}, which systemd would have kept from them")
