"""Pure: why a unit may not be adopted.

What is refused cannot be contained by directives (it is root's, or leaves its cgroup), has systemd do something for it
as root that a crew could lead elsewhere, is the host's own, or would not work inside.  What the drop-in itself puts
right is agent/unit/dropin.py's; docs/decisions/0018-adopt.md lists both.
"""
from __future__ import annotations

import os.path
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from agent.unit.adoptable import DYNAMIC, OPENED, START_ONLY, Unit
from agent.unit.dropin import DIRECTORIES

_GLOB: Final = re.compile(r"[*?\[]")
_DERIVED: Final = re.compile(r"_du[0-9a-f]{16}")       # systemd's, for a unit whose own name is no user's
_WITHIN: Final = frozenset({"ignore-failure", "no-env-expand"})      # flags of an Exec line: "-", ":"
# What PID 1 opens, connects or writes on for the unit, as root and on the host's side: nothing but the journal.
_STREAMS: Final = {"StandardInput": frozenset({"null", "data"}),
                   "StandardOutput": frozenset({"null", "journal", "inherit"}),
                   "StandardError": frozenset({"null", "journal", "inherit"})}
_ROOTS: Final = ("RootImage", "MountImages", "ExtensionImages", "ExtensionDirectories")
_TERMINAL: Final = ("TTYPath", "TTYReset", "TTYVHangup", "TTYVTDisallocate", "UtmpIdentifier")
_PROGRAMS: Final = ("BPFProgram", "IPIngressFilterPath", "IPEgressFilterPath")
_OPENED: Final = (OPENED, "USBFunctionDescriptors", "USBFunctionStrings")
_LISTENS: Final = ("Stream", "Datagram", "SequentialPacket")


@dataclass(frozen=True)
class Place:
    """What is where systemd reads, makes or takes over something as root."""

    rooted: bool                      # root alone decides what the name means
    kind: str = ""                    # "": nothing is there; "file", "directory", "other"; links are followed
    real: str = ""                    # its name without links
    uid: int = -1                     # of what is there
    user: str = ""                    # whose that is, where the host knows it


@dataclass(frozen=True)
class Host:
    """What the host says of what a unit names."""

    uid: int                          # of User=; -1: there is no such user
    gids: frozenset[int]              # that its processes would have, by User=, Group=, SupplementaryGroups=
    unknown: tuple[str, ...]          # groups that it names and that are not there
    own: Mapping[int, str]            # Weir's own groups
    hidden: tuple[str, ...]           # Weir's own directories
    databases: tuple[str, ...]        # real sockets of targets
    places: Mapping[str, Place]       # for each path of `read_by_root` and `made_by_root`
    sockets: Mapping[str, tuple[tuple[str, str], ...]]     # unit that triggers it -> kind and place, each


def refusals(unit: Unit, users: Iterable[str], host: Host, root: str) -> Iterator[str]:
    """Every reason.  `users`: of the workload; `root`: the RootDirectory that Weir gives it."""
    yield from _not_there(unit)
    if unit["LoadState"] != "loaded":
        return
    yield from _dynamic(unit, tuple(users), host) if unit.dynamic else _static(unit, tuple(users), host)
    yield from _groups(host)
    yield from _privileged(unit)
    yield from _elsewhere(unit, root)
    yield from _opened(unit)
    yield from _read(unit, host)
    yield from _made(unit, host)
    yield from _listening(host.sockets)


def _not_there(unit: Unit) -> Iterator[str]:
    if unit["LoadState"] == "not-found":
        yield ("there is no such unit of this host's systemd; units of users' own managers are not adopted: they run "
               "as `weir run` starts them, or as a unit of the host with User=")
    elif unit["LoadState"] != "loaded":
        yield f"systemd says that it is {unit['LoadState'] or 'not known'} {unit['LoadError']}".rstrip()
    if unit.yes("Transient"):
        yield "it is transient (systemd-run) and gone when it ends: `weir run` starts commands"


# who


