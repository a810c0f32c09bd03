"""Pure: why a unit may not be adopted.

What is refused cannot be contained by directives (it is root's, or leaves its cgroup), is the host's own, or would not
work inside.
"""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from agent.adoptable import START_ONLY, Unit

_PAST: Final = frozenset({"privileged", "no-setuid", "ambient"})
_ROOTS: Final = ("RootImage", "MountImages", "ExtensionImages")


def refusals(unit: Unit, users: Iterable[str], groups: Iterable[str], root: str) -> Iterator[str]:
    """Every reason why it cannot be contained by directives.  `users`: of the workload; `groups`: names of Weir's own;
    `root`: the RootDirectory that Weir gives it."""
    yield from _not_there(unit)
    if unit["LoadState"] != "loaded":
        return
    yield from _who(unit, tuple(users), frozenset(groups))
    yield from _privileged(unit)
    yield from _elsewhere(unit, root)


def _not_there(unit: Unit) -> Iterator[str]:
    if unit["LoadState"] == "not-found":
        yield ("there is no such unit of this host's systemd; units of users' own managers are not adopted: they run "
               "as `weir run` starts them, or as a unit of the host with User=")
    elif unit["LoadState"] != "loaded":
        yield f"systemd says that it is {unit['LoadState'] or 'not known'} {unit['LoadError']}".rstrip()
    if unit.yes("Transient"):
        yield "it is transient (systemd-run) and gone when it ends: `weir run` starts commands"


def _who(unit: Unit, users: tuple[str, ...], own: frozenset[str]) -> Iterator[str]:
    user, groups = unit["User"], {unit["Group"], *unit.all("SupplementaryGroups")}
    if not unit.dynamic and user in ("", "root", "0"):
        yield ("it runs as root, which no workload does: write User= of an unprivileged account, or DynamicUser=yes, "
               "below [Service]")
    elif not unit.dynamic and user not in users:
        yield f"it runs as {user}, who is not among the `users` of the workload"
    if groups & {"root", "0"}:
        yield "it has the group root: name another by Group= and SupplementaryGroups="
    if withheld := sorted(groups & own):
        yield f"it has Weir's own group {', '.join(withheld)}"


# outside of the sandbox


def _privileged(unit: Unit) -> Iterator[str]:
    for command in unit.commands:
        if found := command.flags & _PAST:
            yield (f"{command.property}= has {command.path} run past User= and the sandbox "
                   f"({', '.join(sorted(found))}): leave the +, ! or !! out, or put it into a unit of its own")
    for name in (START_ONLY, "RootDirectoryStartOnly"):
        if unit.yes(name):
            yield f"{name}=yes lets its other commands run outside of the sandbox"
    if unit["PAMName"]:
        yield "PAMName= opens a session, which moves it to another cgroup: leave it out"


def _elsewhere(unit: Unit, root: str) -> Iterator[str]:
    if unit["RootDirectory"] not in ("", root) or any(unit[name] or unit.all(name) for name in _ROOTS):
        yield "it has a root file system of its own (RootDirectory=, RootImage=), and Weir gives it another"
    if unit.yes("PrivateNetwork") or unit["NetworkNamespacePath"]:
        yield "it has a network namespace of its own, in which no listener of Weir's is"
    if unit["Type"] == "dbus":
        yield "Type=dbus takes a name on the system's bus, which no workload reaches: another Type= would be right"
    for name in ("StandardInput", "StandardOutput", "StandardError"):
        if unit[name].startswith(("tty", "socket")):
            yield f"{name}={unit[name]} gives it a terminal or a socket of the host's"
