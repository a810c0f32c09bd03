"""Listeners over a restart of the agent: what the service manager has kept of them is served again, so that whoever
connects meanwhile waits and is not refused.

The manager keeps each group by a name: RUNTIME.COOKIE for the doors of a network namespace, RUNTIME.local.TARGET for a
Unix socket.  An agent that starts takes of a group what is as it would make it itself, opens what is missing, and
stores the group anew where it is another one; what nobody takes is closed, and said.  A connection that waits is
attributed like any other: the kernel has joined it with its connect before it can be accepted, and that does not go
with the agent (probes/bpf: `doors` lie with the socket, `accepted` is pinned).

An agent that does not come to serve gives them up: crews are refused then, as where none runs.
"""
from __future__ import annotations

import logging
import os
import socket
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, Protocol

from agent.block.sockdiag import bound_inode
from agent.network.doors import BACKLOG, Kept, close_all, open_dns, open_listeners
from agent.network.local import listen
from agent.network.netns import netns_cookie
from agent.unit import stored

LOG = logging.getLogger("weir.handover")

PATIENCE: Final = 2.0                 # seconds that the manager may take to close what it is told to forget
SHOWN: Final = 100                    # characters of a name
_SO_PEERPIDFD: Final = 77             # asm-generic/socket.h, since Linux 6.5
_KINDS: Final = {socket.SOCK_STREAM: socket.IPPROTO_TCP, socket.SOCK_DGRAM: socket.IPPROTO_UDP}

WhyNot = Callable[[socket.socket], str]        # what is wrong with it; empty: nothing


class Kernel(Protocol):
    """Of agent.block.kernel.Kernel."""

    def know_doors(self, descriptors: Iterable[int]) -> None: ...
    def is_door(self, descriptor: int) -> bool: ...


