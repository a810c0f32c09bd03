"""The process that starts commands inside the slice: root, single-threaded, without an event loop of the agent's.

`python -I -m agent.workload.launcher --channel FD [--owners PATH]`, spawned by agent/workload/launching.py.  Over the
channel come Launch messages with the caller's connection, its descriptors 0, 1 and 2, and the network namespace; from
then on this process speaks with the caller directly (agent/contract/control.py): Signal and Resize in, Started, Exited
and Failed out.

A command's life: the child makes its way down (agent/workload/sandbox.py) and becomes bubblewrap; `error` closes: it is
started.  bubblewrap ends: whatever is left in the cgroup is killed.  The cgroup is empty: it is removed, and caller and
agent are told the exit code.  A caller that goes away takes its command with it: SIGHUP, then after GRACE seconds
SIGKILL.

Where the agent dies the channel closes: nothing new is started, what runs is served until it ends.  Where this process
dies, bubblewrap's --die-with-parent ends every command: fail closed.
"""
from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import fcntl
import logging
import os
import resource
import select
import signal
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from agent import procfs
from agent.contract import control
from agent.contract.logs import log_to_stderr
from agent.frames import FrameError, Frames, send, send_some
from agent.workload import launch as channel
from agent.workload import terminal
from agent.workload.launch import Ended, Launch, Launched, Ready
from agent.workload.sandbox import NotStarted, check_descriptor, enter, read_caller
from agent.workload.seccomp import render_filter

LOG = logging.getLogger("weir.launcher")

GRACE: Final = 5.0                    # seconds between SIGHUP and SIGKILL after the caller has gone
LEFTOVER: Final = 10.0                # seconds that killed processes may take to go before the end is told without them
RUNNING_LIMIT: Final = 1000           # commands at a time
_AGAIN: Final = 0.005                 # seconds between looks for a payload that bubblewrap has not forked yet
_DESCRIPTORS_EACH: Final = 8
_IN, _GONE = select.EPOLLIN, select.EPOLLHUP | select.EPOLLERR
_PR_SET_NAME: Final = 15

# What a caller may ask for; a terminal's own keys arrive through the terminal.  To the command alone, or to its group.
_TO_GROUP: Final = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGSTOP, signal.SIGCONT})
_TO_COMMAND: Final = frozenset({signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH, signal.SIGALRM})

Call = Callable[[], None]
Mark = Callable[[int, int], None]     # pid, owner number
Tell = Callable[[channel.Message], None]


