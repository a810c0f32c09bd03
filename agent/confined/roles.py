"""Which of Weir's own processes may do what: a row each.  What none of them may do is in measures.py."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

UMASK: Final = 0o027                 # of all
_LOCAL: Final = ("AF_UNIX",)
_DIALS: Final = ("AF_UNIX", "AF_INET", "AF_INET6")


@dataclass(frozen=True)
class Role:
    name: str
    families: tuple[str, ...] = _LOCAL     # of sockets that it makes; those that it is given are its own all the same
    peers: bool = False               # it reads /proc of other processes
    shared: bool = False              # it sets the bit by which directories give their group on
    files: bool = True                # it has a view of them; else whatever its user may read, which is what it is for


# By the name of agent.services.Service.
ROLES: Final[Mapping[str, Role]] = {one.name: one for one in (
    Role("enforcer", _DIALS, peers=True),          # whether the process that was approved still runs
    Role("recorder", peers=True, shared=True),     # who keeps it from writing; the recording is its group's
    Role("identities", _DIALS), Role("vaults", _DIALS), Role("notify", _DIALS), Role("refresh", _DIALS),
    Role("web"), Role("metrics"), Role("check"),
    Role("look", peers=True, shared=True, files=False),     # of `weir init`, as whoever has the files
)}
