"""The control socket against hostile peers: what is malformed, slow or too much harms its own connection only."""
from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import socket
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent import control as controls
from agent.commands.asking import AskingError, NotRunning, ask, control_path
from agent.contract import control
from agent.control import PIECE, Control, Groups, Lately, Peer, find_peer
from agent.frames import Frames, send


class Actions:
    """What the agent would do; here only that it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        self.holding: list[socket.socket] = []

    async def run(self, request: control.Run, peer: Peer, connection: socket.socket, fds: list[int]) -> Any:
        self.asked.append(("run", request.workload, [os.fstat(fd).st_ino for fd in fds]))
        if request.workload == "taken":
            self.holding.append(socket.socket(fileno=os.dup(connection.fileno())))
            return None
        return control.Failed(125, "no")

    async def status(self) -> Any:
        self.asked.append(("status",))
        return control.Answered("as if")

    async def approvals(self) -> Any:
        return control.Approvals(())

    async def decide(self, request: controls.Deciding, peer: Peer) -> Any:
        approve = isinstance(request, control.Decide) and request.approve
        self.asked.append(("decide", request.ticket, approve, peer.user, peer.unix_groups))
        return control.Answered()

    async def elevate(self, request: control.Elevate, peer: Peer) -> Any:
        self.asked.append(("elevate", request.target, peer.user))
        return control.Requested("abcdefgh")

    async def sessions(self) -> Any:
        raise RuntimeError("a secret")

    async def stop(self) -> Any:
        return control.Answered()

    async def release(self, kill: bool) -> Any:
        return control.Answered(f"kill={kill}")

    async def reload(self) -> Any:
        return control.Answered("wrong: x")

    async def ledger(self) -> Any:
        return control.Answered("none yet")

    async def keys(self) -> Any:
        return control.Keys((), ())

    async def rotate(self, request: Any, peer: Peer) -> Any:
        return control.KeyRotated(f"{request} by {peer.user}")

    async def test_notify(self) -> Any:
        return control.NotifyTested("none yet")

    async def acknowledge(self, peer: Peer) -> Any:
        self.asked.append(("acknowledge", peer.user))
        return control.Answered()


class Here:
    def __init__(self, path: Path) -> None:
        self.path, self.actions = path, Actions()
        self.crews: set[int] = set()
        self.told: list[tuple[str, dict[str, object]]] = []
        self.groups = Groups(4242, 4243)
        self.control = Control(path, self.actions, lambda: self.groups, lambda pid: pid in self.crews,
                               lambda name, detail: self.told.append((name, detail)))

    async def ask(self, message: control.Message, **keywords: Any) -> control.Reply:
        return await asyncio.to_thread(ask, self.path, message, **keywords)

    async def raw(self, data: bytes, end: bool = True) -> bytes:
        reader, writer = await asyncio.open_unix_connection(str(self.path))
        writer.write(data)
        if end:
            writer.write_eof()
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""
        finally:
            writer.close()


@pytest.fixture
async def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Here]:
    monkeypatch.setattr(controls, "ASKING", 0.5)
    one = Here(tmp_path / "control.sock")
    one.control.open()
    yield one
    await one.control.close()
    for held in one.actions.holding:
        held.close()


async def test_anybody_may_connect_and_the_socket_is_there_only_when_it_listens(here: Here, tmp_path: Path) -> None:
    assert here.path.stat().st_mode & 0o777 == 0o666
    assert [path.name for path in tmp_path.iterdir()] == ["control.sock"]
    assert await here.ask(control.AskStatus()) == control.Answered("as if")
    await here.control.close()
    assert not here.path.exists()
    with pytest.raises(NotRunning):
        ask(here.path, control.AskStatus())
    here.control.open()


async def test_answers(here: Here) -> None:
    if os.geteuid() == 0:
        assert await here.ask(control.Release(True)) == control.Answered("kill=True")
        assert await here.ask(control.Reload()) == control.Answered("wrong: x")
        assert await here.ask(control.Decide("t", True)) == control.Answered()
        assert here.actions.asked[-1][:4] == ("decide", "t", True, pwd.getpwuid(0).pw_name)
    else:
        assert await here.ask(control.Reload()) == control.Refused("only root may do this")


ORDINARY, APPROVING = Peer(os.getpid(), 5000, 5000, ()), Peer(os.getpid(), 5001, 5001, (4242,))


@pytest.mark.parametrize(("request_", "ordinary", "approving"), [
    (control.Decide("t", True), False, True), (control.Decide("t", False), False, True),
    (control.ListApprovals(), False, True), (control.BreakGlass("t", "fire"), True, True),
    (control.Revoke("t"), True, True), (control.Elevate("shop", 60), True, True),
    (control.Acknowledge(), False, False), (control.Reload(), False, False), (control.AskSessions(), False, False),
    (control.KillSession("01"), False, False), (control.PutLock("workload", "crew"), False, False),
    (control.LiftLock("workload", "crew"), False, False),
], ids=lambda value: type(value).__name__ if isinstance(value, control.Message) else "")
async def test_who_may_ask_what(here: Here, request_: control.Request, ordinary: bool, approving: bool) -> None:
    for peer, may in ((ORDINARY, ordinary), (APPROVING, approving)):
        if may:
            here.control._permit(request_, peer)
        else:
            with pytest.raises(controls.Refusal, match="only root"):
                here.control._permit(request_, peer)


@pytest.mark.parametrize("message", [
    control.Elevate("shop", 60), control.BreakGlass("abcdefgh", "x"), control.Revoke("abcdefgh"),
    control.KillSession("01"), control.PutLock("workload", "crew"), control.LiftLock("workload", "crew"),
    control.Decide("abcdefgh", True)], ids=lambda one: type(one).__name__)
async def test_never_by_a_crew(here: Here, message: control.Message) -> None:
    here.crews.add(os.getpid())
    assert isinstance(await here.ask(message), control.Failed)
    assert here.actions.asked == []


async def test_a_crew_is_refused_before_it_has_said_anything(here: Here) -> None:
    here.crews.add(os.getpid())
    answer = control.parse_reply((await here.raw(control.render_frame(control.AskStatus())))[4:])
    assert answer == control.Failed(125, "a crew may not speak to Weir's agent")
    assert here.actions.asked == []
    for _ in range(20):
        await here.raw(control.render_frame(control.Stop()))
    assert [name for name, _ in here.told] == ["control.refused"]      # told once a second, not each time
    assert here.told[0][1]["pid"] == os.getpid()


async def test_little_is_read_of_who_is_refused(here: Here) -> None:
    """Not the whole of what it says that it will say; what it is told comes all the same."""
    here.crews.add(os.getpid())
    reader, writer = await asyncio.open_unix_connection(str(here.path))
    writer.write(control.HEADER.pack(control.LIMIT))
    sent = 0
    with contextlib.suppress(ConnectionError):
        while sent < control.LIMIT:
            writer.write(bytes(PIECE))
            sent += PIECE
            await asyncio.wait_for(writer.drain(), 20)
    assert sent < control.LIMIT // 2
    with contextlib.suppress(ConnectionError):
        assert b"a crew may not speak" in await reader.read(200)
    writer.close()
    whole = control.render_frame(control.Run("crew", "", (b"x" * 100_000,), b"/", {}, False))
    assert b"a crew may not speak" in await here.raw(whole), "an ordinary question is taken whole"


async def test_who_becomes_a_crew_between_connect_and_question_is_refused(here: Here) -> None:
    reader, writer = await asyncio.open_unix_connection(str(here.path))
    frame = control.render_frame(control.AskStatus())
    writer.write(frame[:5])
    await asyncio.sleep(0.05)
    here.crews.add(os.getpid())
    writer.write(frame[5:])
    assert b"a crew may not speak" in await reader.read()
    writer.close()
    assert here.actions.asked == []


async def test_a_peer_that_has_ended_cannot_be_told_and_is_refused(here: Here) -> None:
    """A child connects, hands the connection to us, and ends."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = os.fork()
        if child == 0:
            try:
                with socket.socket(socket.AF_UNIX) as sock:
                    sock.connect(str(here.path))
                    socket.send_fds(theirs, [b"x"], [sock.fileno()])
            finally:
                os._exit(0)
        _, [fd], _, _ = await asyncio.to_thread(socket.recv_fds, ours, 1, 1)
        await asyncio.to_thread(os.waitpid, child, 0)
        with socket.socket(fileno=fd) as connection:
            await asyncio.to_thread(_swallow, connection, control.render_frame(control.AskStatus()))
    assert here.actions.asked == []


