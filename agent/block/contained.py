"""The rules in contained network namespaces: one that Weir made for a workload, or one that somebody else has made.

Probes are the machine's, they know no namespaces; nftables holds in one alone, so the same table is put into each.  It
redirects in any case: what that costs (a nat chain has conntrack follow every connection) nobody else pays here.
Everything here may block, and works inside by threads of its own (agent/network/netns.py).
"""
from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from agent.block import nft
from agent.block.beside import find_mangling
from agent.block.ruleset import Ruleset, differences
from agent.network.netns import Namespace
from probes.links import PlatformError

MOST: Final = 272                     # namespaces: networks.MOST of workloads, and some of the self-probe's
_Found = TypeVar("_Found")


@dataclass
class _Network:
    namespace: Namespace
    name: str                         # for messages
    whole: tuple[int, int] = (0, 0)   # generation of the rules and id of the slice when all was as it should be


class Contained:
    """`is_ours(text, path)`: as agent.block.ruleset.differences wants it; `slice_id()`: its number now."""

    def __init__(self, rules: Ruleset, is_ours: Callable[[str, str], bool], slice_id: Callable[[], int]) -> None:
        self._rules = dataclasses.replace(rules, redirect=True)
        self._is_ours, self._slice_id = is_ours, slice_id
        self._there: dict[int, _Network] = {}          # by cookie
        self._adding = threading.Lock()

    def add(self, namespace: Namespace, name: str) -> None:
        """It stays the caller's to close, after `remove`.  Raises PlatformError, OSError: then there are no rules that
        one could rely on, or too many namespaces."""
        with self._adding:
            if namespace.cookie in self._there:
                raise PlatformError(f"the network of {name} is contained already")
            if len(self._there) >= MOST:
                raise PlatformError(f"{MOST} networks are contained, and no more can be")
            one = _Network(namespace, name)
            namespace.call(lambda: nft.apply_table(self._rules))
            if found := self._examine(one):
                raise PlatformError("; ".join(found))
            self._there[namespace.cookie] = one

    def remove(self, cookie: int) -> None:
        self._there.pop(cookie, None)

    def clear(self) -> None:
        self._there.clear()

    def look(self, cookie: int, work: Callable[[], list[_Found]]) -> list[_Found]:
        """What `work` finds in that one; nothing in one that is not contained."""
        one = self._there.get(cookie)
        return one.namespace.call(work) if one is not None else []

    def cookies(self) -> tuple[int, ...]:
        return tuple(self._there)

    def problems(self) -> list[str]:
        return [problem for one in tuple(self._there.values()) for problem in self._of(one, self._examine)]

    def mangling(self) -> list[str]:
        return [problem for one in tuple(self._there.values()) for problem in self._of(one, self._mangling)]

    def repair(self) -> None:
        """Where something is wrong.  Raises PlatformError, OSError."""
        for one in tuple(self._there.values()):
            if self._of(one, self._examine):
                one.namespace.call(lambda: nft.apply_table(self._rules))

    def _of(self, one: _Network, ask: Callable[[_Network], list[str]]) -> list[str]:
        try:
            found = ask(one)
        except (OSError, PlatformError) as reason:
            found = [f"nftables: the rules could not be looked at: {reason}"]
        there = self._there.get(one.namespace.cookie) is one        # else it was given up meanwhile
        return [f"{problem} (in the network of {one.name})" for problem in found] if there else []

    def _examine(self, one: _Network) -> list[str]:
        """What was whole is listed again only after something has changed there."""
        slice_id = self._slice_id()
        generation = one.namespace.call(nft.generation)
        if one.whole == (generation, slice_id):
            return []
        found = differences(one.namespace.call(lambda: nft.list_table(self._rules.name)), self._rules, self._is_ours)
        one.whole = (0, 0) if found else (generation, slice_id)
        return found

    def _mangling(self, one: _Network) -> list[str]:
        return find_mangling(one.namespace.call(nft.list_ruleset), self._rules.name)
