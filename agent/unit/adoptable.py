"""Pure: a unit, as systemd says over D-Bus what it has in force, and which names may be adopted.

Read by org.freedesktop.DBus.Properties (org.freedesktop.systemd1(5)), and not from the text of `systemctl show`: there
an argument with a line break is a line of its own, and speaks for systemd.  What is missing or has another signature
than that of systemd 252 is an error.
"""
from __future__ import annotations

import re
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

END, REPORT, RESTART = "end", "report", "restart"
DYNAMIC: Final = range(61184, 65520)  # uids and gids of DynamicUser=, systemd.exec(5)

_LETTERS: Final = frozenset(string.ascii_letters)
_UNIT: Final = re.compile(r"[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\-]*)?\.service")
_COMMANDS: Final = tuple(f"{name}Ex" for name in (
    "ExecCondition", "ExecStartPre", "ExecStart", "ExecStartPost", "ExecReload", "ExecStop", "ExecStopPost"))
_SHAPES: Final[Mapping[str, Any]] = {     # D-Bus signature -> its JSON, busctl(1)
    "s": str, "b": bool, "i": int, "u": int, "t": int, "as": tuple[str, ...], "(ss)": tuple[str, str],
    "(bas)": tuple[bool, tuple[str, ...]], "a(ss)": tuple[tuple[str, str], ...], "a(sb)": tuple[tuple[str, bool], ...],
    "a(sst)": tuple[tuple[str, str, int], ...], "a(ssbt)": tuple[tuple[str, str, bool, int], ...],
    "a(sba(ss))": tuple[Any, ...], "a(ssba(ss))": tuple[Any, ...],
    "a(sasasttttuii)": tuple[tuple[str, tuple[str, ...], tuple[str, ...], int, int, int, int, int, int, int], ...],
}
_ASKED: Final = {
    "s": "Id LoadState ActiveState ControlGroup Type User Group Slice PAMName RootDirectory RootImage WorkingDirectory "
         "StandardInput StandardOutput StandardError NotifyAccess NetworkNamespacePath IPCNamespacePath TTYPath "
         "UtmpIdentifier LogNamespace BusName USBFunctionDescriptors USBFunctionStrings ProtectSystem ProtectHome "
         "ProtectProc ProcSubset KeyringMode KillMode DevicePolicy",
    "b": "Transient NeedDaemonReload DynamicUser RootDirectoryStartOnly PrivateNetwork Delegate NoNewPrivileges "
         "LockPersonality PrivateUsers PrivateTmp PrivateDevices PrivateIPC ProtectKernelTunables ProtectKernelModules "
         "ProtectKernelLogs ProtectControlGroups ProtectClock ProtectHostname MountAPIVFS SendSIGKILL TTYReset "
         "TTYVHangup TTYVTDisallocate",
    "i": "FinalKillSignal SecureBits",
    "u": "FileDescriptorStoreMax",
    "t": "CapabilityBoundingSet AmbientCapabilities RestrictNamespaces",
    "as": "SupplementaryGroups TriggeredBy Environment Requires JoinsNamespaceOf SystemCallArchitectures "
          "StateDirectory CacheDirectory LogsDirectory RuntimeDirectory ConfigurationDirectory ExtensionDirectories "
          "InaccessiblePaths ReadWritePaths IPIngressFilterPath IPEgressFilterPath",
    "(ss)": "LoadError",
    "(bas)": "RestrictAddressFamilies SystemCallFilter",
    "a(ss)": "TemporaryFileSystem DeviceAllow LoadCredential LoadCredentialEncrypted BPFProgram",
    "a(sb)": "EnvironmentFiles",
    "a(sst)": "StateDirectorySymlink CacheDirectorySymlink LogsDirectorySymlink RuntimeDirectorySymlink",
    "a(ssbt)": "BindPaths BindReadOnlyPaths",
    "a(sba(ss))": "ExtensionImages",
    "a(ssba(ss))": "MountImages",
    "a(sasasttttuii)": " ".join(_COMMANDS),
}
PROPERTIES: Final = {name: signature for signature, names in _ASKED.items() for name in names.split()}
START_ONLY: Final = "PermissionsStartOnly"        # of old, and told only to who asks for it by name
OPENED: Final = "OpenFile"                        # from systemd 253 on

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
    arguments: tuple[str, ...] = ()   # the program's name first


