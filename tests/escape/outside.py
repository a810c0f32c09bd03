"""What stands outside, as programs: standard library only.

    outside.py relay HOST PORT PLACE ...
        services of the host: who speaks to one of these Unix sockets (a path, or @NAME) is brought to the server
    outside.py bystander HOST PORT SOCKET CALLS
        a process that holds a connection to the server, and hands out, at SOCKET, what it is asked for

The first line on stdout says that it is ready; of the bystander its pid, the descriptor of its connection and the key
of its System V shared memory.
"""
from __future__ import annotations

import array
import contextlib
import ctypes
import errno
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable

ASKED = 4096                          # bytes


def serve(place: str, answer: Callable[[socket.socket], None]) -> None:
    """In a thread of its own, one at a time."""
    door = socket.socket(socket.AF_UNIX)
    if place.startswith("@"):
        door.bind(b"\0" + place[1:].encode())
    else:
        os.makedirs(os.path.dirname(place), exist_ok=True)
        _clear(place)
        door.bind(place)
        os.chmod(place, 0o666)
    door.listen()

    def loop() -> None:
        while True:
            conn, _ = door.accept()
            conn.settimeout(5)
            with conn, contextlib.suppress(OSError):
                answer(conn)

    threading.Thread(target=loop, daemon=True).start()


def _clear(place: str) -> None:
    """What a killed run has left; a service that answers is not ours to remove."""
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(place) == errno.ECONNREFUSED:
            os.unlink(place)


def relay(host: str, port: str, *places: str) -> None:
    def answer(conn: socket.socket) -> None:
        with socket.create_connection((host, int(port)), 5) as server:
            server.sendall(conn.recv(ASKED))
            conn.sendall(server.recv(ASKED))

    for place in places:
        serve(place, answer)
    print("ready", flush=True)


def bystander(host: str, port: str, place: str, calls: str) -> None:
    server = (host, int(port))
    held = socket.create_connection(server, 5)
    datagram, connected_datagram = (socket.socket(type=socket.SOCK_DGRAM) for _ in range(2))
    connected_datagram.connect(server)
    have = {"held": held, "datagram": datagram, "datagram-connected": connected_datagram}
    # Of what may be ended there, each gets its own.
    fresh = {"connected": lambda: socket.create_connection(server, 5),
             "listening": lambda: socket.create_server(("", int(calls) + 1)), "unconnected": socket.socket}

    def answer(conn: socket.socket) -> None:
        said, descriptors, _, _ = socket.recv_fds(conn, ASKED, 1)
        word, *rest = said.decode().split()
        if word == "connect":
            with socket.socket(fileno=descriptors[0]) as theirs:
                theirs.settimeout(3)
                try:
                    theirs.connect((rest[0], int(rest[1])))
                except OSError as error:
                    return conn.sendall(str(error).encode())
            return conn.sendall(b"connected")
        with contextlib.ExitStack() as stack:
            one = have[word] if word in have else stack.enter_context(fresh[word]())
            conn.sendmsg([b"here"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [one.fileno()]))])

    serve(place, answer)
    memory = os.getpid()              # IPC_CREAT, readable by everybody; removed with the last who has it
    libc = ctypes.CDLL(None)
    number = libc.shmget(memory, 4096, 0o1666)
    libc.shmat.restype = ctypes.c_void_p
    libc.shmat(number, None, 0)
    print(os.getpid(), held.fileno(), memory, flush=True)
    signal.signal(signal.SIGTERM, lambda *_: (libc.shmctl(number, 0, None), sys.exit()))


if __name__ == "__main__":
    {"relay": relay, "bystander": bystander}[sys.argv[1]](*sys.argv[2:])
    signal.pause()
