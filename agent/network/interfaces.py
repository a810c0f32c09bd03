"""Network interfaces of the calling thread's network namespace, by rtnetlink(7)."""
from __future__ import annotations

import logging
import os
import socket
import struct
import time
from collections.abc import Iterator
from typing import Final

from agent.block.hostends import (
    DONE,
    ERROR,
    Link,
    messages,
    parse_address,
    parse_link,
    parse_number,
    render_addresses,
    render_links,
    render_number,
)

LOG = logging.getLogger("weir.interfaces")

FRESH: Final = 5.0                    # seconds
_RECEIVE: Final = 1 << 17


def links() -> tuple[Link, ...]:
    """Raises OSError."""
    return tuple(one for kind, body in _ask(render_links(), many=True) if (one := parse_link(kind, body)) is not None)


def addresses() -> frozenset[str]:
    """Of every interface.  Raises OSError."""
    return frozenset(one for kind, body in _ask(render_addresses(), many=True) if (one := parse_address(kind, body)))


class OwnAddresses:
    """Of this host, as they were at most FRESH seconds ago."""

    def __init__(self) -> None:
        self._known: frozenset[str] = frozenset()
        self._when = -FRESH

    def has(self, address: str) -> bool:
        if time.monotonic() - self._when >= FRESH:
            try:
                self._known = addresses()
            except OSError as reason:
                LOG.warning("this host's addresses could not be read, the last ones hold: %s", reason)
            self._when = time.monotonic()
        return address in self._known


def number_of(fd: int) -> int:
    """Which number a network namespace has here; -1: none.  Raises OSError."""
    return max((parse_number(kind, body) for kind, body in _ask(render_number(fd), many=False)), default=-1)


def _ask(message: bytes, many: bool) -> Iterator[tuple[int, bytes]]:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as link:
        link.settimeout(5.0)
        link.send(message)
        while True:
            for kind, body in messages(link.recv(_RECEIVE)):
                if kind == DONE:
                    return
                if kind == ERROR:
                    number = -struct.unpack_from("=i", body)[0]
                    raise OSError(number, f"rtnetlink: {os.strerror(number)}")
                yield kind, body
            if not many:
                return