class Handover:
    """Of one agent.  Several threads may use it, each for a group of its own."""

    def __init__(self, handed: Iterable[tuple[str, int]] = ()) -> None:
        """`handed`: of stored.take_stored; they are this object's."""
        self._handed = list(handed)
        self._waiting: dict[str, list[socket.socket]] = {}     # taken by nobody yet
        self._stored: set[str] = set()
        self._runtime, self._patience, self._over = "", 0.0, False

    def begin(self, runtime: str) -> None:
        """What is no socket, or another runtime's, goes at once: it may have an address that is wanted."""
        self._runtime = runtime
        handed, self._handed = self._handed, []
        self._stored |= {name for name, _ in handed}
        for name, fd in handed:
            try:
                one = socket.socket(fileno=fd)
            except OSError:
                os.close(fd)
                self._refuse(name, "no socket")
                continue
            if name.startswith(f"{runtime}."):
                one.setblocking(False)
                self._waiting.setdefault(name, []).append(one)
            else:
                one.close()
                self._refuse(name, "not this Weir's")

    def open_doors(
        self, cookie: int, port: int, resolver: str, kernel: Kernel,
    ) -> tuple[list[socket.socket], list[socket.socket]]:
        """Listeners and the resolver's sockets, in the calling thread's network namespace, whose cookie that is, known
        to the probes.  Raises OSError, PlatformError: there are none then."""
        name = f"{self._runtime}.{cookie}"
        taken = self._take(name, lambda one: _why_no_door(one, cookie, kernel.is_door))
        kept = Kept(taken, self._patience)
        opened: list[socket.socket] = []
        try:
            listeners = open_listeners(port, kept)
            opened += listeners
            dns = open_dns(resolver, kept)
            opened += dns
            kernel.know_doors([one.fileno() for one in opened])
        except BaseException:
            close_all((*opened, *kept.left))
            self._forget(name)
            raise
        for one in kept.left:
            LOG.info("%s is not wanted any more: closed", _shown(one))
        self._keep(name, opened, taken)
        return listeners, dns

    def open_local(self, directory: Path, name: str) -> socket.socket:
        """The listener directory/name.  Raises OSError."""
        group = f"{self._runtime}.local.{name}"
        taken = self._take(group, lambda one: _why_not_there(one, directory, name))
        one = taken[0] if taken else listen(directory, name)
        one.listen(BACKLOG)
        # Where the kernel keeps no more than the pid of who called connect(2), it may be another's by the time that
        # somebody asks.
        if keeps_peers():
            self._keep(group, [one], taken)
        return one

    def drop(self, cookie: int) -> None:
        """The doors of that namespace are given up."""
        name = f"{self._runtime}.{cookie}"
        if name in self._stored:
            self._forget(name)

    def settle(self) -> None:
        """Everybody has taken what is theirs: the rest goes."""
        for name in tuple(self._waiting):
            LOG.info("what was kept as %s is nobody's any more: closed", name[:SHOWN])
            self._forget(name)

    def give_up(self) -> None:
        """The manager is to keep nothing, now or later.  What was taken stays open until its owner closes it."""
        self._over = True
        for name, fd in self._handed:
            os.close(fd)
            self._stored.add(name)
        self._handed = []
        for name in {*self._stored, *self._waiting}:
            self._forget(name)

    def _take(self, name: str, why_not: WhyNot) -> list[socket.socket]:
        sound = []
        for one in self._waiting.pop(name, []):
            try:
                wrong = why_not(one)
            except OSError as reason:
                wrong = reason.strerror or str(reason)
            if not wrong:
                sound.append(one)
                continue
            one.close()
            self._refuse(name, wrong)
        return sound

    def _keep(self, name: str, opened: Sequence[socket.socket], taken: Sequence[socket.socket]) -> None:
        """`opened` is in force; `taken` was kept before."""
        close_all(one for one in taken if one not in opened)
        if name in self._stored and len(opened) == len(taken) and all(one in taken for one in opened):
            return
        if name in self._stored:
            self._forget(name)
        if not self._over:
            self._stored.add(name)
            stored.store(name, [one.fileno() for one in opened])

    def _refuse(self, name: str, wrong: str) -> None:
        LOG.warning("what the service manager has kept as %s is closed: %s", name[:SHOWN], wrong)
        self._patience = PATIENCE
        if name in self._stored:
            self._stored.discard(name)
            stored.forget(name)       # with what else has the name: that is stored again

    def _forget(self, name: str) -> None:
        close_all(self._waiting.pop(name, ()))
        self._stored.discard(name)
        stored.forget(name)


def keeps_peers() -> bool:
    """Whether this kernel knows a Unix socket's peer by more than a pid, which may be another's later."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        try:
            os.close(ours.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD))
        except OSError:
            return False
    return True


def _why_no_door(one: socket.socket, cookie: int, is_door: Callable[[int], bool]) -> str:
    if one.family not in (socket.AF_INET, socket.AF_INET6) or _KINDS.get(one.type) != one.proto:
        return "neither TCP nor UDP"
    if netns_cookie(one) != cookie:
        return "of another network namespace"
    if not is_door(one.fileno()):
        return "the probes do not know it as Weir's"
    if one.type == socket.SOCK_STREAM and not _listens(one):
        return "it does not listen"
    return "it is connected" if _is_connected(one) else ""


def _why_not_there(one: socket.socket, directory: Path, name: str) -> str:
    if one.family != socket.AF_UNIX or one.type != socket.SOCK_STREAM or not _listens(one):
        return "no listening Unix socket"
    try:
        there = (directory / name).lstat()
    except OSError as reason:
        return f"{directory / name}: {reason.strerror}"
    # The path was another one when it was bound: it appears by rename.
    if not stat.S_ISSOCK(there.st_mode) or bound_inode(one) != there.st_ino & 0xffffffff:
        return f"{directory / name} leads to another"
    return ""


def _listens(one: socket.socket) -> bool:
    return one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1


def _is_connected(one: socket.socket) -> bool:
    try:
        one.getpeername()
    except OSError:
        return False
    return True


def _shown(one: socket.socket) -> str:
    return f"{'TCP' if one.type == socket.SOCK_STREAM else 'UDP'} {' '.join(map(str, one.getsockname()[:2]))}"
