"""Starting Weir's own Python processes: which command, and the way down from root before it is executed.

    python -I -m agent.processes --user weir [--role ROLE [--read PATH] [--write DIR]] [--cgroup DIR] [--keep FD,FD]
        [--dies-with-parent] [--nice N] [--set NAME=VALUE] -- COMMAND

enters the cgroup, becomes the user with no capability and no way to get one, closes every other descriptor, takes what
a hardened unit would take from such a process (agent/confined) and becomes COMMAND.  It is a process of its own because
between fork and exec of a process with threads only C may run.
"""
from __future__ import annotations

import argparse
import ctypes
import logging
import os
import pwd
import resource
import signal
import site
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NoReturn

from agent.confined.roles import ROLES, UMASK
from agent.contract.logs import log_to_stderr

if TYPE_CHECKING:
    from agent.confined.confine import Confinement

LOG = logging.getLogger("weir.processes")

ROOT: Final = Path(__file__).resolve().parents[1]
_FROM_HERE: Final = "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); runpy.run_module(sys.argv.pop(1), {}, " \
                    "'__main__', alter_sys=True)"
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 1, 24, 38, 47
_AMBIENT_CLEAR_ALL: Final = 4
_LAST_CAPABILITY: Final = 63
_CAPABILITY_VERSION: Final = 0x20080522
DESCRIPTORS: Final = 1 << 16

ENVIRONMENT: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}


def python_module(module: str) -> list[str]:
    """`python -I -m MODULE` of this very code, also where it lies in a directory that -I leaves out."""
    if str(ROOT) in site.getsitepackages():
        return [sys.executable, "-I", "-m", module]
    return [sys.executable, "-I", "-c", _FROM_HERE, str(ROOT), module]


def unprivileged(
    command: Sequence[str], user: str, *, cgroup: Path | None = None, keep: Sequence[int] = (),
    dies_with_parent: bool = False, nice: int = 0, variables: Mapping[str, str] = MappingProxyType({}), role: str = "",
    reads: Sequence[str] = (), writes: Sequence[str] = (),
) -> list[str]:
    """The command line that brings `command` down to `user`.  `keep` are descriptors, inherited by the same numbers;
    `nice` is as setpriority(2) has it, a wish: without CAP_SYS_NICE the command runs as the others do; `variables`,
    which everybody can read there, are added to its environment.  `role` is a name of agent.confined.roles, without
    which it is confined by its user alone (programs of others); such a process sees `reads` and `writes` besides what
    it is made of, and writes below `writes` alone."""
    options = ["--user", user]
    if role:
        options += ["--role", role]
    options += [f"--read={path}" for path in reads] + [f"--write={path}" for path in writes]
    if cgroup is not None:
        options += ["--cgroup", str(cgroup)]
    if keep:
        options += ["--keep", ",".join(map(str, keep))]
    if dies_with_parent:
        options.append("--dies-with-parent")
    if nice:
        options += ["--nice", str(nice)]
    for name, value in variables.items():
        options.append(f"--set={name}={value}")
    return [*python_module("agent.processes"), *options, "--", *command]


def become(
    user: str, cgroup: str, keep: Sequence[int], dies_with_parent: bool, nice: int, command: Sequence[str],
    variables: Mapping[str, str], confinement: Confinement | None,
) -> NoReturn:
    account = pwd.getpwnam(user)
    if account.pw_uid == 0 or account.pw_gid == 0:
        raise PermissionError(f"{user} is root")
    if cgroup:
        Path(cgroup, "cgroup.procs").write_text("0")
    _close_others(keep)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, DESCRIPTORS),) * 2)
    if nice:
        with suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, nice)
    os.umask(UMASK)
    os.chdir("/")
    for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    _drop(account)
    if dies_with_parent:              # after the uids: a change of them forgets it, prctl(2)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if confinement is not None:
        confinement.enter()
    os.execve(command[0], list(command), ENVIRONMENT | dict(variables))  # noqa: S606


def _close_others(keep: Sequence[int]) -> None:
    wanted = {0, 1, 2, *keep}
    for fd in [int(name) for name in os.listdir("/proc/self/fd")]:
        if fd not in wanted:
            try:
                os.set_inheritable(fd, False)
            except OSError:           # the one that listed the directory
                continue
    for fd in keep:
        os.set_inheritable(fd, True)


def _drop(account: pwd.struct_passwd) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    _prctl(_PR_CAP_AMBIENT, _AMBIENT_CLEAR_ALL)
    for capability in range(_LAST_CAPABILITY + 1):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)       # EINVAL after the kernel's last one
    os.setgroups([])
    os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
    os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    if libc.capset(header, (ctypes.c_uint32 * 6)()) != 0:
        raise OSError(ctypes.get_errno(), "capset")
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="agent.processes")
    parser.add_argument("--user", required=True)
    parser.add_argument("--cgroup", default="")
    parser.add_argument("--keep", default="")
    parser.add_argument("--dies-with-parent", action="store_true")
    parser.add_argument("--nice", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--role", default="")
    parser.add_argument("--read", action="append", default=[], metavar="PATH")
    parser.add_argument("--write", action="append", default=[], metavar="DIR")
    parser.add_argument("command", nargs="+")
    given = parser.parse_args(arguments)
    keep = [int(fd) for fd in given.keep.split(",") if fd]
    log_to_stderr()
    try:
        become(given.user, given.cgroup, keep, given.dies_with_parent, given.nice, given.command,
               dict(one.split("=", 1) for one in given.set),
               _confinement(given.role, given.read, given.write) if given.role else None)
    except (OSError, KeyError, ImportError) as reason:
        LOG.error("%s could not be started as %s: %s", given.command[0], given.user, reason)
    return 125


def _confinement(role: str, reads: Sequence[str], writes: Sequence[str]) -> Confinement:
    """Raises OSError, KeyError, ImportError."""
    # Not for everybody who imports this module: libseccomp's binding comes with it.
    from agent.confined.confine import Confinement
    return Confinement(ROLES[role], ROOT, reads, writes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
