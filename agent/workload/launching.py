"""The agent's door to the launcher: spawned before anything else, spoken to over its channel."""
from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from agent.frames import FrameError, Frames, send_some
from agent.workload.launch import LIMIT, Ended, Launch, Launched, Ready, parse_from_launcher, render_frame

# The launcher must be this very code, wherever it was imported from; -I takes neither the environment nor the working
# directory.
_START = ("import sys; sys.path.insert(0, sys.argv.pop(1)); from agent.workload.launcher import main; "
          "sys.exit(main(sys.argv[1:]))")
_CHANNEL = 3                          # the descriptor's number in the launcher
_READY = 30.0                         # seconds that it may take to say so


class LauncherDoor:
    """`exits(ended)` for every command that ended or did not start; `lost()` when the launcher itself has ended, after
    `exits` for everything that it had."""

    def __init__(self, exits: Callable[[Ended], None], lost: Callable[[], None] = lambda: None) -> None:
        self._exits, self._lost = exits, lost
        self._sock: socket.socket | None = None
        self._pid = 0
        self._ready: asyncio.Future[None]
        self._waiting: dict[int, asyncio.Future[Launched | Ended]] = {}
        self._running: set[int] = set()
        self._sending = asyncio.Lock()
        self._ended = asyncio.Event()

    @property
    def pid(self) -> int:
        """0 where it has ended."""
        return self._pid

    async def start(self, owners: str = "") -> None:
        """`owners`: path of the pinned owner map; without it only launches of owner 0 are taken.  Also to start it
        again after `lost`.  Raises OSError where it cannot be started, or ends before it is ready."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        root = str(Path(__file__).resolve().parents[2])
        argv = [sys.executable, "-I", "-c", _START, root, "--channel", str(_CHANNEL)]
        with theirs:
            # posix_spawn: no object that would want the process to end before the agent does.
            self._pid = os.posix_spawn(
                sys.executable, [*argv, *(["--owners", owners] if owners else [])],
                {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}, setsigmask=[], setsigdef=[signal.SIGPIPE],
                file_actions=[(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                              (os.POSIX_SPAWN_DUP2, theirs.fileno(), _CHANNEL)])
        ours.setblocking(False)
        self._sock, self._frames = ours, Frames(ours, LIMIT)
        self._ended.clear()
        loop = asyncio.get_running_loop()
        loop.add_reader(ours.fileno(), self._on_readable)
        pidfd = os.pidfd_open(self._pid)
        loop.add_reader(pidfd, self._on_process, pidfd, self._pid)
        self._ready = loop.create_future()
        try:
            async with asyncio.timeout(_READY):
                await self._ready
        except TimeoutError:
            self.close()
            raise OSError(f"it was not ready within {_READY:.0f} s") from None

    def _on_process(self, pidfd: int, pid: int) -> None:
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)
        os.waitpid(pid, 0)
        if self._pid == pid:
            self._pid = 0

    async def launch(self, launch: Launch, connection: int, fds: Sequence[int], network: int) -> Launched | Ended:
        """Hand a caller's connection, its descriptors 0, 1, 2 and its network namespace over.  They stay the agent's to
        close afterwards.

        Answers when bubblewrap runs, or with the reason why not; the caller is told by the launcher itself.
        Raises OSError where the launcher is not there, ValueError where the launch is too long.
        """
        frame = render_frame(launch)
        if self._sock is None:
            raise OSError("the launcher is not running")
        answer: asyncio.Future[Launched | Ended] = asyncio.get_running_loop().create_future()
        self._waiting[launch.number] = answer
        try:
            async with self._sending:
                await self._send(frame, [connection, *fds, network])
            return await answer
        finally:
            self._waiting.pop(launch.number, None)

    def close(self) -> None:
        """Take nothing more; what runs goes on, served by the launcher until it ends."""
        if self._sock is not None:
            asyncio.get_running_loop().remove_reader(self._sock.fileno())
            self._sock.close()
            self._sock = None
            self._give_up("the agent stops")
            self._ended.set()
            self._failed("the agent stops")

    async def ended(self) -> None:
        await self._ended.wait()

    async def _send(self, frame: bytes, fds: list[int]) -> None:
        rest = memoryview(frame)
        while rest:
            if self._sock is None:
                raise OSError("the launcher has ended")
            try:
                rest = rest[send_some(self._sock, rest, fds):]
                fds = []
            except BlockingIOError:
                await self._writable(self._sock)

    @staticmethod
    async def _writable(sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        loop.add_writer(sock.fileno(), _resolve, ready)
        try:
            await ready
        finally:
            loop.remove_writer(sock.fileno())

    def _on_readable(self) -> None:
        try:
            there = self._frames.receive()
            while (body := self._frames.take()) is not None:
                self._on_message(parse_from_launcher(body))
        except BlockingIOError:
            return
        except (OSError, FrameError, msgspec.DecodeError):
            there = False
        if not there:
            self._on_lost()

    def _on_message(self, message: Ready | Launched | Ended) -> None:
        if isinstance(message, Ready):
            if not self._ready.done():
                self._ready.set_result(None)
            return
        if (answer := self._waiting.get(message.number)) and not answer.done():
            answer.set_result(message)
        if isinstance(message, Launched):
            self._running.add(message.number)
        else:
            self._running.discard(message.number)
            self._exits(message)

    def _on_lost(self) -> None:
        assert self._sock is not None
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._sock.fileno())
        loop.remove_writer(self._sock.fileno())
        self._sock.close()
        self._sock = None
        self._give_up("the launcher has ended")
        self._ended.set()
        if not self._failed("it ended before it was ready"):
            self._lost()

    def _failed(self, text: str) -> bool:
        """Whether somebody waits in `start`, who is told."""
        if self._ready.done():
            return False
        self._ready.set_exception(OSError(text))
        return True

    def _give_up(self, text: str) -> None:
        running, self._running = self._running, set()
        for number in sorted(running | set(self._waiting)):
            self._exits(Ended(number, 125, text))
        for number, answer in self._waiting.items():
            if not answer.done():
                answer.set_result(Ended(number, 125, text))


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
