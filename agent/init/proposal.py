"""Pure: findings, and what a person chose of them -> what would be configured.

Two places that are one (a name in a connection string, its address at the end of an open connection) become one target.
"""
from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from agent.init.findings import OTHER, UNIT, Crew, Peer
from agent.settings.credential_table import KUBERNETES, POSTGRESQL, SSH
from agent.settings.fields import is_address, is_loopback

_NOT_A_NAME: Final = re.compile(r"[^A-Za-z0-9._-]+")
_USUAL: Final = {POSTGRESQL: "database", SSH: "host", KUBERNETES: "cluster", OTHER: "place"}
APPROVERS: Final = "approvers"        # group of those who answer what is held
LOCALHOST: Final = ("127.0.0.1", "::1", "localhost")


class Place(msgspec.Struct, frozen=True):
    """A target, or where OTHER is spoken: an entry of egress.  `crews`: workloads that talk to it."""

    name: str
    peer: Peer
    crews: tuple[str, ...]
    take: bool = False                # its secrets become files of Weir's


class Workload(msgspec.Struct, frozen=True):
    name: str
    crew: Crew


class Proposal(msgspec.Struct, frozen=True):
    workloads: tuple[Workload, ...]
    places: tuple[Place, ...]
    mode: str                         # of egress

    @property
    def targets(self) -> tuple[Place, ...]:
        return tuple(one for one in self.places if one.peer.protocol)

    @property
    def egress(self) -> tuple[Place, ...]:
        return tuple(one for one in self.places if not one.peer.protocol)


def propose(
    crews: Sequence[Crew], recorded: Sequence[Peer], named: Sequence[Peer], mode: str, take: bool = False,
) -> Proposal:
    """`named`: targets that somebody gave, which are every crew's, as what was recorded is."""
    names = _names(crew.name.removesuffix(".service") for crew in crews)
    workloads = tuple(Workload(name, crew) for name, crew in zip(names, crews, strict=True))
    seen = [(peer, one.name) for one in workloads for peer in one.crew.peers]
    seen += [(peer, name) for peer in (*recorded, *named) for name in names]
    seen = seen or [(peer, "") for peer in (*recorded, *named)]
    merged = _merged(seen)
    titles = _names(peer.name or _title(peer) for peer, _ in merged)
    return Proposal(workloads, tuple(
        Place(name, peer, tuple(filter(None, who)), take and bool(peer.secrets))
        for name, (peer, who) in zip(titles, merged, strict=True)), mode)


def only_sure(proposal: Proposal) -> Proposal:
    """Without what is only known by name, which nobody was seen to talk to, and what is spoken where nobody knows."""
    return msgspec.structs.replace(proposal, places=tuple(one for one in proposal.places if one.peer.sure))


# two that are one


def _merged(seen: Iterable[tuple[Peer, str]]) -> list[tuple[Peer, tuple[str, ...]]]:
    """What somebody named, what says its protocol and what has a name comes first: others are added to it."""
    found: list[tuple[Peer, tuple[str, ...]]] = []
    for peer, who in sorted(seen, key=lambda one: _rank(one[0])):
        for number, (other, crews) in enumerate(found):
            if _same(peer, other):
                found[number] = _joined(other, peer), tuple(dict.fromkeys((*crews, who)))
                break
        else:
            found.append((peer, (who,)))
    return found


def _rank(peer: Peer) -> tuple[bool, bool, bool]:
    return not peer.name, not peer.protocol, bool(peer.hosts) and all(map(is_address, peer.hosts))


def _same(one: Peer, other: Peer) -> bool:
    if one.socket or other.socket:
        return one.socket == other.socket
    if one.protocol == other.protocol == OTHER and not any(map(is_address, (*one.hosts, *other.hosts))):
        return one.port == other.port and one.hosts == other.hosts     # many names have one address
    return one.port == other.port and bool(_ways(one) & _ways(other)) and (
        one.protocol in (other.protocol, OTHER))


def _ways(peer: Peer) -> set[str]:
    local = set(LOCALHOST) if any(map(is_loopback, peer.hosts)) else set()
    return {*peer.hosts, *peer.addresses, *local}


def _joined(first: Peer, more: Peer) -> Peer:
    """By every name, and no address that names lead to.  Where the two say another database or account, none is said:
    any counts."""
    names = [host for host in more.hosts if not is_address(host) or host not in first.addresses]
    return msgspec.structs.replace(
        first, hosts=tuple(dict.fromkeys((*first.hosts, *names))), database=_agreed(first.database, more.database),
        user=_agreed(first.user, more.user) if first.protocol == SSH else first.user or more.user,
        why=tuple(dict.fromkeys((*first.why, *more.why)))[:8], sure=first.sure or more.sure,
        addresses=tuple(dict.fromkeys((*first.addresses, *more.addresses))), tls=first.tls or more.tls,
        root_file=first.root_file or more.root_file, keys=first.keys or more.keys,
        authorities=first.authorities or more.authorities, secrets=first.secrets or more.secrets)


def _agreed(one: str, other: str) -> str:
    return one or other if one == other or not (one and other) else ""


# names


def _title(peer: Peer) -> str:
    """What it would be called."""
    if peer.protocol == POSTGRESQL and peer.database:
        return peer.database
    host = peer.hosts[0] if peer.hosts else ""
    if not host or is_address(host) or host == "localhost":
        return _USUAL[peer.protocol]
    return host.partition(".")[0] if peer.protocol else host


def _names(wanted: Iterable[str]) -> list[str]:
    """Names as weir.toml has them, each once; what is one stays as it is."""
    found: list[str] = []
    for text in wanted:
        base = name = _NOT_A_NAME.sub("-", text)[:48].strip("-._") or "crew"
        number = 1
        while name in found:
            number += 1
            name = f"{base}-{number}"
        found.append(name)
    return found


# what weir.toml has


def hosts_of(peer: Peer) -> tuple[str, ...]:
    """This host by each way to say so."""
    if any(map(is_loopback, peer.hosts)):
        return LOCALHOST
    return peer.hosts


def is_here(peer: Peer) -> bool:
    """What it says does not leave this host."""
    return bool(peer.socket) or any(map(is_loopback, peer.hosts))


def said_of(crew: Crew) -> str:
    who = f"user {crew.user}" if crew.user else "a user that systemd makes"
    return f"{crew.name}, which runs as {who}" if crew.kind == UNIT else f"commands of {who}"


def group_of(workload: str) -> str:
    """Of groups.toml: everybody who acts through it."""
    return workload if workload != APPROVERS else f"crew-{workload}"
