"""Sockets that crew tasks hold and that were not made there: by SCM_RIGHTS, inherited, by pidfd_getfd(2).

No hook sees the connect of such a socket, and its packets carry the cgroup in which it was made, so nothing stops
them: it is found by looking.  Every descriptor of every crew task that is a socket is looked at once, through a copy
of it (pidfd_getfd), whatever its network namespace; what is known is not looked at again while somebody holds it.  A
socket that is held for less time than there is between two looks is not seen.

A socket was made there where the probes say so (their storage on the socket itself) or where its cgroup lies in the
slice (one that was accepted, or made while the probes were away).  Unix and netlink sockets lead nowhere by themselves.
"""
from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

MOST: Final = 2000                    # sockets that are looked at in one round; the others in the next
HARMLESS: Final = frozenset((socket.AF_UNIX, socket.AF_NETLINK, socket.AF_ALG))
INTERNET: Final = frozenset((socket.AF_INET, socket.AF_INET6))
CONNECTION, PROCESS, RECORD = "connection", "process", "record"        # what is ended
_PIDFD_GETFD, _PIDFD_OPEN, _KCMP = 438, 434, {"x86_64": 312, "aarch64": 272}
_PIDFD_THREAD: Final = os.O_EXCL      # linux/pidfd.h, since 6.9
_KCMP_FILES: Final = 2
_SO_COOKIE: Final = 57                # asm-generic/socket.h
_UNSPECIFIED: Final = struct.pack("=H14x", socket.AF_UNSPEC)
_NAMES: Final = {int(family): family.name.removeprefix("AF_") for family in socket.AddressFamily}
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Place:
    """Where a socket is held."""

    pid: int
    tid: int                          # another than pid: this thread has descriptors of its own
    fd: int


@dataclass(frozen=True)
class Foreign:
    """A socket from elsewhere."""

    place: Place
    inode: int
    cookie: int
    family: str                       # "INET stream", "PACKET raw"
    peer: str                         # "ADDRESS PORT", empty where it is not connected
    exe: str                          # of who holds it, before anything was done
    done: str                         # what was done about it


class Holdings:
    """`made_inside(copy, pid)`: whether a socket of the internet families was made by a crew; `outside(inode)` the same
    by its number alone, for a descriptor that cannot be copied: True only where it is known to come from elsewhere."""

    def __init__(self, made_inside: Callable[[socket.socket, int], bool], outside: Callable[[int], bool]) -> None:
        self._made_inside, self._outside = made_inside, outside
        self._known: frozenset[int] = frozenset()

    def look(self, pids: Iterable[int], end: str) -> list[Foreign]:
        """`end`: CONNECTION (what has none: the process), PROCESS or RECORD."""
        held = dict(_sockets(pids))
        known, found, looked = self._known & held.keys(), [], set()
        for inode in list(held.keys() - known)[:MOST]:
            try:
                foreign = self._examine(inode, held[inode], end)
            except OSError:
                continue              # it is gone, or has another number now: the next round looks again
            looked.add(inode)
            if foreign is not None:
                found.append(foreign)
        self._known = known | looked
        return found

    def _examine(self, inode: int, place: Place, end: str) -> Foreign | None:
        try:
            copied = _copy(place)
        except OSError as reason:
            if reason.errno != errno.EINVAL or not self._outside(inode):
                raise
            # Before Linux 6.9 there is no pidfd of a thread, and this one has descriptors of its own.
            return Foreign(place, inode, 0, "unknown", "", _exe(place.pid), _end(None, place, inode, end))
        with copied as copy:
            if os.fstat(copy.fileno()).st_ino != inode:
                raise OSError("another descriptor has this number now")
            family = copy.family
            if family in HARMLESS or (family in INTERNET and self._made_inside(copy, place.pid)):
                return None
            kind = f"{_NAMES.get(int(family), str(int(family)))} {_kind(copy)}"
            cookie, peer = cookie_of(copy), _peer(copy)
            return Foreign(place, inode, cookie, kind, peer, _exe(place.pid), _end(copy, place, inode, end))


