"""Starting the lab's servers: children that die with the lab, whatever ends it."""
from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lab.hosts import Host, wait_until

TESTS = Path(__file__).resolve().parent.parent


@contextmanager
def server(
    host: Host, command: Sequence[str], log: Path, user: str = "", ending: str = "TERM",
    environment: dict[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """`command` on `host` while the block runs, output to `log`.  It gets `ending` when the block or the lab ends."""
    process = start(host, command, log, user, ending, environment)
    try:
        yield process
    finally:
        stop(process, ending)


def start(
    host: Host, command: Sequence[str], log: Path, user: str = "", ending: str = "TERM",
    environment: dict[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """The same for whoever stops it himself."""
    as_user = ["--reuid", user, "--regid", user, "--init-groups"] if user else []
    argv = host.argv(["setpriv", *as_user, "--pdeathsig", ending, "--", *command])
    with open(log, "ab") as file:
        return subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment, start_new_session=True, cwd="/",
        )


def stop(process: subprocess.Popen[bytes], ending: str = "TERM") -> None:
    if process.poll() is None:
        process.send_signal(signal.Signals["SIG" + ending])
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def python(module: str, *arguments: str) -> list[str]:
    """A module of the lab as a command."""
    return [sys.executable, "-P", "-m", module, *arguments]


def python_environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "PYTHONPATH": str(TESTS), "PYTHONDONTWRITEBYTECODE": "1"}


def listening(host: Host, address: str, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a connection to it opens; the server's own words if it ends instead."""

    def opens() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"{log.stem} ended with {process.returncode}:\n{log.read_text()[-2000:]}")
        with host.entered(), socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
            return probe.connect_ex((address, port)) == 0

    wait_until(log.stem, opens)