class Loop:
    """epoll, callbacks by descriptor, and one timer a name.  Everything here runs in one thread and never blocks."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._calls: dict[int, tuple[Call, Call]] = {}
        self._timers: dict[object, tuple[float, Call, Call]] = {}

    def watch(self, fd: int, call: Call, failed: Call, events: int = _IN) -> None:
        """`failed` is called where `call` raises: what nobody foresaw in one is not the end of the others."""
        self._calls[fd] = (call, failed)
        self._epoll.register(fd, events)

    def forget(self, fd: int) -> None:
        if self._calls.pop(fd, None):
            self._epoll.unregister(fd)

    def watches(self, fd: int) -> bool:
        return fd in self._calls

    def after(self, name: object, seconds: float, call: Call, failed: Call) -> None:
        self._timers[name] = (time.monotonic() + seconds, call, failed)

    def cancel(self, name: object) -> None:
        self._timers.pop(name, None)

    def once(self) -> None:
        ends = [end for end, _, _ in self._timers.values()]
        timeout = max(0.0, min(ends) - time.monotonic()) if ends else None
        for fd, _ in self._epoll.poll(timeout):
            if calls := self._calls.get(fd):
                _try(*calls)
        now = time.monotonic()
        for name in [name for name, (end, _, _) in self._timers.items() if end <= now]:
            if name in self._timers:
                _try(*self._timers.pop(name)[1:])


def _try(call: Call, failed: Call) -> None:
    try:
        call()
    except Exception:
        LOG.error("the launcher failed", exc_info=True)        # agent/contract/logs.py: what and where, not the text
        failed()


class Command:
    """One started command and everything that is open for it."""

    def __init__(self, loop: Loop, launch: Launch, client: socket.socket, tell: Tell) -> None:
        self.number, self._cgroup, self._notes = launch.number, launch.cgroup, launch.notes
        self._loop, self._client, self._tell = loop, client, tell
        self._frames = Frames(client, control.SPOKEN_LIMIT, descriptors=False)
        self._pid = self._pidfd = self._error = self._status = self._master = self._events = -1
        self._reported = self._started = self._there = self._finished = False
        self._lines = self._failure = b""
        self._code: int | None = None
        self._signals: deque[int] = deque(maxlen=16)

    # start

    def start(self, launch: Launch, fds: list[int], network: int, mark: Mark, program: bytes) -> None:
        """`network`: descriptor of the namespace.  Raises NotStarted, OSError; then `abandon`."""
        for name, fd in enumerate(fds):
            check_descriptor(fd, name)
        os.mkdir(self._cgroup, 0o755)
        self._there = True
        caller, slave = read_caller(self._client), -1
        if launch.tty:
            self._master, slave = terminal.open_terminal(launch.uid, launch.rows, launch.columns)
        # Descriptor 0 is the terminal in any case, 1 and 2 where the caller has not sent them elsewhere.
        stdio = [slave if launch.tty and (name == 0 or os.isatty(fd)) else fd for name, fd in enumerate(fds)]
        self._error, error = _pipe()
        self._status, status = _pipe()
        try:
            self._pid = os.fork()
            if self._pid == 0:
                enter(launch, caller, (stdio[0], stdio[1], stdio[2]), network, error, status, mark, program)
            self._pidfd = os.pidfd_open(self._pid)
        except OSError:
            if self._pid > 0:
                os.kill(self._pid, signal.SIGKILL)
                os.waitpid(self._pid, 0)
            raise
        finally:
            for fd in (error, status, slave):
                if fd >= 0:
                    os.close(fd)
        self._watch()

    def _watch(self) -> None:
        self._client.setblocking(False)
        self._loop.watch(self._pidfd, self._on_end, self._give_up)
        self._loop.watch(self._error, self._on_error, self._break_off)
        self._loop.watch(self._status, self._on_status, self._break_off)
        self._loop.watch(self._client.fileno(), self._on_client, self._break_off)

    def abandon(self, code: int, text: str) -> None:
        """It was refused, or could not be forked."""
        self._finish(control.Failed(code, text), Ended(self.number, code, text))

    # what happens

    def _on_error(self) -> None:
        """The child says why not, or closes the pipe by execve: bubblewrap runs."""
        piece = os.read(self._error, 4096)
        if piece:
            self._failure = (self._failure + piece)[:4096]
            return
        self._loop.forget(self._error)
        if not self._failure:
            self._started = True
            self._tell(Launched(self.number, self._pid))
            self._say(control.Started(self._pid, self._notes), [self._master] if self._master >= 0 else [])

    def _on_status(self) -> None:
        """bubblewrap's documents, one a line (bwrap(1), --json-status-fd).  "exit-code" is only said where the command
        was executed."""
        piece = os.read(self._status, 4096)
        if not piece:
            self._loop.forget(self._status)
            return
        *lines, rest = (self._lines + piece).split(b"\n")
        self._lines = rest[-4096:]
        self._reported = self._reported or any(b'"exit-code"' in line for line in lines)

    def _on_client(self) -> None:
        try:
            there = self._frames.receive()
            while (body := self._frames.take()) is not None:
                self._obey(control.parse_from_runner(body))
        except BlockingIOError:
            return
        except (OSError, FrameError, msgspec.DecodeError):
            there = False
        if not there:
            self._on_gone()

    def _obey(self, message: control.FromRunner) -> None:
        if isinstance(message, control.Resize):
            if self._master >= 0:
                terminal.apply_size(self._master, message.rows, message.columns)
        elif message.number in _TO_GROUP or message.number in _TO_COMMAND:
            self._signals.append(message.number)
            self._deliver()

    def _on_gone(self) -> None:
        self._loop.forget(self._client.fileno())
        self._client.close()
        if self._code is None:
            self._signals.append(signal.SIGHUP)
            self._deliver()
            self._loop.after((self.number, "grace"), GRACE, self._kill, self._break_off)
        if self._master >= 0:         # the kernel hangs the terminal up; nothing blocks on it any more
            os.close(self._master)
            self._master = -1

    def _deliver(self) -> None:
        """Signals in order, as soon as there is somebody to get them: bubblewrap's pid 1 would ignore them."""
        while self._signals and self._code is None:
            payload = self._payload()
            if not payload:
                self._loop.after((self.number, "signal"), _AGAIN, self._deliver, self._break_off)
                return
            number = self._signals.popleft()
            with contextlib.suppress(ProcessLookupError):
                if number in _TO_COMMAND:
                    os.kill(payload, number)
                else:
                    group = terminal.foreground(self._master) if self._master >= 0 else 0
                    os.killpg(group or payload, number)

    def _payload(self) -> int:
        """The command: process 2 of its pid namespace, once it leads a session of its own.  0: not yet."""
        try:
            with open(self._cgroup + "/cgroup.procs") as file:
                members = [int(line) for line in file]
        except OSError:
            return 0
        return next((pid for pid in members if _is_payload(pid)), 0)

    def _kill(self) -> None:
        with contextlib.suppress(OSError), open(self._cgroup + "/cgroup.kill", "w") as file:
            file.write("1")

    def _break_off(self) -> None:
        """Something that nobody foresaw: this command ends.  Only its end is waited for."""
        self._failure = _BROKEN
        for fd in (self._error, self._status, self._client.fileno()):
            if fd >= 0:
                self._loop.forget(fd)
        self._kill()

    def _give_up(self) -> None:
        """Not even its end goes as it should."""
        self._kill()
        self.abandon(125, _UNFORESEEN)

    # end

    def _on_end(self) -> None:
        _, status = os.waitpid(self._pid, 0)
        code = os.waitstatus_to_exitcode(status)
        self._loop.forget(self._pidfd)
        for fd, call in ((self._error, self._on_error), (self._status, self._on_status)):
            with contextlib.suppress(BlockingIOError):
                while self._loop.watches(fd):
                    call()
        self._code = 128 - code if code < 0 else code
        if self._started and not self._reported and code > 0 and not self._failure:
            # bubblewrap itself failed, and has said why on descriptor 2.
            self._failure = _NO_VIEW
        self._kill()
        self._events = os.open(self._cgroup + "/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        self._loop.watch(self._events, self._on_cgroup, self._give_up, select.EPOLLPRI)
        self._loop.after((self.number, "leftover"), LEFTOVER, self._told, self._give_up)
        self._on_cgroup()

    def _on_cgroup(self) -> None:
        """kernfs notifies of each change of cgroup.events (cgroup v2, "populated")."""
        if b"populated 0" in os.pread(self._events, 4096, 0):
            self._told()

    def _told(self) -> None:
        assert self._code is not None
        if self._failure:
            self.abandon(*_parse_failure(self._failure))
        else:
            self._finish(control.Exited(self._code), Ended(self.number, self._code))

    def _finish(self, to_client: control.Message, to_agent: channel.Message) -> None:
        if self._finished:
            return                    # no descriptor is closed twice: it may be another command's by then
        self._finished = True
        try:
            self._say(to_client)
            self._close()
        finally:
            self._tell(to_agent)

    def _close(self) -> None:
        for fd in (self._error, self._status, self._pidfd, self._events, self._client.fileno()):
            if fd >= 0:
                self._loop.forget(fd)
        for fd in (self._error, self._status, self._pidfd, self._events, self._master):
            if fd >= 0:
                os.close(fd)
        for name in ("grace", "signal", "leftover"):
            self._loop.cancel((self.number, name))
        self._client.close()
        if self._there:
            with contextlib.suppress(OSError):      # still populated after LEFTOVER: the agent sweeps the slice
                os.rmdir(self._cgroup)

    def _say(self, message: control.Message, fds: list[int] | None = None) -> None:
        """A few bytes into an empty buffer: a caller for whom they do not fit is gone."""
        with contextlib.suppress(OSError):
            send_some(self._client, control.render_frame(message), fds or [])


_NO_VIEW: Final = msgspec.msgpack.encode((125, "the workload's view could not be made: bwrap has said why; weir doctor "
                                               "looks for what this host keeps from it"))
_UNFORESEEN: Final = "the launcher met what it does not know, and ended the command"
_BROKEN: Final = msgspec.msgpack.encode((125, _UNFORESEEN))


def _parse_failure(body: bytes) -> tuple[int, str]:
    try:
        return msgspec.msgpack.decode(body, type=tuple[int, str])
    except msgspec.DecodeError:
        return 125, "the command could not be started"


def _pipe() -> tuple[int, int]:
    """Our end, read without blocking, and the child's."""
    ours, theirs = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(ours, False)
    return ours, theirs


def _is_payload(pid: int) -> bool:
    try:
        inner = next((line.split()[1:] for line in procfs.read_lines(pid, "status") if line.startswith("NSpid:")), [])
        return len(inner) > 1 and inner[-1] == "2" and os.getsid(pid) == pid
    except OSError:
        return False


class Launcher:
    def __init__(self, sock: socket.socket, mark: Mark, program: bytes) -> None:
        self._sock, self._mark, self._program = sock, mark, program
        self._frames = Frames(sock, channel.LIMIT)
        self._loop = Loop()
        self._commands: dict[int, Command] = {}
        self._open = True

    def run(self) -> None:
        """Until the channel is closed and the last command has ended."""
        self._sock.setblocking(False)
        self._loop.watch(self._sock.fileno(), self._on_channel, self._close)
        self._tell(Ready())
        while self._open or self._commands:
            self._loop.once()

    def _on_channel(self) -> None:
        try:
            there = self._frames.receive()
            while (body := self._frames.take()) is not None:
                self._on_launch(body, self._frames.take_descriptors(channel.DESCRIPTORS))
        except BlockingIOError:
            return
        except (OSError, FrameError) as reason:
            # Nothing that follows could be told apart: as if the agent had gone.
            LOG.error("the channel ends: %s", reason)
            there = False
        if not there:
            self._close()

    def _close(self) -> None:
        self._open = False
        self._loop.forget(self._sock.fileno())
        self._frames.close_descriptors()
        self._sock.close()

    def _on_launch(self, body: bytes, fds: list[int]) -> None:
        try:
            client = socket.socket(fileno=fds[0])
        except OSError:
            for fd in fds:
                os.close(fd)
            return LOG.error("a launch without a connection")
        try:
            self._launch(channel.parse_launch(body), client, fds[1:4], fds[4])
        except msgspec.DecodeError as reason:
            LOG.error("a malformed launch: %s", reason)
            client.close()
        finally:
            for fd in fds[1:]:
                os.close(fd)

    def _launch(self, launch: Launch, client: socket.socket, stdio: list[int], network: int) -> None:
        if launch.number in self._commands:
            client.close()
            return LOG.error("number %d is taken", launch.number)
        command = self._commands[launch.number] = Command(self._loop, launch, client, self._tell)
        try:
            channel.check_launch(launch)
            if len(self._commands) > RUNNING_LIMIT:
                raise NotStarted(125, f"{RUNNING_LIMIT} commands are running")
            command.start(launch, stdio, network, self._mark, self._program)
        except NotStarted as reason:
            command.abandon(reason.code, reason.text)
        except (OSError, ValueError) as reason:
            command.abandon(125, str(reason))
        except Exception:
            LOG.error("the launcher failed", exc_info=True)
            command.abandon(125, _UNFORESEEN)

    def _tell(self, message: channel.Message) -> None:
        if isinstance(message, Ended):
            self._commands.pop(message.number, None)
        if not self._open:
            return
        try:
            # The agent reads at once or is dead; to wait for a hung one would hang every command's end.
            self._sock.settimeout(1.0)
            send(self._sock, channel.render_frame(message))
            self._sock.setblocking(False)
        except OSError as reason:
            LOG.error("the agent does not take what it is told: %s", reason)
            self._close()


def open_owners(path: str) -> Mark:
    """The pinned owner map of the probes: key tgid, value owner number, both u32 (probes/bpf/abi.h)."""
    libbpf = ctypes.CDLL("libbpf.so.1", use_errno=True)
    libbpf.bpf_map_update_elem.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint64]
    fd = libbpf.bpf_obj_get(path.encode())
    if fd < 0:
        raise OSError(ctypes.get_errno(), "the owner map is not there", path)
    fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)

    def mark(pid: int, owner: int) -> None:
        if owner <= 0 or libbpf.bpf_map_update_elem(fd, struct.pack("=I", pid), struct.pack("=I", owner), 0) != 0:
            raise NotStarted(125, f"the owner mark could not be set: {errno.errorcode.get(ctypes.get_errno(), owner)}")

    return mark


def no_owners(pid: int, owner: int) -> None:
    """Without the probes there is nothing to write to: a launch that wants a mark is refused."""
    if owner != 0:
        raise NotStarted(125, "the launcher was started without the owner map")


def _prepare() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_NAME, b"weir-launcher", 0, 0, 0)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = RUNNING_LIMIT * _DESCRIPTORS_EACH + 100
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(wanted, 1024), max(hard, wanted, 1024)))
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):     # a terminal's ^C is meant for the agent
        signal.signal(number, signal.SIG_IGN)
    os.chdir("/")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="agent.workload.launcher")
    parser.add_argument("--channel", type=int, required=True, help="descriptor of a Unix stream socket")
    parser.add_argument("--owners", default="", help="pinned owner map; without it only launches of owner 0 are taken")
    given = parser.parse_args(arguments)
    if os.geteuid() != 0:
        parser.error("must run as root")
    os.set_inheritable(given.channel, False)
    os.closerange(given.channel + 1, 1 << 16)
    _prepare()
    log_to_stderr()
    mark = open_owners(given.owners) if given.owners else no_owners
    Launcher(socket.socket(fileno=given.channel), mark, render_filter()).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