def _static(unit: Unit, users: tuple[str, ...], host: Host) -> Iterator[str]:
    user = unit["User"]
    if user in ("", "root") or host.uid == 0:
        yield ("it runs as root, which no workload does: write User= of an unprivileged account, or DynamicUser=yes, "
               "below [Service]")
    elif host.uid < 0:
        yield f"it runs as {user}, and there is no such user"
    elif user not in users:
        yield f"it runs as {user}, who is not among the `users` of the workload"


def _dynamic(unit: Unit, users: tuple[str, ...], host: Host) -> Iterator[str]:
    """systemd takes an account of that name, where there is one, and root's where that is root."""
    user = unit["User"]
    stem = unit["Id"].removesuffix(".service").partition("@")[0]
    if user.isdigit():
        yield f"User={user} is a number, with DynamicUser=yes: leave it out, or write a name that nobody has"
    elif host.uid >= 0 and host.uid not in DYNAMIC:
        yield (f"User={user} is an account of the host's, and that is what it would run as with DynamicUser=yes: leave "
               "User= out, or DynamicUser=")
    elif user not in (stem, *users) and not _DERIVED.fullmatch(user):
        yield f"it runs as {user or 'nobody'}, which is neither its own name nor among the `users` of the workload"


def _groups(host: Host) -> Iterator[str]:
    how = "by Group=, SupplementaryGroups= or as a member (getent group)"
    if 0 in host.gids:
        yield f"it has the group root, {how}"
    if withheld := sorted(host.own[gid] for gid in host.gids & host.own.keys()):
        yield f"it has Weir's own group {', '.join(withheld)}, {how}"
    if host.unknown:
        yield f"it names the group {', '.join(host.unknown)}, which is not there"


# outside of the sandbox


def _privileged(unit: Unit) -> Iterator[str]:
    for command in unit.commands:
        if found := command.flags - _WITHIN:
            yield (f"{command.property}= has {command.path} run past User= and the sandbox "
                   f"({', '.join(sorted(found))}): leave the +, ! or !! out, or put it into a unit of its own")
    for name in (START_ONLY, "RootDirectoryStartOnly"):
        if unit.yes(name):
            yield f"{name}=yes lets its other commands run outside of the sandbox"
    if unit["PAMName"]:
        yield "PAMName= opens a session, which moves it to another cgroup: leave it out"


def _elsewhere(unit: Unit, root: str) -> Iterator[str]:
    if unit["RootDirectory"] not in ("", root) or any(unit[name] or unit.all(name) for name in _ROOTS):
        yield ("it has a root file system of its own (RootDirectory=, RootImage=, MountImages=, Extension...=), and "
               "Weir gives it another")
    if unit.yes("PrivateNetwork") or unit["NetworkNamespacePath"]:
        yield "it has a network namespace of its own, in which no listener of Weir's is"
    if unit["IPCNamespacePath"] or unit.all("JoinsNamespaceOf"):
        yield "it joins namespaces of others (IPCNamespacePath=, JoinsNamespaceOf=): leave that out"
    if unit["Type"] == "dbus" or unit["BusName"]:
        yield ("Type=dbus and BusName= are for a name on the system's bus, which no workload reaches: another Type= "
               "would be right")
    if unit["LogNamespace"]:
        yield "LogNamespace= shows it sockets of the journal's: leave it out"
    if found := [name for name in _PROGRAMS if unit.all(name)]:
        yield f"{', '.join(found)} puts BPF programs before Weir's: leave it out"


def _opened(unit: Unit) -> Iterator[str]:
    for name, allowed in _STREAMS.items():
        if unit[name] not in allowed:
            yield (f"{name}={unit[name]} is opened by systemd, as root and outside of the sandbox: "
                   f"{name}={'null' if name == 'StandardInput' else 'journal'} would be right")
    if found := [name for name in _TERMINAL if unit[name] or unit.yes(name)]:
        yield f"{', '.join(found)} is about a terminal of the host's: leave it out"
    if found := [name for name in _OPENED if unit[name] or unit.all(name)]:
        yield f"{', '.join(found)} hands it what systemd opens as root: leave it out"


