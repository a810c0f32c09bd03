"""Which drop-in a unit is given, from configuration and host, and the files that are bound into it.

Paths are resolved here, as root, and bound by systemd, as root, at each start: what a crew could lead elsewhere
meanwhile must not be among them.  So everything that is bound, and everything over which something is, has a name that
root alone decides (agent/rooted.py): only what lies at its end may be the crew's.

What is bound may be read by everybody.  So of a root file certificates alone are taken, and only of one that everybody
may read; whoever may write a file that names others does not choose what root reads.

A unit that is adopted already shows what Weir's drop-in says among its own: planned again, it is given the same.
"""
from __future__ import annotations

import os
import pwd
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent import rooted
from agent.config import Config
from agent.credential.trust import INSIDE, SYSTEM_BUNDLE, SYSTEM_HOSTS, USER_HOSTS, expand_home
from agent.layout import find_account
from agent.network import local
from agent.rooted import NotRooted
from agent.settings.credential_table import KUBERNETES, SSH
from agent.settings.host_table import Workload
from agent.ssh.host_keys import SYSTEM
from agent.unit.adoptable import Unit
from agent.unit.dropin import Plan, families, shows
from agent.workload.workloads import TRUST_VARIABLES, expand, shown_socket

BUNDLE, RESOLV, LIBPQ = "roots.pem", "resolv.conf", "postgresql.pem"
MERGED: Final = ".hosts"              # how files of the unit's own hosts, with Weir's, end
LIBPQ_INSIDE: Final = f"/run/trust/{LIBPQ}"
_RESOLV_CONF: Final = "/etc/resolv.conf"
_GIVEN: Final = frozenset((SYSTEM_BUNDLE, INSIDE, LIBPQ_INSIDE))      # values of variables that Weir sets
_PLAIN: Final = re.compile(r"/[A-Za-z0-9/._@,+-]*")
# RFC 7468, and OpenSSL's own kind: nothing else of a file that is shown to everybody.
_CERTIFICATE: Final = re.compile(
    rb"-----BEGIN ((?:TRUSTED )?CERTIFICATE)-----\s[A-Za-z0-9+/=\s]+-----END \1-----")
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
    writable, readable = _directories(workload, home, notes, wrong)
    sockets = tuple(_real_sockets(config))
    environment = _environment(unit, notes)
    directory = directory_of(config, workload.name)
    files, added, variables = _trust(config, directory, account, environment, notes)
    plan = Plan(
        unit=name, workload=workload.name, slice=f"{config.runtime.name}.slice", root=str(directory / "root"),
        home=home, writable=writable, readable=readable, files=files,
        hidden=(*config.own_directories, *sockets), environment=variables, families=families(unit),
        notifies=_notifies(unit))
    if seen := shown_socket(workload.name, sockets, lambda path: shows(plan, unit, path)):
        wrong.append(seen)
    if account and account.pw_gid == 0:
        wrong.append(f"{account.pw_name} has the group root")
    if "-" in config.runtime.name:
        wrong.append(f"[runtime] name {config.runtime.name!r}: systemd takes a '-' in a slice's name for a slice "
                     "within another; a name without it would be right")
    return Planned(plan, tuple(notes), tuple(wrong), added)


def _account(unit: Unit) -> pwd.struct_passwd | None:
    return None if unit.dynamic else find_account(unit["User"])


def _notifies(unit: Unit) -> str:
    """NotifyAccess=; written, for what systemd takes by itself depends on what the drop-in takes away."""
    said = unit["NotifyAccess"] if unit["NotifyAccess"] != "none" else ""
    return said or ("main" if unit["Type"] in _NOTIFIES else "")


def _real_sockets(config: Config) -> Iterator[str]:
    """Of databases on the host: as they are named, and where they are."""
    for path in local.real_sockets(config.targets):
        yield from dict.fromkeys((path, os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))))


# directories


