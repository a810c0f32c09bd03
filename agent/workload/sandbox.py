"""From fork to bubblewrap's first instruction: the launcher's child on its way down from root.

The order is the point.  Still root: into the cgroup, the owner mark, the network namespace, limits.  Then the
descriptors, a stage for what the view binds (agent/workload/pins.py), the uid, nothing left of privilege.  Only then
is anything looked at that the user could have prepared: the view is rendered and the command looked for with his
rights.

Between bubblewrap and the command stands setsid(1): bubblewrap's outer process and its pid 1 share a process group, and
a ^C meant for the command would end them; the command has a session of its own, in which the terminal is.  It also
gives 127 and 126 where execve(2) fails.
"""
from __future__ import annotations

import ctypes
import fcntl
import os
import posixpath
import resource
import signal
import socket
import stat
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NoReturn

import msgspec

from agent import procfs
from agent.workload import landlock
from agent.workload.launch import Launch
from agent.workload.pins import Stage, open_plain
from agent.workload.view import CONTENT_LIMIT, NAMES_LIMIT, Argument, Data, NoCommand, Pinned, render_view

BUBBLEWRAP: Final = "/usr/bin/bwrap"
SETSID: Final = "/usr/bin/setsid"
ERROR: Final = 3                      # the child's descriptors: closed by execve, or [code, text] in msgpack
STATUS: Final = 4                     # bubblewrap's --json-status-fd
_HIGH: Final = 64                     # descriptors are moved up here before 0 to 4 are filled
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_SET_NAME = 24, 38, 47, 15
_AMBIENT_CLEAR_ALL: Final = 4
_CLONE_NEWNET: Final = 0x40000000
_CAPABILITY_VERSION: Final = 0x20080522
_KEYCTL: Final = {"x86_64": 250, "aarch64": 219}     # system call numbers; libc has no function
_JOIN_SESSION_KEYRING: Final = 1
_LAST_CAPABILITY: Final = 63
_DEFAULT_PATH: Final = b"/usr/local/bin:/usr/bin:/bin"     # as execvp(3) and the shells, without the directory

# /dev/null, zero, full, random, urandom; then terminals: ttyN and serial, /dev/tty, pts.
_MEMORY: Final = frozenset({(1, 3), (1, 5), (1, 7), (1, 8), (1, 9)})
_TERMINALS: Final = frozenset({4, 5, *range(136, 144)})

_libc = ctypes.CDLL(None, use_errno=True)


