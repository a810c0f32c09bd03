"""Which drop-in a unit is given, from configuration and host, and the files that are bound into it.

Paths are resolved here, as root, and bound by systemd, as root, at each start: what a crew could lead elsewhere
meanwhile must not be among them.  So a file of Weir's shows only where root alone decides what a name means; a
directory of the workload is bound by its resolved name, and none that lies within another that it may write.
"""
from __future__ import annotations

import os
import pwd
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.adoptable import Unit
from agent.config import Config, Workload
from agent.dropin import Plan, families
from agent.trust import INSIDE, SYSTEM_BUNDLE
from agent.view import CONTENT_LIMIT
from agent.workloads import TRUST_VARIABLES, expand

BUNDLE, RESOLV, LIBPQ = "roots.pem", "resolv.conf", "postgresql.pem"
LIBPQ_INSIDE: Final = f"/run/trust/{LIBPQ}"
_RESOLV_CONF: Final = "/etc/resolv.conf"
_PLAIN: Final = re.compile(r"/[A-Za-z0-9/._@,+-]*")
_FILE_LIMIT: Final = 1 << 20          # bytes of an environment file
_NOTIFIES: Final = ("notify", "notify-reload")


@dataclass(frozen=True)
class Planned:
    plan: Plan
    notes: tuple[str, ...]            # what somebody should know, and can live with
    wrong: tuple[str, ...]            # why it cannot be
    added: Mapping[str, bytes]        # file of Weir's -> what of the unit's own comes before Weir's authorities


def directory_of(config: Config, workload: str) -> Path:
    """What is bound into the workload's unit lies there; it outlives a boot, for a unit may start before the agent."""
    return config.state / "units" / workload


def plan_unit(config: Config, workload: Workload, name: str, unit: Unit) -> Planned:
    """Raises OSError."""
    account = _account(unit)
    home = account.pw_dir if account else "/"
    notes: list[str] = []
    wrong: list[str] = []
    writable, readable = _directories(workload, home, wrong)
    environment = _environment(unit, notes)
    directory = directory_of(config, workload.name)
    files, added, variables = _trust(config, directory, home, account.pw_uid if account else -1, environment, notes)
    plan = Plan(
        unit=name, workload=workload.name, slice=f"{config.runtime.name}.slice", root=str(directory / "root"),
        home=home, writable=writable, readable=readable, files=files,
        hidden=(str(config.directory), str(config.run), str(config.state)), environment=variables,
        families=families(unit), notifies=unit["Type"] in _NOTIFIES or unit["NotifyAccess"] not in ("", "none"))
    if account and account.pw_gid == 0:
        wrong.append(f"{account.pw_name} has the group root")
    if "-" in config.runtime.name:
        wrong.append(f"[runtime] name {config.runtime.name!r}: systemd takes a '-' in a slice's name for a slice "
                     "within another; a name without it would be right")
    return Planned(plan, tuple(notes), tuple(wrong), added)


def _account(unit: Unit) -> pwd.struct_passwd | None:
    if unit.dynamic:
        return None
    try:
        return pwd.getpwnam(unit["User"])
    except KeyError:
        return None


# directories