def _directories(
    workload: Workload, home: str, notes: list[str], wrong: list[str],
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    writable = _outermost(_existing(_outermost(expand(workload.directories, home)), notes, wrong))
    readable = _existing(expand(workload.read_only, home), notes, wrong)
    for path in readable:
        if any(_within(path, top) for top in writable):
            wrong.append(f"`read_only` {path} lies in a directory that the workload may write: in a unit it could lead "
                         "elsewhere at the next start")
    for path in (*writable, *readable):
        if path == "/" or _within(path, "/run") or _within(path, "/proc") or _within(path, "/sys"):
            wrong.append(f"{path} is not given to a unit: it holds sockets or switches of the host's")
    return writable, readable


def _outermost(paths: tuple[str, ...]) -> tuple[str, ...]:
    """Without what lies within another of them."""
    return tuple(path for path in paths if not any(_within(path, top) for top in paths if top != path))


def _existing(paths: Iterable[str], notes: list[str], wrong: list[str]) -> tuple[str, ...]:
    """Resolved; those that are not there are left out, as `weir run` does."""
    found = []
    for path in paths:
        try:
            real = rooted.resolve(path)
        except NotRooted as reason:
            wrong.append(f"{path} could lead elsewhere by the next start, when systemd follows it as root: {reason}; "
                         "name ~ itself, or a directory whose parents only root may write")
            continue
        except OSError as reason:
            notes.append(f"{path} is left out ({reason.strerror}): adopt again once it is there")
            continue
        if not _PLAIN.fullmatch(real):
            wrong.append(f"{real}: letters, digits and /._@,+- are what a path in a drop-in is made of")
        found.append(real)
    return tuple(dict.fromkeys(found))


def _within(path: str, top: str) -> bool:
    return path == top or path.startswith(top.rstrip("/") + "/")


# trust


def _trust(
    config: Config, directory: Path, account: pwd.struct_passwd | None, environment: Mapping[str, str],
    notes: list[str],
) -> tuple[tuple[tuple[str, str], ...], dict[str, bytes], tuple[tuple[str, str], ...]]:
    """Files, what of them is the unit's own, and variables."""
    files: list[tuple[str, str]] = []
    added: dict[str, bytes] = {}
    if resolv := _resolv():
        files.append((str(directory / RESOLV), resolv))
    else:
        notes.append(f"{_RESOLV_CONF} is not there, or is not root's alone: the unit asks nobody for names")
    files += _hosts(config, directory, account, added, notes)
    if not any(one.certified for one in config.targets):
        return tuple(files), added, ()
    notes += [f"kubeconfigs for {one.name} stay the unit's own, and do not know Weir's authority: give the unit what "
              f"`weir kubeconfig {one.name}` prints" for one in config.targets if one.protocol == KUBERNETES]
    bundle = os.path.isfile(SYSTEM_BUNDLE)
    inside = SYSTEM_BUNDLE if bundle else INSIDE
    files += [(str(directory / BUNDLE), one) for one in ((SYSTEM_BUNDLE, INSIDE) if bundle else (INSIDE,))]
    variables = [(name, inside) for one in TRUST_VARIABLES if (name := one.decode()) not in environment]
    for path in _named(config, account.pw_dir if account else "/", environment):
        try:
            real, own = _root_file(path, config.own_directories)
        except (NotRooted, OSError) as reason:
            notes.append(f"{path} is not covered, and its readers do not know Weir's authority: {reason}; name a file "
                         "below /etc in its place")
        else:
            added[name := _name_of(real)] = own
            files.append((str(directory / name), real))
    if "PGSSLROOTCERT" not in environment and account and (own := _libpqs(account)):
        # libpq takes it as it would take the file itself; over that nothing is bound, for it is the user's.
        added[LIBPQ] = own
        files.append((str(directory / LIBPQ), LIBPQ_INSIDE))
        variables.append(("PGSSLROOTCERT", LIBPQ_INSIDE))
    return tuple(dict.fromkeys(files)), added, tuple(variables)


def _hosts(
    config: Config, directory: Path, account: pwd.struct_passwd | None, added: dict[str, bytes], notes: list[str],
) -> Iterator[tuple[str, str]]:
    """Files by which SSH clients know hosts."""
    targets = [one for one in config.targets if one.protocol == SSH]
    if not targets:
        return
    if os.path.isdir(os.path.dirname(SYSTEM_HOSTS)):
        yield str(directory / SYSTEM), SYSTEM_HOSTS
    else:
        notes.append(f"{os.path.dirname(SYSTEM_HOSTS)} is not there: OpenSSH's clients do not know Weir's host keys")
    own_files = (*([USER_HOSTS] if account else []), *(file for target in targets for file in target.trust))
    home = account.pw_dir if account else "/"
    for path in dict.fromkeys(expand_home(one, home) for one in own_files):
        try:
            real = rooted.resolve(path)
            own = rooted.read(real, lambda status: bool(status.st_mode & 0o004))
            if own is None or not rooted.is_public(real) or not _PLAIN.fullmatch(real) or any(
                    _within(real, os.path.realpath(top)) for top in config.own_directories):
                raise NotRooted(f"not everybody may read {real}")
        except (NotRooted, OSError):
            notes.append(f"{path} stays the unit's own: what reads that alone (paramiko, asyncssh) does not know "
                         f"Weir's host keys; have it read {SYSTEM_HOSTS} too, as OpenSSH does")
        else:
            added[name := f"{real.strip('/').replace('/', '_')}{MERGED}"] = own
            yield str(directory / name), real


def _resolv() -> str:
    """Where Weir's has to show: often a link into /run, which is the unit's own.  Empty: nowhere."""
    real = os.path.realpath(_RESOLV_CONF)
    if os.path.islink(_RESOLV_CONF) and _within(real, "/run") and _PLAIN.fullmatch(real):
        return real
    try:
        real = rooted.resolve(_RESOLV_CONF)
    except (NotRooted, OSError):
        return ""
    return real if os.path.isfile(real) and _PLAIN.fullmatch(real) else ""


def _named(config: Config, home: str, environment: Mapping[str, str]) -> Iterable[str]:
    """Root files that targets' clients name, and those that the unit's environment chose."""
    found = [home.rstrip("/") + path[1:] if path.startswith("~/") else path
             for target in config.targets if target.certified for path in target.trust]
    found += [environment.get(name, "") for name in (*(one.decode() for one in TRUST_VARIABLES), "PGSSLROOTCERT")]
    return dict.fromkeys(path for path in found if path.startswith("/") and path not in _GIVEN)


def _root_file(path: str, own: Iterable[str]) -> tuple[str, bytes]:
    """Where it is, and its certificates.  `own`: directories of Weir's.  Raises NotRooted, and OSError: why it is not
    shown."""
    real = rooted.resolve(path)
    if any(_within(real, os.path.realpath(top)) for top in own):
        raise NotRooted(f"{real} is Weir's own")
    if not _PLAIN.fullmatch(real):
        raise NotRooted("letters, digits and /._@,+- are what a path in a drop-in is made of")
    if not rooted.is_public(real):
        raise NotRooted(f"not everybody may read {real}")
    if not (found := _certificates(rooted.read(real, lambda status: bool(status.st_mode & 0o004)))):
        raise NotRooted(f"{real} is no file of certificates")
    return real, found


def _name_of(real: str) -> str:
    """Of Weir's file for it; what is no .pem is not kept up to date (agent/unit/bound.py)."""
    name = real.strip("/").replace("/", "_")
    return name if name.endswith(".pem") else f"{name}.pem"


def _libpqs(account: pwd.struct_passwd) -> bytes:
    """Certificates of the user's own root file."""
    try:
        return _certificates(rooted.read(f"{account.pw_dir.rstrip('/')}/.postgresql/root.crt",
                                         lambda status: status.st_uid == account.pw_uid))
    except OSError:
        return b""


def _certificates(content: bytes | None) -> bytes:
    return b"".join(one.group() + b"\n" for one in _CERTIFICATE.finditer(content or b""))


def _environment(unit: Unit, notes: list[str]) -> dict[str, str]:
    """Without what Weir sets."""
    found, unread = environment_of(unit, _GIVEN)
    notes += [f"EnvironmentFile= {path} is not read, for it is not root's alone: what it says of root files is not "
              "known" for path in unread]
    return found


def environment_of(unit: Unit, given: Container[str] = ()) -> tuple[dict[str, str], tuple[str, ...]]:
    """Variables that the unit is given by its own Environment=, but for values that are `given`, then EnvironmentFile=;
    and files that are not read, for they are not root's alone."""
    found = {name: value for name, value in unit.environment.items() if value not in given}
    unread = []
    for path in unit.environment_files:
        try:
            content = rooted.read(rooted.resolve(path), rooted.is_roots)
        except FileNotFoundError:
            continue
        except (NotRooted, OSError):
            content = None
        if content is None:
            unread.append(path)
        for line in (content or b"").decode(errors="replace").splitlines():
            name, equals, value = line.strip().partition("=")
            if equals and name.isidentifier():
                found[name] = value.strip().strip("\"'")
    return found, tuple(unread)
