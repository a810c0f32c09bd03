"""What the host says of what a unit names: accounts, groups, paths, sockets; and so why it may not be adopted."""
from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterable
from contextlib import suppress

from agent.config import Config
from agent.network.local import real_sockets
from agent.rooted import NotRooted, resolve
from agent.settings.host_table import Workload
from agent.unit import systemd
from agent.unit.adoptable import Unit
from agent.unit.objections import Host, Place, made_by_root, read_by_root, refusals


def objections(config: Config, workload: Workload, unit: Unit, own: Iterable[str], root: str) -> list[str]:
    """`own`: names of Weir's groups; `root`: the RootDirectory that Weir gives it.  Raises SystemdError."""
    return list(refusals(unit, workload.users, look(config, unit, own), root))


def look(config: Config, unit: Unit, own: Iterable[str]) -> Host:
    """Raises SystemdError."""
    account = _account(unit["User"])
    groups = [*unit.all("SupplementaryGroups"), *([unit["Group"]] if unit["Group"] else [])]
    found = {name: _gid(name) for name in groups}
    # DynamicUser= makes the group of its own name.
    unknown = tuple(name for name, gid in found.items() if gid < 0 and not (unit.dynamic and name == unit["User"]))
    gids = frozenset(gid for gid in found.values() if gid >= 0)
    if account is not None:
        first = found.get(unit["Group"], account.pw_gid)
        gids |= {first, *os.getgrouplist(account.pw_name, first)} if first >= 0 else frozenset()
    paths = {path for _, path in (*read_by_root(unit), *made_by_root(unit))}
    return Host(
        uid=account.pw_uid if account else -1, gids=gids, unknown=unknown, own={_gid(name): name for name in own},
        hidden=config.own_directories, databases=real_sockets(config.targets),
        places={path: place(path) for path in paths},
        sockets={name: systemd.show_socket(name) for name in unit.sockets})


def _account(name: str) -> pwd.struct_passwd | None:
    with suppress(KeyError, ValueError, OverflowError):
        return pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
    return None


def _gid(name: str) -> int:
    """-1: there is no such group.  A number is one, whether it has a name or not."""
    if name.isdecimal():
        return int(name)
    with suppress(KeyError, ValueError):
        return grp.getgrnam(name).gr_gid
    return -1


def place(path: str) -> Place:
    """What is there, and whether somebody but root could have it be something else."""
    try:
        return _what(resolve(path))
    except FileNotFoundError:         # what is below will be made by root
        return Place(rooted=True, real=os.path.realpath(path))
    except (NotRooted, OSError):
        return Place(rooted=False)


def _what(path: str) -> Place:
    status = os.lstat(path)
    kind = ("directory" if stat.S_ISDIR(status.st_mode) else "file" if stat.S_ISREG(status.st_mode) else "other")
    user = ""
    with suppress(KeyError):
        user = pwd.getpwuid(status.st_uid).pw_name
    return Place(True, kind, path, status.st_uid, user)
