"""Pure: unit and workload -> the drop-in that confines it as `weir run` confines a command, in systemd's own
directives; and whether that is what systemd has taken over.

The view is an allow-list here too: a root file system that is empty (RootDirectory=), and what is bound into it.  What
no directive of systemd 252 says is in docs/decisions/0018-adopt.md.  Every list that the unit itself may have filled is
emptied first: systemd adds to lists.
"""
from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from agent.unit.adoptable import START_ONLY, Unit
from agent.workload.seccomp import REFUSED

FILE: Final = "50-weir.conf"
GUARD, AGENT = "weir-guard.service", "weir-agent.service"
NOTIFY: Final = "/run/systemd/notify"     # sd_notify(3): answers nobody
SYSTEM: Final = ("/usr", "/bin", "/sbin", "/lib", "/etc")
_SOMETIMES: Final = ("/lib32", "/lib64", "/libx32")
# Nothing of /sys but what counts processors; /proc/sys is read-only by ProtectKernelTunables=.
_COVERED: Final = ("/sys/fs", "/sys/kernel", "/sys/class/net", "/sys/firmware", "/sys/hypervisor")
FAMILIES: Final = ("AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK")
DIRECTORIES: Final = {"StateDirectory": "/var/lib", "CacheDirectory": "/var/cache", "LogsDirectory": "/var/log",
                       "RuntimeDirectory": "/run", "ConfigurationDirectory": "/etc"}
_PLAIN: Final = re.compile(r"[A-Za-z0-9/._@=,+-]+")

_YES, _NO, _NONE = ("yes", True), ("no", False), ("", 0)
# What stands in the file, and what systemd then says of the property.
_ALWAYS: Final[Mapping[str, tuple[str, object]]] = {
    "Delegate": _NO, "NoNewPrivileges": _YES, "CapabilityBoundingSet": _NONE, "AmbientCapabilities": _NONE,
    "SecureBits": _NONE, "SystemCallArchitectures": ("native", ("native",)), "RestrictNamespaces": ("yes", 0),
    "LockPersonality": _YES, "KeyringMode": ("private", "private"), "PrivateUsers": _YES, "PrivateTmp": _YES,
    "PrivateDevices": _YES, "PrivateIPC": _YES, "ProtectSystem": ("strict", "strict"), "ProtectHome": ("no", "no"),
    "ProtectProc": ("invisible", "invisible"), "ProcSubset": ("all", "all"), "ProtectKernelTunables": _YES,
    "ProtectKernelModules": _YES, "ProtectKernelLogs": _YES, "ProtectControlGroups": _YES, "ProtectClock": _YES,
    "ProtectHostname": _YES, "MountAPIVFS": _YES, "FileDescriptorStoreMax": ("0", 0),
    # What runs is in the slice, and all of it ends with the unit; no command of it is root's.
    "KillMode": ("control-group", "control-group"), "SendSIGKILL": _YES, "FinalKillSignal": ("SIGKILL", 9),
    START_ONLY: _NO, "RootDirectoryStartOnly": _NO,
}
_EMPTIED: Final = ("BindPaths", "BindReadOnlyPaths", "TemporaryFileSystem", "InaccessiblePaths", "ReadOnlyPaths",
                   "ReadWritePaths", "RestrictAddressFamilies", "DeviceAllow")
_HOME: Final = "read-only"            # the least of ProtectHome= with DynamicUser=, systemd.exec(5)
_CLOCK: Final = ("char-rtc", "r")     # systemd 252 adds it for ProtectClock=, systemd.exec(5)
_CLOSED: Final = ("closed", "strict")                  # DevicePolicy=, by PrivateDevices=


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
    allows, names = unit.all("RestrictAddressFamilies") or (False, ())
    return tuple(one for one in FAMILIES if (one in names) == allows)


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
    for name, top in DIRECTORIES.items():
        yield from (f"{top}/{word}" for word in unit.all(name))


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
    yield from (f"{name}={text}" for name, (text, _) in _ALWAYS.items())
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
    yield from (f"InaccessiblePaths={_word(path)}" for path in _inaccessible(plan))
    yield from (f"Environment={_word(f'{name}={value}')}" for name, value in plan.environment)


