"""`weir run` on a terminal: the command has one of its own, and the person's is as it was afterwards."""
from __future__ import annotations

import os
import signal
import termios
from collections.abc import Iterator

import pytest
from launchhost import Host, Terminal

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    base = tmp_path_factory.mktemp("terminal")
    made = Host(base, f"weirtest-terminal{os.getpid()}")
    yield made
    made.close()


@pytest.fixture
def opened(host: Host) -> Iterator[list[Terminal]]:
    made: list[Terminal] = []
    yield made
    for terminal in made:
        terminal.close()


def test_it_has_a_terminal_of_its_own_and_it_is_the_controlling_one(host: Host, opened: list[Terminal]) -> None:
    script = "tty; : </dev/tty && echo open; stty size; ls -l /proc/self/fd/0 | grep -c pts"
    opened.append(terminal := Terminal(host, "sh", "-c", script))
    assert terminal.end() == 0
    lines = terminal.seen.replace(b"\r", b"").split(b"\n")
    assert lines[0].startswith(b"/dev/")
    assert lines[0] != os.ttyname(terminal.slave).encode() or b"pts" in lines[0]
    assert lines[1:4] == [b"open", b"33 111", b"1"]


def test_a_new_size_arrives(host: Host, opened: list[Terminal]) -> None:
    opened.append(terminal := Terminal(
        host, "sh", "-c", "trap 'stty size; exit 6' WINCH; echo ready; while :; do sleep 0.05; done"))
    terminal.until(b"ready")
    terminal.resize(50, 140)
    assert terminal.end() == 6
    assert b"50 140" in terminal.seen


def test_interrupt_key(host: Host, opened: list[Terminal]) -> None:
    opened.append(terminal := Terminal(
        host, "sh", "-c", "trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 0.05; done"))
    terminal.until(b"ready")
    terminal.type(b"\x03")
    assert terminal.end() == 9
    assert b"caught" in terminal.seen


def test_interrupt_key_ends_a_command_that_does_not_catch_it(host: Host, opened: list[Terminal]) -> None:
    opened.append(terminal := Terminal(host, "sh", "-c", "echo ready; exec sleep 1000"))
    terminal.until(b"ready")
    terminal.type(b"\x03")
    assert terminal.end() == 128 + signal.SIGINT


def test_stop_key_and_foreground_of_a_shell_with_job_control(host: Host, opened: list[Terminal]) -> None:
    opened.append(terminal := Terminal(host, "bash", "--norc", "--noprofile", "-i"))
    terminal.type(b"PS1=next'> '\r")
    terminal.until(b"next> ")
    # The quotes keep the terminal's echo of the typed line from being taken for the command's word.  No command in the
    # loop: a stop that comes between vfork(2) and execve(2) leaves the shell waiting for a child that is stopped.
    terminal.type(b"""sh -c 'trap "echo go""es" CONT; echo be""gun; while :; do :; done'\r""")
    terminal.until(b"begun\r\n")
    terminal.type(b"\x1a")
    terminal.until(b"Stopped")
    terminal.until(b"next> ")
    terminal.type(b"fg\r")
    terminal.until(b"goes\r\n")
    terminal.type(b"\x03")
    terminal.until(b"next> ")
    terminal.type(b"exit 4\r")
    assert terminal.end() == 4


def test_bytes_are_as_typed_and_the_command_sees_the_end(host: Host, opened: list[Terminal]) -> None:
    opened.append(terminal := Terminal(host, "sh", "-c", "stty -echo; echo ready; cat"))
    terminal.until(b"ready\r\n")
    terminal.type("grüße\r".encode())
    terminal.until("grüße\r\n".encode())
    terminal.type(b"\x04")
    assert terminal.end() == 0


def test_much_output_is_complete(host: Host, opened: list[Terminal]) -> None:
    opened.append(terminal := Terminal(host, "seq", "1", "60000"))
    assert terminal.end() == 0
    assert terminal.seen.replace(b"\r", b"").split() == [b"%d" % number for number in range(1, 60001)]


@pytest.mark.parametrize(("argv", "code"), [
    (("sh", "-c", "stty raw -echo; exit 3"), 3), (("sh", "-c", "kill -9 $$"), 137), (("nosuchcommand",), 127)])
def test_the_persons_terminal_is_restored(
    host: Host, opened: list[Terminal], argv: tuple[str, ...], code: int,
) -> None:
    opened.append(terminal := Terminal(host, *argv))
    assert terminal.end() == code
    assert termios.tcgetattr(terminal.slave) == terminal.before


def test_restored_after_a_signal_to_the_caller(host: Host, opened: list[Terminal]) -> None:
    opened.append(terminal := Terminal(host, "sh", "-c", "echo ready; exec sleep 1000"))
    terminal.until(b"ready")
    assert termios.tcgetattr(terminal.slave) != terminal.before
    terminal.process.terminate()
    assert terminal.end() == 128 + signal.SIGTERM
    assert termios.tcgetattr(terminal.slave) == terminal.before


def test_a_caller_that_is_killed_hangs_the_command_up(host: Host, opened: list[Terminal]) -> None:
    opened.append(terminal := Terminal(host, "sh", "-c", "echo ready; exec sleep 1000"))
    terminal.until(b"ready")
    number, _ = host.expect("launched")
    terminal.process.kill()
    assert host.ended(number) == 128 + signal.SIGHUP
    assert not host.commands()


def test_output_elsewhere_stays_elsewhere(host: Host, opened: list[Terminal]) -> None:
    """weir run ... 2>file: descriptors 0 and 1 are the command's own terminal, 2 is the file."""
    path = host.base / "errors"
    with path.open("wb") as file:
        opened.append(terminal := Terminal(host, "sh", "-c", "test -t 0 && test -t 1 && ! test -t 2; echo $? >&2",
                                           stderr=file))
        assert terminal.end() == 0
    assert path.read_bytes() == b"0\n"


def test_a_pipe_on_one_side_is_no_terminal(host: Host, opened: list[Terminal]) -> None:
    path = host.base / "out"
    with path.open("wb") as file:
        opened.append(terminal := Terminal(host, "sh", "-c", "test -t 1; echo $?", stdout=file))
        assert terminal.end() == 0
    assert path.read_bytes() == b"1\n"
