"""The addresses of targets and egress entries: asked by the enforcer, which alone parses what DNS servers say, and kept
for a while.

Names are looked up here by TTL, and whatever a crew was answered is told before the crew has it
(agent/network/names.py); an address that was given once is known until KEEP seconds after it was last given: so it is
known what a crew dials.
"""
from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

from agent.contract.names import covers, is_metadata, is_public, meanings, unreachable
from agent.settings.fields import is_address
from agent.settings.host_table import EgressEntry
from agent.settings.target_table import TargetEntry

LOG = logging.getLogger("weir.resolve")

SHORTEST, LONGEST, AGAIN = 5.0, 300.0, 5.0       # seconds between questions; after a failure
KEEP: Final = 3600.0                  # seconds
MOST: Final = 64                      # addresses of one name; the oldest are forgotten
BELOW: Final = 256                    # names below one wildcard; those that were given longest ago are forgotten
READ, LONGEST_TEXT = 1024, 64         # of what the enforcer says that a name leads to: addresses, characters of one
HOSTS: Final = "/etc/hosts"
HOSTS_TTL: Final = 30.0               # seconds

Ask = Callable[[str], Awaitable[tuple[tuple[str, ...], float]]]


class Unresolved(OSError):
    """There is no address."""


@dataclass
class Known:
    """Pure: what was given for each name.  Times are monotonic seconds."""

    _given: dict[str, dict[str, float]] = field(default_factory=dict)

    def update(self, name: str, addresses: Iterable[str], now: float) -> bool:
        """What a resolver has said; whether `addresses(name)` changed by it or by time."""
        before = self.addresses(name)
        given = self._given.setdefault(name, {})
        fresh = tuple(dict.fromkeys(addresses))[:MOST]
        kept = {address: seen for address, seen in given.items() if address not in fresh and seen + KEEP > now}
        self._given[name] = dict.fromkeys(fresh, now) | dict(list(kept.items())[:MOST - len(fresh)])
        return set(before) != set(self.addresses(name))

    def addresses(self, name: str) -> tuple[str, ...]:
        """What it resolves to now, then what it did before."""
        return tuple(self._given.get(name, ()))

    def below(self, pattern: str) -> tuple[str, ...]:
        """Names that a wildcard covers."""
        return tuple(name for name in self._given if covers(pattern, name))

    def drop(self, now: float, but: Iterable[str] = ()) -> bool:
        """Forget what was given too long ago, except of names that are asked for again and again; whether anything
        was."""
        kept = set(but)
        before = len(self._given)
        for name, given in tuple(self._given.items()):
            if name not in kept and max(given.values(), default=0.0) + KEEP <= now:
                del self._given[name]
        return len(self._given) != before

    def bound(self, pattern: str) -> None:
        """At most BELOW names below a wildcard."""
        there = sorted(self.below(pattern), key=lambda name: max(self._given[name].values(), default=0.0))
        for name in there[:max(0, len(there) - BELOW)]:
            del self._given[name]

    def forget_others(self, patterns: Iterable[str]) -> None:
        wanted = set(patterns)
        wildcards = [one for one in wanted if one.startswith("*.")]
        self._given = {name: given for name, given in self._given.items()
                       if name in wanted or any(covers(one, name) for one in wildcards)}


@dataclass(frozen=True)
class Place:
    """What an address and port belong to."""

    target: str = ""
    egress: str = ""
    conflict: str = ""                # two targets claim it: nobody's
    names: tuple[str, ...] = ()       # of egress entries, to which the address was given
    listed: bool = False              # an egress entry has the very address
    others: tuple[str, ...] = ()      # addresses of the other family that each of `names` was given


Own = Callable[[str], bool]            # whether it is an address of this host


def nobodys(address: str) -> bool:
    return False


def why_withheld(entry: EgressEntry, pattern: str, address: str, own: Own) -> str:
    """Why no name that the entry permits by this pattern leads there, "" where it may.  `address` is none that is
    unreachable."""
    if address in entry.addresses:
        return ""
    if any(own(str(one)) for one in meanings(address)):
        return f"{address} is this host's own, and addresses of [[egress]] {entry.name} does not list it"
    if pattern.startswith("*.") and not entry.private and not is_public(address):
        return f"{address} is not public, and [[egress]] {entry.name} has no private = true"
    return ""


