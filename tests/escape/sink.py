"""The server whose word is the verdict: it echoes and remembers every token that reached it, over TCP and UDP; `Wire`
sees what reached it by any other way, `Caller` dials whoever should be dialled."""
from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
from types import TracebackType
from typing import Self

MOST = 65536                          # bytes kept of what arrives on one connection


class _Thread:
    """Runs `_serve` until `_stop` is closed."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self._wake, self._stop = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def saw(self, token: str) -> bool:
        return any(token.encode() in data for data in list(self.seen))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.close()
        self._thread.join(5)

    def _serve(self) -> None:
        raise NotImplementedError


class Sink(_Thread):
    """Listens on `port` of both families, TCP and UDP, in the calling thread's network namespace."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port = port
        self._doors = [_open(kind, family, port) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)
                       for family in (socket.AF_INET, socket.AF_INET6)]

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            for door in (*self._doors, self._wake):
                selector.register(door, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj is self._wake:
                        for open_one in [k.fileobj for k in list(selector.get_map().values())]:
                            open_one.close()  # type: ignore[union-attr]
                        return
                    self._one(key.fileobj, selector)  # type: ignore[arg-type]

    def _one(self, door: socket.socket, selector: selectors.BaseSelector) -> None:
        if door.type == socket.SOCK_DGRAM:
            data, peer = door.recvfrom(MOST)
            self.seen.append(data)
            door.sendto(data, peer)
        elif door in self._doors:
            conn, _ = door.accept()
            selector.register(conn, selectors.EVENT_READ)
        else:
            self._echo(door, selector)

    def _echo(self, conn: socket.socket, selector: selectors.BaseSelector) -> None:
        try:
            data = conn.recv(MOST)
            if data:
                self.seen.append(data)
                conn.sendall(data)
                return
        except OSError:
            pass
        selector.unregister(conn)
        conn.close()


class Wire(_Thread):
    """Every frame that arrives at eth0 of the calling thread's network namespace, whatever protocol it is of: kept are
    those with a token in them, or in an address of IPv6, IGMP, and the source ports of TCP."""

    def __init__(self) -> None:
        super().__init__()
        self.ports: set[int] = set()
        self._tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))      # ETH_P_ALL
        self._tap.bind(("eth0", 0))

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector, self._tap, self._wake:
            selector.register(self._tap, selectors.EVENT_READ)
            selector.register(self._wake, selectors.EVENT_READ)
            while True:
                ready = [key.fileobj for key, _ in selector.select()]
                if self._wake in ready:
                    return
                frame, where = self._tap.recvfrom(MOST)
                if where[2] != socket.PACKET_OUTGOING:
                    self._look(frame)

    def _look(self, frame: bytes) -> None:
        kind, = struct.unpack_from("!H", frame, 12)
        if (b"token-" in frame or (kind == 0x86DD and b"\xef" in frame)
                or (kind == 0x0800 and frame[23] == socket.IPPROTO_IGMP)):
            self.seen.append(frame)
        if kind == 0x0800 and frame[23] == socket.IPPROTO_TCP:
            self.ports.add(struct.unpack_from("!H", frame, 14 + (frame[14] & 15) * 4)[0])
        elif kind == 0x86DD and frame[20] == socket.IPPROTO_TCP:
            self.ports.add(struct.unpack_from("!H", frame, 54)[0])
        elif kind == 0x86DD and frame[20] == socket.IPPROTO_ROUTING and frame[54] == socket.IPPROTO_TCP:
            self.ports.add(struct.unpack_from("!H", frame, 54 + 8 + frame[55] * 8)[0])


class Caller(_Thread):
    """Dials `ports` of `hosts` again and again, over TCP, and sends them datagrams; remembers what they answer."""

    def __init__(self, hosts: list[str], ports: list[int]) -> None:
        super().__init__()
        self._to = [(host, port) for host in hosts for port in ports]
        self._datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def _serve(self) -> None:
        calls = [threading.Thread(target=self._call, args=one, daemon=True) for one in self._to]
        for call in calls:
            call.start()
        self._wake.setblocking(True)
        self._wake.settimeout(0.2)
        while True:
            with contextlib.suppress(TimeoutError):
                return self._end(calls) if self._wake.recv(1) == b"" else None
            for host, port in self._to:
                with contextlib.suppress(OSError):
                    self._datagrams.sendto(b"call", (host, port))
            with contextlib.suppress(BlockingIOError):
                while True:
                    self.seen.append(self._datagrams.recv(MOST, socket.MSG_DONTWAIT))

    def _end(self, calls: list[threading.Thread]) -> None:
        self._over = True
        for call in calls:
            call.join(5)
        self._datagrams.close()
        self._wake.close()

    _over = False

    def _call(self, host: str, port: int) -> None:
        while not self._over:
            with contextlib.suppress(OSError), socket.create_connection((host, port), 1) as conn:
                conn.settimeout(3)
                data = conn.recv(MOST)
                if data:
                    self.seen.append(data)
                    conn.sendall(data)
            self._pause.wait(0.2)

    _pause = threading.Event()


def _open(kind: socket.SocketKind, family: socket.AddressFamily, port: int) -> socket.socket:
    door = socket.socket(family, kind)
    if family == socket.AF_INET6:
        door.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if kind == socket.SOCK_STREAM:
        door.setsockopt(socket.IPPROTO_TCP, 23, 16)        # TCP_FASTOPEN
    door.bind(("", port))
    if kind == socket.SOCK_STREAM:
        door.listen(64)
    return door
