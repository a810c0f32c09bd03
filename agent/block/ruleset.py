"""Pure: settings -> the nftables table, in the words in which nft lists it; and whether a listing is that table.

Default drop for packets of sockets that were made in the slice, out and in, IPv4 and IPv6.  A chain of its own, jumped
to from a base chain, so that everybody else's packets meet a few matches and no policy.  Dropped, not rejected: the
refusal comes from connect's hooks; a reset here would have to be let in again, unasked, on the way back.

Text, because nft 1.0.6 knows `socket cgroupv2` in its language but not in its JSON.
"""
from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from probes.abi import LOCAL_MARK, LOCAL_MASK

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_PATH: Final = re.compile(r"[A-Za-z0-9_./-]+")
_UNIT_PATH: Final = re.compile(r"[A-Za-z0-9_./@:\\-]+")         # systemd.unit(5): names of units
_CGROUP: Final = re.compile(r'socket cgroupv2 level (\d+) (?:"([^"]*)"|(\d+))')
_LOOPBACK: Final = (("ip", "127.0.0.1"), ("ip6", "::1"))
_LOCAL: Final = (("ip", "127.0.0.0/8"), ("ip6", "::1"))
_MARKED: Final = f"meta mark & {LOCAL_MASK:#x} == {LOCAL_MARK:#x}"
_SHORT: Final = f"meta mark {LOCAL_MARK:#x}/{LOCAL_MASK.bit_count()}"       # as nft before 1.0.8 lists it
_AFTER_NAT: Final = 300
_OPENS: Final = "syn / syn,ack"       # RFC 9293 3.1: SYN without ACK
# As nft since 1.1 lists that, and what it is here.
_LONG: Final = (("tcp flags & (syn | ack) == syn", f"tcp flags {_OPENS}"),
                ("tcp flags & (syn | ack) != syn", f"tcp flags != {_OPENS}"))
NOBODYS, NOBODYS_AT_ONCE = 100, 200   # questions a second, by each protocol, of all who are no crew


@dataclass(frozen=True)
class Ruleset:
    name: str                         # of the table, family inet
    path: str                         # of the slice, relative to /sys/fs/cgroup
    level: int                        # of the slice below the root of cgroup v2
    port: int                         # of the listeners, on loopback
    resolver: tuple[str, int] | None
    redirect: bool                    # TCP that is not rewritten goes to the listener; conntrack then follows everybody
    joined: tuple[tuple[str, int], ...] = ()       # path and level of cgroups that count as in the slice

    @property
    def root(self) -> str:
        """Of cgroup v2, as `path`."""
        return str(PurePosixPath(self.path).parents[self.level - 1])

    def __post_init__(self) -> None:
        """Raises ValueError: nothing but itself gets into the text."""
        if not _NAME.fullmatch(self.name) or not _PATH.fullmatch(self.path) or self.level < 1:
            raise ValueError(f"no table {self.name} for {self.path} at level {self.level}")
        if not all(_UNIT_PATH.fullmatch(path) and level > 0 for path, level in self.joined):
            raise ValueError("a joined cgroup is none")
        ports = (self.port, self.resolver[1]) if self.resolver else (self.port,)
        if not all(0 < port < 1 << 16 for port in ports):
            raise ValueError("a port is none")
        if self.resolver:
            ipaddress.ip_address(self.resolver[0])


def render_table(rules: Ruleset) -> str:
    """The whole table."""
    chains = [*(_nat(rules) if rules.redirect else ()), *_output(rules), *_wire(), *_input(rules)]
    return "\n".join([f"table inet {rules.name} {{", *chains, "}"]) + "\n"


def _crews(rules: Ruleset, rest: str) -> list[str]:
    """For packets of sockets that were made in the slice, and in each cgroup that counts as in it."""
    return [f'socket cgroupv2 level {level} "{path}" {rest}' for path, level in _cgroups(rules)]


def _cgroups(rules: Ruleset) -> tuple[tuple[str, int], ...]:
    return ((rules.path, rules.level), *rules.joined)


def _chain(name: str, *lines: str) -> Iterator[str]:
    yield f"\tchain {name} {{"
    yield from (f"\t\t{line}" for line in lines)
    yield "\t}"


def _ends(rules: Ruleset, way: str, port: str) -> list[str]:
    """Matches of the only ends there are: `way` is daddr or saddr, `port` dport or sport."""
    return [f"{family} {way} {address} tcp {port} {rules.port}" for family, address in _LOOPBACK]


def _resolver(rules: Ruleset, way: str, port: str, protocols: tuple[str, ...]) -> list[str]:
    if rules.resolver is None:
        return []
    address = ipaddress.ip_address(rules.resolver[0])
    family = "ip" if address.version == 4 else "ip6"
    return [f"{family} {way} {address} {protocol} {port} {rules.resolver[1]}" for protocol in protocols]


def _accept(matches: list[str]) -> list[str]:
    return [f"{match} accept" for match in matches]


def _nat(rules: Ruleset) -> Iterator[str]:
    yield from _chain("nat_output", "type nat hook output priority -100; policy accept;",
                      *_crews(rules, "meta l4proto tcp jump crew_nat"))
    untouched = _ends(rules, "daddr", "dport") + _resolver(rules, "daddr", "dport", ("tcp",)) + _opened("daddr")
    yield from _chain("crew_nat", *_accept(untouched),
                      f"meta l4proto tcp counter redirect to :{rules.port}")


