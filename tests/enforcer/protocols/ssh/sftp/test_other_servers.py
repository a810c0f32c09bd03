"""asyncssh's server: it answers in another order than it was asked, and knows no directory but its root."""
from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncssh
import pytest
from asyncssh.logging import logger
from asyncssh.sftp import SFTPServerHandler, start_sftp_client
from filedesk import FileDesk, digest, secret

from agent.contract.target import ContentLabel
from enforcer.protocols.ssh.sftp import Gate


class Lexical(asyncssh.SFTPServer):
    """As Go's pkg/sftp: REALPATH takes `.` and `..` out, and nothing else."""

    def realpath(self, path: bytes) -> bytes:
        return os.path.normpath(b"/" + path)


class End:
    """What asyncssh reads from and writes to."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self.write, self._reader = write, asyncio.StreamReader(limit=1 << 30)
        self.feed, self.readexactly, self.logger = self._reader.feed_data, self._reader.readexactly, logger
        self.channel = SimpleNamespace(is_closing=lambda: False, wait_closed=lambda: asyncio.sleep(0))

    def get_extra_info(self, name: str, default: object = None) -> object:
        return "" if name.endswith("version") else default

    def close(self) -> None:
        self._reader.feed_eof()


@asynccontextmanager
async def served(
    desk: FileDesk, root: Path, kind: type[asyncssh.SFTPServer], labels: tuple[ContentLabel, ...] = (),
) -> AsyncIterator[asyncssh.SFTPClient]:
    loop, tasks = asyncio.get_running_loop(), []
    gate: Gate
    client: Any = End(lambda data: gate.from_client(data))
    server: Any = End(lambda data: gate.from_server(data))
    gate = Gate(desk, client.feed, server.feed, labels, "content")
    channel: Any = SimpleNamespace(get_extra_info=server.get_extra_info)
    handler = SFTPServerHandler(kind(channel, chroot=os.fsencode(root)), server, server, 3)
    tasks.append(loop.create_task(handler.run()))
    conn: Any = SimpleNamespace(create_task=lambda task, log: tasks.append(loop.create_task(task)))
    try:
        async with asyncio.timeout(60):
            yield await start_sftp_client(conn, loop, "strict", client, client, "utf-8", "strict", 3)
    finally:
        gate.closed()
        client.close()
        server.close()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert desk.settled()


def under(root: str) -> FileDesk:
    return FileDesk(lambda action, path: "permit" if path == root or path.startswith(f"{root}/") else "deny")


@pytest.mark.parametrize("kind", [asyncssh.SFTPServer, Lexical])
async def test_files_of_another_server(tmp_path: Path, kind: type[asyncssh.SFTPServer]) -> None:
    root, content = tmp_path / "root", os.urandom(20 << 20)
    (root / "in").mkdir(parents=True)
    (tmp_path / "big").write_bytes(content)
    desk = FileDesk()
    async with served(desk, root, kind, secret("/in/key")) as client:
        await client.put(str(tmp_path / "big"), "/in/big")
        await client.get("/in/big", str(tmp_path / "back"))
        await client.rename("/in/big", "in/other")
        assert sorted(str(name) for name in await client.listdir("in")) == [".", "..", "other"]
        (root / "in/key").write_text("secret\n")
        async with client.open("/in/key", "rb") as file:
            assert await file.read() == b"******\n"
        with pytest.raises(asyncssh.SFTPPermissionDenied):
            await client.posix_rename("/in/key", "/in/k")
        await client.remove("in/other")
    assert (tmp_path / "back").read_bytes() == content
    written, read, _ = (booked for booked in desk.asked() if booked.verb == "open")
    for booked, verb in ((written, "wrote"), (read, "read")):
        stream = booked.content("in" if verb == "wrote" else "out")
        assert booked.tag.startswith(f"{verb} {len(content)} bytes")
        assert digest(stream) in booked.tag
        assert "not in order" in booked.tag or stream == content


@pytest.mark.parametrize("kind", [asyncssh.SFTPServer, Lexical])
async def test_links_do_not_lead_out_of_another_server(tmp_path: Path, kind: type[asyncssh.SFTPServer]) -> None:
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_text(name)
    (tmp_path / "in/link").symlink_to("../out/x")
    (tmp_path / "in/dir").symlink_to("../out")
    (tmp_path / "in/dangling").symlink_to("../out/new")
    desk = under("/in")
    async with served(desk, tmp_path, kind) as client:
        for path in ("/in/link", "/in/dir/x", "/in/dir/../out/x", "in/./dir//x", "/out/x", "/in/../out/x"):
            with pytest.raises(asyncssh.SFTPError):
                await client.open(path, "rb")
        for path in ("/in/dangling", "/in/dir/new"):
            with pytest.raises(asyncssh.SFTPError):
                await client.open(path, "wb")
        async with client.open("/in/x", "rb") as file:
            assert await file.read() == b"in"
        async with client.open("/in/new", "wb") as file:
            await file.write(b"new")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["x"]
    assert (tmp_path / "in/new").read_bytes() == b"new"
    assert not any(booked.content("out") == b"out" for booked in desk.asked())