class NotStarted(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code, self.text = code, text


@dataclass(frozen=True)
class Caller:
    """What a command keeps of the process that asked for it."""

    pid: int
    limits: tuple[tuple[int, tuple[int, int]], ...]
    umask: int


def read_caller(connection: socket.socket) -> Caller:
    """By the kernel's word.  A caller that has gone leaves the launcher's own limits."""
    pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    try:
        limits = parse_limits(procfs.read_shown(pid, "limits"))
        umask = next((int(line.split()[1], 8) for line in procfs.read_lines(pid, "status")
                      if line.startswith("Umask:")), 0o022)
    except (OSError, ValueError):
        return Caller(pid, (), 0o022)
    return Caller(pid, limits, umask & 0o777)


# proc(5), /proc/PID/limits; prlimit(2) of another user's process would need CAP_SYS_RESOURCE, which not every root has.
_LIMITS: Final = {
    "Max cpu time": resource.RLIMIT_CPU, "Max file size": resource.RLIMIT_FSIZE,
    "Max data size": resource.RLIMIT_DATA, "Max stack size": resource.RLIMIT_STACK,
    "Max core file size": resource.RLIMIT_CORE, "Max resident set": resource.RLIMIT_RSS,
    "Max processes": resource.RLIMIT_NPROC, "Max open files": resource.RLIMIT_NOFILE,
    "Max locked memory": resource.RLIMIT_MEMLOCK, "Max address space": resource.RLIMIT_AS,
    "Max pending signals": resource.RLIMIT_SIGPENDING, "Max msgqueue size": resource.RLIMIT_MSGQUEUE,
    "Max nice priority": resource.RLIMIT_NICE, "Max realtime priority": resource.RLIMIT_RTPRIO,
    "Max realtime timeout": resource.RLIMIT_RTTIME,
}


def parse_limits(text: str) -> tuple[tuple[int, tuple[int, int]], ...]:
    """Soft and hard by number.  Raises ValueError where a column is no number."""
    found = []
    for line in text.splitlines()[1:]:
        if (number := _LIMITS.get(line[:25].strip())) is not None:
            soft, hard = (resource.RLIM_INFINITY if word == "unlimited" else int(word)
                          for word in line[25:].split()[:2])
            found.append((number, (soft, hard)))
    return tuple(found)


def lower(bounds: tuple[int, int], most: int) -> tuple[int, int]:
    """Soft and hard limit, neither above `most`."""
    if most == resource.RLIM_INFINITY:
        return bounds
    soft, hard = (most if limit == resource.RLIM_INFINITY else min(limit, most) for limit in bounds)
    return soft, hard


def check_descriptor(fd: int, name: int) -> None:
    """Raises NotStarted where this would be a way round: a socket talks past the probes, a directory or a path
    descriptor leads out of the view, a device may be anything."""
    status = os.fstat(fd)
    kind, device = stat.S_IFMT(status.st_mode), (os.major(status.st_rdev), os.minor(status.st_rdev))
    if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_PATH:
        raise NotStarted(125, f"descriptor {name} is only a path")
    if kind in (stat.S_IFREG, stat.S_IFIFO) or (
            kind == stat.S_IFCHR and (device in _MEMORY or device[0] in _TERMINALS)):
        return
    what = {stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a directory", stat.S_IFCHR: "a device",
            stat.S_IFBLK: "a disk"}.get(kind, "of an unknown kind")
    raise NotStarted(125, f"descriptor {name} is {what}; a workload may be given files, pipes and terminals")


def enter(
    launch: Launch, caller: Caller, stdio: tuple[int, int, int], network: int, error: int, status: int,
    mark: Callable[[int, int], None], program: bytes,
) -> NoReturn:
    """Never returns, never raises.  `network`: the namespace; `program`: the seccomp filter."""
    code = 125
    try:
        _into_network(network)        # first: setns(2) and bpf(2) are not for a crew
        mark(os.getpid(), launch.owner)
        _into_cgroup(launch.cgroup)
        _descriptors(stdio, error, status)
        os.setsid()
        _signals()
        _limits(caller)
        stage = Stage(launch.cgroup)
        _drop(launch)
        _exec(launch, program, stage)
    except NotStarted as reason:
        code = _say(reason.code, reason.text)
    except OSError as reason:
        code = _say(125, str(reason))
    except BaseException as reason:
        code = _say(125, f"{type(reason).__name__} before the command was started")
    finally:
        os._exit(code)


def _say(code: int, text: str) -> int:
    os.write(ERROR, msgspec.msgpack.encode((code, text[:1000].encode(errors="replace").decode())))
    return code


def _into_cgroup(path: str) -> None:
    with open(path + "/cgroup.procs", "w") as file:
        file.write("0")


def _into_network(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "the network namespace could not be entered")


def _limits(caller: Caller) -> None:
    """The agent's own (a service's) are not the user's."""
    for number, bounds in caller.limits:
        try:
            resource.setrlimit(number, bounds)
        except ValueError:            # without CAP_SYS_RESOURCE no hard limit is raised: what there is, then
            resource.setrlimit(number, lower(bounds, resource.getrlimit(number)[1]))
    os.umask(caller.umask)
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("0")


def _descriptors(stdio: tuple[int, int, int], error: int, status: int) -> None:
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _HIGH) for fd in (*stdio, error, status)]
    for target, fd in enumerate(high):
        os.dup2(fd, target, inheritable=target != ERROR)
    if _libc.close_range(5, 0xFFFFFFFF, 0) != 0:
        raise OSError(ctypes.get_errno(), "close_range")


def _signals() -> None:
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if signal.getsignal(number) not in (signal.SIG_DFL, None):
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _drop(launch: Launch) -> None:
    """Everything that root is: capabilities of every set, groups, uids, keyring, and the way back."""
    _libc.prctl(_PR_SET_NAME, b"weir-starting", 0, 0, 0)
    _libc.prctl(_PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL, 0, 0, 0)
    for capability in range(_LAST_CAPABILITY + 1):
        _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)      # EINVAL after the kernel's last one
    os.setgroups(launch.groups)
    os.setresgid(launch.gid, launch.gid, launch.gid)
    os.setresuid(launch.uid, launch.uid, launch.uid)
    header, data = struct.pack("=II", _CAPABILITY_VERSION, 0), bytes(24)
    if _libc.capset(header, data) != 0 or _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "capset or no_new_privs")
    # Out of root's session keyring; a kernel without keyrings says ENOSYS, and there is nothing to leave.
    _libc.syscall(_KEYCTL[os.uname().machine], _JOIN_SESSION_KEYRING, 0)
    if os.getresuid() != (launch.uid,) * 3 or os.getresgid() != (launch.gid,) * 3:
        raise OSError("the uid was not taken")
    os.chdir("/")