def _exe(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return ""


def _end(copy: socket.socket | None, place: Place, inode: int, how: str) -> str:
    if how == RECORD:
        return "left as it is"
    if how == CONNECTION and copy is not None and copy.family in INTERNET and copy.type == socket.SOCK_STREAM:
        with suppress(OSError):
            return _reset(copy)
    return "its process was killed" if _kill(place, inode) else "its process had ended"


def _kill(place: Place, inode: int) -> bool:
    """Whoever has that number now, only where it holds that socket: numbers are used again."""
    try:
        pidfd = os.pidfd_open(place.pid)
    except OSError:
        return False
    try:
        if os.readlink(f"/proc/{place.pid}/task/{place.tid}/fd/{place.fd}") != f"socket:[{inode}]":
            return False
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except OSError:
        return False
    finally:
        os.close(pidfd)
    return True


def _reset(copy: socket.socket) -> str:
    """As tcp_disconnect() of the kernel does it for everybody who holds the socket; it may be connected again, and then
    the hooks see it.  Raises OSError: for one that listens, too, shutdown(2) first."""
    with suppress(OSError):
        copy.shutdown(socket.SHUT_RDWR) if copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) else None
    if _libc.connect(copy.fileno(), _UNSPECIFIED, len(_UNSPECIFIED)) != 0:
        raise OSError(ctypes.get_errno(), "connect AF_UNSPEC")
    return "its connection was ended"


def _sockets(pids: Iterable[int]) -> Iterator[tuple[int, Place]]:
    for pid in pids:
        for tid in _tables(pid):
            directory = f"/proc/{pid}/task/{tid}/fd" if tid != pid else f"/proc/{pid}/fd"
            with suppress(OSError):
                yield from _in_table(directory, pid, tid)


def _in_table(directory: str, pid: int, tid: int) -> Iterator[tuple[int, Place]]:
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in os.listdir(opened):
            try:
                link = os.readlink(name, dir_fd=opened)
            except OSError:
                continue
            if link.startswith("socket:["):
                yield int(link[8:-1]), Place(pid, tid, int(name))
    finally:
        os.close(opened)


def _tables(pid: int) -> Iterator[int]:
    """The process, and each thread that has another table of descriptors (CLONE_FILES undone by unshare(2))."""
    yield pid
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return
    if len(threads) > 1:
        call = _KCMP.get(os.uname().machine, -1)
        for tid in map(int, threads):
            if tid != pid and _libc.syscall(call, pid, tid, _KCMP_FILES, 0, 0) != 0:     # other, or it cannot be told
                yield tid


def _copy(place: Place) -> socket.socket:
    """The same open socket.  Raises OSError."""
    thread = place.tid != place.pid
    pidfd = _libc.syscall(_PIDFD_OPEN, place.tid, _PIDFD_THREAD if thread else 0)
    if pidfd < 0:
        raise OSError(ctypes.get_errno(), "pidfd_open")
    try:
        fd = _libc.syscall(_PIDFD_GETFD, pidfd, place.fd, 0)
    finally:
        os.close(pidfd)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "pidfd_getfd")
    return socket.socket(fileno=fd)


def cookie_of(one: socket.socket) -> int:
    """0 where the kernel does not say.  By libc: Python gives no bytes of a vsock socket's."""
    cookie, size = ctypes.c_uint64(), ctypes.c_uint32(8)
    said = _libc.getsockopt(one.fileno(), socket.SOL_SOCKET, _SO_COOKIE, ctypes.byref(cookie), ctypes.byref(size))
    return cookie.value if said == 0 else 0


def _kind(one: socket.socket) -> str:
    names = {int(socket.SOCK_STREAM): "stream", int(socket.SOCK_DGRAM): "datagram", int(socket.SOCK_RAW): "raw"}
    return names.get(int(one.type), str(int(one.type)))


def _peer(one: socket.socket) -> str:
    try:
        name = one.getpeername()
    except OSError:
        return ""
    if one.family in INTERNET:
        return f"{name[0].partition('%')[0].removeprefix('::ffff:') if '.' in name[0] else name[0]} {name[1]}"
    return str(name)
