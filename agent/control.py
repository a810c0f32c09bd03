"""RUN/control.sock: who asks is settled by the kernel's word before anything is read, then what by one table.

A crew is refused whatever its uid: by the mark of the task that connected, by its cgroup, and where it cannot be told.
It is looked at when the connection is accepted and again when the question is complete.
"""
from __future__ import annotations

import asyncio
import errno
import grp
import logging
import os
import pwd
import select
import socket
import struct
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, get_args

import msgspec

from agent.contract import control
from agent.contract.control import Message, Request
from agent.frames import FrameError, Frames
from agent.layout import bound

LOG = logging.getLogger("weir.control")

AT_ONCE: Final = 128                  # connections,
KEPT: Final = 16                      # and so many more for approvers, and beyond these for root
EACH: Final = 16                      # of one uid; root is not counted
ASKING: Final = 5.0                   # seconds in which a question must be complete
TELLING: Final = 5.0                  # seconds in which an answer must be taken
OWN_ERROR: Final = 125
DROPPED: Final = 256 << 10            # bytes that are read of who is refused: more than a socket holds of them,
PIECE: Final = 16 << 10               # and that are in memory at a time
QUIET: Final = 1.0                    # seconds in which the same refusal is recorded once
_BACKLOG: Final = 128
_PEERGROUPS, _PEERPIDFD = 59, 77      # asm-generic/socket.h; SO_PEERPIDFD since Linux 6.5
_GROUPS_BYTES: Final = 1024           # what Python's getsockopt takes: 256 groups


Deciding = control.Decide | control.BreakGlass | control.Revoke
IdentityRequest = control.Login | control.FinishLogin | control.AwaitLogin | control.Logout | control.AskWhoAmI


@dataclass(frozen=True)
class Peer:
    """Who connected, as the kernel noted it at connect(2)."""

    pid: int
    uid: int
    gid: int
    groups: tuple[int, ...]           # supplementary
    pidfd: int = -1                   # -1: the kernel has none to give

    @property
    def user(self) -> str:
        """Name, or the number as text."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)

    @property
    def unix_groups(self) -> tuple[str, ...]:
        names = []
        for gid in (self.gid, *self.groups):
            with suppress(KeyError):
                names.append(grp.getgrgid(gid).gr_name)
        return tuple(dict.fromkeys(names))

    def is_there(self) -> bool:
        """Whether `pid` still is the process that connected, as far as this kernel can tell."""
        if self.pidfd >= 0:
            ended = select.poll()
            ended.register(self.pidfd, select.POLLIN)
            return not ended.poll(0)  # readable once it has ended, pidfd_open(2)
        return Path("/proc", str(self.pid)).exists()


class Actions(Protocol):
    """What the agent does when it is asked by somebody who may."""

    async def run(
        self, request: control.Run, peer: Peer, connection: socket.socket, fds: list[int]) -> Message | None: ...
    async def status(self) -> Message: ...
    async def approvals(self) -> Message: ...
    async def decide(self, request: Deciding, peer: Peer) -> Message: ...
    async def elevate(self, request: control.Elevate, peer: Peer) -> Message: ...
    async def sessions(self) -> Message: ...
    async def kill(self, request: control.KillSession, peer: Peer) -> Message: ...
    async def lock(self, request: control.PutLock | control.LiftLock, peer: Peer) -> Message: ...
    async def stop(self) -> Message: ...
    async def release(self, kill: bool) -> Message: ...
    async def reload(self) -> Message: ...
    async def keys(self) -> Message: ...
    async def rotate(self, request: control.RotateKey | control.RotateAuthority, peer: Peer) -> Message: ...
    async def ledger(self) -> Message: ...
    async def test_notify(self) -> Message: ...
    async def acknowledge(self, peer: Peer) -> Message: ...
    async def adopt(self, request: control.Adopt | control.Abandon, peer: Peer) -> Message: ...
    async def identity(self, request: IdentityRequest, peer: Peer) -> Message: ...


@dataclass(frozen=True)
class Groups:
    """Gids that may ask more than everybody."""

    approvers: int
    auditors: int


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


class Lately:
    """What was recorded less than QUIET seconds ago: whoever asks again and again fills no disk."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: OrderedDict[object, tuple[float, int]] = OrderedDict()

    def again(self, key: object) -> int:
        """How often it was asked about this since it said so last; 0: not to be recorded."""
        now = self._clock()
        last, untold = self._known.pop(key, (0.0, 0))
        quiet = bool(last) and now - last <= QUIET
        self._known[key] = (last, untold + 1) if quiet else (now, 0)
        while len(self._known) > AT_ONCE:
            self._known.popitem(last=False)
        return 0 if quiet else untold + 1


class Refusal(Exception):
    pass


