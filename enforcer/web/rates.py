"""How often something is done for one address or session, and for all together.  Pure: time is given."""
from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from enforcer.core.bucket import Bucket

KEYS: Final = 4096                    # that are remembered of one kind; the one that was asked about first goes


@dataclass(frozen=True)
class Rate:
    """`each`, `all`: (a second, at once)."""

    each: tuple[float, float]
    all: tuple[float, float]


LOGIN, ANSWER, LINK, REQUEST, CONNECT = "login", "answer", "link", "request", "connect"
RAW: Final = Rate((2, 60), (20, 200)) # of what comes without a session
RATES: Final = {
    CONNECT: Rate((20, 200), (200, 1000)),      # each makes the agent look who it is, beside crews' own connections
    LOGIN: Rate((1 / 6, 10), (5, 60)),          # beginning one, and what comes back of it
    ANSWER: Rate((1, 30), (50, 500)),           # of a session
    # Each its own: who floods one keeps no provider's logout and no chat's answer out.
    LINK: RAW, "slack": RAW, "backchannel": RAW, "saml": RAW,
    REQUEST: Rate((50, 300), (500, 3000)),
}


class Rates:
    def __init__(self) -> None:
        self._all = {name: Bucket(*rate.all) for name, rate in RATES.items()}
        self._each: dict[str, OrderedDict[str, Bucket]] = {name: OrderedDict() for name in RATES}

    def take(self, kind: str, key: str, now: float) -> bool:
        """`key` empty: of nobody in particular, who shares what all have."""
        if key and not self._of(kind, key).take(now):
            return False
        return self._all[kind].take(now)

    def _of(self, kind: str, key: str) -> Bucket:
        known = self._each[kind]
        found = known.pop(key, None) or Bucket(*RATES[kind].each)
        known[key] = found
        if len(known) > KEYS:
            known.popitem(last=False)
        return found


def who_is(address: str) -> str:
    """Who a peer's address is counted as: "" for this machine's own, which speak for many; of IPv6 its network, for who
    has one address has 2^64 (RFC 6177)."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is None:
            return "" if found.is_loopback else str(ipaddress.IPv6Network((found, 64), strict=False))
        found = found.ipv4_mapped
    return "" if found.is_loopback else str(found)
