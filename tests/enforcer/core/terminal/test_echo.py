"""What of the keys may be recorded: conversations first, then real programs on real terminals."""
from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import struct
import termios
import time
from collections.abc import Callable, Iterator
from fcntl import ioctl
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.core.terminal.echo import LONGEST_WAIT, PENDING, Echo, Piece
from enforcer.policy.visible import text_of

PASSWORD = b"korrekt7Pferd"


class Keys:
    """Both directions with a clock, and what may be recorded of the keys."""

    def __init__(self) -> None:
        self.echo, self.now = Echo(), 100.0
        self.pieces: list[Piece] = []

    def type(self, data: bytes) -> Keys:
        self.pieces += self.echo.typed(data, self.now)
        return self

    def show(self, data: bytes, after: float = 0.02) -> Keys:
        self.now += after
        self.pieces += self.echo.printed(data, self.now)
        return self

    def wait(self, seconds: float) -> Keys:
        self.now += seconds
        self.pieces += self.echo.due(self.now)
        return self

    @property
    def content(self) -> bytes:
        return b"".join(one.content for one in self.pieces)


def test_what_comes_back_is_recorded() -> None:
    keys = Keys().show(b"ada@host:~$ ").type(b"l")
    assert keys.content == b""
    assert keys.show(b"l").type(b"s").show(b"s").type(b"\r").content == b"ls\r"
    assert keys.echo.deadline is None
    assert keys.pieces[0] == Piece(0, 100.02, b"l")


def test_what_does_not_come_back_is_stars() -> None:
    keys = Keys().show(b"$ ").type(b"secret\r").show(b"\r\n$ ")
    assert keys.content == b""
    assert keys.echo.deadline == pytest.approx(101.02)
    assert keys.wait(1.0).content == b"******\r"


@pytest.mark.parametrize("prompt", [
    b"Password: ", b"ada@db's password: ", b"[sudo] password for ada: ",
    b"Enter passphrase for key '/home/ada/.ssh/id': ",
    b"Enter PIN: ", b"Verification code: ", b"\x1b[1mPasswort:\x1b[0m ", "Contraseña: ".encode(), "Пароль: ".encode(),
    "密码：".encode(), b"New password: ", b"Mot de passe : ", b"Last line\r\nPassword:", b"Vault token: ",
])
def test_a_prompt_for_a_password_hides_its_line_at_once(prompt: bytes) -> None:
    keys = Keys().show(prompt[:4]).show(prompt[4:]).type(PASSWORD)
    assert keys.content == b"*" * len(PASSWORD)
    assert keys.type(b"\x7fx\r").content == b"*" * (len(PASSWORD) + 2) + b"\r"
    assert keys.show(b"\r\n$ ").type(b"id").show(b"id").content.endswith(b"\rid")


@pytest.mark.parametrize("text", [b"$ ", b"login: ", b"Password changed.\r\n$ ", b"passwords: 3\r\n> ", b"Sure? "])
def test_what_is_no_prompt_for_a_password(text: bytes) -> None:
    assert Keys().show(text).type(b"yes").show(b"yes").content == b"yes"


def test_a_question_that_comes_again_hides_again() -> None:
    keys = Keys().show(b"Password: ").type(b"wrong\r").show(b"\r\nSorry, try again.\r\nPassword: ").type(b"right\r")
    assert keys.content == b"*****\r*****\r"


def test_a_prompt_that_was_typed_is_none() -> None:
    keys = Keys().show(b"$ ")
    for one in b"echo password: x":
        keys.type(bytes((one,))).show(bytes((one,)))
    assert keys.content == b"echo password: x"


def test_stars_that_come_back_are_no_letters() -> None:
    keys = Keys().show(b"? ")
    for one in b"abc":
        keys.type(bytes((one,))).show(b"*")
    assert keys.wait(5).content == b"***"


def test_output_that_begins_alike_shows_nothing() -> None:
    keys = Keys().show(b"").type(b"useless\r").show(b"\r\nuser@host:~$ ")
    assert keys.wait(5).content == b"*******\r"
    assert Keys().type(b"useless").show(b"user@host:~$ ").wait(5).content == b"*******"


def test_the_last_letters_alone_are_seen_and_those_before_are_not() -> None:
    assert Keys().type(b"i").show(b"-- INSERT --").type(b"x").show(b"x").content == b"*x"
    assert Keys().type(b"hunter2").show(b"2 jobs").wait(5).content == b"*******"