def _directories(workload: Workload, home: str, wrong: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    writable = _existing(expand(workload.directories, home), wrong)
    writable = tuple(path for path in writable if not any(_within(path, top) for top in writable if top != path))
    readable = _existing(expand(workload.read_only, home), wrong)
    for path in readable:
        if any(_within(path, top) for top in writable):
            wrong.append(f"`read_only` {path} lies in a directory that the workload may write: in a unit it could lead "
                         "elsewhere at the next start")
    for path in (*writable, *readable):
        if path == "/" or _within(path, "/run") or _within(path, "/proc") or _within(path, "/sys"):
            wrong.append(f"{path} is not given to a unit: it holds sockets or switches of the host's")
    return writable, readable


def _existing(paths: Iterable[str], wrong: list[str]) -> tuple[str, ...]:
    """Resolved; those that are not there are left out, as `weir run` does."""
    found = []
    for path in paths:
        if not os.path.exists(path):
            continue
        real = os.path.realpath(path)
        if not _PLAIN.fullmatch(real):
            wrong.append(f"{real}: letters, digits and /._@,+- are what a path in a drop-in is made of")
        found.append(real)
    return tuple(dict.fromkeys(found))


def _within(path: str, top: str) -> bool:
    return path == top or path.startswith(top.rstrip("/") + "/")


# trust


def _trust(
    config: Config, directory: Path, home: str, uid: int, environment: Mapping[str, str], notes: list[str],
) -> tuple[tuple[tuple[str, str], ...], dict[str, bytes], tuple[tuple[str, str], ...]]:
    """Files, what of them is the unit's own, and variables."""
    files: list[tuple[str, str]] = []
    added: dict[str, bytes] = {}
    if resolv := _resolv():
        files.append((str(directory / RESOLV), resolv))
    else:
        notes.append(f"{_RESOLV_CONF} is not there, or is not root's alone: the unit asks nobody for names")
    if not config.targets:
        return tuple(files), added, ()
    bundle = os.path.isfile(SYSTEM_BUNDLE)
    inside = SYSTEM_BUNDLE if bundle else INSIDE
    files += [(str(directory / BUNDLE), one) for one in ((SYSTEM_BUNDLE, INSIDE) if bundle else (INSIDE,))]
    variables = [(name, inside) for one in TRUST_VARIABLES if (name := one.decode()) not in environment]
    for path in _named(config, home, environment, inside):
        if not (real := _rooted(os.path.realpath(path))):
            notes.append(f"{path} is not covered, for not only root decides what it is: its readers do not know Weir's "
                         "authority; name a file below /etc in its place")
        elif (own := _content(real, -1)) is not None and b"-----BEGIN " in own:
            added[name := real.strip("/").replace("/", "_")] = own
            files.append((str(directory / name), real))
    if "PGSSLROOTCERT" not in environment and (own := _content(f"{home.rstrip('/')}/.postgresql/root.crt", uid)):
        # libpq takes it as it would take the file itself; over that nothing is bound, for it is the user's.
        added[LIBPQ] = own
        files.append((str(directory / LIBPQ), LIBPQ_INSIDE))
        variables.append(("PGSSLROOTCERT", LIBPQ_INSIDE))
    return tuple(dict.fromkeys(files)), added, tuple(variables)


def _resolv() -> str:
    """Where Weir's has to show: often a link into /run, which is the unit's own."""
    real = os.path.realpath(_RESOLV_CONF)
    led = os.path.islink(_RESOLV_CONF) and _within(real, "/run") and _PLAIN.fullmatch(real)
    return real if led else _rooted(real)


def _named(config: Config, home: str, environment: Mapping[str, str], inside: str) -> Iterable[str]:
    """Root files that targets' clients name, and those that the unit's environment chose."""
    found = [home.rstrip("/") + path[1:] if path.startswith("~/") else path
             for target in config.targets for path in target.trust]
    found += [environment.get(name, "") for name in (*(one.decode() for one in TRUST_VARIABLES), "PGSSLROOTCERT")]
    return dict.fromkeys(path for path in found if path.startswith("/") and path not in (inside, SYSTEM_BUNDLE))


def _environment(unit: Unit, notes: list[str]) -> dict[str, str]:
    """Variables that the unit is given by its files: Environment=, then EnvironmentFile=."""
    found = unit.environment
    for path in unit.environment_files:
        content = _content(path, -1)
        if content is None and os.path.exists(path):
            notes.append(f"EnvironmentFile= {path} could not be read: what it says of root files is not known")
        for line in (content or b"").decode(errors="replace").splitlines():
            name, equals, value = line.strip().partition("=")
            if equals and name.isidentifier():
                found[name] = value.strip().strip("\"'")
    return found


def _content(path: str, uid: int) -> bytes | None:
    """Of a file, up to a megabyte; with a `uid` only of one that is that user's own, and no link."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
                     | (os.O_NOFOLLOW if uid >= 0 else 0))
        with open(fd, "rb") as file:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or (uid >= 0 and status.st_uid != uid):
                return None
            found = file.read(CONTENT_LIMIT + 1)
    except OSError:
        return None
    return found if len(found) <= CONTENT_LIMIT else None


def _rooted(path: str) -> str:
    """The path, where root alone decides what it is, and that is a file; else empty.  `path`: resolved."""
    if not _PLAIN.fullmatch(path):
        return ""
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return ""
        for one in Path(path).parents:
            status = os.lstat(one)
            if status.st_uid != 0 or status.st_mode & 0o022 or not stat.S_ISDIR(status.st_mode):
                return ""
    except OSError:
        return ""
    return path
