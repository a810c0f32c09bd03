"""The sockets at which crews find Weir, in the calling thread's network namespace: opened here, served by the enforcer.

Kept open over restarts of the enforcer: connections wait.
"""
from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from typing import Final

from agent.config import DNS_PORT

BACKLOG: Final = 1024
_NO_IPV6: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})


def open_listeners(port: int) -> list[socket.socket]:
    """On 127.0.0.1 and, where there is IPv6, ::1.  Raises OSError."""
    opened: list[socket.socket] = []
    try:
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            try:
                opened.append(_listener(family, address, port))
            except OSError as reason:
                if family == socket.AF_INET6 and reason.errno in _NO_IPV6:
                    continue          # nor has anybody else ::1
                raise OSError(reason.errno, f"{address} port {port}: {reason.strerror}") from None
    except OSError:
        close_all(opened)
        raise
    return opened


def _listener(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind((address, port))
        one.listen(BACKLOG)
    except OSError:
        one.close()
        raise
    return one


def open_dns(address: str) -> list[socket.socket]:
    """Datagrams and streams for Weir's resolver.  Raises OSError."""
    opened = []
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        one = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK)
        opened.append(one)
        try:
            if kind == socket.SOCK_STREAM:
                one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind((address, DNS_PORT))
            if kind == socket.SOCK_STREAM:
                one.listen(BACKLOG)
        except OSError as reason:
            close_all(opened)
            raise OSError(reason.errno, f"[dns] listen {address} port {DNS_PORT}: {reason.strerror}; does a DNS server "
                          "listen on every address?  Let it name its own") from None
    return opened


def close_all(sockets: Iterable[socket.socket]) -> None:
    for one in sockets:
        one.close()
