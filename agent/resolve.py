"""The addresses of targets and egress entries: asked of the configured resolver, by TTL, and kept for a while.

Crews ask the same resolver themselves, a little earlier or later; an address that was given once is known until KEEP
seconds after it was last given, so that what a crew dials is known to be a target's.
"""
from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import dns.asyncresolver
import dns.exception
import dns.rdatatype
import dns.resolver

from agent.config import EgressEntry, TargetEntry

LOG = logging.getLogger("weir.resolve")

SHORTEST, LONGEST, AGAIN = 5.0, 300.0, 5.0       # seconds between questions; after a failure
KEEP: Final = 3600.0                  # seconds
MOST: Final = 64                      # addresses of one name; the oldest are forgotten
TIMEOUT: Final = 5.0                  # seconds for one name
HOSTS: Final = "/etc/hosts"
HOSTS_TTL: Final = 30.0               # seconds


class Unresolved(OSError):
    """There is no address."""


def is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


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

    def forget_others(self, names: Iterable[str]) -> None:
        wanted = set(names)
        self._given = {name: given for name, given in self._given.items() if name in wanted}


@dataclass(frozen=True)
class Place:
    """What an address and port belong to."""

    target: str = ""
    egress: str = ""
    conflict: str = ""                # two targets claim it: nobody's


class Places:
    """Pure: (address, port) -> Place, for one configuration and one state of the names."""

    def __init__(self, targets: Iterable[TargetEntry], egress: Iterable[EgressEntry], known: Known) -> None:
        self._places: dict[tuple[str, int], Place] = {}
        self.addresses: dict[str, tuple[str, ...]] = {}        # of each target
        self.egress: dict[str, tuple[str, ...]] = {}
        for entry in egress:
            self.egress[entry.name] = expand(entry.addresses, known)
            for address in self.egress[entry.name]:
                for port in entry.ports:
                    self._places.setdefault((address, port), Place(egress=entry.name))
        taken: dict[tuple[str, int], str] = {}
        for target in targets:
            self.addresses[target.name] = expand(target.hosts, known)
            for address in self.addresses[target.name]:
                place = (address, target.port)
                first = taken.setdefault(place, target.name)
                # A target never is an opaque flow, and a connection that could be either of two is neither.
                self._places[place] = Place(target=target.name) if first == target.name else Place(
                    conflict=f"{address} port {target.port} belongs to both {first} and {target.name}")

    def find(self, address: str, port: int) -> Place:
        return self._places.get((address, port), Place())

    def all(self) -> Iterable[tuple[str, int]]:
        return self._places.keys()

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
    """Asks for every name again when its time has come.  `changed` is called after a change, in the loop."""

    def __init__(self, server: tuple[str, int] | None, changed: Callable[[], None], hosts: str = HOSTS) -> None:
        self.known = Known()
        self.failures: dict[str, str] = {}      # name -> why it is not known at present
        self._changed, self._hosts = changed, hosts
        self._server: dns.asyncresolver.Resolver | None = None
        if server is not None:
            self._server = dns.asyncresolver.Resolver(configure=False)
            self._server.nameservers, self._server.port = [server[0]], server[1]
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._first: dict[str, asyncio.Event] = {}

    async def set_names(self, names: Iterable[str]) -> None:
        """Watch these and no others; returns when every new one has had its first answer, or none."""
        wanted = {name for name in names if not is_address(name)}
        for name in set(self._tasks) - wanted:
            self._tasks.pop(name).cancel()
            self._first.pop(name, None)
            self.failures.pop(name, None)
        self.known.forget_others(wanted)
        for name in sorted(wanted - set(self._tasks)):
            self._first[name] = asyncio.Event()
            self._tasks[name] = asyncio.get_running_loop().create_task(self._watch(name))
        await asyncio.gather(*(event.wait() for event in list(self._first.values())))

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
            except (dns.exception.DNSException, OSError) as reason:
                self._failed(name, _explain(reason))
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
        """Addresses, IPv4 first, and seconds that they hold.  Raises DNSException, Unresolved."""
        listed = self._listed().get(name, ())
        if listed:
            return listed, HOSTS_TTL
        if self._server is None:
            raise Unresolved("there is no resolver: set [dns] resolver")
        answers = await asyncio.gather(
            *(self._server.resolve(name, kind, search=False, raise_on_no_answer=False, lifetime=TIMEOUT)
              for kind in (dns.rdatatype.A, dns.rdatatype.AAAA)), return_exceptions=True)
        found = [answer for answer in answers if isinstance(answer, dns.resolver.Answer) and answer.rrset is not None]
        failed = [answer for answer in answers if isinstance(answer, BaseException)]
        if not found:
            raise failed[0] if failed else Unresolved(f"{name} has no address")
        addresses = tuple(record.address for answer in found for record in answer.rrset or ())
        return addresses, float(min(answer.ttl for answer in map(_rrset, found)))

    def _listed(self) -> Mapping[str, tuple[str, ...]]:
        """The hosts file, as the crews' own resolvers read it (nsswitch.conf(5): files before dns)."""
        try:
            text = Path(self._hosts).read_text(errors="replace")[:1 << 20]
        except OSError:
            text = ""
        return {"localhost": ("127.0.0.1", "::1")} | parse_hosts(text)


def _explain(reason: Exception) -> str:
    if isinstance(reason, dns.resolver.NXDOMAIN):
        return "there is no such name"
    if isinstance(reason, dns.resolver.LifetimeTimeout):
        return f"the resolver did not answer within {TIMEOUT:.0f} seconds"
    if isinstance(reason, dns.resolver.NoNameservers):
        return "the resolver refused or failed"
    return str(reason) or type(reason).__name__


def _rrset(answer: dns.resolver.Answer) -> dns.rrset.RRset:
    assert answer.rrset is not None
    return answer.rrset