def _inaccessible(plan: Plan) -> tuple[str, ...]:
    """Where they are there, and below the unit's root."""
    return tuple(f"-+{path}" for path in (*_COVERED, *plan.hidden))


def _word(text: str) -> str:
    """systemd.syntax(7): quoted where it is not plain."""
    if _PLAIN.fullmatch(text):
        return text
    return '"' + _percent(text).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _percent(text: str) -> str:
    """systemd.unit(5), specifiers."""
    return text.replace("%", "%%")


# read back


def undone(plan: Plan, unit: Unit) -> Iterator[str]:
    """What of the drop-in systemd has not in force: another drop-in, a later one, says otherwise."""
    if unit.yes("NeedDaemonReload"):
        yield "systemd has not read its files again: systemctl daemon-reload"
    wanted = {name: value for name, (_, value) in _ALWAYS.items()} | {
        "Slice": plan.slice, "RootDirectory": plan.root, "RootImage": "", "TemporaryFileSystem": (),
        "ReadWritePaths": ()}
    if unit.dynamic and unit["ProtectHome"] == _HOME:
        del wanted["ProtectHome"]
    for name, value in wanted.items():
        if (found := unit.properties.get(name)) != value:
            yield f"{name} is {_shown(found)}, not {_shown(value)}"
    if GUARD not in unit.all("Requires"):
        yield f"it does not require {GUARD}"
    yield from _devices(unit)
    yield from _families(plan, unit)
    yield from _calls(unit)
    yield from _binds(plan, unit)
    if lacks := [path for path in _inaccessible(plan) if path not in unit.all("InaccessiblePaths")]:
        yield f"InaccessiblePaths lacks {' '.join(lacks)}"


def _shown(value: object) -> str:
    if value is None:
        return "not said"
    if isinstance(value, tuple):
        return " ".join(map(_shown, value)) or "empty"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value) or "empty"


def _devices(unit: Unit) -> Iterator[str]:
    if more := [" ".join(one) for one in unit.all("DeviceAllow") if one != _CLOCK]:
        yield f"DeviceAllow has {', '.join(more)}"
    if unit["DevicePolicy"] not in _CLOSED:
        yield f"DevicePolicy is {_shown(unit['DevicePolicy'])}, not closed"


def _families(plan: Plan, unit: Unit) -> Iterator[str]:
    allows, names = unit.all("RestrictAddressFamilies") or (False, ())
    if not allows:
        yield "RestrictAddressFamilies has no list of what is allowed"
    elif more := sorted(set(names) - set(plan.families)):
        yield f"RestrictAddressFamilies has also {' '.join(more)}"


def _calls(unit: Unit) -> Iterator[str]:
    allows, shown = unit.all("SystemCallFilter") or (False, ())
    names = {word.partition(":")[0] for word in shown}
    if let := sorted(set(REFUSED) & names if allows else set(REFUSED) - names):
        yield f"SystemCallFilter lets {' '.join(let)} through"


def _binds(plan: Plan, unit: Unit) -> Iterator[str]:
    """What it sees besides; and what it does not see of Weir's files."""
    same = (*SYSTEM, *_SOMETIMES, *plan.readable, NOTIFY)
    expected = {"BindPaths": {(path, path) for path in plan.writable},
                "BindReadOnlyPaths": {*((path, path) for path in same), *plan.files}}
    for name, wanted in expected.items():
        shown = {(source, target) for source, target, _, _ in unit.all(name)}
        if more := sorted(shown - wanted):
            yield f"{name} has also {_pairs(more)}"
        if name == "BindReadOnlyPaths" and (lacks := sorted(set(plan.files) - shown)):
            yield f"{name} lacks {_pairs(lacks)}"


def _pairs(pairs: Iterable[tuple[str, str]]) -> str:
    return " ".join(source if source == target else f"{source}:{target}" for source, target in pairs)
