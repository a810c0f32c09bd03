"""The structs of bpf/abi.h in Python: same names, same order, checked by a test."""
from __future__ import annotations

import ctypes
import ipaddress
from typing import Final, TypeVar

HOOK_MARK, HOOK_CGROUP, HOOK_SOCKET = 1, 2, 3
VERDICT_REDIRECTED, VERDICT_DNS, VERDICT_REFUSED, VERDICT_LOCAL, VERDICT_ELSEWHERE = 1, 2, 3, 4, 8
LOCAL_MARK, LOCAL_MASK, LOCAL_OWNER = 0x57650000, 0xffff0000, 0x7fff
TURN_CONNECT, TURN_QUESTION = 1, 2
CONNECTS, CONNECTS_AT_ONCE, QUESTIONS, QUESTIONS_AT_ONCE = 500, 1000, 200, 400
JOINED: Final = 16

PID_MAX: Final = 1 << 22              # PID_MAX_LIMIT of 64-bit kernels, linux/threads.h: no pid is past the array
RING_BYTES: Final = 1 << 20
HIGHEST_OWNER: Final = 0xFFFFFFFE


class Settings(ctypes.Structure):
    _fields_ = (
        ("slice", ctypes.c_uint64), ("netns", ctypes.c_uint64), ("level", ctypes.c_uint32),
        ("listener", ctypes.c_uint16), ("resolver_port", ctypes.c_uint16), ("resolver", ctypes.c_uint8 * 16))


class Joined(ctypes.Structure):
    _fields_ = (("cgroup", ctypes.c_uint64), ("level", ctypes.c_uint32), ("pad", ctypes.c_uint32))


class Origin(ctypes.Structure):
    _fields_ = (
        ("cookie", ctypes.c_uint64), ("cgroup", ctypes.c_uint64), ("when", ctypes.c_uint64), ("owner", ctypes.c_uint32),
        ("tgid", ctypes.c_uint32), ("destination", ctypes.c_uint8 * 16), ("port", ctypes.c_uint16),
        ("family", ctypes.c_uint8), ("hook", ctypes.c_uint8), ("verdict", ctypes.c_uint8), ("pad", ctypes.c_uint8 * 3))


class Connection(ctypes.Structure):
    _fields_ = (
        ("netns", ctypes.c_uint64), ("address", ctypes.c_uint8 * 16), ("sequence", ctypes.c_uint32),
        ("port", ctypes.c_uint16), ("pad", ctypes.c_uint8 * 2))


class Place(ctypes.Structure):
    _fields_ = (("address", ctypes.c_uint8 * 16), ("port", ctypes.c_uint16), ("pad", ctypes.c_uint8 * 6))


class Turn(ctypes.Structure):
    _fields_ = (("cgroup", ctypes.c_uint64), ("owner", ctypes.c_uint32), ("what", ctypes.c_uint32))


class Over(ctypes.Structure):
    _fields_ = (("refused", ctypes.c_uint64), ("unwritten", ctypes.c_uint64))


class Maker(ctypes.Structure):
    _fields_ = (("cgroup", ctypes.c_uint64), ("owner", ctypes.c_uint32), ("inside", ctypes.c_uint32))


STRUCTS: Final[dict[str, type[ctypes.Structure]]] = {
    "settings": Settings, "joined": Joined, "origin": Origin, "connection": Connection, "place": Place, "maker": Maker,
    "turn": Turn, "over": Over}

_S = TypeVar("_S", bound=ctypes.Structure)


def parse(kind: type[_S], raw: bytes) -> _S:
    """Raises ValueError where the size is another."""
    if len(raw) != ctypes.sizeof(kind):
        raise ValueError(f"{kind.__name__} of {len(raw)} bytes, expected {ctypes.sizeof(kind)}")
    return kind.from_buffer_copy(raw)


def packed(address: str | bytes) -> bytes:
    """16 bytes; IPv4 as v4-mapped.  Raises ValueError."""
    one = ipaddress.ip_address(address)
    return bytes(10) + b"\xff\xff" + one.packed if one.version == 4 else one.packed


def unpacked(raw: bytes) -> str:
    """As text, v4-mapped as IPv4."""
    one = ipaddress.IPv6Address(raw)
    return str(one.ipv4_mapped or one)


def render_settings(
    slice_id: int, netns: int, level: int, listener: int, resolver: tuple[str, int] | None,
) -> bytes:
    """Raises ValueError where a port or the address is none."""
    for port in (listener, *([resolver[1]] if resolver else [])):
        if not 0 < port < 1 << 16:
            raise ValueError(f"{port} is no port")
    address = packed(resolver[0]) if resolver else bytes(16)
    return bytes(Settings(slice_id, netns, level, listener, resolver[1] if resolver else 0,
                          (ctypes.c_uint8 * 16).from_buffer_copy(address)))


def render_joined(cgroup: int, level: int) -> bytes:
    return bytes(Joined(cgroup, level, 0))


def render_place(address: str, port: int) -> bytes:
    return bytes(Place((ctypes.c_uint8 * 16).from_buffer_copy(packed(address)), port))
