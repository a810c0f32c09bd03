"""The domain closes abstract Unix sockets and processes outside, and nothing that a workload needs."""
from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from agent.workload import landlock
from agent.workload.sandbox import BUBBLEWRAP

pytestmark = pytest.mark.skipif(landlock.version() < landlock.SCOPES, reason="needs Linux 6.12 with Landlock")

INSIDE = """
import ctypes, os, socket, sys
from agent.workload import landlock
ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)        # PR_SET_NO_NEW_PRIVS
if sys.argv[1] == "inside":
    landlock.enter_domain()
name, pid = sys.argv[2], int(sys.argv[3])

def said(work):
    try:
        work()
        return "through"
    except OSError as error:
        return type(error).__name__

own = socket.socket(socket.AF_UNIX)
own.bind(b"\\0" + (name + "-own").encode())
own.listen()
print(said(lambda: socket.socket(socket.AF_UNIX).connect(b"\\0" + name.encode())),
      said(lambda: socket.socket(socket.AF_UNIX).connect(b"\\0" + (name + "-own").encode())),
      said(lambda: os.kill(pid, 0)), flush=True)
if len(sys.argv) > 4:
    os.execv(sys.argv[4], sys.argv[4:])
"""


def run(where: str, *more: str) -> list[str]:
    name = f"weir-landlock-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(b"\0" + name.encode())
        door.listen()
        done = subprocess.run([sys.executable, "-c", INSIDE, where, name, str(os.getpid()), *more], capture_output=True,
                              text=True, env={"PYTHONPATH": ":".join(sys.path)}, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_ways_exist() -> None:
    assert run("outside") == ["through", "through", "through"]


def test_outside_is_closed_and_inside_is_not() -> None:
    assert run("inside") == ["PermissionError", "through", "PermissionError"]


def test_bubblewrap_still_makes_its_view() -> None:
    """Landlock refuses mount(2) to domains that handle file system rights: this one handles none."""
    said = run("inside", BUBBLEWRAP, "--unshare-user", "--unshare-pid", "--ro-bind", "/", "/", "--tmpfs", "/tmp",
               "--proc", "/proc", "--dev", "/dev", "--", "/bin/echo", "made")
    assert said[-1] == "made"
