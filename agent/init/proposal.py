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
    holders: tuple[str, ...] = ()     # of `crews`: who had these secrets; the others are not given them
    inner: tuple[tuple[str, str], ...] = ()       # crew -> database, account or namespace that it said, as a whole

    def within(self, crew: str) -> str:
        """What that crew talks to there; empty: to several, or nobody said what."""
        return dict(self.inner).get(crew, "")


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
    seen = [_Seen(peer, one.name, one.name) for one in workloads for peer in one.crew.peers]
    seen += [_Seen(peer, name) for peer in (*recorded, *named) for name in names or [""]]
    merged = _merged(seen)
    titles = _names(one.peer.name or _title(one.peer) for one in merged)
    return Proposal(workloads, tuple(
        Place(name, one.peer, one.crews, take and bool(one.peer.secrets), one.holders,
              tuple((crew, _inner(one.said, crew)) for crew in one.crews))
        for name, one in zip(titles, merged, strict=True)), mode)


def only_sure(proposal: Proposal) -> Proposal:
    """Without what is only known by name, which nobody was seen to talk to, and what is spoken where nobody knows."""
    return msgspec.structs.replace(proposal, places=tuple(one for one in proposal.places if one.peer.sure))


# two that are one


class _Seen(msgspec.Struct, frozen=True):
    """`word`: the crew by whose word it is known where it is, by what, and what opens it; empty: by nobody's alone."""

    peer: Peer
    crew: str
    word: str = ""


class _Found(msgspec.Struct):
    peer: Peer
    crews: tuple[str, ...]
    word: str
    holders: tuple[str, ...]
    said: set[tuple[str, str]]        # by whose word, and what is within it


def _merged(seen: Iterable[_Seen]) -> list[_Found]:
    """Each place, its crews and who of them had its secrets.  What somebody named, what says its protocol, what has a
    name and what has secrets comes first: others are added to it."""
    found: list[_Found] = []
    for one in sorted(seen, key=lambda one: _rank(one.peer)):
        own = tuple(filter(None, (one.crew,)))
        other = next((other for other in found if _same(one.peer, other.peer, other.word in ("", one.word))), None)
        if other is None:
            found.append(_Found(one.peer, own, one.word, own if one.peer.secrets else (), {_said(one)}))
            continue
        other.said.add(_said(one))
        if one.peer.secrets and not other.peer.secrets and other.word in ("", one.word):
            other.holders = own
        elif one.peer.secrets and _values(one.peer) == _values(other.peer):
            other.holders = tuple(dict.fromkeys((*other.holders, *own)))
        other.peer = _joined(other.peer, one.peer if other.word in ("", one.word) else _no_trust(one.peer))
        other.word = other.word or (one.word if _no_trust(one.peer) != one.peer else "")
        other.crews = tuple(dict.fromkeys((*other.crews, *own)))
    return found


def _said(one: _Seen) -> tuple[str, str]:
    return one.word, one.peer.user if one.peer.protocol == SSH else one.peer.database


def _inner(said: Iterable[tuple[str, str]], crew: str) -> str:
    """What a crew said itself, or whoever named the place; what others say counts where these said nothing."""
    for who in ({crew, ""}, {one for one, _ in said}):
        if words := {text for one, text in said if text and one in who}:
            return words.pop() if len(words) == 1 else ""
    return ""


def _values(peer: Peer) -> list[tuple[str, str]]:
    return [(one.kind, one.value) for one in peer.secrets]


def _no_trust(peer: Peer) -> Peer:
    """Without what one crew must not say of a place that another one has a secret for: what is opened by it, and by
    what it is known that it is the right one."""
    return msgspec.structs.replace(peer, tls="", root_file="", keys=(), authorities="", secrets=())


def _rank(peer: Peer) -> tuple[bool, bool, bool, bool]:
    return (not peer.name, not peer.protocol, bool(peer.hosts) and all(map(is_address, peer.hosts)),
            not peer.secrets)


def _same(one: Peer, other: Peer, own: bool) -> bool:
    """`own`: both by one crew's word.  By another's a name is what it is called and nothing more: where it leads to,
    who has it may change once something else that led there is sent to it."""
    if one.socket or other.socket:
        return one.socket == other.socket
    if one.port != other.port or one.protocol not in (other.protocol, OTHER):
        return False
    if one.protocol == other.protocol == OTHER and not any(map(is_address, (*one.hosts, *other.hosts))):
        return one.hosts == other.hosts     # many names have one address
    if own or all(map(is_address, one.hosts)):
        return bool(_ways(one) & _ways(other))
    return _dialled(one) == _dialled(other)


def _dialled(peer: Peer) -> str:
    return "localhost" if is_here(peer) else peer.hosts[0]


def _ways(peer: Peer) -> set[str]:
    local = set(LOCALHOST) if any(map(is_loopback, peer.hosts)) else set()
    return {*peer.hosts, *peer.addresses, *local}


def _joined(first: Peer, more: Peer) -> Peer:
    """By every name, and no address that names lead to.  Where the two say another database or account, none is said:
    any counts.  Whether what was named is spoken to with TLS, who named it has said there."""
    names = [host for host in more.hosts if not is_address(host) or host not in first.addresses]
    return msgspec.structs.replace(
        first, hosts=tuple(dict.fromkeys((*first.hosts, *names))), database=_agreed(first.database, more.database),
        user=_agreed(first.user, more.user) if first.protocol == SSH else first.user or more.user,
        why=tuple(dict.fromkeys((*first.why, *more.why)))[:8], sure=first.sure or more.sure,
        addresses=tuple(dict.fromkeys((*first.addresses, *more.addresses))),
        tls=first.tls or ("" if first.name else more.tls),
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
    return LOCALHOST if is_here(peer) else peer.hosts


def is_here(peer: Peer) -> bool:
    """What it says does not leave this host.  The first is what Weir dials: another that leads here does not count."""
    return bool(peer.socket) or is_loopback(peer.hosts[0])


def where_of(peer: Peer) -> str:
    """Where Weir dials it."""
    return peer.socket or f"{hosts_of(peer)[0]} port {peer.port}"


def said_of(crew: Crew) -> str:
    who = f"user {crew.user}" if crew.user else "a user that systemd makes"
    return f"{crew.name}, which runs as {who}" if crew.kind == UNIT else f"commands of {who}"


def group_of(workload: str) -> str:
    """Of groups.toml: everybody who acts through it."""
    return workload if workload != APPROVERS else f"crew-{workload}"