class Places:
    """Pure: (address, port) -> Place, for one configuration and one state of the names."""

    def __init__(
        self, targets: Iterable[TargetEntry], egress: Iterable[EgressEntry], known: Known, own: Own = nobodys,
    ) -> None:
        self._places: dict[tuple[str, int], Place] = {}
        self.addresses: dict[str, tuple[str, ...]] = {}        # of each target
        self.egress: dict[str, tuple[str, ...]] = {}
        self.listed: dict[str, tuple[str, ...]] = {}           # of each egress entry, without what names lead to
        self._flows: dict[tuple[str, int], dict[str, str]] = {}     # name, "" for a listed address -> egress entry
        self._given: dict[tuple[str, int], list[str]] = {}     # addresses of a name, for a port
        for entry in egress:
            self._allow(entry, known, own)
        taken: dict[tuple[str, int], str] = {}
        for target in targets:
            self.addresses[target.name] = expand(target.hosts, known)
            for address in self.addresses[target.name]:
                place = (address, target.port)
                first = taken.setdefault(place, target.name)
                # A target never is an opaque flow, and a connection that could be either of two is neither.
                self._places[place] = Place(target=target.name) if first == target.name else Place(
                    conflict=f"{address} port {target.port} belongs to both {first} and {target.name}")

    def _allow(self, entry: EgressEntry, known: Known, own: Own) -> None:
        self.listed[entry.name] = tuple(one for one in entry.addresses if is_address(one)
                                        and (entry.metadata or not is_metadata(one)))
        found = [("", address) for address in self.listed[entry.name]]
        for pattern in entry.addresses:
            names = known.below(pattern) if pattern.startswith("*.") else () if is_address(pattern) else (pattern,)
            for name in names:
                found += [(name, address) for address in known.addresses(name)
                          if not unreachable(address) and not why_withheld(entry, pattern, address, own)]
        self.egress[entry.name] = tuple(dict.fromkeys(address for _, address in found))
        for name, address in found:
            for port in entry.ports:
                self._flows.setdefault((address, port), {}).setdefault(name, entry.name)
                self._given.setdefault((name, port), []).append(address)

    def find(self, address: str, port: int) -> Place:
        if (place := self._places.get((address, port))) is not None:
            return place
        flows = self._flows.get((address, port))
        if not flows:
            return Place()
        names = tuple(sorted(name for name in flows if name))
        others = [one for one in self._given[names[0], port] if (":" in one) != (":" in address)] if names else []
        return Place(egress=next(iter(flows.values())), names=names, listed="" in flows, others=tuple(dict.fromkeys(
            one for one in others if all(one in self._given[name, port] for name in names))))

    def all(self) -> Iterable[tuple[str, int]]:
        return {*self._places, *self._flows}

    def conflicts(self) -> list[str]:
        return sorted({place.conflict for place in self._places.values() if place.conflict})


def expand(hosts: Iterable[str], known: Known) -> tuple[str, ...]:
    """Addresses of configured names and addresses, in their order."""
    found = (address for host in hosts for address in ((host,) if is_address(host) else known.addresses(host)))
    return tuple(dict.fromkeys(found))


def parse_hosts(text: str) -> dict[str, tuple[str, ...]]:
    """hosts(5): addresses by name in lower case."""
    found: dict[str, tuple[str, ...]] = {}
    for line in text.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        if is_address(address):
            for name in names:
                found[name.lower()] = (*found.get(name.lower(), ()), str(ipaddress.ip_address(address)))
    return found


class Resolver:
    """Asks for every name again when its time has come.  `ask` gives addresses and seconds or raises OSError with the
    reason; `changed` is called after a change, in the loop."""

    def __init__(self, ask: Ask, changed: Callable[[], None], hosts: str = HOSTS) -> None:
        self.known = Known()
        self.failures: dict[str, str] = {}      # name -> why it is not known at present
        self._ask, self._changed, self._hosts = ask, changed, hosts
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._first: dict[str, asyncio.Event] = {}

    async def set_names(self, patterns: Iterable[str]) -> None:
        """Watch these and no others; returns when every new one has had its first answer, or none.  Nobody can ask for
        what is below a wildcard: that is known as it is asked."""
        every = set(patterns)
        wanted = {name for name in every if not is_address(name) and not name.startswith("*.")}
        for name in set(self._tasks) - wanted:
            self._tasks.pop(name).cancel()
            self._first.pop(name, None)
            self.failures.pop(name, None)
        self.known.forget_others(every)
        for name in sorted(wanted - set(self._tasks)):
            self._first[name] = asyncio.Event()
            self._tasks[name] = asyncio.get_running_loop().create_task(self._watch(name))
        await asyncio.gather(*(event.wait() for event in list(self._first.values())))

    def sweep(self) -> bool:
        """Whether a name below a wildcard was forgotten."""
        return self.known.drop(asyncio.get_running_loop().time(), self._tasks)

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _watch(self, name: str) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                addresses, ttl = await self.resolve(name)
            except OSError as reason:
                self._failed(name, str(reason) or type(reason).__name__)
                wait = AGAIN
            else:
                self.failures.pop(name, None)
                wait = min(max(ttl, SHORTEST), LONGEST)
                if self.known.update(name, addresses, loop.time()) and self._first[name].is_set():
                    self._changed()
            self._first[name].set()
            await asyncio.sleep(wait)

    def _failed(self, name: str, reason: str) -> None:
        if name not in self.failures:
            LOG.warning("%s could not be resolved: %s", name, reason)
        self.failures[name] = reason

    async def resolve(self, name: str) -> tuple[tuple[str, ...], float]:
        """Addresses, IPv4 first, and seconds that they hold.  Raises Unresolved, OSError."""
        listed = self._listed().get(name, ())
        if listed:
            return listed, HOSTS_TTL
        addresses, ttl = await self._ask(name)
        checked = check_addresses(addresses)
        if not checked:
            raise Unresolved(f"{name} leads to no address that a name may lead to")
        return checked, ttl

    def _listed(self) -> Mapping[str, tuple[str, ...]]:
        """The hosts file, as the crews' own resolvers read it (nsswitch.conf(5): files before dns)."""
        try:
            text = Path(self._hosts).read_text(errors="replace")[:1 << 20]
        except OSError:
            text = ""
        return {"localhost": ("127.0.0.1", "::1")} | parse_hosts(text)


def check_addresses(given: Iterable[str]) -> tuple[str, ...]:
    """What the enforcer says that a name leads to, as far as a name may lead there: canonical, MOST at most."""
    found = []
    for one in islice(given, READ):
        try:
            if len(one) <= LONGEST_TEXT and not unreachable(one):
                found.append(str(ipaddress.ip_address(one)))
        except ValueError:
            continue
    return tuple(dict.fromkeys(found))[:MOST]
