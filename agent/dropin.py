"""Pure: unit and workload -> the drop-in that confines it as `weir run` confines a command, in systemd's own
directives; and whether that is what systemd has taken over.

The view is an allow-list here too: a root file system that is empty (RootDirectory=), and what is bound into it.  What
no directive of systemd 252 says is in docs/decisions/0018-adopt.md.  Every list that the unit itself may have filled is
emptied first: systemd adds to lists.
"""
from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from agent.adoptable import Unit
from agent.seccomp import REFUSED

FILE: Final = "50-weir.conf"
GUARD, AGENT = "weir-guard.service", "weir-agent.service"
NOTIFY: Final = "/run/systemd/notify"     # sd_notify(3): answers nobody
SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/etc")
_SOMETIMES: Final = ("/lib32", "/lib64", "/libx32")
# Nothing of /sys but what counts processors; /proc/sys is read-only by ProtectKernelTunables=.
_COVERED: Final = ("/sys/fs", "/sys/kernel", "/sys/class/net", "/sys/firmware", "/sys/hypervisor")
FAMILIES: Final = ("AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK")
_DIRECTORIES: Final = {"StateDirectory": "/var/lib", "CacheDirectory": "/var/cache", "LogsDirectory": "/var/log",
                       "RuntimeDirectory": "/run", "ConfigurationDirectory": "/etc"}
_PLAIN: Final = re.compile(r"[A-Za-z0-9/._@=,+-]+")

# What stands in the file and is read back: property of `systemctl show` -> the text there and here.
_ALWAYS: Final = {
    "Delegate": "no", "NoNewPrivileges": "yes", "CapabilityBoundingSet": "", "AmbientCapabilities": "",
    "SystemCallArchitectures": "native", "RestrictNamespaces": "yes", "LockPersonality": "yes",
    "KeyringMode": "private", "PrivateUsers": "yes", "PrivateTmp": "yes", "PrivateDevices": "yes", "PrivateIPC": "yes",
    "ProtectSystem": "strict", "ProtectHome": "no", "ProtectProc": "invisible", "ProcSubset": "all",
    "ProtectKernelTunables": "yes", "ProtectKernelModules": "yes", "ProtectKernelLogs": "yes",
    "ProtectControlGroups": "yes", "ProtectClock": "yes", "ProtectHostname": "yes", "MountAPIVFS": "yes",
    "FileDescriptorStoreMax": "0",
}
_EMPTIED: Final = ("BindPaths", "BindReadOnlyPaths", "TemporaryFileSystem", "InaccessiblePaths", "ReadOnlyPaths",
                   "ReadWritePaths", "RestrictAddressFamilies", "DeviceAllow")


@dataclass(frozen=True)
class Plan:
    """What is written for one unit.  Paths are absolute and resolved."""

    unit: str
    workload: str
    slice: str                        # "weir.slice"
    root: str                         # its RootDirectory, Weir's own
    home: str                         # of its user; "/": none
    writable: tuple[str, ...]
    readable: tuple[str, ...]
    files: tuple[tuple[str, str], ...]     # file of Weir's, where it shows
    hidden: tuple[str, ...]           # Weir's own, whatever the others say
    environment: tuple[tuple[str, str], ...]
    families: tuple[str, ...]         # of FAMILIES
    notifies: str                     # NotifyAccess=: who tells systemd that it is ready; empty: nobody


def families(unit: Unit) -> tuple[str, ...]:
    """What the unit itself leaves of what a workload may have."""
    own = unit["RestrictAddressFamilies"]
    if own in ("", "~"):
        return FAMILIES
    words = set(own.lstrip("~").split())
    return tuple(one for one in FAMILIES if (one not in words) == own.startswith("~"))


def shows(plan: Plan, unit: Unit, path: str) -> bool:
    """Whether a path lies in what the unit sees, by name."""
    tops = (*SYSTEM, *_SOMETIMES, *plan.writable, *plan.readable, *_own_directories(unit))
    return any(path == top or path.startswith(top.rstrip("/") + "/") for top in tops)


def unseen(plan: Plan, unit: Unit) -> Iterator[str]:
    """What it needs to start and would not see."""
    how = "name its directory in `read_only` or `directories` of the [[workload]]"
    for command in unit.commands:
        if not shows(plan, unit, command.path):
            yield f"{command.property}= is {command.path}, which it would not see: {how}"
    start = plan.home if unit.directory == "~" else unit.directory
    if start and start != "/" and not shows(plan, unit, start):
        yield f"WorkingDirectory= is {start}, which it would not see: {how}"


def _own_directories(unit: Unit) -> Iterator[str]:
    """Of StateDirectory= and the like: systemd makes and binds them."""
    for name, top in _DIRECTORIES.items():
        yield from (f"{top}/{word.partition(':')[0]}" for word in unit.words(name))


