"""ssh -t and a shell for a person: pty, window change, ^C, ^D, escape characters, break; a login without a terminal."""
from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time

from common import AT, begin, finish, run, said


class Terminal:
    def __init__(self, *command: str, rows: int = 24, columns: int = 80) -> None:
        self.master, slave = pty.openpty()
        self.resize(rows, columns)
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
                                        env={**os.environ, "TERM": "xterm"})
        os.close(slave)
        self.seen = b""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def expect(self, pattern: str, seconds: float = 20) -> str:
        """What the pattern's group is; what is before its end is done with."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern.encode(), self.seen)):
            if not select.select([self.master], [], [], max(0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"{pattern!r} is not in {self.seen!r}")
            try:
                self.seen += os.read(self.master, 65536)
            except OSError:
                raise EOFError(f"{pattern!r} is not in {self.seen!r}") from None
        self.seen = self.seen[found.end():]
        return found[found.lastindex or 0].decode()

    def end(self) -> int:
        status = self.process.wait(20)
        os.close(self.master)
        return status


begin()
one = Terminal("ssh", "-t", AT, "stty size; test -t 0; echo is=$?; echo $TERM; exit 5", rows=31, columns=97)
said.append([one.expect(r"(31 97)"), one.expect(r"is=(\d)"), one.expect(r"(xterm)"), one.end()])

one = Terminal("ssh", AT)
one.expect(r"\$ ")
one.type("stty size; tput cols\r")
said.append(one.expect(r"(24 80)"))
one.resize(40, 132)
for _ in range(40):                       # the signal takes its way
    one.type("stty size\r")
    if "40 132" in one.expect(r"(\d+ \d+)\r"):
        break
said.append("resized")
one.type("echo before; sleep 60; echo not reached\r")
one.expect(r"[\r\n]before\r")
time.sleep(0.3)
one.type("\x03")
one.expect(r"\^C")
one.type("echo $((6 * 7))\r")
said.append(one.expect(r"[\r\n](42)\r"))
one.type("read -s word\r")
time.sleep(0.2)
one.type("swordfish\r")
one.type("echo len=${#word}\r")
said.append(one.expect(r"[\r\n](len=9)\r"))
assert b"swordfish" not in one.seen
one.type("printf '\\033[31mred\\033[0m \\342\\202\\254\\n'\r")
said.append(one.expect("[\r\n](\x1b\\[31mred\x1b\\[0m \u20ac)\r"))
one.type("cat\r")
time.sleep(0.2)
one.type("line\r\x04")
one.expect(r"line\r\nline\r\n")
one.type("\r~B")                          # a break, which nothing there answers
time.sleep(0.2)
one.type("\recho after break\r")
said.append(one.expect(r"[\r\n](after break)\r"))
one.type("exit 9\r")
said.append(one.end())

one = Terminal("ssh", AT)
one.expect(r"\$ ")
one.type("\r~.")                          # the client leaves
said.append(one.end())

said.append(run("ssh", "-T", AT, input=b"echo no terminal; tty; exit 6\n"))
said.append(run("ssh", "-tt", AT, "stty raw -echo; echo ready; head -c 5 | od -An -c", input=b"\x00\x01\xffab"))
finish()