def _exec(launch: Launch, program: bytes, stage: Stage) -> NoReturn:
    argv0, cwd = os.fsdecode(launch.argv[0]), os.fsdecode(launch.cwd)
    search = os.fsdecode(launch.env.get(b"PATH", _DEFAULT_PATH))
    rendered = render_view(launch.view, HostFiles(), argv0, search, cwd)
    if isinstance(rendered.command, NoCommand):
        raise NotStarted(rendered.command.code, rendered.command.text)
    if rendered.cwd != posixpath.normpath(cwd):
        os.write(2, os.fsencode(f"weir: {cwd} is not in the view of workload {launch.workload}, "
                                f"so the command starts in {rendered.cwd}\n"))
    places = _pin(rendered.arguments, stage)
    view = [_argument(one, places) for one in rendered.arguments]
    arguments = [*_FIXED, *(_AS_ROOT if launch.root else ()), "--json-status-fd", str(STATUS), "--seccomp",
                 str(_memory(program)), *view, *_loader_variables(launch.env)]
    encoded = b"".join(os.fsencode(argument) + b"\0" for argument in arguments)
    terminal = ["--ctty"] if launch.tty else []
    # By --args: what is bound where, and the loader's variables, are nobody's business in `ps`.
    argv = ["bwrap", "--args", str(_memory(encoded)), "--", SETSID, *terminal, "--", rendered.command.path]
    env = {name: value for name, value in launch.env.items() if not name.startswith(b"LD_")}
    landlock.enter_domain()
    os.execve(BUBBLEWRAP, [*map(os.fsencode, argv), *launch.argv[1:]], env)  # noqa: S606


_FIXED: Final = ("--unshare-user", "--disable-userns", "--unshare-pid", "--unshare-ipc", "--die-with-parent",
                 "--cap-drop", "ALL")
_AS_ROOT: Final = ("--uid", "0", "--gid", "0")      # of the user namespace, which maps nobody else


def _loader_variables(env: dict[bytes, bytes]) -> list[str]:
    """They are the command's, not bubblewrap's, which would load what they name outside the view."""
    pairs = [("--setenv", os.fsdecode(name), os.fsdecode(value)) for name, value in env.items()
             if name.startswith(b"LD_")]
    return [word for pair in pairs for word in pair]


def _pin(arguments: Sequence[Argument], stage: Stage) -> dict[str, str]:
    """Where on the stage each pinned source is."""
    paths = list(dict.fromkeys(one.path for one in arguments if isinstance(one, Pinned)))
    try:
        places = stage.bind(paths)
    except OSError as reason:
        raise NotStarted(125, f"{reason.filename or 'what the workload is shown'} has changed while it was looked at: "
                              f"{reason.strerror}") from None
    stage.close()
    return dict(zip(paths, places, strict=True))


def _argument(argument: Argument, places: Mapping[str, str]) -> str:
    if isinstance(argument, Pinned):
        return places[argument.path]
    return str(_memory(argument.content)) if isinstance(argument, Data) else argument


def _memory(content: bytes) -> int:
    """A descriptor, kept over execve, from which this can be read."""
    fd = os.memfd_create("weir", 0)
    with open(fd, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


class HostFiles:
    """agent.workload.view.Files with the rights of whoever runs it."""

    def kind(self, path: str) -> str:
        try:
            mode = os.lstat(path).st_mode
        except (OSError, ValueError):
            return ""
        kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "link"}
        return kinds.get(stat.S_IFMT(mode), "other")

    def link(self, path: str) -> str:
        try:
            return os.readlink(path)
        except OSError:
            return ""

    def real(self, path: str) -> str:
        return os.path.realpath(path)

    def names(self, path: str) -> tuple[str, ...] | None:
        try:
            found = tuple(sorted(os.listdir(path)))
        except OSError:
            return None
        return found if len(found) <= NAMES_LIMIT else None

    def content(self, path: str) -> bytes | None:
        try:
            fd = open_plain(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
            with open(fd, "rb") as file:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    return None
                found = file.read(CONTENT_LIMIT + 1)
        except OSError:
            return None
        return found if len(found) <= CONTENT_LIMIT else None

    def executable(self, path: str) -> bool:
        return os.path.isfile(path) and os.access(path, os.X_OK)
