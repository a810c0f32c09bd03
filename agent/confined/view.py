"""What Weir's own processes see of the files: an allow-list for Landlock.

The system without its kernel modules, /etc (names, time zones, certificates; secrets in it are root's), what
resolv.conf leads to, this code and its interpreter.  They write where their caller says, and nowhere else.  Only the
interpreter can be executed: they start nothing.
"""
from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from agent.confined.roles import Role
from agent.workload.landlock import EXECUTE, OWN, READ, USE, Place, version

NO_VIEW: Final = "the kernel has no Landlock (Linux 5.13, with `landlock` in its lsm=): enforcer, recorder and their " \
                 "like see and write whatever files their users may"
MODULES: Final = Path("/usr/lib/modules")
# Whoever makes /etc/resolv.conf replaces the file, so its directory is what is seen; nss-systemd lists the last.
_NAMES: Final = ("/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager", "/run/connman",
                 "/run/systemd/userdb")
_SYSTEM: Final = ("/etc", "/sys/devices/system/cpu")
_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_FACTS: Final = ("/proc/sys", "/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/filesystems")


def hints() -> tuple[str, ...]:
    """For `weir status`."""
    return () if version() else (NO_VIEW,)


def places(role: Role, code: Path, reads: Sequence[str], writes: Sequence[str]) -> Iterator[Place]:
    """`code`: where Weir's own packages lie."""
    system = (*without(Path("/"), MODULES, ("usr",)), *_libraries(), *_SYSTEM)
    for path in (*system, *_NAMES, *_resolvers(), *_python(code)):
        yield Place(path, READ)
    for path in _interpreter():
        yield Place(path, EXECUTE)
    for path in _DEVICES:
        yield Place(path, USE)
    for path in ("/proc",) if role.peers else (f"/proc/{os.getpid()}", *_FACTS):
        yield Place(path, READ)
    yield from (Place(path, READ, needed=True) for path in reads)
    yield from (Place(path, OWN, needed=True) for path in writes)


def without(top: Path, hidden: Path, only: Sequence[str] = ()) -> Iterator[str]:
    """All that is directly below `top`, or `only` these of it; of what leads to `hidden` what is beside it."""
    for name in sorted(only or os.listdir(top)):
        path = top / name
        if path == hidden:
            continue
        if path in hidden.parents and not path.is_symlink():
            yield from without(path, hidden)
        else:
            yield str(path)


def _libraries() -> Iterator[str]:
    """Where /lib is no link to /usr/lib."""
    for name in ("lib", "lib32", "lib64"):
        path = Path("/", name)
        if path.is_dir() and not path.is_symlink():
            yield from without(Path("/"), path / "modules", (name,))


def _resolvers() -> Iterator[str]:
    real = os.path.realpath("/etc/resolv.conf")
    yield os.path.dirname(real) if real.count("/") > 2 and real.startswith("/run/") else real


def _python(code: Path) -> Iterator[str]:
    known = (str(code), sys.prefix, sys.base_prefix, *sys.path)
    yield from {path for path in known if path.startswith("/")} - {"/", "/usr"}


def _interpreter() -> Iterator[str]:
    """And what the kernel loads beside it: PT_INTERP, elf(5)."""
    yield os.path.realpath(sys.executable)
    yield from (str(path) for top in ("/lib64", "/lib", "/usr/lib") for path in Path(top).glob("ld-linux*.so*"))
    yield from map(str, Path("/lib").glob("*-linux-*/ld-linux*.so*"))
