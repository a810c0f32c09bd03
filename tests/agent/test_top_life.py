"""`weir top` on a real terminal, with an agent that runs."""
from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator

import pytest
from standin.host import Host

pytestmark = pytest.mark.kernel
COLOURED = re.compile(r"\x1b\[[0-9;]*3[0-7][0-9;]*m")


class Terminal:
    """Of 100 x 30, with the command in it."""

    def __init__(self, host: Host, **environment: str) -> None:
        self.master, inside = pty.openpty()
        self.before = termios.tcgetattr(inside)
        self.resize(30, 100)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agent.cli", "--config", str(host.file), "top"],
            env=host.environment | {"TERM": "xterm-256color"} | environment, cwd="/", stdin=inside, stdout=inside,
            stderr=inside, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0) and None)
        self.inside, self.seen = inside, ""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def wait(self, text: str, seconds: float = 20) -> str:
        """All that is shown until this is, which is from then on not looked at again."""
        deadline = time.monotonic() + seconds
        while text not in self.seen:
            assert time.monotonic() < deadline, f"no {text!r} in {self.seen[-3000:]!r}"
            if select.select([self.master], [], [], 0.2)[0]:
                self.seen += os.read(self.master, 65536).decode(errors="replace")
        shown, self.seen = self.seen, ""
        return shown

    def type(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(20)
        os.close(self.master)
        os.close(self.inside)


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    made = Host(f"wt-{os.getpid() % 10000}")
    try:
        made.start()
        yield made
    finally:
        made.close()


@pytest.fixture
def terminal(host: Host) -> Iterator[Terminal]:
    made = Terminal(host)
    try:
        yield made
    finally:
        made.close()


def test_it_shows_holds_and_comes_back(terminal: Terminal) -> None:
    shown = terminal.wait("q: leave")
    assert "enforcing" in shown
    assert "no session is open" in shown
    assert "abc123" in shown
    assert COLOURED.search(shown)
    terminal.resize(10, 40)
    os.kill(terminal.process.pid, signal.SIGWINCH)
    terminal.wait("up, down: choose   s: sort   t: target ")
    terminal.resize(30, 100)
    terminal.type("s")
    terminal.wait("by operations a second")
    terminal.type("h")
    terminal.wait("a: approve")       # `weir approvals`
    terminal.type("q")
    terminal.wait("s: sort")
    terminal.type("q")
    assert terminal.process.wait(20) == 0
    assert termios.tcgetattr(terminal.inside) == terminal.before


def test_control_c_leaves_it(terminal: Terminal) -> None:
    terminal.wait("q: leave")
    terminal.type("\x03")
    assert terminal.process.wait(20) == 0
    assert termios.tcgetattr(terminal.inside) == terminal.before


def test_without_colours_where_nobody_wants_them(host: Host) -> None:
    terminal = Terminal(host, NO_COLOR="1")
    try:
        assert not COLOURED.search(terminal.wait("q: leave"))
    finally:
        terminal.close()


def test_one_snapshot_as_json(host: Host) -> None:
    found = host.json("top")
    assert found["state"] == "enforcing"
    assert [one["ticket"] for one in found["holds"]] == ["abc123"]
    assert found["sessions"] == []
    done = host.weir("top")
    assert (done.returncode, done.stderr) == (1, "weir: this is no terminal: weir top --json says how it is now\n")
    found = host.json("top", user=1000)
    assert (found["sessions"], found["holds"], found["state"]) == (None, None, "enforcing")
