"""The door to libbpf.so.1, by ctypes: pins, links, maps, the kernel's own word on what is attached, ring buffers.

Descriptors are plain numbers and the caller's to close; OSError everywhere.  Sources: bpf.h of libbpf 1.1, linux/bpf.h,
linux/perf_event.h.
"""
from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# enum bpf_attach_type
CGROUP_INET_INGRESS, CGROUP_INET_EGRESS, CGROUP_INET_SOCK_CREATE, CGROUP_SOCK_OPS = 0, 1, 2, 3
CGROUP_INET4_BIND, CGROUP_INET6_BIND, CGROUP_INET4_CONNECT, CGROUP_INET6_CONNECT = 8, 9, 10, 11
CGROUP_UDP4_SENDMSG, CGROUP_UDP6_SENDMSG, CGROUP_INET4_GETPEERNAME, CGROUP_INET6_GETPEERNAME = 14, 15, 29, 30
CGROUP_SETSOCKOPT, LSM_MAC, PERF_EVENT = 22, 27, 41
# enum bpf_prog_type
TRACEPOINT, CGROUP_SKB, CGROUP_SOCK, SOCK_OPS, CGROUP_SOCK_ADDR, CGROUP_SOCKOPT, LSM = 5, 8, 9, 13, 18, 25, 29
# enum bpf_map_type
HASH, ARRAY, LRU_HASH, SK_STORAGE, RINGBUF = 1, 2, 9, 24, 27
# enum bpf_link_type
LINK_TRACING, LINK_CGROUP, LINK_PERF_EVENT = 2, 3, 7

_PERF_TYPE_TRACEPOINT, _PERF_FLAG_FD_CLOEXEC = 2, 8
_SYS_PERF_EVENT_OPEN: Final = {"x86_64": 298, "aarch64": 241}
_INFO_BYTES: Final = 256              # more than any bpf_*_info of today: the kernel fills in what it knows
_MAPS_OF_PROGRAM: Final = 64
_PROGRAMS_OF_CGROUP: Final = 64       # BPF_CGROUP_MAX_PROGS

_lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
_int, _u32, _u64, _pointer, _text = ctypes.c_int, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_void_p, ctypes.c_char_p
for _name, _arguments in {
    "bpf_link_create": (_int, _int, _int, _pointer),
    "bpf_link_update": (_int, _int, _pointer),
    "bpf_map_update_elem": (_int, _pointer, _pointer, _u64),
    "bpf_map_lookup_elem": (_int, _pointer, _pointer),
    "bpf_map_lookup_and_delete_elem": (_int, _pointer, _pointer),
    "bpf_map_delete_elem": (_int, _pointer),
    "bpf_map_get_next_key": (_int, _pointer, _pointer),
    "bpf_obj_get": (_text,),
    "bpf_obj_pin": (_int, _text),
    "bpf_obj_get_info_by_fd": (_int, _pointer, _pointer),
    "bpf_prog_get_fd_by_id": (_u32,),
    "bpf_prog_query": (_int, _int, _u32, _pointer, _pointer, _pointer),
    "libbpf_set_strict_mode": (_u32,),
}.items():
    getattr(_lib, _name).argtypes = _arguments
_lib.libbpf_set_strict_mode(0xFFFFFFFF)
_sample = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_lib.ring_buffer__new.argtypes = (_int, _sample, _pointer, _pointer)
_lib.ring_buffer__new.restype = _pointer
_lib.ring_buffer__consume.argtypes = (_pointer,)
_lib.ring_buffer__epoll_fd.argtypes = (_pointer,)
_lib.ring_buffer__free.argtypes = (_pointer,)
_lib.ring_buffer__free.restype = None


def _ok(result: int, what: str) -> int:
    if result < 0:                    # -1 and errno, or -errno (libbpf 1.0 returns the latter and sets errno)
        number = ctypes.get_errno() or -result
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _descriptor(result: int, what: str) -> int:
    fd = _ok(result, what)
    fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    return fd


