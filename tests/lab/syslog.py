"""A syslog of one file: each datagram a line, for internal-sftp, which logs nowhere else.

    python -m lab.syslog SOCKET FILE
"""
from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence

MOST = 1 << 16


def main(arguments: Sequence[str]) -> None:
    path, file = arguments
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
        door.bind(path)
        os.chmod(path, 0o666)
        out = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        while True:
            os.write(out, door.recv(MOST).rstrip(b"\n\0") + b"\n")


if __name__ == "__main__":
    main(sys.argv[1:])
