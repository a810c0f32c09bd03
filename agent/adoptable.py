"""Pure: what systemd says of a unit, and why it may not be adopted.

What is refused cannot be contained by directives (it is root's, or leaves its cgroup), is the host's own, or would not
work inside.  Properties and their texts are those of `systemctl show`, systemd 252.
"""
from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

END, REPORT, RESTART = "end", "report", "restart"

_UNIT: Final = re.compile(r"[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\-]*)?\.service")
_EXECS: Final = tuple(f"{name}Ex" for name in (
    "ExecCondition", "ExecStartPre", "ExecStart", "ExecStartPost", "ExecReload", "ExecStop", "ExecStopPost"))
PROPERTIES: Final = (
    "Id", "LoadState", "LoadError", "FragmentPath", "DropInPaths", "Transient", "NeedDaemonReload", "ActiveState",
    "ControlGroup", "Type", "User", "Group", "SupplementaryGroups", "DynamicUser", "Slice", "PAMName", "RootDirectory",
    "RootImage", "RootDirectoryStartOnly", "PermissionsStartOnly", "TriggeredBy", "WorkingDirectory", "Environment",
    "EnvironmentFiles", "StandardInput", "StandardOutput", "StandardError", "NotifyAccess", "PrivateNetwork",
    "NetworkNamespacePath", "RestrictAddressFamilies", "StateDirectory", "CacheDirectory", "LogsDirectory",
    "RuntimeDirectory", "ConfigurationDirectory", "Requires", "MountImages", "ExtensionImages", *_EXECS,
)

# The host's own: others depend on them, or they do for anybody what they would then do for a crew.
_OWN: Final = re.compile(
    r"(systemd-.*|dbus(-broker|-daemon)?|user|user-runtime-dir|.*getty|ssh|sshd|polkit|cron|crond|atd|emergency|rescue|"
    r"initrd-.*|init|networking|NetworkManager|ModemManager|wpa_supplicant|dhclient|resolvconf|nftables|firewalld|ufw|"
    r"docker|containerd|podman|libvirtd|rsyslog|auditd|nscd|sssd|avahi-daemon|display-manager|gdm3?|lightdm|sddm|snapd|"
    r"packagekit|udisks2|accounts-daemon|apparmor|lvm2-.*|multipathd|iscsid|rpcbind)(@.*)?\.service")


@dataclass(frozen=True)
class Command:
    """One Exec line.  `flags`: "privileged" (+), "no-setuid" (!), "ambient" (!!), "ignore-failure" (-), ..."""

    property: str
    path: str
    flags: frozenset[str]


@dataclass(frozen=True)
class Unit:
    properties: Mapping[str, str]     # as PROPERTIES; of one that stands more than once, the last
    commands: tuple[Command, ...]

    def __getitem__(self, name: str) -> str:
        return self.properties.get(name, "")

    def words(self, name: str) -> tuple[str, ...]:
        return tuple(self[name].split())

    @property
    def running(self) -> bool:
        return self["ActiveState"] not in ("inactive", "failed", "") and bool(self["ControlGroup"])

    @property
    def dynamic(self) -> bool:
        return self["DynamicUser"] == "yes"

    @property
    def environment(self) -> dict[str, str]:
        """`Environment=` alone."""
        try:
            pairs = (word.partition("=") for word in shlex.split(self["Environment"]))
        except ValueError:            # quoted by systemd in a way that shlex does not know
            return {}
        return {name: value for name, _, value in pairs}

    @property
    def environment_files(self) -> tuple[str, ...]:
        """Paths; of several, those that are absolute."""
        return tuple(word for word in self["EnvironmentFiles"].split() if word.startswith("/"))

    @property
    def directory(self) -> str:
        """Where it starts; empty: the root.  `~` is the user's home."""
        return self["WorkingDirectory"].lstrip("!-")

    @property
    def sockets(self) -> tuple[str, ...]:
        return tuple(name for name in self.words("TriggeredBy") if name.endswith(".socket"))


def parse_show(text: str) -> Unit:
    """Of `systemctl show`: one unit."""
    properties: dict[str, str] = {}
    commands: list[Command] = []
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if not equals:
            continue
        if name in _EXECS:
            commands.append(parse_command(name, value))
        else:
            properties[name] = value
    return Unit(properties, tuple(commands))