# pins and links

def pin(fd: int, path: Path) -> None:
    _ok(_lib.bpf_obj_pin(fd, os.fsencode(path)), f"pin {path}")


def obj_get(path: Path) -> int:
    return _descriptor(_lib.bpf_obj_get(os.fsencode(path)), f"open {path}")


def link_create(program: int, target: int, attach_type: int) -> int:
    return _descriptor(_lib.bpf_link_create(program, target, attach_type, None), f"bpf_link_create {attach_type}")


def link_update(link: int, program: int) -> None:
    """Atomic.  A link on a tracepoint knows it not: EINVAL."""
    _ok(_lib.bpf_link_update(link, program, None), "bpf_link_update")


def link_tracepoint(program: int, tracefs: Path, event: str) -> int:
    """`event` as "task/task_newtask".  perf_event_open(2), then a link of type perf_event, which keeps the event."""
    number = int((tracefs / "events" / event / "id").read_text())
    attributes = bytearray(128)
    struct.pack_into("=IIQQ", attributes, 0, _PERF_TYPE_TRACEPOINT, len(attributes), number, 1)
    libc = ctypes.CDLL(None, use_errno=True)
    call = _SYS_PERF_EVENT_OPEN[os.uname().machine]
    buffer = (ctypes.c_char * len(attributes)).from_buffer(attributes)
    event_fd = libc.syscall(call, buffer, -1, 0, -1, _PERF_FLAG_FD_CLOEXEC)
    if event_fd < 0:
        raise OSError(ctypes.get_errno(), f"perf_event_open {event}: {os.strerror(ctypes.get_errno())}")
    try:
        return link_create(program, event_fd, PERF_EVENT)
    finally:
        os.close(event_fd)


def tracepoint_fields(tracefs: Path, event: str) -> dict[str, tuple[int, int]]:
    """Name -> (offset, size), from the event's format."""
    text = (tracefs / "events" / event / "format").read_text()
    fields = re.finditer(r"field:[^;]*?(\w+)(?:\[\d+\])?;\s+offset:(\d+);\s+size:(\d+)", text)
    return {match[1]: (int(match[2]), int(match[3])) for match in fields}


# maps

def update(fd: int, key: bytes, value: bytes) -> None:
    _ok(_lib.bpf_map_update_elem(fd, key, value, 0), "bpf_map_update_elem")


def lookup(fd: int, key: bytes, size: int) -> bytes | None:
    """None: not there."""
    out = ctypes.create_string_buffer(size)
    return out.raw if _found(_lib.bpf_map_lookup_elem(fd, key, out)) else None


def take(fd: int, key: bytes, size: int) -> bytes | None:
    """Look up and delete in one step.  None: not there."""
    out = ctypes.create_string_buffer(size)
    return out.raw if _found(_lib.bpf_map_lookup_and_delete_elem(fd, key, out)) else None


def delete(fd: int, key: bytes) -> None:
    _found(_lib.bpf_map_delete_elem(fd, key))


def keys(fd: int, size: int) -> Iterator[bytes]:
    """Of a map that others may be writing to: each key at most a few times, some perhaps not."""
    key: bytes | None = None
    while True:
        out = ctypes.create_string_buffer(size)
        if not _found(_lib.bpf_map_get_next_key(fd, key, out)):
            return
        key = out.raw
        yield key


def _found(result: int) -> bool:
    if result == 0:
        return True
    number = ctypes.get_errno()
    if number == errno.ENOENT:
        return False
    raise OSError(number, f"map: {os.strerror(number)}")


# the kernel's own word

@dataclass(frozen=True)
class MapInfo:
    type: int
    id: int
    key_size: int
    value_size: int
    entries: int


@dataclass(frozen=True)
class ProgramInfo:
    type: int
    id: int
    name: str                         # at most 15 characters
    maps: tuple[int, ...]             # ids
    tag: bytes = b""                  # digest of its instructions


