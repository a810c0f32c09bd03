"""TCP, by every way to open a connection."""
from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
from collections.abc import Sequence

from .common import WAIT, Where, collected, echoed, first, libc, say, tcp

FASTOPEN = 0x20000000                 # MSG_FASTOPEN
BIND_TO_DEVICE, MARK = 25, 36         # SO_BINDTODEVICE, SO_MARK
V4, V6 = socket.AF_INET, socket.AF_INET6


def plain_ipv4(token: bytes, to: Where) -> None:
    tcp(token, V4, to.host4, to.port)


def plain_ipv6(token: bytes, to: Where) -> None:
    tcp(token, V6, to.host6, to.port)


def v4_mapped(token: bytes, to: Where) -> None:
    tcp(token, V6, "::ffff:" + to.host4, to.port)


def link_local(token: bytes, to: Where) -> None:
    tcp(token, V6, to.link, to.port, scope=socket.if_nametoindex("eth0"))


def any_address(token: bytes, to: Where) -> None:
    """0.0.0.0 and :: mean this host."""
    first([lambda: tcp(token, V4, "0.0.0.0", to.port), lambda: tcp(token, V6, "::", to.port),
           lambda: tcp(token, V6, "::ffff:0.0.0.0", to.port)])


def own_addresses(token: bytes, to: Where) -> None:
    first([lambda: tcp(token, V4, to.own4, to.port), lambda: tcp(token, V6, to.own6, to.port)])


def loopback(token: bytes, to: Where) -> None:
    """A service of the host that listens on loopback."""
    first([lambda: tcp(token, V4, "127.0.0.1", to.port), lambda: tcp(token, V4, "127.9.9.9", to.port),
           lambda: tcp(token, V6, "::1", to.port), lambda: tcp(token, V6, "::ffff:127.0.0.1", to.port)])


def _blocking(s: socket.socket) -> None:
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):      # a blocking socket: else EINPROGRESS
        s.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", int(WAIT), 0))


def fast_open_sendto(token: bytes, to: Where) -> None:
    with socket.socket() as s:
        _blocking(s)
        s.sendto(token + b"\n", FASTOPEN, (to.host4, to.port))
        echoed(s, token)


def fast_open_sendmsg_ipv6(token: bytes, to: Where) -> None:
    with socket.socket(V6) as s:
        _blocking(s)
        s.sendmsg([token, b"\n"], [], FASTOPEN, (to.host6, to.port))
        echoed(s, token)


def fast_open_connect(token: bytes, to: Where) -> None:
    with socket.socket() as s:
        s.settimeout(WAIT)
        s.setsockopt(socket.IPPROTO_TCP, 30, 1)          # TCP_FASTOPEN_CONNECT
        s.connect((to.host4, to.port))
        say(s, token)


def multipath(token: bytes, to: Where) -> None:
    with socket.socket(V4, socket.SOCK_STREAM, 262) as s:      # IPPROTO_MPTCP
        s.settimeout(WAIT)
        s.connect((to.host4, to.port))
        say(s, token)


def bind_to_device(token: bytes, to: Where) -> None:
    with socket.socket() as s:
        s.settimeout(WAIT)
        s.setsockopt(socket.SOL_SOCKET, BIND_TO_DEVICE, b"eth0")
        s.connect((to.host4, to.port))
        say(s, token)


def loopback_by_device(token: bytes, to: Where) -> None:
    """What is rewritten to loopback leaves by the wire where the socket is bound to its device; a neighbour that
    answers for 127.0.0.1 has it.  The SYN carries two bytes, its source port."""
    for host in (to.host4, "127.0.0.1"):
        with socket.socket() as s:
            s.settimeout(WAIT)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.setsockopt(socket.SOL_SOCKET, BIND_TO_DEVICE, b"eth0")
            s.bind((to.own4, to.source))
            s.connect((host, to.port))
            return


def loopback_by_device_ipv6(token: bytes, to: Where) -> None:
    with socket.socket(V6) as s:
        s.settimeout(WAIT)
        s.setsockopt(socket.SOL_SOCKET, BIND_TO_DEVICE, b"eth0")
        s.bind((to.own6, to.source))
        s.connect((to.host6, to.port))


def foreign_source(token: bytes, to: Where) -> None:
    """From an address that is nobody's of this host: whoever is made to answer tells it to the wire."""
    _from(V4, ((0, 15), (0, 19)), to.host4.rpartition(".")[0] + ".99", to.source, (to.host4, to.port))


def foreign_source_ipv6(token: bytes, to: Where) -> None:
    """The same with eight bytes of the crew's choice; of the token, what the witness knows."""
    chosen = socket.inet_pton(V6, to.host6)[:8] + bytes(4) + b"\xef" + token[-3:]
    _from(V6, ((41, 78), (41, 75), (0, 15)), socket.inet_ntop(V6, chosen), 0, (to.host6, to.port))


