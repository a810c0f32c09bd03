"""Pure: what is to be delivered, and when it is tried again: twice as late each time, with jitter, and not for ever."""
from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

FIRST: Final = 1.0                    # seconds before the second try,
LONGEST: Final = 60.0                 # and at most between two
TRIES: Final = 12                     # some six minutes
WAIT: Final = 300.0                   # seconds that a receiver may ask for

_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True)
class _Entry:
    at: float
    tries: int = 0
    busy: bool = False
    again: bool = False               # it changed while it was under way


class Backlog(Generic[_Key]):
    """`random()` gives 0.0 to 1.0; times are seconds of one clock."""

    def __init__(self, random: Callable[[], float], most: int) -> None:
        self._random, self._most = random, most
        self._entries: dict[_Key, _Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: _Key) -> bool:
        return key in self._entries

    def add(self, key: _Key, now: float) -> bool:
        """False: it is full.  What is tried already keeps its turn; what is under way goes again after it."""
        entry = self._entries.get(key)
        if entry is None and len(self._entries) >= self._most:
            return False
        if entry is None:
            self._entries[key] = _Entry(now)
        elif entry.busy:
            self._entries[key] = replace(entry, again=True)
        return True

    def take(self, now: float) -> _Key | None:
        """The one that has waited longest of those whose time has come: under way from now on."""
        due = [(entry.at, key) for key, entry in self._entries.items() if not entry.busy and entry.at <= now]
        if not due:
            return None
        key = min(due, key=lambda one: one[0])[1]
        self._entries[key] = replace(self._entries[key], busy=True, again=False)
        return key

    def next(self) -> float | None:
        return min((entry.at for entry in self._entries.values() if not entry.busy), default=None)

    def tries(self, key: _Key) -> int:
        """That came to nothing."""
        entry = self._entries.get(key)
        return entry.tries if entry else 0

    def done(self, key: _Key, now: float) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None and entry.again:
            self._entries[key] = _Entry(now)

    def failed(self, key: _Key, now: float, wait: float = 0.0) -> bool:
        """Whether it is tried again: not before `wait` seconds."""
        entry = self._entries.get(key)
        if entry is None:
            return False
        if entry.tries + 1 >= TRIES:
            del self._entries[key]
            return False
        pause = min(LONGEST, FIRST * 2.0 ** entry.tries) * (0.5 + self._random() / 2)
        self._entries[key] = _Entry(now + max(pause, min(wait, WAIT)), entry.tries + 1)
        return True

    def drop(self, key: _Key) -> None:
        self._entries.pop(key, None)
