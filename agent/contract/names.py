"""What both sides hold of names and of the addresses that a name may not lead to.  Pure."""
from __future__ import annotations

import ipaddress
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Where clouds answer with the machine's own credentials (link-local ones besides: 169.254.169.254, fe80::a9fe:a9fe).
METADATA: Final = frozenset({"fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254", "fd00:42::42", "100.100.100.200",
                             "168.63.129.16", "192.0.0.192"})
_TRANSLATED: Final = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("::/96"))   # RFC 6052; 4291 2.5.5.1
_THIS: Final = ipaddress.ip_network("0.0.0.0/8")
_TRANSLATED_INSIDE: Final = ipaddress.ip_network("64:ff9b:1::/48")      # RFC 8215: by whose own translator


def covers(pattern: str, name: str) -> bool:
    """Whether a configured name is, or has below it, this one.  Both in lower case, without the last dot."""
    if not pattern.startswith("*."):
        return name == pattern
    return name.endswith(pattern[1:]) and len(name) > len(pattern) - 1


def is_metadata(address: str) -> bool:
    """Link-local, or one that a cloud gives its machines' credentials out on.  Raises ValueError: no address."""
    return any(one.is_link_local or str(one) in METADATA for one in meanings(address))


def unreachable(address: str) -> str:
    """Why no name may lead there, as a word; "" where one may.  Raises ValueError: no address."""
    if is_metadata(address):
        return "metadata"
    for one in meanings(address):
        if one.is_loopback:
            return "loopback"
        if one.is_multicast or one.is_unspecified or one.is_reserved or one == ipaddress.ip_address("255.255.255.255"):
            return "no host's"
        if isinstance(one, ipaddress.IPv4Address) and one in _THIS:
            return "no host's"
    return ""


def is_public(address: str) -> bool:
    """Whether it belongs to no private network, provider's own or other special use (IANA's registries after RFC 6890;
    RFC 1918, 4193, 6598).  Raises ValueError: no address."""
    return all(one.is_global and not (isinstance(one, ipaddress.IPv6Address) and (
        one.is_site_local or one in _TRANSLATED_INSIDE)) for one in meanings(address))


def meanings(address: str) -> list[Address]:
    """The address, and the IPv4 address that it leads to by translation or a tunnel."""
    if "%" in address:
        raise ValueError("an address with a zone")
    one = ipaddress.ip_address(address)
    if isinstance(one, ipaddress.IPv4Address):
        return [one]
    if one.ipv4_mapped or (int(one) > 1 and any(one in network for network in _TRANSLATED)):
        return [ipaddress.IPv4Address(int(one) & 0xFFFFFFFF)]
    return [one, *(inner for inner in (one.sixtofour, *(one.teredo or ())) if inner is not None)]