def _from(
    family: int, options: Sequence[tuple[int, int]], source: str, port: int, to: tuple[str, int],
) -> None:
    """IP_FREEBIND, IP_TRANSPARENT, IPV6_FREEBIND, IPV6_TRANSPARENT: whichever is had.  Nobody answers to the crew."""
    with socket.socket(family) as s:
        s.settimeout(WAIT)
        for level, option in options:
            with contextlib.suppress(OSError):
                s.setsockopt(level, option, 1)
        s.bind((source, port))
        with contextlib.suppress(TimeoutError):
            s.connect(to)


def mark_option(token: bytes, to: Where) -> None:
    """Where a block exempts by SO_MARK, whoever sets it is exempt; all marks that are in use somewhere."""
    for mark in (1, 2, 0x29A, 0x1337, 0x4000, 0xCA6C, 0xFFFFFFFF):
        with socket.socket() as s:
            s.settimeout(WAIT)
            s.setsockopt(socket.SOL_SOCKET, MARK, struct.pack("=I", mark))
            with contextlib.suppress(OSError):
                s.connect((to.host4, to.port))
                return say(s, token)
    raise OSError("marked, and not through")


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


def registered_then_unspecified(token: bytes, to: Where) -> None:
    """The same socket first goes where it may, then elsewhere."""
    with socket.socket() as s:
        s.settimeout(WAIT)
        with contextlib.suppress(OSError):
            s.connect((to.host4, to.registered))
        libc.connect(s.fileno(), ctypes.create_string_buffer(16), 16)
        s.connect((to.host4, to.port))
        say(s, token)


def own_listener_then_elsewhere(token: bytes, to: Where) -> None:
    """What opens the way to a workload's own server on loopback stays with the socket: it then goes to others."""
    with socket.create_server(("127.0.0.1", 0)) as own:
        for family, host in ((V4, "127.0.0.1"), (V4, to.host4), (V4, to.own4)):
            with socket.socket(family) as s:
                s.settimeout(WAIT)
                s.connect(own.getsockname())
                libc.connect(s.fileno(), ctypes.create_string_buffer(16), 16)
                with contextlib.suppress(OSError):
                    s.connect((host, to.port))
                    return say(s, token)
    raise OSError("none of them")


def source_port_again(token: bytes, to: Where) -> None:
    """The address and port of a permitted connection that is closed, used for another one."""
    port = 0
    for where in (to.registered, to.port):
        with socket.socket() as s:
            s.settimeout(WAIT)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            s.bind(("", port))
            if where == to.port:
                s.connect((to.host4, where))
                say(s, token)
            else:
                with contextlib.suppress(OSError):
                    s.connect((to.host4, where))
            port = s.getsockname()[1]


def ip_options(token: bytes, to: Where) -> None:
    """RFC 791 3.1: four no-operations."""
    with socket.socket() as s:
        s.settimeout(WAIT)
        s.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b"\x01" * 4)
        s.connect((to.host4, to.port))
        say(s, token)


def source_route(token: bytes, to: Where) -> None:
    """RFC 791 3.1, loose source route: the header's destination is the hop, whatever connect said."""
    with socket.socket() as s:
        s.settimeout(WAIT)
        s.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b"\x01\x83\x07\x04" + socket.inet_aton(to.host4))
        s.connect((to.host4, to.port))
        say(s, token)


def routing_header(token: bytes, to: Where) -> None:
    """RFC 8754: the header's destination is the first segment, whatever connect said; no capability is asked for.
    The SYN is known by its source port."""
    with socket.socket(V6) as s:
        s.settimeout(WAIT)
        s.bind(("::", to.source))
        segments = socket.inet_pton(V6, to.host6) * 2
        header = struct.pack("BBBBBBH", 0, 4, 4, 1, 1, 0, 0) + segments
        s.setsockopt(socket.IPPROTO_IPV6, 57, header)     # IPV6_RTHDR
        with contextlib.suppress(TimeoutError):           # who is no router drops it: it was on the wire all the same
            s.connect((to.host6, to.port))


def dialled_from_outside(token: bytes, to: Where) -> None:
    """Listen, be dialled by the server, and answer."""
    with socket.create_server(("", to.calls), family=V6, dualstack_ipv6=True) as door:
        door.settimeout(WAIT)
        conn, _ = door.accept()
        with conn:
            conn.settimeout(WAIT)
            say(conn, token)


TECHNIQUES = collected(
    plain_ipv4, plain_ipv6, v4_mapped, link_local, any_address, own_addresses, loopback, fast_open_sendto,
    fast_open_sendmsg_ipv6, fast_open_connect, multipath, bind_to_device, loopback_by_device, loopback_by_device_ipv6,
    foreign_source, foreign_source_ipv6, mark_option, disconnect_and_again, registered_then_unspecified,
    own_listener_then_elsewhere, source_port_again, ip_options, source_route, routing_header, dialled_from_outside)