def _output(rules: Ruleset) -> Iterator[str]:
    """After the redirect, whose priority is lower.  What a crew has bound to an address that is not this host's
    (IP_FREEBIND) goes nowhere: whoever answers would answer there, on the wire."""
    yield from _chain("filter_output", "type filter hook output priority 0; policy accept;",
                      *_crews(rules, "jump crew_output"), *_nobodys(rules))
    yield from _chain("crew_output", "fib saddr type != local counter drop", *_accept(
        _ends(rules, "daddr", "dport") + _resolver(rules, "daddr", "dport", ("tcp", "udp"))
        + _opened("daddr") + _answers()), "counter drop")


def _nobodys(rules: Ruleset) -> list[str]:
    """Who is no crew gets no answer from the resolver, and takes little of what it costs to find that out: crews have
    turns of their own (probes/bpf/turns.bpf.c), and have left this chain."""
    turn = f"limit rate over {NOBODYS}/second burst {NOBODYS_AT_ONCE} packets drop"
    return [*(f"{match} tcp flags {_OPENS} {turn}" for match in _resolver(rules, "daddr", "dport", ("tcp",))),
            *(f"{match} {turn}" for match in _resolver(rules, "daddr", "dport", ("udp",)))]


def _wire() -> Iterator[str]:
    """What is for a loopback address, or from one, leaves by no other interface (RFC 1122 3.2.1.3): a socket that is
    bound to one would send there what the redirect, or connect's hooks, meant for the listener; and the listener
    answers to wherever a connect says that it comes from.  After routing, where no match knows a cgroup: it holds for
    everybody, and nobody else has a use for it; after source NAT (100), by which others lead loopback elsewhere."""
    yield from _chain("wire", f"type filter hook postrouting priority {_AFTER_NAT}; policy accept;", *(
        f'oif != "lo" {family} {way} {network} counter drop'
        for way in ("daddr", "saddr") for family, network in _LOCAL))


def _input(rules: Ruleset) -> Iterator[str]:
    """Answers only: nobody connects to a crew but itself.  Those to a redirected connection come under the name of whom
    the crew dialled; what they are, conntrack knows.  Where a workload's listener gave way to somebody else's after its
    connect was let through, the packet that opens is dropped: every socket is in the root, but one that is remembered
    (TIME_WAIT) is in no cgroup, and a SYN of its ports opens anew."""
    answers = _ends(rules, "saddr", "sport") + _resolver(rules, "saddr", "sport", ("tcp", "udp"))
    if rules.redirect:
        answers += [f"meta l4proto tcp ct direction reply ct status dnat ct reply {family} saddr {address} "
                    f"ct reply proto-src {rules.port}" for family, address in _LOOPBACK]
    yield from _chain("filter_input", "type filter hook input priority 0; policy accept;",
                      *_crews(rules, "jump crew_input"),
                      f'{_MARKED} tcp flags {_OPENS} socket cgroupv2 level 0 "{rules.root}" counter drop')
    yield from _chain("crew_input", *_accept(_opened("saddr")), f"tcp flags {_OPENS} counter drop",
                      *_accept(answers + _answers()), "counter drop")


def _opened(way: str) -> list[str]:
    """Within a workload, on loopback: the side that opened, as the probes found."""
    return [f"{_MARKED} {family} {way} {network} meta l4proto tcp" for family, network in _LOCAL]


def _answers() -> list[str]:
    """And the other one, which cannot open anything by it."""
    return [f"{family} saddr {network} {family} daddr {network} tcp flags != {_OPENS}" for family, network in _LOCAL]


def differences(listing: str, rules: Ruleset, same: Callable[[str, str], bool]) -> list[str]:
    """Why `nft -s -y list table` is not that table; empty where it is.

    A rule holds a cgroup's id, and nft shows some path that has this inode now, or the number: `same(text, path)` says
    whether that is the cgroup that the rules know by `path`."""
    if not listing:
        return [f"nftables: table inet {rules.name} is not there"]
    found = []

    def known(match: re.Match[str]) -> str:
        """As it is rendered, where it is one of ours."""
        text = match[2] or match[3] or ""
        for path, level in (*_cgroups(rules), (rules.root, 0)):
            if int(match[1]) == level and same(text, path):
                return f'socket cgroupv2 level {level} "{path}"'
        found.append(f"nftables: a rule of {rules.name} matches another cgroup ({text})")
        return match[0]

    expected, there = _lines(render_table(rules)), _lines(_CGROUP.sub(known, listing))
    found += [f"nftables: {rules.name} lacks '{line}'" for line in expected if line not in there]
    found += [f"nftables: {rules.name} has also '{line}'" for line in there if line not in expected]
    return found if found or expected == there else [f"nftables: the rules of {rules.name} are in another order"]


def _lines(text: str) -> list[str]:
    """In the words of render_table, whichever version of nft has listed it."""
    for listed, rendered in ((_SHORT, _MARKED), *_LONG):
        text = text.replace(listed, rendered)
    return [line.strip() for line in text.splitlines() if line.strip()]