def _swallow(connection: socket.socket, frame: bytes) -> None:
    try:
        connection.sendall(frame)
        connection.recv(4096)
    except (BrokenPipeError, ConnectionResetError):
        pass


@pytest.mark.parametrize("data", [
    b"", b"\x01", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x01\0\0\0\xc1", b"\x04\0\0\0\x93\x01\x02\x03",
    control.render_frame(control.Exited(3)), control.render_frame(control.Answered()), b"GET / HTTP/1.1\r\n\r\n",
    control.render_frame(control.Run("w", "", (b"id",), b"/", {}, False)),          # without descriptors
    control.render_frame(control.Decide("t", True)).replace(b"\xa1t", b"\xa1\xff"),
])
async def test_garbage(here: Here, data: bytes) -> None:
    said = await here.raw(data)
    assert b"Answered" not in said
    assert here.actions.asked == []
    assert await here.ask(control.AskStatus()) == control.Answered("as if")


async def test_byte_by_byte(here: Here) -> None:
    reader, writer = await asyncio.open_unix_connection(str(here.path))
    for byte in control.render_frame(control.AskStatus()):
        writer.write(bytes([byte]))
        await writer.drain()
    assert b"as if" in await reader.read()
    writer.close()


async def test_who_says_nothing_is_let_go(here: Here) -> None:
    assert await here.raw(b"\x10\0", end=False) == b""


