"""A crew of tests/standin/host.py."""
from __future__ import annotations

import json
import subprocess

from standin.host import Host

CONNECT = """
import socket, sys, time
for line in iter(sys.stdin.readline, ""):
    address, port = line.split()
    try:
        with socket.create_connection((address, int(port)), 20) as one:
            print((one.makefile().readline() or "closed").strip(), flush=True)
    except OSError as reason:
        print(type(reason).__name__, flush=True)
"""


class Crew:
    """A crew that connects when it is told to, and says what it got."""

    def __init__(self, host: Host) -> None:
        self.process = host.crew("/usr/bin/python3", "-c", CONNECT, stdin=subprocess.PIPE)

    def ask(self, address: str, port: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{address} {port}\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def connect(self, address: str, port: int) -> str:
        self.ask(address, port)
        return self.answer()

    def whose(self, address: str = "192.0.2.4", port: int = 5432) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.connect(address, port))
        return found

    def end(self) -> int:
        self.process.communicate(timeout=30)
        return self.process.returncode

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