class Control:
    """`is_crew(pid)` is the kernel side's; `tell(name, detail)` records."""

    def __init__(
        self, path: Path, actions: Actions, groups: Callable[[], Groups], is_crew: Callable[[int], bool],
        tell: Callable[[str, dict[str, object]], None],
    ) -> None:
        self._path, self._actions, self._groups = path, actions, groups
        self._is_crew, self._tell = is_crew, tell
        self._listener: socket.socket | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: Counter[int] = Counter()
        self._lately = Lately()
        self._kept: list[socket.socket] = []

    def open(self) -> None:
        """Listen; the socket appears by rename, so that a client never finds one that nobody listens on."""
        fresh = bound(self._path)
        fresh.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        listener.bind(str(fresh))
        fresh.chmod(0o666)            # every local user may ask; who it is decides
        listener.listen(_BACKLOG)
        fresh.rename(self._path)
        self._listener = listener
        asyncio.get_running_loop().add_reader(listener.fileno(), self._accept)

    async def close(self) -> None:
        """Accept nothing more; answers that are under way are finished for TELLING seconds at most."""
        if self._listener is None:
            return
        asyncio.get_running_loop().remove_reader(self._listener.fileno())
        self._path.unlink(missing_ok=True)
        self._listener.close()
        self._listener = None
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=TELLING)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        for connection in self._kept:
            connection.close()

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            connection, _ = self._listener.accept()
        except OSError:               # gone again, or out of descriptors
            return
        connection.setblocking(False)
        if len(self._tasks) >= AT_ONCE + 2 * KEPT:
            connection.close()
            return
        task = asyncio.get_running_loop().create_task(self._serve(connection))
        self._tasks.add(task)
        task.add_done_callback(self._served)

    def _served(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            LOG.error("a control connection failed: %s", type(task.exception()).__name__)

    async def _serve(self, connection: socket.socket) -> None:
        peer = None
        try:
            peer = find_peer(connection)
            if len(self._tasks) > self._places(peer) or (self._open[peer.uid] >= EACH and peer.uid != 0):
                return
            self._open[peer.uid] += 1
            try:
                await self._converse(connection, peer)
            finally:
                self._open[peer.uid] -= 1
                self._open += Counter()       # forgets uids with none
        except (OSError, TimeoutError, FrameError):
            pass                      # it went away, was too slow, or speaks something else
        finally:
            if peer is not None and peer.pidfd >= 0:
                os.close(peer.pidfd)
            if connection not in self._kept:
                connection.close()

    def _places(self, peer: Peer) -> int:
        """Whoever connects is looked at, so that others cannot shut out who answers holds or stops Weir."""
        if peer.uid == 0:
            return AT_ONCE + 2 * KEPT
        return AT_ONCE + KEPT if self._groups().approvers in (peer.gid, *peer.groups) else AT_ONCE

    async def _converse(self, connection: socket.socket, peer: Peer) -> None:
        frames = Frames(connection, control.LIMIT)
        request: Request | None = None
        try:
            refusal = self._refusal(peer)
            async with asyncio.timeout(ASKING):
                # Read in any case, or the peer would find a reset in place of the reason; a crew's bytes are dropped.
                body = await _next(connection, frames) if refusal is None else await _drop(connection)
            if body is None:
                return
            if refusal:
                raise refusal
            request = control.parse_request(body)
            self._check(peer, type(request).__name__)
            self._permit(request, peer)
            answer = await self._answer(request, peer, connection, frames)
        except Refusal as reason:
            # Whoever asked to run something knows Failed; so does everybody else.
            answer = control.Refused(str(reason)) if request and not isinstance(request, control.Run) else (
                control.Failed(OWN_ERROR, str(reason)))
        except msgspec.MsgspecError:
            answer = control.Refused("the question is malformed: weir and its agent are of different versions")
        finally:
            frames.close_descriptors()
        if answer is not None:
            await _send(connection, answer)

    def _refusal(self, peer: Peer) -> Refusal | None:
        try:
            self._check(peer, "connect")
        except Refusal as reason:
            return reason
        return None

    def _check(self, peer: Peer, what: str) -> None:
        """Raises Refusal for a crew, and for whom it cannot be told."""
        if peer.pid <= 0 or not peer.is_there():
            self._refuse(peer, what, "the process that connected has ended or cannot be seen")
        if self._is_crew(peer.pid):
            self._refuse(peer, what, "a crew may not speak to Weir's agent")
        if not peer.is_there():       # ended while it was looked at: what was looked at may be another
            self._refuse(peer, what, "the process that connected has ended")

    def _permit(self, request: Request, peer: Peer) -> None:
        who = {peer.gid, *peer.groups}
        wanted = {
            control.Run: "", control.AskStatus: "", control.ListApprovals: "approvers", control.Decide: "approvers",
            control.BreakGlass: "", control.Revoke: "", control.Elevate: "",
            **dict.fromkeys(get_args(IdentityRequest), ""),
            control.AskSessions: "auditors", control.AskLedger: "auditors",
        }.get(type(request), "root")
        if peer.uid == 0 or not wanted or (wanted != "root" and getattr(self._groups(), wanted) in who):
            return
        others = "" if wanted == "root" else (
            f" and members of the {wanted}' group ({_group_name(getattr(self._groups(), wanted))})")
        self._refuse(peer, type(request).__name__, f"only root{others} may do this")

    def _refuse(self, peer: Peer, what: str, reason: str) -> None:
        if self._lately.again((peer.uid, reason)):
            self._tell("control.refused", {"pid": peer.pid, "uid": peer.uid, "asked": what, "reason": reason})
        raise Refusal(reason)

    async def _answer(
        self, request: Request, peer: Peer, connection: socket.socket, frames: Frames,
    ) -> Message | None:
        if isinstance(request, control.Run):
            fds = frames.take_descriptors(3)
            try:
                return await self._actions.run(request, peer, connection, fds)
            finally:
                for fd in fds:
                    os.close(fd)
        if isinstance(request, Deciding):
            return await self._actions.decide(request, peer)
        if isinstance(request, control.Elevate):
            return await self._actions.elevate(request, peer)
        if isinstance(request, control.Adopt | control.Abandon):
            return await self._actions.adopt(request, peer)
        if isinstance(request, control.KillSession):
            return await self._actions.kill(request, peer)
        if isinstance(request, control.PutLock | control.LiftLock):
            return await self._actions.lock(request, peer)
        if isinstance(request, control.RotateKey | control.RotateAuthority):
            return await self._actions.rotate(request, peer)
        if isinstance(request, IdentityRequest):
            return await self._actions.identity(request, peer)
        if isinstance(request, control.Acknowledge):
            return await self._actions.acknowledge(peer)
        if isinstance(request, control.Release):
            return await self._actions.release(request.kill)
        if isinstance(request, control.Stop):
            self._kept.append(connection)     # its end tells the caller that it is done
        return await self._plain(request)

    def _plain(self, request: Request) -> Coroutine[Any, Any, Message]:
        table: dict[type[Any], Callable[[], Coroutine[Any, Any, Message]]] = {
            control.AskStatus: self._actions.status, control.ListApprovals: self._actions.approvals,
            control.AskSessions: self._actions.sessions, control.Stop: self._actions.stop,
            control.Reload: self._actions.reload, control.AskLedger: self._actions.ledger,
            control.AskKeys: self._actions.keys, control.TestNotify: self._actions.test_notify,
        }
        return table[type(request)]()


def find_peer(connection: socket.socket) -> Peer:
    """Raises OSError."""
    pid, uid, gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, _PEERGROUPS, _GROUPS_BYTES)
        groups = struct.unpack(f"{len(raw) // 4}I", raw)
    except OSError:                   # more than 256: none of them counts
        groups = ()
    try:
        pidfd = connection.getsockopt(socket.SOL_SOCKET, _PEERPIDFD)
    except OSError as reason:
        if reason.errno != errno.ENOPROTOOPT:
            raise                     # it has ended, and its pid may be another's
        pidfd = -1
    return Peer(pid, uid, gid, groups, pidfd)


