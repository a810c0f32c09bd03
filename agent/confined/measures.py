"""What is taken from Weir's own processes, one row a directive that a systemd unit would have for it (systemd.exec(5)).

The same rows make the filter, the view and the rest (confine.py) and the unit that says what they come to
(`render_unit`), which `systemd-analyze security` measures in a test; another tries each row at a process.  Rows by
Landlock are left out of the unit where the kernel has none.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from agent.confined import calls
from agent.confined.roles import UMASK, Role
from agent.workload.seccomp import Rule

USER, CALLS, FILES = "user", "calls", "files"      # by whom: agent.processes, the filter, Landlock
NOTHING: Final = ""


@dataclass(frozen=True)
class Measure:
    """`value`: the directive's, or by role.  Of the filter: `rules` let through what is left of a call, `refused` says
    EPERM.  Of the view: `unread` and `unwritten` are what a unit would hide or have read-only, and the view must not
    show or leave writable."""

    directive: str
    value: str | Callable[[Role], str]
    by: str
    rules: Callable[[Role], Iterable[Rule]] = lambda role: ()
    refused: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    unwritten: tuple[str, ...] = ()


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_CLOCK: Final = _split("settimeofday clock_settime adjtimex clock_adjtime")
_MODULES: Final = _split("init_module finit_module delete_module")
_RAW: Final = _split("ioperm iopl")
_REBOOT: Final = _split("reboot kexec_load kexec_file_load")
_SWAP: Final = _split("swapon swapoff")
_IPC: Final = _split("shmget shmat shmctl shmdt msgget msgsnd msgrcv msgctl semget semop semctl semtimedop "
                     "mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify mq_getsetattr")
_KEYS: Final = _split("keyctl add_key request_key")
_MOUNT: Final = _split("mount umount2 pivot_root chroot mount_setattr move_mount open_tree fsopen fsconfig fsmount "
                       "fspick")
_REALTIME: Final = _split("sched_setscheduler sched_setparam sched_setattr")
_USERS: Final = _split("setuid setgid setreuid setregid setresuid setresgid setfsuid setfsgid setgroups")
_OWNERS: Final = _split("chown fchown lchown fchownat")
_FILTERS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({
    "@privileged": (*_OWNERS, *_CLOCK, *_MODULES, *_RAW, *_REBOOT, *_SWAP, *_split(
        "_sysctl acct bpf capset chroot fanotify_init fanotify_mark nfsservctl open_by_handle_at pivot_root quotactl "
        "quotactl_fd setdomainname sethostname setfsuid setgroups setresuid setreuid setuid vhangup")),
    "@resources": (*_REALTIME, *_split("ioprio_set mbind migrate_pages move_pages sched_setaffinity set_mempolicy "
                                       "setpriority setrlimit")),
    "@setuid": _USERS,
    "@keyring": _KEYS,
    "@aio": _split("io_setup io_submit io_cancel io_destroy io_getevents io_pgetevents io_uring_setup io_uring_enter "
                   "io_uring_register"),
    "@debug": _split("ptrace perf_event_open pidfd_getfd lookup_dcookie"),
    "@mount": _MOUNT,
    "@pkey": _split("pkey_alloc pkey_free pkey_mprotect"),
})
# Of no group: other processes' memory, faults that another handles, what the kernel says.
_BESIDE: Final = _split("process_vm_readv process_vm_writev kcmp userfaultfd syslog modify_ldt uselib vmsplice "
                        "remap_file_pages name_to_handle_at truncate mknod mknodat unshare "
                        "setns fork vfork execveat memfd_secret")
_TEMPORARY: Final = ("/tmp", "/var/tmp")               # noqa: S108  named to be hidden
_SHARED: Final = "/dev/shm"           # noqa: S108


def _families(role: Role) -> str:
    return " ".join(role.families)


MEASURES: Final = (
    Measure("NoNewPrivileges", "yes", USER),
    Measure("CapabilityBoundingSet", NOTHING, USER),
    Measure("AmbientCapabilities", NOTHING, USER),
    Measure("SupplementaryGroups", NOTHING, USER),
    Measure("UMask", f"{UMASK:04o}", USER),
    Measure("LimitCORE", "0", USER),

    Measure("SystemCallArchitectures", "native", CALLS),
    Measure("SystemCallFilter", "@system-service", CALLS, lambda role: [*calls.own_limits(), *calls.own_devices()],
            refused=_BESIDE),
    *(Measure("SystemCallFilter", f"~{name}", CALLS, refused=refused) for name, refused in _FILTERS.items()),
    Measure("RestrictNamespaces", "yes", CALLS, lambda role: calls.threads(), refused=("setns", "unshare")),
    Measure("RestrictAddressFamilies", _families, CALLS, lambda role: calls.sockets(role.families)),
    Measure("RestrictSUIDSGID", lambda role: "no" if role.shared else "yes", CALLS,
            lambda role: calls.modes(calls.SETUID | (0 if role.shared else calls.SETGID))),
    Measure("RestrictRealtime", "yes", CALLS, refused=_REALTIME),
    Measure("MemoryDenyWriteExecute", "yes", CALLS, lambda role: calls.memory(), refused=("shmat", "pkey_mprotect")),
    Measure("LockPersonality", "yes", CALLS, refused=("personality",)),
    Measure("KeyringMode", "private", CALLS, refused=_KEYS),
    Measure("RemoveIPC", "yes", CALLS, refused=_IPC),
    Measure("PrivateMounts", "yes", CALLS, refused=_MOUNT),
    Measure("ProtectHostname", "yes", CALLS, refused=("sethostname", "setdomainname")),
    Measure("ProtectClock", "yes", CALLS, refused=_CLOCK, unread=("/dev/rtc0",)),

    Measure("ProtectSystem", "strict", FILES, unwritten=("/", "/usr", "/etc", "/boot", "/var", "/run")),
    Measure("ProtectHome", "yes", FILES, unread=("/home", "/root", "/run/user")),
    Measure("PrivateTmp", "yes", FILES, unread=_TEMPORARY, unwritten=(*_TEMPORARY, _SHARED)),
    Measure("PrivateDevices", "yes", FILES, unread=("/dev/mem", "/dev/tty", "/dev/ptmx", "/dev/kvm", _SHARED)),
    Measure("DevicePolicy", "closed", FILES),
    Measure("ProtectKernelTunables", "yes", FILES, unwritten=("/proc/sys/kernel/core_pattern", "/sys")),
    Measure("ProtectKernelModules", "yes", FILES, refused=_MODULES, unread=("/usr/lib/modules",)),
    Measure("ProtectKernelLogs", "yes", FILES, refused=("syslog",), unread=("/dev/kmsg", "/proc/kmsg")),
    Measure("ProtectControlGroups", "yes", FILES, unwritten=("/sys/fs/cgroup",)),
    Measure("ProtectProc", lambda role: "default" if role.peers else "noaccess", FILES),
)


def value(measure: Measure, role: Role) -> str:
    return measure.value if isinstance(measure.value, str) else measure.value(role)


def refused() -> frozenset[str]:
    """By every role."""
    return frozenset(name for measure in MEASURES for name in measure.refused)


def render_unit(role: Role, user: str, command: str, files: bool = True) -> str:
    """The unit that would confine `role` as it is confined; `files`: by a kernel with Landlock."""
    return "\n".join(["[Service]", f"ExecStart={command}", f"User={user}", *_lines(role, files)]) + "\n"


def _lines(role: Role, files: bool) -> Iterator[str]:
    for measure in MEASURES:
        if (files and role.files) or measure.by != FILES:
            yield f"{measure.directive}={value(measure, role)}"
