"""The host's ends of contained links: where nothing passes, either way.  Everything here may block."""
from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from agent.block import nft
from agent.block.hostends import Link, closed, render_table
from agent.network.interfaces import links

OPEN: Final = "nftables: the host's ends of containers' links are not closed"


class Sealed:
    """`name`: of the table, family netdev, in the host's network namespace.  It stays when Weir's processes end."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._ends: tuple[Link, ...] | None = None     # None: this process has not said anything yet

    def set(self, ends: Iterable[Link]) -> None:
        """These and no others.  Raises OSError, PlatformError, ValueError: then it is as it was."""
        wanted = tuple(ends)
        if wanted != self._ends:
            self._apply(wanted)
            self._ends = wanted

    def problems(self) -> list[str]:
        there = self._there()
        return [OPEN] if there and not closed(nft.list_netdev(self._name), there) else []

    def repair(self) -> None:
        if self.problems():
            self._apply(self._there())

    def clear(self) -> None:
        nft.delete_netdev(self._name)
        self._ends = None

    def _apply(self, ends: tuple[Link, ...]) -> None:
        if ends:
            nft.apply_netdev(self._name, render_table(self._name, ends))
        else:
            nft.delete_netdev(self._name)

    def _there(self) -> tuple[Link, ...]:
        """Without those that went with their container."""
        if not self._ends:
            return ()
        now = {(one.index, one.name) for one in links()}
        return tuple(one for one in self._ends if (one.index, one.name) in now)
