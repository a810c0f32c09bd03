"""Pure: question -> what becomes of it.  Only configured names are asked of anybody, others in the modes shadow and
record only; bounds for what a crew may say by asking below a wildcard.  Times are monotonic seconds.
"""
from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import dns.rdatatype

from agent.contract.names import covers
from enforcer.core.bucket import Bucket
from enforcer.dns.messages import FORWARDED, Query

# Below a wildcard: a crew chooses the name, and whoever has the zone reads it.  Each workload has its own.
LABEL: Final = 40                     # characters of one label
BELOW: Final = 64                     # characters in all
LABELS: Final = 3
FRESH: Final = 30                     # new names a minute, each wildcard
# What is not listed, in the modes that let it through: all of it together.
UNLISTED: Final = "*"
UNLISTED_LABELS, UNLISTED_NAME = 8, 128
UNLISTED_FRESH: Final = 300           # new names a minute
REMEMBERED: Final = 256               # names that are not new, each wildcard
RATE, BURST = 10.0, 50.0              # questions a second, each wildcard
TOLD: Final = 20                      # refusals a second that are recorded one by one, each workload
CREW_RATE, CREW_BURST = 100.0, 400.0  # questions a second, each workload
WORKLOADS: Final = 1024               # that are told apart

_HOST: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?")
_NEVER: Final = frozenset({dns.rdatatype.ANY, dns.rdatatype.AXFR, dns.rdatatype.IXFR, dns.rdatatype.MAILA,
                           dns.rdatatype.MAILB})


@dataclass(frozen=True)
class Refused:
    reason: str


@dataclass(frozen=True)
class Unlisted(Refused):
    """By the mode enforce; others ask `lax`."""

    reason: str = "no target and no egress entry has this name"


@dataclass(frozen=True)
class Empty:
    """There is such a name, and nothing of that type is told."""


@dataclass(frozen=True)
class Forward:
    pattern: str                      # that permits it


class Below:
    """What was asked below one wildcard."""

    def __init__(
        self, rate: float = RATE, burst: float = BURST, fresh: int = FRESH, where: str = "below this wildcard",
    ) -> None:
        """`fresh`: new names a minute."""
        self._bucket, self._often, self._where = Bucket(rate, burst), fresh, where
        self._fresh = Bucket(fresh / 60, fresh)
        self._known: OrderedDict[str, None] = OrderedDict()

    def why_not(self, name: str, now: float) -> str:
        if not self._bucket.take(now):
            return f"too many questions {self._where}"
        if name not in self._known:
            if not self._fresh.take(now):
                return f"more than {self._often} new names a minute {self._where}"
            while len(self._known) >= REMEMBERED:
                self._known.popitem(last=False)
        self._known[name] = None
        self._known.move_to_end(name)
        return ""


class Crew:
    """What one workload asked."""

    def __init__(self) -> None:
        self._bucket = Bucket(CREW_RATE, CREW_BURST)
        self.told = Bucket(TOLD, TOLD)
        self._below: dict[str, Below] = {}

    def may_ask(self, now: float) -> bool:
        return self._bucket.take(now)

    def below(self, pattern: str) -> Below:
        """A wildcard, or UNLISTED."""
        if pattern not in self._below:
            self._below[pattern] = Below() if pattern != UNLISTED else Below(
                CREW_RATE, CREW_BURST, UNLISTED_FRESH, "that are not listed")
        return self._below[pattern]

    def keep(self, wildcards: Iterable[str]) -> None:
        self._below = {one: self._below[one] for one in (*wildcards, UNLISTED) if one in self._below}


class Decisions:
    """For one configuration.  What was asked is remembered beyond it: a reload is no way to begin anew."""

    def __init__(self, patterns: Iterable[str], before: Decisions | None = None) -> None:
        every = tuple(patterns)
        self._names = frozenset(one for one in every if not one.startswith("*."))
        self._wildcards = tuple(one for one in every if one.startswith("*."))
        self._crews: OrderedDict[str, Crew] = before._crews if before else OrderedDict()
        for crew in self._crews.values():
            crew.keep(self._wildcards)

    def decide(self, query: Query) -> Refused | Empty | Forward:
        """By the question alone."""
        if query.kind in _NEVER:
            return Refused("a question for everything")
        pattern = query.name if query.name in self._names else self._wildcard(query.name)
        if not pattern:
            return Unlisted()
        if pattern != query.name and (reason := _unfit(query.name.removesuffix(pattern[1:]))):
            return Refused(reason)
        return Forward(pattern) if query.kind in FORWARDED else Empty()

    def lax(self, query: Query) -> Refused | Empty | Forward:
        """What is Unlisted, where that is let through."""
        labels = query.name.split(".")
        if len(labels) > UNLISTED_LABELS or len(query.name) > UNLISTED_NAME:
            return Refused(f"more than {UNLISTED_LABELS} labels or {UNLISTED_NAME} characters")
        if not all(_HOST.fullmatch(one) for one in labels):
            return Refused("not a host's name")
        return Forward(UNLISTED) if query.kind in FORWARDED else Empty()

    def crew(self, workload: str) -> Crew:
        """"": whoever is none."""
        crew = self._crews.setdefault(workload, Crew())
        self._crews.move_to_end(workload)
        while len(self._crews) > WORKLOADS:
            self._crews.popitem(last=False)
        return crew

    def why_not(self, query: Query, pattern: str, workload: str, now: float) -> str:
        """By what was asked before."""
        if pattern != UNLISTED and pattern not in self._wildcards:
            return ""
        return self.crew(workload).below(pattern).why_not(query.name, now)

    def _wildcard(self, name: str) -> str:
        return next((one for one in self._wildcards if covers(one, name)), "")


def _unfit(below: str) -> str:
    """Why that part of a name is none that is asked below a wildcard."""
    labels = below.split(".")
    if len(labels) > LABELS or len(below) > BELOW or max(map(len, labels)) > LABEL:
        return f"more than {LABELS} labels, {LABEL} characters in one or {BELOW} in all below a wildcard"
    return "" if all(_HOST.fullmatch(one) for one in labels) else "not a host's name"
