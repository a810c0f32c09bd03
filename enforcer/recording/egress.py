"""What crews reached where egress is not enforced (docs/decisions/0015), from a recording; and the [[egress]] entries
that would permit it.

A place is a host and a port.  Its host is the name that the connection asked for, where Weir's resolver had given the
workload that address for that name, as the mode enforce wants it; else the address.
"""
from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from agent.contract.target import SHADOW
from enforcer.recording.replay import utc_time

EGRESS, TARGET, PROXY, HOST = "egress", "target", "proxy", "host"
NO_MODE: Final = "no mode lets it through"    # as the listener says it (enforcer.edge.listener)
_OPAQUE: Final = ("", "tls", "http")          # what an entry can permit
_PROXIES: Final = ("proxy", "socks")
_NOT_A_NAME: Final = re.compile(r"[^A-Za-z0-9._-]+")

Permitted = Callable[[str, int], bool]        # whether an entry has this host and port


class Place(msgspec.Struct, frozen=True):
    """`kind`: an [[egress]] entry permits it; it is to be a target; a proxy, which no entry permits; a service of this
    host, or one that hands out its credentials, which only an entry that lists the address permits."""

    kind: str
    host: str
    port: int
    speaks: tuple[str, ...]
    workloads: tuple[str, ...]
    count: int                        # connections
    bytes_out: int                    # of the crews'
    bytes_in: int
    first: int                        # nanoseconds UTC
    last: int
    addresses: tuple[str, ...]        # that were dialled
    reasons: tuple[str, ...]          # why enforce would have refused it, in the mode shadow


@dataclass
class _Flow:
    mode: str
    speaks: str = ""
    name: str = ""
    reasons: list[str] = field(default_factory=list)


@dataclass
class _Sum:
    speaks: set[str] = field(default_factory=set)
    workloads: set[str] = field(default_factory=set)
    addresses: set[str] = field(default_factory=set)
    reasons: set[str] = field(default_factory=set)
    count: int = 0
    bytes_out: int = 0
    bytes_in: int = 0
    first: int = 0
    last: int = 0

    def add(self, at: int, workload: str, address: str) -> None:
        self.count += 1
        self.workloads.add(workload)
        self.addresses.add(address)
        self.first, self.last = min(self.first or at, at), max(self.last, at)

    def place(self, kind: str, host: str, port: int) -> Place:
        return Place(kind, host, port, _sorted(self.speaks), _sorted(self.workloads), self.count, self.bytes_out,
                     self.bytes_in, self.first, self.last, _sorted(self.addresses), _sorted(self.reasons))


def read_places(dbs: Iterable[sqlite3.Connection], permitted: Permitted, workload: str = "") -> list[Place]:
    """What is not permitted; of one workload, or of all."""
    dbs = tuple(dbs)
    flows = _noted(dbs)
    names = _names(dbs)
    sums: dict[tuple[str, str, int], _Sum] = {}
    of: dict[str, _Sum] = {}
    for flow, at, who, destination in _rows(dbs, "SELECT flow, at, workload, destination FROM flow_opened"):
        note = flows.get(flow)
        if note is None or (note.mode == SHADOW and not note.reasons) or workload not in ("", who):
            continue
        address, port = _place(destination)
        host = _host(note, address, names.get((who, address), {}), at)
        one = of[flow] = sums.setdefault((_kind(note.speaks), host, port), _Sum())
        one.add(at, who, address)
        one.speaks.update(filter(None, [note.speaks]))
        one.reasons.update(note.reasons)
    for flow, sent, got in _rows(dbs, "SELECT flow, bytes_in, bytes_out FROM flow_closed"):
        if flow in of:
            of[flow].bytes_out += sent
            of[flow].bytes_in += got
    for at, who, destination, reason in _rows(
            dbs, "SELECT at, workload, destination, reason FROM refused WHERE reason LIKE ?", f"%{NO_MODE}"):
        if workload in ("", who):
            address, port = _place(destination)
            one = sums.setdefault((HOST, address, port), _Sum())
            one.add(at, who, address)
            one.reasons.add(reason)
    return [one.place(*key) for key, one in sorted(sums.items()) if key[0] not in (EGRESS, HOST)
            or not permitted(*key[1:])]


def _rows(dbs: Iterable[sqlite3.Connection], statement: str, *values: str) -> Iterator[tuple[Any, ...]]:
    for db in dbs:
        yield from db.execute(f"{statement} ORDER BY seq", values)