@dataclass(frozen=True)
class LinkInfo:
    type: int
    id: int
    program: int                      # id
    cgroup: int = 0                   # id; 0: detached, or no cgroup's
    attach_type: int = 0


def _info(fd: int, buffer: ctypes.Array[ctypes.c_char], what: str) -> bytes:
    length = _u32(len(buffer))
    _ok(_lib.bpf_obj_get_info_by_fd(fd, buffer, ctypes.byref(length)), what)
    return buffer.raw


def map_info(fd: int) -> MapInfo:
    raw = _info(fd, ctypes.create_string_buffer(_INFO_BYTES), "map info")
    return MapInfo(*struct.unpack_from("=5I", raw))


def program_info(fd: int) -> ProgramInfo:
    """struct bpf_prog_info: nr_map_ids at 52, map_ids at 56, name at 64."""
    ids = (_u32 * _MAPS_OF_PROGRAM)()
    buffer = ctypes.create_string_buffer(_INFO_BYTES)
    struct.pack_into("=IQ", buffer, 52, _MAPS_OF_PROGRAM, ctypes.addressof(ids))
    raw = _info(fd, buffer, "program info")
    kind, number = struct.unpack_from("=II", raw)
    count = min(struct.unpack_from("=I", raw, 52)[0], _MAPS_OF_PROGRAM)
    return ProgramInfo(kind, number, raw[64:80].split(b"\0")[0].decode(), tuple(ids[:count]), raw[8:16])


def program_by_id(number: int) -> ProgramInfo:
    fd = _descriptor(_lib.bpf_prog_get_fd_by_id(number), f"program {number}")
    try:
        return program_info(fd)
    finally:
        os.close(fd)


def link_info(fd: int) -> LinkInfo:
    """struct bpf_link_info: a union from 16 on."""
    raw = _info(fd, ctypes.create_string_buffer(_INFO_BYTES), "link info")
    kind, number, program = struct.unpack_from("=3I", raw)
    if kind == LINK_TRACING:
        return LinkInfo(kind, number, program, attach_type=struct.unpack_from("=I", raw, 16)[0])
    if kind != LINK_CGROUP:
        return LinkInfo(kind, number, program)
    return LinkInfo(kind, number, program, *struct.unpack_from("=QI", raw, 16))


def prog_query(target: int, attach_type: int) -> tuple[int, ...]:
    """Ids of the programs attached to a cgroup itself."""
    ids, flags = (_u32 * _PROGRAMS_OF_CGROUP)(), _u32()
    count = _u32(_PROGRAMS_OF_CGROUP)
    _ok(_lib.bpf_prog_query(target, attach_type, 0, ctypes.byref(flags), ids, ctypes.byref(count)), "bpf_prog_query")
    return tuple(ids[:count.value])


class Ring:
    """Reads a ring buffer map.  `fd` is readable when there is something to drain."""

    def __init__(self, fd: int) -> None:
        self._seen: list[bytes] = []
        self._callback = _sample(self._take)       # kept: libbpf calls it
        self._ring: int | None = _lib.ring_buffer__new(fd, self._callback, None, None)
        if not self._ring:
            raise OSError(ctypes.get_errno(), "ring_buffer__new")
        self.fd: int = _lib.ring_buffer__epoll_fd(self._ring)

    def _take(self, _context: int, data: int, size: int) -> int:
        self._seen.append(ctypes.string_at(data, size))
        return 0

    def drain(self) -> list[bytes]:
        """Everything that is there; none is lost where it raises."""
        if self._ring is None:
            return []
        result = _lib.ring_buffer__consume(self._ring)
        seen, self._seen = self._seen, []
        if result < 0:
            self._seen = seen
            _ok(result, "ring_buffer__consume")
        return seen

    def close(self) -> None:
        if self._ring is not None:
            _lib.ring_buffer__free(self._ring)
            self._ring = None
