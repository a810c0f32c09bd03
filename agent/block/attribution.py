"""Pure: kernel records -> whose connect it was."""
from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass
from typing import Final

from probes import abi

REDIRECT: Final = "redirect"          # known by the firewall's redirect and the socket's cgroup alone
HOOKS: Final = {abi.HOOK_MARK: "mark", abi.HOOK_CGROUP: "cgroup", abi.HOOK_SOCKET: "socket"}
VERDICTS: Final = {abi.VERDICT_REDIRECTED: "redirected", abi.VERDICT_DNS: "dns", abi.VERDICT_REFUSED: "refused",
                   abi.VERDICT_LOCAL: "local", abi.VERDICT_ELSEWHERE: "elsewhere"}


@dataclass(frozen=True)
class Origin:
    """One connect of a crew."""

    owner: int                        # the task's mark; 0: known by its cgroup only
    tgid: int                         # initial pid namespace; 0 where only the socket is known
    cgroup: int                       # id
    cookie: int                       # of the socket
    when: int                         # CLOCK_MONOTONIC nanoseconds
    destination: str                  # as text, v4-mapped as IPv4
    port: int
    hook: str                         # "mark", "cgroup", "socket": how it was known; "redirect"
    # "dns": let through to the resolver; "refused": the listener, dialled by hand; "local": to a listener of the same
    # workload; "elsewhere": connected past the rewrite, with the real address as destination
    verdict: str = "redirected"


def parse_origin(raw: bytes) -> Origin:
    """Raises ValueError: not a record of this build's."""
    one = abi.parse(abi.Origin, raw)
    if one.hook not in HOOKS or one.verdict not in VERDICTS:
        raise ValueError(f"hook {one.hook}, verdict {one.verdict}")
    return Origin(one.owner, one.tgid, one.cgroup, one.cookie, one.when, abi.unpacked(bytes(one.destination)), one.port,
                  HOOKS[one.hook], VERDICTS[one.verdict])


TURNS: Final = {abi.TURN_CONNECT: "connect", abi.TURN_QUESTION: "question"}


@dataclass(frozen=True)
class Bounded:
    """What of a workload came out of turn (probes/bpf/turns.bpf.c)."""

    owner: int                        # 0: known by its cgroup only
    cgroup: int                       # id, where there is no owner
    what: str                         # "connect", or "question" to the resolver
    refused: int
    unwritten: int                    # connects within the workload: let through, and not in the ring


def parse_bounded(turn: bytes, over: bytes) -> Bounded:
    """Raises ValueError: not a record of this build's."""
    whose, count = abi.parse(abi.Turn, turn), abi.parse(abi.Over, over)
    if whose.what not in TURNS:
        raise ValueError(f"turn {whose.what}")
    return Bounded(whose.owner, whose.cgroup, TURNS[whose.what], count.refused, count.unwritten)


@dataclass(frozen=True)
class Held:
    """One TCP or UDP socket, as sock_diag says."""

    local: bytes                      # 16 bytes, IPv4 as v4-mapped
    local_port: int
    remote: bytes
    remote_port: int
    cookie: int
    cgroup: int                       # id; 0: not told
    state: int = 0                    # include/net/tcp_states.h
    inode: int = 0                    # 0: of no descriptor (waiting to be accepted, or closed)
    netns: int = 0                    # cookie of a contained network namespace; 0: the host's


def find_redirected(sockets: Sequence[Held], address: bytes, port: int, cgroups: Set[int], now: int) -> Origin | None:
    """The one crew whose socket this is: `address` and `port` are its own end, `cgroups` the slice and what is in it.

    None also where sockets of several cgroups have that end, or one that is no crew's, or one that is still dialling:
    that was not accepted, and who was has given up."""
    mine = [one for one in sockets if (one.local, one.local_port) == (abi.packed(address), port)]
    if len({one.cgroup for one in mine}) != 1 or mine[0].cgroup not in cgroups or any(map(_dials, mine)):
        return None
    one = mine[0]
    known = len(mine) == 1            # else the destination is the firewall's to say
    return Origin(0, 0, one.cgroup, one.cookie if known else 0, now, abi.unpacked(one.remote) if known else "",
                  one.remote_port if known else 0, REDIRECT)


SYN_SENT: Final = 2                   # include/net/tcp_states.h


def _dials(one: Held) -> bool:
    return one.state == SYN_SENT


_ANY: Final = (bytes(16), abi.packed(bytes(4)))    # of a socket that was not bound to an address


def find_asker(
    sockets: Sequence[Held], address: bytes, port: int, cgroups: Set[int], server: tuple[str, int] | None = None,
) -> int:
    """The cgroup of the one crew that sends from there, 0 where there is none.  `server`: with whom it is connected,
    where it is: one that has waited may have been given up, and its port be that of another connection.

    A datagram socket need not be bound to the address that it sends from; where sockets of several cgroups could have
    sent, it is nobody.  Nor is it one that is still dialling."""
    other = (abi.packed(server[0]), server[1]) if server else None
    mine = {one.cgroup for one in sockets
            if one.local_port == port and (one.local == abi.packed(address) or one.local in _ANY)
            and other in (None, (one.remote, one.remote_port)) and not _dials(one)}
    return mine.pop() if len(mine) == 1 and mine <= cgroups else 0
