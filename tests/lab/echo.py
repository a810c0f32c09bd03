"""Gives back what comes, until the other side has closed its half.

    python -m lab.echo PORT SOCKET        TCP on all addresses, and a Unix socket for everybody
"""
from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Sequence

PIECE = 1 << 16


def serve(one: socket.socket) -> None:
    with one:
        try:
            while piece := one.recv(PIECE):
                one.sendall(piece)
        except OSError:
            pass


def accept(door: socket.socket) -> None:
    while True:
        threading.Thread(target=serve, args=(door.accept()[0],), daemon=True).start()


def main(arguments: Sequence[str]) -> None:
    port, path = arguments
    with socket.create_server(("::", int(port)), family=socket.AF_INET6, dualstack_ipv6=True, backlog=512) as door:
        with socket.socket(socket.AF_UNIX) as local:
            local.bind(path)
            os.chmod(path, 0o666)
            local.listen(512)
            threading.Thread(target=accept, args=(local,), daemon=True).start()
            accept(door)


if __name__ == "__main__":
    main(sys.argv[1:])
