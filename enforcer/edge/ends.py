"""What an accepted socket says of its ends, in the words in which the agent is asked (agent.contract.messages)."""
from __future__ import annotations

import ipaddress
import socket
import struct
from typing import Final

_COOKIE, _NETNS_COOKIE = 57, 71       # SO_COOKIE, SO_NETNS_COOKIE: linux/socket.h
_ORIGINAL_DST: Final = 80             # SO_ORIGINAL_DST, IP6T_SO_ORIGINAL_DST: linux/netfilter_ipv4.h, ip6_tables.h


def netns_cookie(link: socket.socket) -> int:
    """0 where the kernel does not tell: then nobody is found."""
    return _number(link, _NETNS_COOKIE)


def socket_cookie(link: socket.socket) -> int:
    """The kernel's number for this socket, which no other one will have; 0 as above."""
    return _number(link, _COOKIE)


def _number(link: socket.socket, option: int) -> int:
    try:
        found: int = struct.unpack("=Q", link.getsockopt(socket.SOL_SOCKET, option, 8))[0]
    except OSError:
        return 0
    return found


def packed(address: str) -> bytes:
    """16 bytes, IPv4 as ::ffff:a.b.c.d."""
    found = ipaddress.ip_address(address.partition("%")[0])
    return found.packed if found.version == 6 else b"\0" * 10 + b"\xff\xff" + found.packed


def original_destination(link: socket.socket) -> str:
    """"ADDRESS PORT" before an nftables redirect, "" where there was none."""
    six = link.family == socket.AF_INET6
    level, size = (socket.IPPROTO_IPV6, 28) if six else (socket.IPPROTO_IP, 16)
    try:
        raw = link.getsockopt(level, _ORIGINAL_DST, size)
        mine = link.getsockname()
    except OSError:
        return ""                     # not seen by conntrack
    if len(raw) < size:
        return ""
    port = struct.unpack_from("!H", raw, 2)[0]
    address = socket.inet_ntop(link.family, raw[8:24] if six else raw[4:8])
    return "" if (address, port) == (mine[0], mine[1]) else f"{address} {port}"