def parse_command(name: str, value: str) -> Command:
    """"{ path=/bin/x ; argv[]=/bin/x y ; flags=privileged ; start_time=...": what a person wrote is argv alone, and so
    the last `flags=` counts."""
    path = value.removeprefix("{ path=").partition(" ; argv[]=")[0]
    flags = value.rpartition(" ; flags=")[2].partition(" ; ")[0]
    return Command(name.removesuffix("Ex"), path, frozenset(flags.split()))


def wrong_name(name: str, runtime: str) -> str:
    """Why this is no unit that may be adopted, by its name alone; empty: it may be."""
    if not _UNIT.fullmatch(name) or len(name) > 255:
        return f"{name!r} is no name of a service: NAME.service would be right"
    if name.endswith("@.service"):
        return f"{name} is a template: name one of its instances, like {name.removesuffix('.service')}1.service"
    if name.startswith(("weir-", *([f"{runtime}-"] if runtime else []))):
        return f"{name} is Weir's own"
    if _OWN.fullmatch(name):
        return f"{name} is the host's own, which others depend on: a crew needs a unit of its own"
    return ""


def refusals(unit: Unit, users: Iterable[str], groups: Iterable[str], root: str) -> Iterator[str]:
    """Every reason why it cannot be contained by directives.  `users`: of the workload; `groups`: names of Weir's own;
    `root`: the RootDirectory that Weir gives it."""
    yield from _not_there(unit)
    yield from _privileged(unit, tuple(users), frozenset(groups))
    yield from _elsewhere(unit, root)


def _not_there(unit: Unit) -> Iterator[str]:
    if unit["LoadState"] == "not-found":
        yield ("there is no such unit of this host's systemd; units of users' own managers are not adopted: they run "
               "as `weir run` starts them, or as a unit of the host with User=")
    elif unit["LoadState"] != "loaded":
        yield f"systemd says that it is {unit['LoadState'] or 'not known'} {unit['LoadError']}".rstrip()
    if unit["Transient"] == "yes":
        yield "it is transient (systemd-run) and gone when it ends: `weir run` starts commands"


def _privileged(unit: Unit, users: tuple[str, ...], own: frozenset[str]) -> Iterator[str]:
    user, groups = unit["User"], {unit["Group"], *unit.words("SupplementaryGroups")}
    if not unit.dynamic and user in ("", "root", "0"):
        yield ("it runs as root, which no workload does: write User= of an unprivileged account, or DynamicUser=yes, "
               "below [Service]")
    elif not unit.dynamic and user not in users:
        yield f"it runs as {user}, who is not among the `users` of the workload"
    if groups & {"root", "0"}:
        yield "it has the group root: name another by Group= and SupplementaryGroups="
    if withheld := sorted(groups & own):
        yield f"it has Weir's own group {', '.join(withheld)}"
    for command in unit.commands:
        if found := command.flags & {"privileged", "no-setuid", "ambient"}:
            yield (f"{command.property}= has {command.path} run past User= and the sandbox "
                   f"({', '.join(sorted(found))}): leave the +, ! or !! out, or put it into a unit of its own")
    for name in ("PermissionsStartOnly", "RootDirectoryStartOnly"):
        if unit[name] == "yes":
            yield f"{name}=yes lets its other commands run outside of the sandbox"
    if unit["PAMName"]:
        yield "PAMName= opens a session, which moves it to another cgroup: leave it out"


def _elsewhere(unit: Unit, root: str) -> Iterator[str]:
    if unit["RootDirectory"] not in ("", root) or any(unit[name] for name in ("RootImage", "MountImages",
                                                                             "ExtensionImages")):
        yield "it has a root file system of its own (RootDirectory=, RootImage=), and Weir gives it another"
    if unit["PrivateNetwork"] == "yes" or unit["NetworkNamespacePath"]:
        yield "it has a network namespace of its own, in which no listener of Weir's is"
    if unit["Type"] == "dbus":
        yield "Type=dbus takes a name on the system's bus, which no workload reaches: another Type= would be right"
    for name in ("StandardInput", "StandardOutput", "StandardError"):
        if unit[name].startswith(("tty", "socket")):
            yield f"{name}={unit[name]} gives it a terminal or a socket of the host's"