@dataclass(frozen=True)
class Unit:
    properties: Mapping[str, object]  # as PROPERTIES says, lists as tuples
    commands: tuple[Command, ...]

    def __getitem__(self, name: str) -> str:
        """Of a text."""
        found = self.properties.get(name, "")
        return found if isinstance(found, str) else ""

    def yes(self, name: str) -> bool:
        return self.properties.get(name) is True

    def all(self, name: str) -> tuple[Any, ...]:
        """Of a list: what is in it, as its signature says."""
        found = self.properties.get(name, ())
        return found if isinstance(found, tuple) else ()

    @property
    def running(self) -> bool:
        return self["ActiveState"] not in ("inactive", "failed", "") and bool(self["ControlGroup"])

    @property
    def dynamic(self) -> bool:
        return self.yes("DynamicUser")

    @property
    def environment(self) -> dict[str, str]:
        """`Environment=` alone."""
        pairs = (word.partition("=") for word in self.all("Environment"))
        return {name: value for name, _, value in pairs}

    @property
    def environment_files(self) -> tuple[str, ...]:
        return tuple(path for path, _ in self.all("EnvironmentFiles"))

    @property
    def directory(self) -> str:
        """Where it starts; empty: the root.  `~` is the user's home."""
        return self["WorkingDirectory"].lstrip("!-")

    @property
    def sockets(self) -> tuple[str, ...]:
        return tuple(name for name in self.all("TriggeredBy") if name.endswith(".socket"))


class _Value(msgspec.Struct):
    """A variant."""

    type: str
    data: msgspec.Raw


class _Answer(msgspec.Struct):
    type: Literal["a{sv}"]
    data: tuple[dict[str, _Value]]


def parse_unit(everything: bytes, start_only: bytes) -> Unit:
    """`everything`: busctl's JSON of GetAll, over all interfaces; `start_only`: of START_ONLY.  Raises ValueError."""
    (found,) = _decode("the unit", everything, _Answer).data
    said = {name: _value(name, signature, found.get(name)) for name, signature in PROPERTIES.items()}
    said[START_ONLY] = parse_property(START_ONLY, "b", start_only)
    if OPENED in found:
        said[OPENED] = _decode(OPENED, found[OPENED].data, tuple[Any, ...])
    commands = tuple(Command(name.removesuffix("Ex"), path, frozenset(flags), words) for name in _COMMANDS
                     for path, words, flags, *_ in said.pop(name))
    return Unit({**said, "LoadError": said["LoadError"][1]}, commands)


def parse_sockets(answer: bytes) -> tuple[tuple[str, str], ...]:
    """Property Listen of a socket: kind ("Stream", "FIFO", ...) and place.  Raises ValueError."""
    found: tuple[tuple[str, str], ...] = parse_property("Listen", "a(ss)", answer)
    return found


class _Files(msgspec.Struct):
    type: Literal["a(ss)"]
    data: tuple[tuple[tuple[str, str], ...]]


def parse_files(answer: bytes) -> tuple[str, ...]:
    """Of ListUnitFilesByPatterns: paths of unit files.  Raises ValueError."""
    return tuple(path for path, _ in _decode("unit files", answer, _Files).data[0])


def parse_property(name: str, signature: str, answer: bytes) -> Any:
    """Of `busctl get-property`.  Raises ValueError."""
    return _value(name, signature, _decode(name, answer, _Value))


def _value(name: str, signature: str, found: _Value | None) -> Any:
    if found is None or found.type != signature:
        raise ValueError(f"systemd says {name} as {found.type if found else 'nothing'}, and not as {signature}")
    return _decode(name, found.data, _SHAPES[signature])


def _decode(name: str, text: bytes | msgspec.Raw, shape: Any) -> Any:
    try:
        return msgspec.json.decode(text, type=shape)
    except msgspec.DecodeError as reason:
        raise ValueError(f"what systemd says of {name} is not understood: {reason}") from None


def object_path(unit: str) -> str:
    """Which has the unit on the bus: sd_bus_path_encode(3)."""
    coded = (chr(byte) if chr(byte) in _LETTERS or (place and chr(byte) in string.digits) else f"_{byte:02x}"
             for place, byte in enumerate(unit.encode()))
    return f"/org/freedesktop/systemd1/unit/{''.join(coded)}"


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