def render_dropin(plan: Plan) -> str:
    return "\n".join([*_head(plan), *_service(plan)]) + "\n"


def _head(plan: Plan) -> Iterator[str]:
    yield f"# Written by `weir adopt {plan.unit}`, for workload {plan.workload}; `weir adopt --undo` takes it away."
    yield "# It is made from /etc/weir/weir.toml: change that, and adopt again."
    yield "[Unit]"
    yield f"Requires={GUARD}"
    yield f"Wants={AGENT}"
    yield f"After={GUARD} {AGENT}"
    yield ""


def _service(plan: Plan) -> Iterator[str]:
    yield "[Service]"
    yield f"Slice={plan.slice}"
    yield from (f"{name}={value}" for name, value in _ALWAYS.items())
    yield from (f"{name}=" for name in _EMPTIED)
    yield f"RestrictAddressFamilies={' '.join(plan.families) or 'none'}"
    yield f"SystemCallFilter=~{' '.join(f'{name}:EPERM' for name in REFUSED)}"
    yield f"RootDirectory={_percent(plan.root)}"
    yield f"BindReadOnlyPaths={' '.join((*SYSTEM, *(f'-{one}' for one in _SOMETIMES)))}"
    yield from (f"BindReadOnlyPaths={_word(path)}" for path in plan.readable)
    yield from (f"BindPaths={_word(path)}" for path in plan.writable)
    if plan.notifies:
        yield f"NotifyAccess={plan.notifies}"
        yield f"BindReadOnlyPaths=-{NOTIFY}"
    yield from (f"BindReadOnlyPaths={_word(source)}:{_word(target)}" for source, target in plan.files)
    yield from (f"InaccessiblePaths={_word('-+' + path)}" for path in (*_COVERED, *plan.hidden))
    yield from (f"Environment={_word(f'{name}={value}')}" for name, value in plan.environment)


def _word(text: str) -> str:
    """systemd.syntax(7): quoted where it is not plain."""
    if _PLAIN.fullmatch(text):
        return text
    return '"' + _percent(text).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _percent(text: str) -> str:
    """systemd.unit(5), specifiers."""
    return text.replace("%", "%%")


# read back

READ_BACK: Final = (*_ALWAYS, "Slice", "RootDirectory", "RootImage", "RestrictAddressFamilies", "SystemCallFilter",
                    "BindPaths", "BindReadOnlyPaths", "TemporaryFileSystem", "Requires", "NeedDaemonReload",
                    "DeviceAllow")


def undone(plan: Plan, unit: Unit) -> Iterator[str]:
    """What of the drop-in systemd has not in force: another drop-in, a later one, says otherwise."""
    if unit["NeedDaemonReload"] == "yes":
        yield "systemd has not read its files again: systemctl daemon-reload"
    for name, wanted in {**_ALWAYS, "Slice": plan.slice, "RootDirectory": plan.root, "RootImage": "",
                         "TemporaryFileSystem": "", "DeviceAllow": ""}.items():
        if unit[name] != wanted:
            yield f"{name} is {unit[name] or 'empty'}, not {wanted or 'empty'}"
    if GUARD not in unit.words("Requires"):
        yield f"it does not require {GUARD}"
    if more := set(unit.words("RestrictAddressFamilies")) - set(plan.families) - {"none"}:
        yield f"RestrictAddressFamilies has also {' '.join(sorted(more))}"
    yield from _calls(unit)
    yield from _binds(plan, unit)


def _calls(unit: Unit) -> Iterator[str]:
    shown = unit["SystemCallFilter"]
    names = {word.partition(":")[0] for word in shown.lstrip("~").split()}
    let = sorted(set(REFUSED) - names if shown.startswith("~") or not shown else set(REFUSED) & names)
    if let:
        yield f"SystemCallFilter lets {' '.join(let)} through"


def _binds(plan: Plan, unit: Unit) -> Iterator[str]:
    """What it sees besides."""
    expected = {"BindPaths": set(plan.writable),
                "BindReadOnlyPaths": {*SYSTEM, *_SOMETIMES, *plan.readable, NOTIFY, *(one for _, one in plan.files)}}
    for name, wanted in expected.items():
        shown = {_target(word) for word in unit.words(name)}
        if more := sorted(shown - wanted):
            yield f"{name} has also {' '.join(more)}"
        if name == "BindReadOnlyPaths" and (lacks := sorted({one for _, one in plan.files} - shown)):
            yield f"BindReadOnlyPaths lacks {' '.join(lacks)}"


def _target(word: str) -> str:
    """"-/source:/target:rbind", as systemctl shows it."""
    parts = word.lstrip("-").split(":")
    return parts[1] if len(parts) > 1 and parts[1].startswith("/") else parts[0]
