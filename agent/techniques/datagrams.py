"""What needs no connection: UDP and its kin, ICMP, raw IP."""
from __future__ import annotations

import contextlib
import socket
import struct
import time

from .common import WAIT, Where, collected, echoed, first, say

V4, V6 = socket.AF_INET, socket.AF_INET6
UDP_LITE, DCCP, SCTP = 136, 33, 132
MARK = 36                             # SO_MARK


def _sent(token: bytes, family: int, host: str, port: int, protocol: int = 0) -> None:
    with socket.socket(family, socket.SOCK_DGRAM, protocol) as s:
        s.settimeout(WAIT)
        s.sendto(token + b"\n", (host, port))
        echoed(s, token)


def udp(token: bytes, to: Where) -> None:
    _sent(token, V4, to.host4, to.port)


def udp_ipv6(token: bytes, to: Where) -> None:
    _sent(token, V6, to.host6, to.port)


def udp_mapped(token: bytes, to: Where) -> None:
    _sent(token, V6, "::ffff:" + to.host4, to.port)


def udp_connected(token: bytes, to: Where) -> None:
    with socket.socket(V4, socket.SOCK_DGRAM) as s:
        s.settimeout(WAIT)
        s.connect((to.host4, to.port))
        say(s, token)


def udp_connected_ipv6(token: bytes, to: Where) -> None:
    with socket.socket(V6, socket.SOCK_DGRAM) as s:
        s.settimeout(WAIT)
        s.connect((to.host6, to.port))
        say(s, token)


def udp_loopback(token: bytes, to: Where) -> None:
    """A service of the host, by datagrams."""
    first([lambda: _sent(token, V4, "127.0.0.1", to.port), lambda: _sent(token, V6, "::1", to.port),
           lambda: _sent(token, V4, to.own4, to.port)])


def udp_broadcast(token: bytes, to: Where) -> None:
    with socket.socket(V4, socket.SOCK_DGRAM) as s:
        s.settimeout(WAIT)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        s.sendto(token + b"\n", (to.host4.rsplit(".", 1)[0] + ".255", to.port))
        echoed(s, token)


def udp_dns_port(token: bytes, to: Where) -> None:
    """To port 53 of a host that is not the resolver; the server counts it on its wire."""
    with socket.socket(V4, socket.SOCK_DGRAM) as s:
        s.sendto(token + b"\n", (to.host4, 53))


def quic_like(token: bytes, to: Where) -> None:
    """RFC 9000 17.2.2: an Initial packet of 1200 bytes, what follows is padding."""
    with socket.socket(V4, socket.SOCK_DGRAM) as s:
        s.settimeout(WAIT)
        s.connect((to.host4, to.port))
        s.send((b"\xc3\x00\x00\x00\x01\x08" + bytes(8) + token).ljust(1200, b"\0"))
        echoed(s, token)


def fragments(token: bytes, to: Where) -> None:
    """A datagram of three fragments, the token in the last."""
    with socket.socket(V4, socket.SOCK_DGRAM) as s:
        s.settimeout(WAIT)
        s.sendto(bytes(4000) + token, (to.host4, to.port))
        echoed(s, token)


def corked(token: bytes, to: Where) -> None:
    """MSG_MORE: what is sent later goes where the first piece went."""
    with socket.socket(V4, socket.SOCK_DGRAM) as s:
        s.settimeout(WAIT)
        s.sendto(b"-", 0x8000, (to.host4, to.port))
        s.sendto(token, (to.host4, to.port))
        echoed(s, token)


def mark_control_message(token: bytes, to: Where) -> None:
    with socket.socket(V4, socket.SOCK_DGRAM) as s:
        s.settimeout(WAIT)
        s.sendmsg([token], [(socket.SOL_SOCKET, MARK, struct.pack("=I", 1))], 0, (to.host4, to.port))
        echoed(s, token)


def udp_answer(token: bytes, to: Where) -> None:
    """The server sends first; the answer goes back where that came from."""
    with socket.socket(V4, socket.SOCK_DGRAM) as s:
        s.settimeout(WAIT)
        s.bind(("", to.calls))
        for _ in range(3):
            _, peer = s.recvfrom(4096)
            with contextlib.suppress(PermissionError):
                s.sendto(token, peer)
                return
        raise OSError("not permitted")


