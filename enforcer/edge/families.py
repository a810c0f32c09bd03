"""Which addresses belong together where no [[egress]] entry says so: a client whose IPv6 connect fails tries IPv4, but
Weir has taken its connection already, so Weir tries for it (upstream.with_other_family).  Only for workloads whose
egress is not enforced; of the others the agent knows (agent/network/resolve.py)."""
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

NAMES: Final = 1024                   # of all workloads; those asked for longest ago are forgotten
MOST: Final = 64                      # addresses of one


class Families:
    """What Weir's resolver gave."""

    def __init__(self) -> None:
        self._given: OrderedDict[tuple[str, str], frozenset[str]] = OrderedDict()

    def give(self, workload: str, name: str, addresses: Iterable[str]) -> None:
        """IPv4 and IPv6 come in answers of their own."""
        both = self._given.pop((workload, name), frozenset()).union(addresses)
        self._given[workload, name] = both if len(both) <= MOST else frozenset(addresses)
        while len(self._given) > NAMES:
            self._given.popitem(last=False)

    def others(self, workload: str, address: str) -> tuple[str, ...]:
        """Of the other family, given to this workload for every name that it was given `address` for: a name of
        somebody else's that has the same address adds nothing."""
        found = [each for (who, _), each in self._given.items() if who == workload and address in each]
        common = frozenset.intersection(*found) if found else frozenset()
        return tuple(sorted(one for one in common if (":" in one) != (":" in address)))
