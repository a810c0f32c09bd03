"""Cgroups outside of the slice that count as in it: of units that ran already when they were adopted.

They are the crews' to the hooks (an array of ids, pinned) and to the rules (a match each), until the unit is started
again and then lies in the slice.  The filters on the slice itself do not see their packets: the rules alone drop those.
"""
from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from agent.block import cgroups
from agent.block.holdings import INTERNET, RECORD, end_socket
from probes import abi


@dataclass
class Joined:
    root: Path                        # of cgroup v2
    ids: dict[Path, int] = field(default_factory=dict)     # cgroup -> its id when it joined; it may be gone

    def live(self) -> dict[Path, int]:
        return {path: number for path, number in self.ids.items() if _is(path, number)}

    def gone(self) -> list[Path]:
        return [path for path in self.ids if not path.exists()]

    def made_again(self) -> list[Path]:
        """Units that were started outside of the slice once more."""
        return [path for path, number in self.ids.items() if path.exists() and not _is(path, number)]

    def take(self, wanted: dict[Path, int]) -> None:
        """Those that stay keep their order: in the array one that moves is written before it is written over."""
        stay = {path: number for path, number in self.ids.items() if wanted.get(path) == number}
        self.ids = stay | wanted

    def check(self, cgroup: Path) -> None:
        """Raises ValueError: not one that may join."""
        if not cgroup.is_relative_to(self.root) or cgroup.suffix != ".service" or ".." in cgroup.parts:
            raise ValueError(f"{cgroup} is no unit's cgroup")
        if len(self.live().keys() | {cgroup}) > abi.JOINED:
            raise ValueError(f"{abi.JOINED} units that run outside of the slice are the most: restart one first")

    def entries(self) -> list[bytes]:
        """The whole array."""
        found = [abi.render_joined(number, self.level(path)) for path, number in self.ids.items()]
        return found + [abi.render_joined(0, 0)] * (abi.JOINED - len(found))

    def matches(self) -> tuple[tuple[str, int], ...]:
        """Path and level of each that is there, as nft has them."""
        return tuple((str(path.relative_to(cgroups.NFT_BASE)), self.level(path)) for path in self.live())

    def remember(self, raws: Iterable[bytes]) -> None:
        """From the array as an agent before this one has left it."""
        numbers = [number for raw in raws if (number := abi.parse(abi.Joined, raw).cgroup)]
        if numbers:
            there = {_id(path): path for path in cgroups.below(self.root)}
            self.ids = {there[number]: number for number in numbers if number in there}

    def contains(self, path: str) -> bool:
        """`path` as proc(5) has it."""
        names = (f"/{one.relative_to(self.root)}" for one in self.ids)
        return any(path == name or path.startswith(name + "/") for name in names)

    def level(self, path: Path) -> int:
        return len(path.relative_to(self.root).parts)


def find_places(root: Path, slice_: Path, unit: str) -> list[Path]:
    """Cgroups of a unit outside of the slice that processes are in: where it runs, and where it has left some of them
    (KillMode=), of which systemd may know no more.  Only below slices: what lies below a unit its processes may have
    made.  `root`: of cgroup v2."""
    places = (top / unit for top in _slices(root) if top != slice_)
    return [path for path in places if holds(path)]


def holds(cgroup: Path) -> bool:
    """Whether there is a process in it or below; False where it is gone, or goes."""
    with suppress(OSError):
        return cgroups.populated(cgroup)
    return False


def _slices(top: Path) -> Iterator[Path]:
    yield top
    with suppress(OSError), os.scandir(top) as entries:
        for one in entries:
            if one.name.endswith(".slice"):
                yield from _slices(top / one.name)


def end_before(copy: socket.socket | None, process: int, how: str) -> str:
    """As `end_socket`, of a socket that was there before its holder became a crew's: what the rules know, they drop."""
    if copy is not None and copy.family in INTERNET:
        if how == RECORD or copy.type != socket.SOCK_STREAM or copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return "left: its packets are dropped"
    return end_socket(copy, process, how)


def _id(path: Path) -> int:
    try:
        return cgroups.cgroup_id(path)
    except OSError:
        return 0


def _is(path: Path, number: int) -> bool:
    return _id(path) == number
