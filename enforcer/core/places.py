"""Pure: which registered target is meant by a name or an address that a client asks an outer protocol for."""
from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Final

from agent.contract.target import Target

_NUMBER: Final = re.compile(r"0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*")
_HERE: Final = "localhost"


def find_target(targets: Iterable[Target], host: str, port: int, within: Target) -> Target | None:
    """`within`: whose server is asked.  What is loopback there is that server itself, and never this host's."""
    place = plain_host(host)
    asked = _places(within) if is_loopback(place) else frozenset((place,))
    return next((one for one in targets if one.port == port and _places(one) & asked), None)


def is_loopback(place: str) -> bool:
    """Of a plain host: also the empty one and "any", which a server connects to itself for."""
    if place in ("", _HERE) or place.endswith(f".{_HERE}"):      # RFC 6761 6.3
        return True
    try:
        address = ipaddress.ip_address(place)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def plain_host(host: str) -> str:
    """Lower case, without brackets, zone and last dot; addresses in one form, also those that inet_aton(3) takes: a
    server's resolver gives "0x0a.1" to it."""
    text = host.strip().lower()
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    text = text.removesuffix(".")
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return _lenient(text)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _lenient(text: str) -> str:
    """inet_aton(3): up to four numbers, decimal, octal or hexadecimal; the last one fills the rest."""
    parts = text.split(".")
    if len(text) > 64 or len(parts) > 4 or not all(_NUMBER.fullmatch(part) for part in parts):
        return text
    numbers = [_number(part) for part in parts]
    if any(one > 255 for one in numbers[:-1]) or numbers[-1] >= 1 << 8 * (5 - len(numbers)):
        return text
    value = numbers[-1]
    for at, one in enumerate(numbers[:-1]):
        value |= one << 8 * (3 - at)
    return str(ipaddress.IPv4Address(value))


def _number(text: str) -> int:
    if text[:2] in ("0x", "0X"):
        return int(text[2:], 16)
    return int(text, 8) if text[0] == "0" else int(text)


def _places(target: Target) -> frozenset[str]:
    return frozenset(map(plain_host, (*target.hosts, *target.addresses)))
