"""Pure: what a network namespace with nothing but `lo` gets, as rtnetlink(7) messages: linux/rtnetlink.h, if_addr.h.

Clients ask whether there is a network before they ask for one.  glibc's AI_ADDRCONFIG looks for an address besides
127.0.0.1 and ::1; who sorts addresses, or looks for its own, connects a datagram socket and reads where it came from.
So `lo` has a second address of each family that the host has, and, where the host has IPv4, a way to everywhere, which
is `lo` itself: who asks for the own address gets 127.0.0.1, where its own servers are found.  IPv6 has no such way (the
kernel makes none through `lo`): where a name has both, clients dial IPv4 first.
"""
from __future__ import annotations

import ipaddress
import socket
import struct
from typing import Final

FOUR: Final = "127.0.0.2"
SIX: Final = "fd57:6569:7200::1"      # RFC 4193; nobody's but of such a namespace
LO: Final = 1                         # LOOPBACK_IFINDEX
_NEW_LINK, _NEW_ADDRESS, _NEW_ROUTE = 16, 20, 24
_HEADER: Final = struct.Struct("=IHHII")
_FLAGS: Final = 0x405                 # NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE
_UP: Final = 1                        # IFF_UP
_HOST, _LINK, _GLOBAL = 254, 253, 0   # RT_SCOPE_*
_MAIN, _BOOT, _UNICAST = 254, 3, 1    # RT_TABLE_MAIN, RTPROT_BOOT, RTN_UNICAST


def render_setup(four: bool, six: bool) -> list[bytes]:
    """One request each, in order.  `four`, `six`: whether the host has a network of that family."""
    messages = [_render(_NEW_LINK, struct.pack("=BxHiII", socket.AF_UNSPEC, 0, LO, _UP, _UP))]
    if four:
        messages += [_address(FOUR, 8, _HOST), _default("127.0.0.1")]
    if six:
        messages.append(_address(SIX, 128, _GLOBAL))
    return messages


def _address(text: str, prefix: int, scope: int) -> bytes:
    one = ipaddress.ip_address(text)
    family = socket.AF_INET if one.version == 4 else socket.AF_INET6
    return _render(_NEW_ADDRESS, struct.pack("=BBBBI", family, prefix, 0, scope, LO),
                   (1, one.packed), (2, one.packed))           # IFA_ADDRESS, IFA_LOCAL


def _default(source: str) -> bytes:
    return _render(_NEW_ROUTE, struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, _MAIN, _BOOT, _LINK, _UNICAST, 0),
                   (4, struct.pack("=i", LO)), (7, ipaddress.ip_address(source).packed))     # RTA_OIF, RTA_PREFSRC


def _render(kind: int, body: bytes, *attributes: tuple[int, bytes]) -> bytes:
    for number, value in attributes:
        body += (struct.pack("=HH", 4 + len(value), number) + value).ljust((7 + len(value)) & ~3, b"\0")
    return _HEADER.pack(_HEADER.size + len(body), kind, _FLAGS, 1, 0) + body


def parse_error(answer: bytes) -> int:
    """The error number of an acknowledgement (NLMSG_ERROR); 0: done.  Raises ValueError: something else."""
    if len(answer) < _HEADER.size + 4 or _HEADER.unpack_from(answer)[1] != 2:
        raise ValueError("no acknowledgement")
    return -int(struct.unpack_from("=i", answer, _HEADER.size)[0])
