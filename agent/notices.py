"""What `weir check` notes on the host that the configuration is for: the edge of agent/advice.py.

Nothing of it is looked at by the agent: a path in a crew's home directory may be whatever the crew made it.
"""
from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Iterator
from pathlib import Path

from agent import advice
from agent.config import Config
from agent.fields import Problem
from agent.positions import Path as Place
from agent.positions import locate


def notes(config: Config) -> tuple[Problem, ...]:
    """What is right and yet hardly meant, and what could not be looked at."""
    groups = config.directory / "groups.toml"
    return (*advice.notes(config), *advice.members(config, str(groups), _lines(groups), _there), *_credentials(config))


def _lines(file: Path) -> dict[Place, int]:
    """Of a file that has been read before: without them where it is gone meanwhile."""
    try:
        return locate(file.read_text())
    except (OSError, UnicodeDecodeError):
        return {}


def _there(kind: str, name: str) -> bool:
    try:
        pwd.getpwnam(name) if kind == "user" else grp.getgrnam(name)
    except KeyError:
        return False
    return True


def _credentials(config: Config) -> Iterator[Problem]:
    if os.geteuid() != 0 and any(advice.secret_files(config)):
        yield Problem(config.file, 0, "", "credentials were not looked at: not root; `sudo weir check` does")