def test_behind_other_output() -> None:
    keys = Keys().type(b"make test").show(b"line of a log\r\nmake test")
    assert keys.content == b"make test"
    assert Keys().type(b"ab").show(b"x ab").wait(5).content == b"**", "two letters may be an accident"


def test_keys_that_are_no_letters_wait_for_none() -> None:
    keys = Keys().show(b"$ ").type(b"\x1b[A\t\x01\x1bOP")
    assert keys.content == b"\x1b[A\t\x01\x1bOP"
    assert keys.type(b"ls\t").show(b"ls").content.endswith(b"ls\t")


def test_it_waits_as_long_as_the_way_takes() -> None:
    keys = Keys()
    for _ in range(30):
        keys.type(b"x").show(b"x", 0.2)
    keys.type(b"y")
    assert keys.echo.deadline == pytest.approx(keys.now + 1.6, abs=0.1)
    near = Keys().type(b"x").show(b"x", 0.001).type(b"y")
    assert near.echo.deadline == pytest.approx(near.now + 0.8)


def test_no_more_waits_than_so_much() -> None:
    keys = Keys().type(b"a").type(b"secret\n" * PENDING + b"x" * PENDING)
    assert keys.content == b"*" + b"******\n" * PENDING
    assert keys.echo.unseen == 1 + 6 * PENDING
    keys = Keys().show(b"Password: ").type(b"a\tb\nc" + b"x" * PENDING)
    assert keys.content == b"***\n*"
    keys = Keys().type(b"x" * (PENDING + 10))
    assert keys.content == b"*" * 10
    keys.pieces += keys.echo.end()
    assert keys.content == b"*" * (PENDING + 10)


@given(st.lists(st.tuples(st.sampled_from(("type", "show", "wait")), st.one_of(
    st.binary(max_size=12), st.sampled_from((b"abc", b"a", b"\r", b"\r\n", b"Password: ", b"\x1b[A", b"$ "))))))
def test_each_byte_once_in_order_and_in_time(steps: list[tuple[str, bytes]]) -> None:
    keys, typed = Keys(), b""
    times: list[float] = []
    for what, data in steps:
        if what == "type":
            typed += data
            times += [keys.now] * len(data)
            keys.type(data)
        elif what == "show":
            keys.show(data)
        else:
            keys.wait(0.7)
            assert keys.echo.deadline is None or keys.echo.deadline <= keys.now + LONGEST_WAIT
    keys.pieces += keys.echo.end()
    at = 0
    for piece in keys.pieces:
        assert piece.offset == at
        assert piece.at == times[at]
        at += len(piece.content)
    assert at == len(typed)
    assert all(one in (other, 42) for one, other in zip(keys.content, typed, strict=True))


# ---- real programs on real terminals


class Terminal(Keys):
    """A program on a pty of its own."""

    def __init__(self, *command: str, **environment: str) -> None:
        super().__init__()
        self.output = b""
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.execvpe(command[0], command, {
                "PATH": os.environ["PATH"], "TERM": "xterm", "HOME": "/nonexistent", "PS1": "> ", "LC_ALL": "C.UTF-8",
                **environment})
        ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))

    def until(self, pattern: bytes, of: Callable[[bytes], bytes] = text_of) -> Terminal:
        """Reads on until that is shown."""
        ends, seen = time.monotonic() + 20, len(self.output)
        while not re.search(pattern, of(self.output[seen:])):
            ready, _, _ = select.select([self.master], [], [], max(0, ends - time.monotonic()))
            assert ready, f"{pattern!r} did not come: {self.output[-300:]!r}"
            data = os.read(self.master, 4096)
            self.output += data
            self.show(data)
        return self

    def silent(self) -> Terminal:
        """Until the program reads a line without echo: nothing tells that, so the terminal is asked."""
        ends = time.monotonic() + 20
        while True:
            inputs, _, _, local = termios.tcgetattr(self.master)[:4]
            if inputs & termios.ICRNL and local & (termios.ECHO | termios.ICANON) == termios.ICANON:
                return self
            assert time.monotonic() < ends
            time.sleep(0.005)

    def key(self, data: bytes, shown: bytes = b"") -> Terminal:
        self.type(data)
        os.write(self.master, data)
        return self.until(shown) if shown else self

    def keys(self, text: bytes) -> Terminal:
        for one in text:
            self.key(bytes((one,)), re.escape(bytes((one,))))
        return self

    def end(self) -> None:
        self.pieces += self.echo.end()
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.master)


