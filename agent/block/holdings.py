"""Sockets that crew tasks hold and that were not made there: by SCM_RIGHTS, inherited, by pidfd_getfd(2).

No hook sees the connect of such a socket, and its packets carry the cgroup in which it was made, so nothing stops
them: it is found by looking.  Every descriptor of every crew task that is a socket is looked at once, through a copy
of it (pidfd_getfd), whatever its network namespace; what a crew made is not looked at again while somebody holds it.
What it did not make is, each time: whoever else holds it may connect it once more, past every hook.  A socket that is
held for less time than there is between two looks is not seen.

Whose number a process has may change at any moment, and crews know how to hurry that.  So everything is done by a
descriptor of the process (pidfd), which was found to be a crew's while it had that number: nobody else's socket is
ended, and nobody else is killed.

A socket was made there where the probes say so (their storage on the socket itself) or where its cgroup lies in the
slice (one that was accepted, or made while the probes were away).  One of others that a crew's own connect sent to the
enforcer is contained for as long as that connection.  Unix and netlink sockets lead nowhere by themselves.
"""
from __future__ import annotations

import ctypes
import errno
import os
import signal
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from agent.journal import plain

MOST: Final = 2000                    # sockets that are looked at in one round; the others in the next
MISSED: Final = 3                     # rounds in a row after which a number that always moves on is not waited for
HARMLESS: Final = frozenset((socket.AF_UNIX, socket.AF_NETLINK, socket.AF_ALG))
INTERNET: Final = frozenset((socket.AF_INET, socket.AF_INET6))
CONNECTION, PROCESS, RECORD = "connection", "process", "record"        # what is ended
OWN, SENT, ELSEWHERE = "own", "sent", "elsewhere"      # made by a crew; of others, sent to the enforcer; of others
ENDED: Final = "its connection was ended"
IDLE, LISTENS, UNKNOWN = "", "listens", "unknown"      # what one of others does, where it has no peer
_PIDFD_GETFD, _KCMP = 438, {"x86_64": 312, "aarch64": 272}
_PIDFD_THREAD: Final = os.O_EXCL      # linux/pidfd.h, since 6.9
_KCMP_FILES: Final = 2
_SO_COOKIE: Final = 57                # asm-generic/socket.h
_LINGER: Final = struct.Struct("=ii")
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
    """`crew(pid)`: whether that is a crew's; OSError where it cannot be told.  `whose(copy, pid)`: OWN, SENT or
    ELSEWHERE, of a socket of the internet families; `outside(inode)` by its number alone, for a descriptor that cannot
    be copied: True only where it is known to come from elsewhere."""

    def __init__(
        self, crew: Callable[[int], bool], whose: Callable[[socket.socket, int], str], outside: Callable[[int], bool],
        ending: Callable[[socket.socket | None, int, str], str] | None = None,
    ) -> None:
        """`ending`: as `end_socket`, in its place."""
        self._crew, self._whose, self._outside = crew, whose, outside
        self._ending = ending or end_socket
        self._known: frozenset[int] = frozenset()
        self._waiting: dict[int, int] = {}     # inode -> rounds in which it was missed
        self._others: dict[int, str] = {}      # inode -> what it did at the last look: SENT, IDLE, its peer, ...
        self._said: dict[int, str] = {}        # the same, by somebody else's look, until one of its own has begun

    def look(self, pids: Iterable[int], end: str) -> list[Foreign]:
        """`end`: CONNECTION (what has none: the process), PROCESS or RECORD.  `pids` are asked for once this look has
        begun."""
        said = tuple(self._said)      # before anything is looked for: what is said meanwhile is for the next look, too
        held = dict(_sockets(pids))
        known, found = set(self._known & held.keys()), []
        others = {inode: did for inode, did in (self._said | self._others).items() if inode in held}
        # Who has waited longest comes first: many new ones do not keep an older one from being looked at.
        waiting = {inode: missed for inode, missed in self._waiting.items() if inode in held}
        fresh = (inode for inode in held if inode not in known and inode not in waiting and inode not in others)
        waiting |= dict.fromkeys(fresh, 0)
        for inode in (*tuple(others)[:MOST], *tuple(waiting)[:MOST]):
            before, missed = others.pop(inode, None), waiting.pop(inode, 0)
            try:
                does, foreign = self._examine(inode, held[inode], end, before, missed >= MISSED)
            except OSError:           # it is gone, or has another number now: the next round looks again
                if before is None:
                    waiting[inode] = missed + 1
                else:
                    others[inode] = before
                continue
            if does == OWN:
                known.add(inode)
            else:
                others[inode] = does
            if foreign is not None:
                found.append(foreign)
        self._known, self._waiting, self._others = frozenset(known), waiting, others
        for inode in said:
            self._said.pop(inode, None)
        return found

    def take_over(self, other: Holdings) -> None:
        """What that one said is not said again.  Also while a look of this one is under way, in another thread."""
        self._said |= other._others

    def _examine(
        self, inode: int, place: Place, end: str, before: str | None, moves: bool,
    ) -> tuple[str, Foreign | None]:
        """What it does, and what there is to say of that.  `before`: what it did; None: it was not looked at yet.
        `moves`: it was not found where it had been again and again."""
        with self._process(place) as process:
            try:
                copied = _copy(process, place)
                if os.fstat(copied.fileno()).st_ino != inode:
                    _let_go(copied)
                    raise OSError(errno.ESTALE, "another descriptor has this number now")
            except OSError as reason:
                if not (moves or reason.errno == errno.EINVAL) or before is not None or not self._outside(inode):
                    raise
                # Before Linux 6.9 there is no pidfd of a thread, and this one has descriptors of its own.
                return UNKNOWN, Foreign(place, inode, 0, "unknown", "", _exe(place.pid),
                                        self._ending(None, process, end))
            try:
                return self._judge(copied, process, inode, place, end, before)
            finally:
                _let_go(copied)

    def _judge(
        self, copy: socket.socket, process: int, inode: int, place: Place, end: str, before: str | None,
    ) -> tuple[str, Foreign | None]:
        family = copy.family
        whose = OWN if family in HARMLESS else self._whose(copy, place.pid) if family in INTERNET else ELSEWHERE
        if whose != ELSEWHERE:
            return whose, None
        peer = _peer(copy)
        does = peer or (LISTENS if _listens(copy) else IDLE)
        if before is not None and does in (IDLE, before):
            return does, None
        kind = f"{_NAMES.get(int(family), str(int(family)))} {_kind(copy)}"
        cookie, exe = cookie_of(copy), _exe(place.pid)
        done = self._ending(copy, process, end)
        return IDLE if done == ENDED else does, Foreign(place, inode, cookie, kind, peer, exe, done)

    @contextmanager
    def _process(self, place: Place) -> Iterator[int]:
        """A descriptor of it.  Raises OSError where it is no crew's process (any more)."""
        process = os.pidfd_open(place.pid)
        try:
            inside = self._crew(place.pid)
            signal.pidfd_send_signal(process, 0)       # it still has the number: it had it when it was looked at
            if not inside:
                raise ProcessLookupError(errno.ESRCH, "its number is another's now")
            yield process
        finally:
            os.close(process)


