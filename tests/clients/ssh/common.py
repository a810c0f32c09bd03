"""What the scripts share.  They run as the crew's user, know names and nothing of Weir, and print one JSON list.

HOST, BASTION: names; LOGIN: the account; WORK: an empty directory in its home; SIZE: bytes of what is sent to and fro.
"""
from __future__ import annotations

import faulthandler
import hashlib
import json
import os
import random
import socket
import subprocess
import threading
import time
from pathlib import Path

HOST, BASTION, LOGIN = os.environ["HOST"], os.environ["BASTION"], os.environ["LOGIN"]
WORK, SIZE = os.environ["WORK"], int(os.environ.get("SIZE", "1000000"))
AT = f"{LOGIN}@{HOST}"
HERE = Path(os.environ["HOME"]) / f"local-{WORK}"
PIECE = 1 << 20
faulthandler.dump_traceback_later(int(os.environ.get("LIMIT", "60")), exit=True)      # says where it hangs
said: list[object] = []


def run(*command: str, input: bytes | None = None, environment: dict[str, str] | None = None,
        timeout: float = 300) -> list[object]:
    """[exit status, stdout, stderr]."""
    how: dict[str, object] = {"input": input} if input is not None else {"stdin": subprocess.DEVNULL}
    done = subprocess.run(command, capture_output=True, timeout=timeout, cwd=HERE,
                          env={**os.environ, **(environment or {})}, **how)
    return [done.returncode, done.stdout.decode("utf-8", "backslashreplace"),
            done.stderr.decode("utf-8", "backslashreplace")]


def say(*command: str, **options: object) -> list[object]:
    said.append(run(*command, **options))
    return said[-1]


def ssh(line: str, *options: str, **more: object) -> list[object]:
    return say("ssh", *options, AT, line, **more)


def binary(size: int, seed: int = 1) -> bytes:
    """The same each time, and all bytes are in it."""
    return random.Random(seed).randbytes(size)


def make_binary(path: Path, size: int, seed: int = 1) -> str:
    """A file that is written piece by piece; its SHA-256."""
    source, digest = random.Random(seed), hashlib.sha256()
    with open(path, "wb") as file:
        while size > 0:
            piece = source.randbytes(min(size, PIECE))
            digest.update(piece)
            file.write(piece)
            size -= len(piece)
    return digest.hexdigest()


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def begin() -> None:
    subprocess.run(["rm", "-rf", str(HERE)], check=True)
    HERE.mkdir()


def finish() -> None:
    subprocess.run(["rm", "-rf", str(HERE)], check=True)
    print(json.dumps(said))


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def echoing(door: socket.socket, turn: bytes = b"") -> None:
    """Give back what comes, with `turn` before it, until the other side has closed its half."""

    def serve(one: socket.socket) -> None:
        with one:
            if turn:
                one.sendall(turn)
            while piece := one.recv(PIECE):
                one.sendall(piece)

    def accept() -> None:
        while True:
            try:
                one, _ = door.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(one,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()


def through(one: socket.socket, data: bytes) -> str:
    """Send it all, close the half, read to the end; SHA-256 of what came back."""
    sender = threading.Thread(target=lambda: (one.sendall(data), one.shutdown(socket.SHUT_WR)))
    sender.start()
    digest = hashlib.sha256()
    while piece := one.recv(PIECE):
        digest.update(piece)
    sender.join()
    return digest.hexdigest()


def reachable(address: object, family: int = socket.AF_INET, seconds: float = 20) -> socket.socket:
    """A connection to what is being opened."""
    deadline = time.monotonic() + seconds
    while True:
        one = socket.socket(family)
        try:
            one.connect(address)
            return one
        except OSError:
            one.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