@pytest.fixture
def opened() -> Iterator[list[Terminal]]:
    terminals: list[Terminal] = []
    yield terminals
    for one in terminals:
        one.end()


def start(opened: list[Terminal], *command: str, **environment: str) -> Terminal:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed: apt-get install {command[0]}")
    opened.append(Terminal(*command, **environment))
    return opened[-1]


def shell(opened: list[Terminal]) -> Terminal:
    return start(opened, "bash", "--norc", "--noprofile", "-i").until(b"> $")  # type: ignore[return-value]


def test_a_shell(opened: list[Terminal]) -> None:
    keys = shell(opened).keys(b"echo one").key(b"\r", b"one\n> $")
    keys.key(b"echo two\r", b"two\n> $")
    keys.key(b"\x1b[A", b"echo two").key(b"\r", b"two\n> $")
    assert keys.content == b"echo one\recho two\r\x1b[A\r"


def test_a_password_of_a_shell_with_and_without_a_prompt(opened: list[Terminal]) -> None:
    keys = shell(opened).key(b"read -s -p 'Password: ' x\r", b"Password: $").silent().key(
        PASSWORD + b"\r", b"> $")
    assert keys.content == b"read -s -p 'Password: ' x\r" + b"*" * len(PASSWORD) + b"\r"
    keys.key(b"read -s x; echo done\r", b"done\n$").silent()
    for one in PASSWORD:
        keys.key(bytes((one,)))
    keys.key(b"\r", b"done\n> $").wait(3)
    assert PASSWORD not in keys.content
    assert keys.content.endswith(b"echo done\r" + b"*" * len(PASSWORD) + b"\r")


def test_a_terminal_whose_echo_is_off(opened: list[Terminal]) -> None:
    keys = start(opened, "sh", "-c", "stty -echo; echo ready; read x; stty echo; echo again; cat").until(b"ready\n")
    keys.silent().key(PASSWORD).key(b"\r", b"again\n").wait(3)
    assert keys.content == b"*" * len(PASSWORD) + b"\r"
    assert keys.key(b"seen\r", b"seen").content.endswith(b"\rseen\r")


def test_ssh_keygen(opened: list[Terminal], tmp_path: Path) -> None:
    keys = start(opened, "ssh-keygen", "-t", "ed25519").until(rb"\): $")
    path = os.fsencode(tmp_path / "key")
    keys.key(path, re.escape(path)).key(b"\r", rb"phrase.*: $").silent()
    keys.key(PASSWORD + b"\r", b"again: $").silent().key(PASSWORD + b"\r", b"fingerprint")
    assert keys.content == path + b"\r" + (b"*" * len(PASSWORD) + b"\r") * 2


def test_getpass_in_another_language(opened: list[Terminal]) -> None:
    keys = start(opened, "/usr/bin/python3", "-c",
                 "import getpass; getpass.getpass('Kennwort für ada: '); input('Name: ')")
    keys.until(b"ada: $").silent().key(PASSWORD + b"\r", b"Name: $").key(b"ada", b"ada")
    assert keys.content == b"*" * len(PASSWORD) + b"\rada"


def test_an_editor(opened: list[Terminal], tmp_path: Path) -> None:
    path = tmp_path / "notes"
    keys = start(opened, "vim", "-u", "NONE", "-N", str(path)).until(b"notes")
    keys.key(b"i", b"INSERT")
    keys.keys(b"plain words").key(b"\x1b").until(rb"\x1b\[1;11H", bytes)  # it is back on the last letter
    keys.key(b":wq", b":wq").key(b"\r", b"written")
    keys.wait(3)
    assert keys.content == b"*plain words\x1b:wq\r", "the key that begins to insert shows itself as no letter"


def test_tmux(opened: list[Terminal], tmp_path: Path) -> None:
    keys = start(opened, "tmux", "-L", f"weir-echo-{os.getpid()}", "-f", "/dev/null", "new-session",
                 "env PS1='> ' bash --norc --noprofile -i", HOME=str(tmp_path), TMUX_TMPDIR=str(tmp_path))
    keys.until(b"> ")
    keys.keys(b"read -s -p Password: x").key(b"\r", b"Password:")
    before = len(keys.content)
    for one in PASSWORD:
        keys.key(bytes((one,)))
    keys.key(b"\r", b"> ").wait(3)
    assert PASSWORD not in keys.content
    assert keys.content[before:].rstrip(b"\r") == b"*" * len(PASSWORD)
    keys.key(b"exit\r", b"exited")
