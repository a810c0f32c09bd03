"""What the agent does again and again, in parts: where one fails it is said, and the others go on.

A part that fails does not do its work, so the state is "degraded" until it is done again; what it would have found is
not known meanwhile.
"""
from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from inspect import isawaitable
from typing import Final

from agent.journal import plain

LOG = logging.getLogger("weir.agent")
SHOWN: Final = 200                    # characters of what was wrong


class Parts:
    """`failing`: what of a part is wrong, by its name; `tell` records when that begins and ends."""

    def __init__(self, failing: dict[str, str], tell: Callable[[str, Mapping[str, object]], None]) -> None:
        self._failing, self._tell = failing, tell

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """What is done in it may fail as it likes; `name` says what it is, as the state will."""
        try:
            yield
        except Exception as reason:   # whatever it is: nobody foresaw it
            if name not in self._failing:
                LOG.error("%s: failed", name, exc_info=True)
            self.say(name, f"{type(reason).__name__}: {reason}")
        else:
            self.say(name, "")

    async def run(self, name: str, work: Callable[[], object]) -> None:
        """`work()`, awaited where it is to be."""
        with self.part(name):
            done = work()
            if isawaitable(done):
                await done

    def say(self, name: str, wrong: str) -> None:
        """`wrong`: empty, or why it does not do its work."""
        before = self._failing.pop(name, "")
        if wrong:
            self._failing[name] = plain(wrong)[:SHOWN]
        if bool(wrong) != bool(before):
            self._tell("part.failed" if wrong else "part.mended", {"part": name, "reason": wrong or before})