async def test_one_uid_does_not_take_every_place(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    real = find_peer

    def as_somebody(connection: socket.socket) -> Peer:
        peer = real(connection)
        return Peer(peer.pid, 12345, 12345, (), peer.pidfd)

    silent = [await asyncio.open_unix_connection(str(here.path)) for _ in range(2)]
    monkeypatch.setattr(controls, "find_peer", as_somebody)
    monkeypatch.setattr(controls, "EACH", 3)
    silent += [await asyncio.open_unix_connection(str(here.path)) for _ in range(3)]
    await asyncio.sleep(0.05)
    with pytest.raises(AskingError):
        await here.ask(control.AskStatus())
    monkeypatch.setattr(controls, "find_peer", real)
    assert await here.ask(control.AskStatus()) == control.Answered("as if")
    for _, writer in silent:
        writer.close()
    await asyncio.sleep(0.6)
    assert not here.control._open


@pytest.mark.parametrize(("uid", "gid", "served"), [(12345, 12345, False), (12345, 4242, True), (0, 0, True)])
async def test_places_are_kept_for_approvers_and_root(
    here: Here, monkeypatch: pytest.MonkeyPatch, uid: int, gid: int, served: bool,
) -> None:
    real = find_peer
    monkeypatch.setattr(controls, "AT_ONCE", 8)
    monkeypatch.setattr(controls, "find_peer", lambda connection: Peer(os.getpid(), 2000 + connection.fileno(), 1, ()))
    silent = [await asyncio.open_unix_connection(str(here.path)) for _ in range(8)]
    await asyncio.sleep(0.05)
    monkeypatch.setattr(controls, "find_peer", lambda connection: Peer(real(connection).pid, uid, gid, ()))
    if served:
        assert await here.ask(control.AskStatus()) == control.Answered("as if")
    else:
        with pytest.raises(AskingError):
            await here.ask(control.AskStatus())
    for _, writer in silent:
        writer.close()


async def test_run_takes_exactly_its_descriptors(here: Here) -> None:
    request = control.render_frame(control.Run("w", "", (b"id",), b"/", {}, False))
    before = len(os.listdir("/proc/self/fd"))

    def go(count: int) -> bytes:
        with socket.socket(socket.AF_UNIX) as sock, open(os.devnull) as null:
            sock.connect(str(here.path))
            send(sock, request, [null.fileno()] * count)
            frames = Frames(sock, control.LIMIT)
            return frames.next() or b""

    assert b"no" in await asyncio.to_thread(go, 3)
    assert here.actions.asked == [("run", "w", [os.stat(os.devnull).st_ino] * 3)]
    for count in (1, 2, 5, 16):
        await asyncio.to_thread(go, count)
    await asyncio.to_thread(_too_many, go)
    await asyncio.sleep(0.05)
    assert len(os.listdir("/proc/self/fd")) == before


def _too_many(go: Any) -> None:
    try:
        go(40)
    except OSError:
        pass


async def test_a_connection_that_was_handed_on_stays_open(here: Here) -> None:
    def go() -> bytes:
        with socket.socket(socket.AF_UNIX) as sock, open(os.devnull) as null:
            sock.connect(str(here.path))
            send(sock, control.render_frame(control.Run("taken", "", (b"id",), b"/", {}, False)), [null.fileno()] * 3)
            return sock.recv(10)

    waiting = asyncio.create_task(asyncio.to_thread(go))
    while not here.actions.holding:
        await asyncio.sleep(0.01)
    here.actions.holding[0].sendall(b"launcher")
    assert await waiting == b"launcher"


async def test_a_bug_is_nobodys_business(here: Here, caplog: pytest.LogCaptureFixture) -> None:
    here.groups = Groups(os.getgid(), os.getgid())
    with pytest.raises(AskingError):
        await here.ask(control.AskSessions())
    assert "RuntimeError" in caplog.text
    assert "a secret" not in caplog.text
    assert await here.ask(control.AskStatus()) == control.Answered("as if")


async def test_stop_is_answered_and_the_end_is_its_end(here: Here) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: only root may stop")
    ended = threading.Event()

    def go() -> None:
        assert ask(here.path, control.Stop(), until_end=True) == control.Answered()
        ended.set()

    waiting = asyncio.create_task(asyncio.to_thread(go))
    await asyncio.sleep(0.1)
    assert not ended.is_set()
    await here.control.close()
    await asyncio.wait_for(waiting, 10)
    here.control.open()


def test_where_the_agent_listens(tmp_path: Path) -> None:
    file = tmp_path / "weir.toml"
    with pytest.raises(AskingError, match=r"weir\.toml: No such file"):      # never the default Weir in its place
        control_path(str(file))
    for text, wanted in (
        ("", "/run/weir"), ('[runtime]\nname = "lab"', "/run/lab"), ('[runtime]\nrun = "/a/b"', "/a/b"),
        ('[runtime]\nname = "lab"\n[enforcer]\nport = 1', "/run/lab"), ("[", "/run/weir"), ("runtime = 3", "/run/weir"),
    ):
        file.write_text(text)
        assert control_path(str(file)) == Path(wanted, "control.sock")


def test_what_is_asked_again_and_again_is_counted() -> None:
    now = [10.0]
    lately = Lately(lambda: now[0])
    assert [lately.again(7) for _ in range(3)] == [1, 0, 0]
    assert lately.again(8) == 1
    now[0] += 1.5
    assert [lately.again(7), lately.again(7)] == [3, 0]
    for one in range(controls.AT_ONCE + 1):
        lately.again(("uid", one))
    assert lately.again(7) == 1, "it remembers so many and no more"
