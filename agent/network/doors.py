"""The sockets at which crews find Weir, in the calling thread's network namespace: opened here, served by the enforcer.

Kept open over restarts of the enforcer, and of the agent where the service manager keeps them (agent/network/
handover.py): connections wait.
"""
from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterable
from typing import Final

from agent.config import DNS_PORT

BACKLOG: Final = 1024
_NO_IPV6: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})
_LOOK: Final = 0.02                   # seconds between tries at an address that is being given up


class Kept:
    """Of one network namespace: sockets of an earlier agent, as they are opened here.  What nobody picks is left."""

    def __init__(self, left: Iterable[socket.socket] = (), patience: float = 0.0) -> None:
        """`patience`: seconds that an address may still be another's, who is giving it up."""
        self.left, self.patience = list(left), patience

    def pick(self, family: socket.AddressFamily, kind: socket.SocketKind, address: str, port: int
             ) -> socket.socket | None:
        for one in self.left:
            if (one.family, one.type, one.getsockname()[:2]) == (family, kind, (address, port)):
                self.left.remove(one)
                return one
        return None


def open_listeners(port: int, kept: Kept | None = None) -> list[socket.socket]:
    """On 127.0.0.1 and, where there is IPv6, ::1.  Raises OSError."""
    opened: list[socket.socket] = []
    try:
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            try:
                opened.append(_open(family, socket.SOCK_STREAM, address, port, kept or Kept()))
            except OSError as reason:
                if family == socket.AF_INET6 and reason.errno in _NO_IPV6:
                    continue          # nor has anybody else ::1
                raise OSError(reason.errno, f"{address} port {port}: {reason.strerror}") from None
    except OSError:
        close_all(opened)
        raise
    return opened


def open_dns(address: str, kept: Kept | None = None) -> list[socket.socket]:
    """Datagrams and streams for Weir's resolver.  Raises OSError."""
    opened: list[socket.socket] = []
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        try:
            opened.append(_open(socket.AF_INET, kind, address, DNS_PORT, kept or Kept()))
        except OSError as reason:
            close_all(opened)
            raise OSError(reason.errno, f"[dns] listen {address} port {DNS_PORT}: {reason.strerror}; does a DNS server "
                          "listen on every address?  Let it name its own") from None
    return opened


def _open(
    family: socket.AddressFamily, kind: socket.SocketKind, address: str, port: int, kept: Kept,
) -> socket.socket:
    one = kept.pick(family, kind, address, port)
    try:
        if one is None:
            one = socket.socket(family, kind | socket.SOCK_NONBLOCK)
            if kind == socket.SOCK_STREAM:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            _bind(one, address, port, time.monotonic() + kept.patience)
        if kind == socket.SOCK_STREAM:
            one.listen(BACKLOG)       # of one that was kept, too: another version's may be another
    except OSError:
        if one is not None:
            one.close()
        raise
    return one


def _bind(one: socket.socket, address: str, port: int, until: float) -> None:
    while True:
        try:
            return one.bind((address, port))
        except OSError as reason:
            if reason.errno != errno.EADDRINUSE or time.monotonic() >= until:
                raise
        time.sleep(_LOOK)


def close_all(sockets: Iterable[socket.socket]) -> None:
    for one in sockets:
        one.close()
