"""OpenSSH's own sftp-server over pipes, the gate before it, and asyncssh's client before that."""
from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncssh
from asyncssh.logging import logger
from asyncssh.sftp import start_sftp_client
from filedesk import FileDesk

from agent.contract.target import ContentLabel
from enforcer.protocols.ssh.sftp import Gate

SERVER = Path("/usr/lib/openssh/sftp-server")


class Pipe:
    """What asyncssh's client reads from and writes to."""

    def __init__(self, stage: Stage) -> None:
        self._stage, self._reader = stage, asyncio.StreamReader(limit=1 << 30)
        self.logger, self.channel = logger, SimpleNamespace(is_closing=lambda: False)
        self.feed = self._reader.feed_data

    async def readexactly(self, size: int) -> bytes:
        return await self._reader.readexactly(size)

    def get_extra_info(self, name: str, default: object = None) -> object:
        return "OpenSSH_9.2" if name == "server_version" else default

    def write(self, data: bytes) -> None:
        self._stage.gate.from_client(data)

    def close(self) -> None:
        self._reader.feed_eof()


class Stage:
    """`arrived`: a step of the test between what is sent to the server and what it gets."""

    def __init__(self, desk: FileDesk, labels: tuple[ContentLabel, ...], payload: str) -> None:
        self.desk = desk
        self.pipe = Pipe(self)
        self.server: asyncio.subprocess.Process
        self.sent: list[bytes] = []
        self.keep = True
        self.gate = Gate(desk, self.pipe.feed, self._to_server, labels, payload)
        self.client: asyncssh.SFTPClient
        self.tasks: list[asyncio.Task[Any]] = []

    def _to_server(self, data: bytes) -> None:
        assert self.server.stdin is not None
        if self.keep:
            self.sent.append(data[:64])
        self.server.stdin.write(data)

    def create_task(self, task: Coroutine[Any, Any, None], log: object = None) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(task))

    async def _hear(self) -> None:
        assert self.server.stdout is not None
        while data := await self.server.stdout.read(1 << 18):
            self.gate.from_server(data)


@asynccontextmanager
async def stage(
    desk: FileDesk, home: Path, labels: tuple[ContentLabel, ...] = (), payload: str = "content",
) -> AsyncIterator[Stage]:
    logging.getLogger("asyncssh").setLevel(logging.CRITICAL)
    one = Stage(desk, labels, payload)
    one.server = await asyncio.create_subprocess_exec(
        SERVER, "-d", home, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 22)
    one.create_task(one._hear())
    pipe: Any = one.pipe
    conn: Any = one
    one.client = await start_sftp_client(conn, asyncio.get_running_loop(), "strict", pipe, pipe, "utf-8", "strict", 3)
    try:
        yield one
    finally:
        one.gate.closed()
        one.pipe.close()
        assert one.server.stdin is not None
        one.server.stdin.close()
        await one.server.wait()
        await asyncio.gather(*one.tasks, return_exceptions=True)
    assert desk.settled()
