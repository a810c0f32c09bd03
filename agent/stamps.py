"""Who was said to be behind connections, as numbers: at a reload they say whose session goes on.  Pure."""
from __future__ import annotations

from collections.abc import Callable
from typing import Final

from agent.people.identity import Principal
from agent.workload.owners import Start

MOST: Final = 4096                    # of whom the oldest is forgotten: then its sessions end at the next reload

Behind = Principal | str              # or why nobody is


class Stamps:
    """Equal starts with equal principals have one number, which is never another's."""

    def __init__(self) -> None:
        self._known: dict[tuple[Start, Behind], int] = {}
        self._next = 1

    @property
    def horizon(self) -> int:
        """The next number."""
        return self._next

    def stamp(self, start: Start, who: Behind) -> int:
        key = start, who
        if key not in self._known:
            self._known[key], self._next = self._next, self._next + 1
            while len(self._known) > MOST:
                del self._known[next(iter(self._known))]
        return self._known[key]

    def standing(self, behind: Callable[[Start], Behind]) -> frozenset[int]:
        """Numbers of those of whom `behind` says what was said."""
        return frozenset(number for (start, who), number in self._known.items() if behind(start) == who)

    def keep(self, standing: frozenset[int]) -> None:
        """The others are not known any more."""
        self._known = {key: number for key, number in self._known.items()
                       if number in standing or number >= self._next}
