"""Network namespaces, made here or somebody's: held by a descriptor, told apart by their cookie, worked in by threads.

Whoever enters one is a thread of its own that ends there: none that goes on is left in a namespace that is not its own.
"""
from __future__ import annotations

import ctypes
import errno
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self, TypeVar

from agent.network.loopback import parse_error, render_setup

_CLONE_NEWNET: Final = 0x40000000
_SO_NETNS_COOKIE: Final = 71          # asm-generic/socket.h
_NO_FAMILY: Final = frozenset({errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.EACCES})      # IPv6 is switched off
_libc = ctypes.CDLL(None, use_errno=True)
_Found = TypeVar("_Found")


class Namespace:
    """`close` may come at any time: who works in it has a descriptor of its own.  What is done in it raises OSError."""

    def __init__(self, fd: int) -> None:
        """Takes the descriptor over.  Raises OSError: it is no network namespace."""
        self._fd, self._lock = fd, threading.Lock()
        try:
            self.cookie: int = inside(fd, current_cookie)
        except OSError:
            self.close()
            raise

    @classmethod
    def make(cls) -> Self:
        """A new one, with nothing but `lo`, up (agent/network/loopback.py)."""
        setup = render_setup(has_ipv4(), has_ipv6())
        return cls(_in_thread(lambda: _make(setup)))

    @classmethod
    def of(cls, pid: int) -> Self:
        """That of a process."""
        return cls(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    def furnish(self) -> None:
        """One that somebody else has made, and that has nothing but `lo`, as `make` does."""
        setup = render_setup(has_ipv4(), has_ipv6())
        self.call(lambda: _set_up(setup))

    def call(self, work: Callable[[], _Found]) -> _Found:
        """What `work` gives, done in it."""
        fd = self.descriptor()
        try:
            return inside(fd, work)
        finally:
            os.close(fd)

    def descriptor(self) -> int:
        """Another descriptor of it, the caller's."""
        with self._lock:
            if self._fd < 0:
                raise OSError(errno.EBADF, "the network namespace is given up")
            return os.dup(self._fd)

    def close(self) -> None:
        with self._lock:
            fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def inside(fd: int, work: Callable[[], _Found]) -> _Found:
    """What `work` gives, done by a thread in the network namespace of `fd`.  Raises OSError, and what it raises."""
    def enter_and_work() -> _Found:
        enter(fd)
        return work()

    return _in_thread(enter_and_work)


def enter(fd: int) -> None:
    """The calling thread, for good.  Raises OSError."""
    _call(_libc.setns, fd, _CLONE_NEWNET)


def current_cookie() -> int:
    """Of the calling thread's namespace: as sockets have it, and BPF.  Never given again until the host boots."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        return netns_cookie(one)


def netns_cookie(one: socket.socket) -> int:
    """Of the namespace in which it was made."""
    return int.from_bytes(one.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), "little")


def has_ipv4() -> bool:
    """Whether the host, where this process is, has a way to anywhere by IPv4."""
    return len(_lines("/proc/self/net/route")) > 1


def has_ipv6() -> bool:
    """Whether it has an IPv6 address besides ::1: then AI_ADDRCONFIG says yes to IPv6."""
    return any(not line.startswith("0" * 31 + "1 ") for line in _lines("/proc/self/net/if_inet6"))


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:                   # without IPv6 there is no such file
        return []


def _make(setup: list[bytes]) -> int:
    _call(_libc.unshare, _CLONE_NEWNET)
    fd = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _set_up(setup)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _set_up(setup: list[bytes]) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as link:
        for message in setup:
            _send(link, message)


def _send(link: socket.socket, message: bytes) -> None:
    link.send(message)
    number = parse_error(link.recv(4096))
    if number not in (0, errno.EEXIST) and not (number in _NO_FAMILY and message[16] == socket.AF_INET6):
        raise OSError(number, f"lo could not be set up: {os.strerror(number)}")


def _call(function: Callable[..., int], *arguments: int) -> None:
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{function.__name__}: {os.strerror(number)}")


def _in_thread(work: Callable[[], _Found]) -> _Found:
    found: list[_Found] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as reason:
            failed.append(reason)

    thread = threading.Thread(target=run, name="weir-elsewhere")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found[0]

