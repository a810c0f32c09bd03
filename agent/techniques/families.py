"""Other address families.  Most of them are through once they have the socket: the verdict is the kernel's answer."""
from __future__ import annotations

import socket
import struct

from .common import Where, collected

PACKET, XDP, VSOCK, ALG, NETLINK = 17, 44, 40, 38, 16
SOL_PACKET, QDISC_BYPASS = 263, 20    # PACKET_QDISC_BYPASS


def _frame(token: bytes, to: Where) -> bytes:
    """Ethernet to everybody, from an address that is nobody's; RFC 9542's type for experiments."""
    return b"\xff" * 6 + b"\x02\0\0\0\0\x01" + b"\x88\xb5" + token


def packet_socket(token: bytes, to: Where) -> None:
    with socket.socket(PACKET, socket.SOCK_RAW) as s:
        s.bind(("eth0", 0))
        s.send(_frame(token, to))


def packet_socket_datagram(token: bytes, to: Where) -> None:
    with socket.socket(PACKET, socket.SOCK_DGRAM) as s:
        s.sendto(token, ("eth0", 0x88B5, 0, 0, b"\xff" * 6))


def packet_socket_past_the_queue(token: bytes, to: Where) -> None:
    with socket.socket(PACKET, socket.SOCK_RAW) as s:
        s.bind(("eth0", 0))
        s.setsockopt(SOL_PACKET, QDISC_BYPASS, 1)
        s.send(_frame(token, to))


def _opened(family: int, kind: int, protocol: int = 0) -> None:
    with socket.socket(family, kind, protocol) as s:
        print("opened", s.family, s.type, flush=True)


def xdp_socket(token: bytes, to: Where) -> None:
    _opened(XDP, socket.SOCK_RAW)


def vsock(token: bytes, to: Where) -> None:
    """Made, never connected: it leads to whoever runs this machine."""
    _opened(VSOCK, socket.SOCK_STREAM)


def algorithm_socket(token: bytes, to: Where) -> None:
    _opened(ALG, socket.SOCK_SEQPACKET)


def netlink_diagnosis(token: bytes, to: Where) -> None:
    """NETLINK_SOCK_DIAG lists everybody's connections."""
    _opened(NETLINK, socket.SOCK_RAW, 4)


def netlink_netfilter(token: bytes, to: Where) -> None:
    """NETLINK_NETFILTER: where rules are changed."""
    _opened(NETLINK, socket.SOCK_RAW, 12)


def netlink_generic(token: bytes, to: Where) -> None:
    _opened(NETLINK, socket.SOCK_RAW, 16)


def netlink_route_change(token: bytes, to: Where) -> None:
    """NETLINK_ROUTE, which programs need for their interfaces' addresses: a change asks for CAP_NET_ADMIN.  RTM_NEWADDR
    of an address on lo that is removed again."""
    lo = socket.if_nametoindex("lo")
    with socket.socket(NETLINK, socket.SOCK_RAW, 0) as s:
        for kind, flags in ((20, 0x405), (21, 5)):        # RTM_NEWADDR, RTM_DELADDR; REQUEST|ACK (|CREATE)
            address = struct.pack("=BBBBI", socket.AF_INET, 32, 0, 0, lo)
            for attribute in (1, 2):                      # IFA_ADDRESS, IFA_LOCAL
                address += struct.pack("=HH4s", 8, attribute, socket.inet_aton("192.0.2.77"))
            s.send(struct.pack("=IHHII", 16 + len(address), kind, flags, 1, 0) + address)
            number = struct.unpack_from("=i", s.recv(4096), 16)[0]
            if number:
                raise OSError(-number, "netlink")


def unusual_families(token: bytes, to: Where) -> None:
    """Everything else that this kernel may have: AF_SMC, AF_TIPC, AF_RDS, AF_KCM, AF_QIPCRTR, AF_KEY, AF_CAN, ..."""
    made = []
    for family in set(range(1, 64)) - {socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, NETLINK}:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_SEQPACKET):
            try:
                socket.socket(family, kind).close()
            except OSError:
                continue
            made.append((family, int(kind)))
    if not made:
        raise OSError("none of them")
    print("opened", made, flush=True)


TECHNIQUES = collected(
    packet_socket, packet_socket_datagram, packet_socket_past_the_queue, xdp_socket, vsock, algorithm_socket,
    netlink_diagnosis, netlink_netfilter, netlink_generic, netlink_route_change, unusual_families)