# what systemd does as root, by name


def read_by_root(unit: Unit) -> Iterator[tuple[str, str]]:
    """Directive and path.  A credential without a path comes from root's own stores."""
    yield from (("EnvironmentFile", path) for path in unit.environment_files)
    for name in ("LoadCredential", "LoadCredentialEncrypted"):
        yield from ((name, path) for _, path in unit.all(name) if path.startswith("/"))


def made_by_root(unit: Unit) -> Iterator[tuple[str, str]]:
    """Directive and path: StateDirectory= and the like, their links, and where they are with DynamicUser=."""
    for name, top in DIRECTORIES.items():
        links = [link for _, link, _ in unit.all(f"{name}Symlink")]
        yield from ((name, f"{top}/{word}") for word in (*unit.all(name), *links))
        if unit.dynamic and name != "ConfigurationDirectory":
            yield from ((name, f"{top}/private/{word}") for word in unit.all(name))


def _read(unit: Unit, host: Host) -> Iterator[str]:
    for name, path in read_by_root(unit):
        place = host.places.get(path, Place(rooted=False))
        if any(overlap(path, one) or overlap(place.real, one) for one in host.hidden):
            yield f"{name}={path} is Weir's own"
        elif _GLOB.search(path) or not place.rooted or place.kind not in ("", "file"):
            yield (f"{name}={path} is read by systemd as root, and not root alone decides what is there: a file below "
                   "/etc, by its name, would be right")


def _made(unit: Unit, host: Host) -> Iterator[str]:
    made = list(made_by_root(unit))
    for name, path in made:
        wrong = "; ".join(_not_its_own(unit, host, name, path))
        if wrong:
            yield f"{name}= is {path}, {wrong}: systemd gives it to the unit"
        elif any(other != path and overlap(path, other) and len(other) < len(path) for _, other in made):
            yield f"{name}= is {path}, within another directory of its own, where it could be a link: name one of them"


def _not_its_own(unit: Unit, host: Host, name: str, path: str) -> Iterator[str]:
    """Why what is there may not be made or taken over for the unit."""
    place = host.places.get(path, Place(rooted=False))
    if os.path.normpath(path) != path or path in DIRECTORIES.values() or path.endswith("/private"):
        yield "which is not one directory"
    elif any(overlap(path, one) or overlap(place.real, one) for one in host.hidden):
        yield "which is Weir's own"
    elif any(overlap(path, one) for one in host.databases):
        yield "where a registered database listens"
    elif not place.rooted:
        yield "and not root alone decides what that name is"
    elif place.kind and not (place.kind == "directory" and _owned(unit, host, name, path, place)):
        yield "which is there and not its own"


def _owned(unit: Unit, host: Host, name: str, path: str, place: Place) -> bool:
    """By its user; of a user of systemd's making, by one of those; what is below /etc, by root.  A link leads to
    another directory of the unit's."""
    if place.real != path and place.real not in {one for _, one in made_by_root(unit)}:
        return False
    if name == "ConfigurationDirectory" and place.uid == 0:
        return True
    if unit.dynamic:
        return place.uid in DYNAMIC and place.user in ("", unit["User"])
    return place.uid == host.uid


def overlap(path: str, other: str) -> bool:
    """One is the other, or lies within it."""
    short, long = sorted((path, other), key=len)
    return bool(short) and (long == short or long.startswith(short.rstrip("/") + "/"))


def _listening(sockets: Mapping[str, tuple[tuple[str, str], ...]]) -> Iterator[str]:
    for name, places in sockets.items():
        for kind, place in places:
            if kind not in _LISTENS:
                yield f"{name} opens {place} ({kind}) as root and hands that over: leave it out"
            elif not place.startswith(("/", "@")):
                yield (f"{name} listens on {place} ({kind}) and hands that over: a socket that was made outside of the "
                       "slice, which Weir ends; let the service listen by itself")
