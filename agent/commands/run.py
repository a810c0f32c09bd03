"""The caller's side of `weir run`: no privilege.

It asks over the control socket, hands over its descriptors 0, 1 and 2, and then stands for the command: signals and
window sizes go there, the exit code comes back.  Where descriptors 0 and 1 are a terminal the command gets one of its
own, and this process copies between the two in raw mode.
"""
from __future__ import annotations

import os
import select
import signal
import socket
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import Final

import msgspec

from agent.contract.control import (
    LIMIT,
    Exited,
    Failed,
    Message,
    Resize,
    Run,
    Signal,
    Started,
    ToRunner,
    parse_to_runner,
    render_frame,
)
from agent.frames import FrameError, Frames, send
from agent.workload import terminal

OWN_ERROR: Final = 125
_PIECE: Final = 1 << 16
_FORWARDED: Final = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
# Job control of the caller's shell, where the command has no terminal of its own.
_STOPPED: Final = (signal.SIGTSTP, signal.SIGCONT)


def run(control: str, workload: str, user: str, argv: Sequence[str], network: str = "") -> int:
    """The command's exit code as a shell's; 125 with a text on stderr where it is Weir that failed or refused."""
    try:
        for fd in (0, 1, 2):
            _open_missing(fd)
        with ExitStack() as stack:
            return _Runner(stack, control, workload, user, argv, network).run()
    except (FileNotFoundError, ConnectionRefusedError):
        return _fail(f"the agent is not running (no answer at {control}); nothing was started")
    except (OSError, FrameError, ValueError, msgspec.DecodeError) as reason:
        return _fail(str(reason))


def _open_missing(fd: int) -> None:
    """A descriptor that the caller has closed is /dev/null: the next one opened would take its number."""
    try:
        os.fstat(fd)
    except OSError:
        os.open(os.devnull, os.O_RDWR)     # the lowest free number, which is this one


def _fail(text: str, code: int = OWN_ERROR) -> int:
    with suppress(OSError):           # descriptor 2 may be what was refused
        os.write(2, "".join(f"weir: {line}\n" for line in text.splitlines()).encode())
    return code


class _Runner:
    def __init__(
        self, stack: ExitStack, control: str, workload: str, user: str, argv: Sequence[str], network: str,
    ) -> None:
        self._stack = stack
        self._tty = os.isatty(0) and os.isatty(1)
        rows, columns = terminal.size_of(0) if self._tty else (0, 0)
        self._request = Run(
            workload=workload, user=user, argv=tuple(map(os.fsencode, argv)), cwd=os.fsencode(os.getcwd()),
            env=dict(os.environb), tty=self._tty, rows=rows, columns=columns, network=network)
        self._sock = stack.enter_context(socket.socket(socket.AF_UNIX))
        self._sock.connect(control)
        self._frames = Frames(self._sock, LIMIT)
        self._answer: ToRunner | None = None
        self._master = -1
        self._printing = False
        self._typed = b""             # read from the caller's terminal, not yet taken by the command's
        self._poll = select.poll()

    def run(self) -> int:
        wakeup = self._catch_signals()
        send(self._sock, render_frame(self._request), [0, 1, 2])
        self._poll.register(wakeup, select.POLLIN)
        self._poll.register(self._sock, select.POLLIN)
        while (answer := self._frames.take()) is None:
            ready = [fd for fd, _ in self._poll.poll()]
            if wakeup in ready:       # not started: there is nobody else that the signal could be for
                return 128 + os.read(wakeup, 1)[0]
            if not self._frames.receive():
                return _fail("the agent closed the connection")
        first = parse_to_runner(answer)
        if isinstance(first, Failed):
            return _fail(first.text, first.code)
        if not isinstance(first, Started):
            raise ValueError("the agent answered out of turn")
        for note in first.notes:
            _fail(note)
        if self._tty:
            self._take_terminal()
        self._take_answer()               # a short command's end may have come with its beginning
        while self._answer is None:
            self._once(wakeup)
        return self._end()

    def _catch_signals(self) -> int:
        """A descriptor from which the numbers of caught signals are read, in order."""
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs):
            self._stack.enter_context(sock)
            sock.setblocking(False)
        self._stack.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(theirs.fileno()))
        caught = (*_FORWARDED, *((signal.SIGWINCH,) if self._tty else _STOPPED))
        for number in caught:
            # What the caller ignores (nohup, a background job of sh) stays ignored, as it would without Weir.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._stack.callback(signal.signal, number, signal.signal(number, lambda *_: None))
        return ours.fileno()

    def _take_terminal(self) -> None:
        [self._master] = self._frames.take_descriptors(1)
        self._stack.callback(os.close, self._master)
        os.set_blocking(self._master, False)
        self._stack.enter_context(terminal.raw(0))
        self._poll.register(0, select.POLLIN)
        self._poll.register(self._master, select.POLLIN)
        self._printing = True
        self._resize()

    def _once(self, wakeup: int) -> None:
        for fd, events in self._poll.poll():
            if fd == wakeup:
                for number in os.read(wakeup, 64):
                    self._on_signal(number)
            elif fd == self._sock.fileno():
                self._on_agent()
            elif fd == 0:
                self._on_typed()
            elif events & select.POLLOUT:
                self._feed()
            else:
                self._show()

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGWINCH:
            self._resize()
        elif number == signal.SIGTSTP:
            # SIGTSTP is ignored by an orphaned group, which the command's is.
            self._say(Signal(signal.SIGSTOP))
            os.kill(os.getpid(), signal.SIGSTOP)
        else:
            self._say(Signal(number))

    def _on_agent(self) -> None:
        if not self._frames.receive():
            self._answer = Failed(OWN_ERROR, "the launcher has ended, and the command with it")
            return
        self._take_answer()

    def _take_answer(self) -> None:
        if (body := self._frames.take()) is not None:
            self._answer = parse_to_runner(body)

    def _on_typed(self) -> None:
        """What the command's terminal does not take yet waits here, and nothing more is read."""
        with suppress(OSError):       # EIO: hung up
            self._typed = os.read(0, _PIECE)
        self._poll.unregister(0)
        if self._typed:
            self._feed()
        else:
            self._answer = Failed(OWN_ERROR, "the terminal has gone")

    def _feed(self) -> None:
        try:
            self._typed = self._typed[os.write(self._master, self._typed):]
        except BlockingIOError:
            pass
        except OSError:               # EIO: the last process on it has ended
            self._typed = b""
        if self._printing:
            self._poll.modify(self._master, select.POLLIN | (select.POLLOUT if self._typed else 0))
        if not self._typed:
            self._poll.register(0, select.POLLIN)

    def _show(self) -> bool:
        """Copy what the command printed; False at the end or where there is nothing."""
        try:
            piece = os.read(self._master, _PIECE)
        except BlockingIOError:
            return False
        except OSError:               # EIO, as above
            piece = b""
        if not piece:
            self._poll.unregister(self._master)
            self._printing = False
            return False
        _write(1, piece)
        return True

    def _resize(self) -> None:
        self._say(Resize(*terminal.size_of(0)))

    def _say(self, message: Message) -> None:
        with suppress(OSError):       # it has just ended; its exit code is on the way
            send(self._sock, render_frame(message))

    def _end(self) -> int:
        """Everything that the command printed is in its terminal by now: it and all its children have ended."""
        while self._printing and self._show():
            pass
        self._stack.close()
        if isinstance(self._answer, Failed):
            return _fail(self._answer.text, self._answer.code)
        if not isinstance(self._answer, Exited):
            raise ValueError("the agent answered out of turn")
        return self._answer.code


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data):]
