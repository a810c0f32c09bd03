"""Pure: the host's ends of the links (veth) that lead into contained network namespaces, and the rules on them.

A container's network has a link to the host, and behind it a bridge.  What a crew may say goes through `lo` of its own
namespace to the enforcer, so nothing has to pass here, whatever it is: IP, ARP, or frames of no protocol.  Both hooks
(ingress and egress of family netdev) look at each frame before anything else does.  Source: rtnetlink(7),
linux/if_link.h, linux/net_namespace.h.
"""
from __future__ import annotations

import ipaddress
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

_HEADER: Final = struct.Struct("=IHHII")
_LINK: Final = struct.Struct("=BxHiII")       # struct ifinfomsg
_ADDRESS: Final = struct.Struct("=B3xI")      # struct ifaddrmsg
_REQUEST, _DUMP = 0x1, 0x301          # NLM_F_REQUEST, with NLM_F_DUMP
_NEW_LINK, _GET_LINK, _NEW_ID, _GET_ID = 16, 18, 88, 90
ERROR, DONE = 2, 3
_NAME, _PEER, _INFO, _KIND, _NAMESPACE = 3, 5, 18, 1, 37      # IFLA_IFNAME, _LINK, _LINKINFO, INFO_KIND, _LINK_NETNSID
_NEW_ADDRESS, _GET_ADDRESS = 20, 22
_OWN, _LOCAL = 1, 2                   # IFA_ADDRESS, which is the other end's of a point-to-point link; IFA_LOCAL
_ID, _FD = 1, 3                       # NETNSA_NSID, NETNSA_FD
_NONE: Final = -1                     # NETNSA_NSID_NOT_ASSIGNED
_LOOPBACK: Final = 0x8                # IFF_LOOPBACK
_SAFE: Final = re.compile(r"[A-Za-z0-9_.@:-]{1,15}")          # what goes into the text of a rule
_PRIORITY: Final = -500               # before everybody's


@dataclass(frozen=True)
class Link:
    """A network interface, as the namespace sees it in which it was asked for."""

    index: int
    name: str
    kind: str                         # "veth", "bridge"; empty: hardware, or lo
    loopback: bool
    peer: int = 0                     # index of the other end
    namespace: int = _NONE            # of the other end, by this namespace's own number; -1: this one, or not known


def render_links() -> bytes:
    return _HEADER.pack(_HEADER.size + _LINK.size, _GET_LINK, _DUMP, 1, 0) + _LINK.pack(0, 0, 0, 0, 0)


def render_number(fd: int) -> bytes:
    """Which number has that namespace here?"""
    body = b"\0\0\0\0" + struct.pack("=HHI", 8, _FD, fd)      # struct rtgenmsg
    return _HEADER.pack(_HEADER.size + len(body), _GET_ID, _REQUEST, 1, 0) + body


def render_addresses() -> bytes:
    return _HEADER.pack(_HEADER.size + _ADDRESS.size, _GET_ADDRESS, _DUMP, 1, 0) + _ADDRESS.pack(0, 0)


def parse_address(kind: int, body: bytes) -> str:
    """An interface's own address, "" where it is none."""
    if kind != _NEW_ADDRESS or len(body) < _ADDRESS.size:
        return ""
    found = dict(_attributes(body[_ADDRESS.size:]))
    raw = found.get(_LOCAL, found.get(_OWN, b""))
    return str(ipaddress.ip_address(raw)) if len(raw) in (4, 16) else ""


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(kind, body) of each in a datagram."""
    while len(data) >= _HEADER.size:
        length, kind, _, _, _ = _HEADER.unpack_from(data)
        if not _HEADER.size <= length <= len(data):
            return
        yield kind, data[_HEADER.size:length]
        data = data[(length + 3) & ~3:]


def parse_link(kind: int, body: bytes) -> Link | None:
    if kind != _NEW_LINK or len(body) < _LINK.size:
        return None
    _, _, index, flags, _ = _LINK.unpack_from(body)
    found = dict(_attributes(body[_LINK.size:]))
    info = dict(_attributes(found.get(_INFO, b"")))
    return Link(index, _text(found.get(_NAME, b"")), _text(info.get(_KIND, b"")), bool(flags & _LOOPBACK),
                _number(found.get(_PEER, b""), 0), _number(found.get(_NAMESPACE, b""), _NONE))


def parse_number(kind: int, body: bytes) -> int:
    """-1: that namespace has none, and so no link from here leads into it."""
    return _number(dict(_attributes(body[4:])).get(_ID, b""), _NONE) if kind == _NEW_ID else _NONE


def host_ends(host: Iterable[Link], number: int) -> tuple[Link, ...]:
    """Those that lead into the namespace with that number."""
    return tuple(one for one in host if one.kind == "veth" and one.namespace == number != _NONE)


def others(inside: Iterable[Link], ends: Iterable[Link]) -> tuple[Link, ...]:
    """Links in a container's namespace that lead past the host's ends: hardware, macvlan, a tunnel."""
    known = {(one.peer, one.index) for one in ends}
    return tuple(one for one in inside if not one.loopback and (one.index, one.peer) not in known)


def render_table(name: str, ends: Iterable[Link]) -> str:
    """The whole table.  Raises ValueError: an interface has a name that no rule can have."""
    return "\n".join([f"table netdev {name} {{", *(line for one in ends for line in _chains(one)), "}"]) + "\n"


def _chains(one: Link) -> Iterator[str]:
    if not _SAFE.fullmatch(one.name):
        raise ValueError(f"interface {one.index} has a name that no rule can have")
    for hook in ("ingress", "egress"):
        yield f"\tchain {hook}_{one.index} {{"
        yield f'\t\ttype filter hook {hook} device "{one.name}" priority {_PRIORITY}; policy drop;'
        yield "\t}"


def closed(listing: str, ends: Iterable[Link]) -> bool:
    """Whether `nft list table` shows the chains of all of them; those of others may still be there."""
    def chains(text: str) -> set[str]:
        return {" ".join(one.split()) for one in re.findall(r"chain [^}]*", text)}

    return chains("\n".join(line for one in ends for line in _chains(one))) <= chains(listing)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if not 4 <= length <= len(data):
            return
        yield kind & 0x3FFF, data[4:length]           # without NLA_F_NESTED and NLA_F_NET_BYTEORDER
        data = data[(length + 3) & ~3:]


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="backslashreplace")


def _number(value: bytes, otherwise: int) -> int:
    return int(struct.unpack("=i", value)[0]) if len(value) == 4 else otherwise