async def _drop(connection: socket.socket) -> bytes | None:
    """Of somebody who is refused: the question, or the first DROPPED bytes of it, none of which are kept.  b"", or None
    at the end of the stream.  Raises OSError."""
    head, taken = b"", 0
    while taken < DROPPED and (len(head) < control.HEADER.size or (
            taken < control.HEADER.size + control.HEADER.unpack(head)[0])):
        await _readable(connection)
        with suppress(BlockingIOError):
            data = connection.recv(min(PIECE, DROPPED - taken))        # descriptors with it are closed by the kernel
            if not data:
                return None
            head, taken = (head + data)[:control.HEADER.size], taken + len(data)
    return b""


async def _next(connection: socket.socket, frames: Frames) -> bytes | None:
    """The next frame's body, None at the end of the stream.  Raises FrameError, OSError."""
    while (body := frames.take()) is None:
        await _readable(connection)
        with suppress(BlockingIOError):
            if not frames.receive():
                return None
    return body


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(connection.fileno(), _resolve, ready)
    try:
        await ready
    finally:
        loop.remove_reader(connection.fileno())


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


async def _send(connection: socket.socket, answer: Message) -> None:
    async with asyncio.timeout(TELLING):
        await asyncio.get_running_loop().sock_sendall(connection, control.render_frame(answer))
