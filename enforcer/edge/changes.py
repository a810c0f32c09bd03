"""Edge: that something has changed is told to the agent while somebody looks, once in EVERY seconds at most."""
from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from agent.contract.messages import Changed, Message

EVERY: Final = 0.2                    # seconds


class Changes:
    """`tell` takes Changed.  What nobody watches costs nothing."""

    def __init__(self, tell: Callable[[Message], None]) -> None:
        self._tell = tell
        self._watched = False
        self._holds = self._sessions = False
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, on: bool) -> None:
        self._watched = on
        if not on and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def holds(self) -> None:
        if self._watched:
            self._holds = True
            self._soon()

    def sessions(self) -> None:
        if self._watched:
            self._sessions = True
            self._soon()

    def _soon(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(EVERY, self._say)

    def _say(self) -> None:
        said = Changed(self._holds, self._sessions)
        self._holds, self._sessions, self._timer = False, False, None
        self._tell(said)
