"""The server whose word is the verdict: it echoes and remembers every token that reached it, over TCP and UDP."""
from __future__ import annotations

import selectors
import socket
import threading
from types import TracebackType

MOST = 65536                          # bytes kept of what arrives on one connection


class Sink:
    """Listens on `port` of both families, TCP and UDP, in the calling thread's network namespace."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.seen: list[bytes] = []
        self._doors = [_open(kind, family, port) for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM)
                       for family in (socket.AF_INET, socket.AF_INET6)]
        self._wake, self._stop = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def saw(self, token: str) -> bool:
        return any(token.encode() in data for data in list(self.seen))

    def __enter__(self) -> Sink:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.close()
        self._thread.join(5)

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