def join_group(token: bytes, to: Where) -> None:
    """The kernel itself tells the neighbours which multicast groups are listened to (RFC 3376, RFC 9777): fourteen
    bytes in the name of a group, by no socket of anybody's."""
    group = b"\xff\x02" + (b"token-" + token[-8:])
    with socket.socket(V6, socket.SOCK_DGRAM) as s:
        first([
            lambda: s.setsockopt(socket.IPPROTO_IPV6, 20, group + struct.pack("=i", socket.if_nametoindex("eth0"))),
            lambda: s.setsockopt(socket.IPPROTO_IPV6, 42, _group_request(V6, group)),      # MCAST_JOIN_GROUP
            lambda: s.setsockopt(socket.IPPROTO_IPV6, 46, _group_request(V6, group) + _address(V6, b"\xfd" * 16))])
        time.sleep(WAIT / 2)          # a report is sent within a second, or later where others were


def join_group_ipv4(token: bytes, to: Where) -> None:
    """Three bytes each, and as many groups as it takes; the server looks for one."""
    group = b"\xef" + token[-3:]
    with socket.socket(V4, socket.SOCK_DGRAM) as s:
        first([
            lambda: s.setsockopt(socket.IPPROTO_IP, 35, group + socket.inet_aton(to.own4)),
            lambda: s.setsockopt(socket.IPPROTO_IP, 39, group + socket.inet_aton(to.own4) + socket.inet_aton(to.host4)),
            lambda: s.setsockopt(socket.IPPROTO_IP, 42, _group_request(V4, group)),
            lambda: s.setsockopt(socket.IPPROTO_IP, 46, _group_request(V4, group) + _address(V4, b"\x0a" * 4))])
        time.sleep(WAIT / 2)


def _group_request(family: int, group: bytes) -> bytes:
    """struct group_req."""
    return struct.pack("=I4x", socket.if_nametoindex("eth0")) + _address(family, group)


def _address(family: int, address: bytes) -> bytes:
    """struct sockaddr_storage."""
    return (struct.pack("=HH", family, 0) + (bytes(4) if family == V6 else b"") + address).ljust(128, b"\0")


def udp_lite(token: bytes, to: Where) -> None:
    """RFC 3828; on the wire is enough, where the server has no such socket."""
    with socket.socket(V4, socket.SOCK_DGRAM, UDP_LITE) as s:
        s.sendto(token, (to.host4, to.port))


def sctp(token: bytes, to: Where) -> None:
    """Through once it has the socket: one to many needs no connect at all."""
    first([lambda: _opened(socket.SOCK_STREAM, SCTP), lambda: _opened(socket.SOCK_SEQPACKET, 0)])


def dccp(token: bytes, to: Where) -> None:
    _opened(6, DCCP)                  # SOCK_DCCP


def _opened(kind: int, protocol: int) -> None:
    with socket.socket(V4, kind, protocol) as s:
        print("opened", s.type, flush=True)


def ping_socket(token: bytes, to: Where) -> None:
    """SOCK_DGRAM with ICMP: what unprivileged ping(8) uses where net.ipv4.ping_group_range has the group."""
    with socket.socket(V4, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as s:
        s.sendto(b"\x08\0\0\0\0\0\0\x01" + token, (to.host4, 0))


def _checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)


def icmp_raw(token: bytes, to: Where) -> None:
    body = token if len(token) % 2 == 0 else token + b"-"
    packet = b"\x08\0\0\0\0\x07\0\x01" + body
    with socket.socket(V4, socket.SOCK_RAW, socket.IPPROTO_ICMP) as s:
        s.sendto(packet[:2] + struct.pack("!H", _checksum(packet)) + packet[4:], (to.host4, 0))


def raw_ip(token: bytes, to: Where) -> None:
    """A UDP datagram made by hand."""
    with socket.socket(V4, socket.SOCK_RAW, socket.IPPROTO_UDP) as s:
        body = token + b"\n"
        s.sendto(struct.pack(">HHHH", 40404, to.port, 8 + len(body), 0) + body, (to.host4, 0))


def raw_ip_ipv6(token: bytes, to: Where) -> None:
    with socket.socket(V6, socket.SOCK_RAW, 253) as s:         # RFC 3692: for experiments
        s.sendto(token, (to.host6, 0))


def raw_header(token: bytes, to: Where) -> None:
    """IP_HDRINCL: the whole packet by hand, with the server's name as its sender."""
    with socket.socket(V4, socket.SOCK_RAW, socket.IPPROTO_RAW) as s:
        head = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 0, 0, 0, 64, 253, 0, bytes(4), socket.inet_aton(to.host4))
        s.sendto(head + token, (to.host4, 0))


TECHNIQUES = collected(
    udp, udp_ipv6, udp_mapped, udp_connected, udp_connected_ipv6, udp_loopback, udp_broadcast, udp_dns_port, quic_like,
    fragments, corked, mark_control_message, udp_answer, join_group,
    join_group_ipv4, udp_lite, sctp, dccp, ping_socket, icmp_raw, raw_ip,
    raw_ip_ipv6, raw_header)