def _noted(dbs: Iterable[sqlite3.Connection]) -> dict[str, _Flow]:
    found: dict[str, _Flow] = {}
    dbs = [db for db in dbs if db.execute("PRAGMA table_info(flow_noted)").fetchone()]     # else of an earlier build
    for flow, mode, speaks, name, reason in _rows(dbs, "SELECT flow, mode, speaks, name, reason FROM flow_noted"):
        one = found.setdefault(flow, _Flow(mode))
        one.speaks, one.name = speaks or one.speaks, name or one.name
        one.reasons += [reason] if reason else []
    return found


def _names(dbs: Iterable[sqlite3.Connection]) -> dict[tuple[str, str], dict[str, int]]:
    """(workload, address) -> names that it was given for, and since when."""
    found: dict[tuple[str, str], dict[str, int]] = {}
    for at, workload, detail in _rows(dbs, "SELECT at, workload, detail FROM host_event WHERE name = 'dns.answered'"):
        said = json.loads(detail)
        for address in said.get("addresses", "").split():
            found.setdefault((workload, address), {}).setdefault(said["name"], at)
    return found


def _host(note: _Flow, address: str, given: dict[str, int], at: int) -> str:
    """What enforce would look at: the name asked for, where there is one; where there is none (and no TLS, which has to
    have one), the newest name that the address was given for."""
    if note.name or note.speaks == "tls":
        return note.name if note.name in given else address
    return max((name for name, since in given.items() if since <= at), key=given.__getitem__, default=address)


def _kind(speaks: str) -> str:
    return EGRESS if speaks in _OPAQUE else PROXY if speaks in _PROXIES else TARGET


def _place(destination: str) -> tuple[str, int]:
    address, _, port = destination.rpartition(" ")
    return address, int(port)


def _sorted(words: set[str]) -> tuple[str, ...]:
    return tuple(sorted(words))


def place_json(one: Place) -> dict[str, Any]:
    return {**msgspec.structs.asdict(one), "first_utc": utc_time(one.first), "last_utc": utc_time(one.last)}


# what a person reads, and puts into weir.toml


def render_draft(places: Iterable[Place], taken: Iterable[str]) -> str:
    """TOML.  `taken`: names of entries that there are."""
    every, names = list(places), set(taken)
    if not every:
        return "# nothing that weir.toml does not permit\n"
    parts = ["# A draft.  Look at each place before it goes into weir.toml.\n"]
    for host in dict.fromkeys(one.host for one in every if one.kind == EGRESS):
        parts.append(_entry([one for one in every if (one.kind, one.host) == (EGRESS, host)], names))
    parts += [f"\n# {_ADVICE[one.kind]}\n{_comment(one)}" for one in every if one.kind != EGRESS]
    return "".join(parts)


_ADVICE: Final = {
    TARGET: "Let this be a [[target]]: no [[egress]] permits what is spoken there.",
    PROXY: "A proxy: no [[egress]] permits it.  Let the crew connect by itself.",
    HOST: "Refused in every mode.  A service of this host is permitted where [[egress]] lists its loopback address.",
}


def _entry(places: list[Place], names: set[str]) -> str:
    """Of one host."""
    host, ports = places[0].host, ", ".join(str(one.port) for one in places)
    return ("\n" + "".join(map(_comment, places)) + f"[[egress]]\nname = {json.dumps(_name(host, names))}\n"
            f"addresses = [{json.dumps(host)}]\nports = [{ports}]\n")


def _name(host: str, names: set[str]) -> str:
    """One that no entry has."""
    wanted = name = _NOT_A_NAME.sub("-", host).strip("-._")[:60] or "egress"
    number = 1
    while name in names:
        number += 1
        name = f"{wanted}-{number}"
    names.add(name)
    return name


def _comment(one: Place) -> str:
    spoken = f" ({', '.join(one.speaks)})" if one.speaks else ""
    addresses = "" if one.addresses == (one.host,) else f", at {_few(one.addresses)}"
    lines = [f"{one.host} port {one.port}{spoken}{addresses}: {one.count} connections of {_few(one.workloads)}, "
             f"{one.bytes_out} bytes out, {one.bytes_in} in, {utc_time(one.first)} to {utc_time(one.last)}",
             *(f"  {reason}" for reason in one.reasons[:3])]
    return "".join(f"# {_plain(line)}\n" for line in lines)


def _few(words: tuple[str, ...]) -> str:
    return ", ".join(words[:4]) + (f" and {len(words) - 4} more" if len(words) > 4 else "")


def _plain(text: str) -> str:
    """A crew's words neither end the comment nor steer a terminal."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)