def _exe(pid: int) -> str:
    try:
        return plain(os.readlink(f"/proc/{pid}/exe"))
    except OSError:
        return ""


def end_socket(copy: socket.socket | None, process: int, how: str) -> str:
    """What was done.  `copy` of the socket, where there is one; `process`: a pidfd; `how`: what is to be ended."""
    if how == RECORD:
        return "left as it is"
    if how == CONNECTION and copy is not None and copy.family in INTERNET and copy.type == socket.SOCK_STREAM:
        with suppress(OSError):
            return _reset(copy)
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(process, signal.SIGKILL)
    return "its process was killed"


def _reset(copy: socket.socket) -> str:
    """As tcp_disconnect() of the kernel does it for everybody who holds the socket; it may be connected again, and then
    the hooks see it.  Raises OSError: for one that listens, too, shutdown(2) first."""
    with suppress(OSError):
        copy.shutdown(socket.SHUT_RDWR) if _listens(copy) else None
    if _libc.connect(copy.fileno(), _UNSPECIFIED, len(_UNSPECIFIED)) != 0:
        raise OSError(ctypes.get_errno(), "connect AF_UNSPEC")
    return ENDED


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


def _copy(process: int, place: Place) -> socket.socket:
    """The same open socket.  Raises OSError; EINVAL where the kernel has no descriptors of threads."""
    if place.tid == place.pid:
        return _copy_of(process, place.fd)
    thread = os.pidfd_open(place.tid, _PIDFD_THREAD)
    try:
        os.stat(f"/proc/{place.pid}/task/{place.tid}")         # a thread of that process
        return _copy_of(thread, place.fd)
    finally:
        os.close(thread)


def _copy_of(pidfd: int, number: int) -> socket.socket:
    fd = _libc.syscall(_PIDFD_GETFD, pidfd, number, 0)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "pidfd_getfd")
    try:
        return socket.socket(fileno=fd)
    except OSError:
        os.close(fd)                  # something else has the number now
        raise


def _let_go(copy: socket.socket) -> None:
    """Where the crew has closed its own meanwhile, this is the last one, and close(2) would wait here as long as the
    crew has asked for (SO_LINGER): hours."""
    with suppress(OSError):
        if copy.family in INTERNET and copy.type == socket.SOCK_STREAM:
            on, seconds = _LINGER.unpack(copy.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER.size))
            if on and seconds:
                copy.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER.pack(0, 0))
    copy.close()


def cookie_of(one: socket.socket) -> int:
    """0 where the kernel does not say.  By libc: Python gives no bytes of a vsock socket's."""
    cookie, size = ctypes.c_uint64(), ctypes.c_uint32(8)
    said = _libc.getsockopt(one.fileno(), socket.SOL_SOCKET, _SO_COOKIE, ctypes.byref(cookie), ctypes.byref(size))
    return cookie.value if said == 0 else 0


def _listens(one: socket.socket) -> bool:
    with suppress(OSError):
        return bool(one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    return False


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
