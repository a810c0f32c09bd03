"""What `weir check` notes on the host that the configuration is for: the edge of agent/advice.py.

Nothing of it is looked at by the agent: a path in a crew's home directory may be whatever the crew made it.
"""
from __future__ import annotations

import os
from collections.abc import Iterator

from agent import advice
from agent.config import Config
from agent.fields import Problem


def notes(config: Config) -> tuple[Problem, ...]:
    """What is right and yet hardly meant, and what could not be looked at."""
    return (*advice.notes(config), *_credentials(config))


def _credentials(config: Config) -> Iterator[Problem]:
    if os.geteuid() != 0 and any(advice.secret_files(config)):
        yield Problem(config.file, 0, "", "credentials were not looked at: not root; `sudo weir check` does")
