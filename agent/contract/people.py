"""Who is one person under several names: `[people]` of groups.toml, and logins.  Pure; agent and enforcer ask it alike.

A name is a subject: "local:USER" or "PROVIDER:NAME".  Never oneself, distinct approvers and locks hold for a person,
whatever name is used.
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

MOST: Final = 16                      # names of one person


@dataclass(frozen=True)
class People:
    """`everybody`: a person's key -> all of their names; no name is two people's."""

    everybody: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    _of: dict[str, tuple[str, ...]] = field(init=False, repr=False, compare=False, default_factory=dict)

    def __post_init__(self) -> None:
        self._of.update((name, names) for names in self.everybody.values() for name in names)

    def names(self, known: Iterable[str], links: Iterable[tuple[str, ...]] = ()) -> tuple[str, ...]:
        """`known` first, then whatever else these people are called.  Each of `links` are names of one person, too:
        the local user and the subject of a login, say."""
        linked: dict[str, list[str]] = {}
        for link in links:
            for one in link:
                linked.setdefault(one, []).extend(link)
        found = dict.fromkeys(one for one in known if one)
        waiting = list(found)
        while waiting:
            name = waiting.pop()
            more = [one for one in (*self._of.get(name, ()), *linked.get(name, ())) if one not in found]
            found |= dict.fromkeys(more)
            waiting += more
        return tuple(found)

    def distinct(self, each: Iterable[Iterable[str]]) -> int:
        """How many people: who share a name are one."""
        found: list[set[str]] = []
        for names in each:
            one = set(self.names(names))
            others = [other for other in found if one.isdisjoint(other)]
            found = [*others, one.union(*(other for other in found if not one.isdisjoint(other)))]
        return len(found)
