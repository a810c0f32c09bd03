"""OpenSSH's own clients, sftp and scp, with the gate before OpenSSH's server."""
from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from filedesk import FileDesk, secret
from sftpstage import SERVER

from agent.contract.target import ContentLabel
from enforcer.protocols.ssh.sftp import Gate

pytestmark = [
    pytest.mark.skipif(not SERVER.exists(), reason=f"no {SERVER}: apt-get install openssh-sftp-server"),
    pytest.mark.skipif(shutil.which("sftp") is None, reason="no sftp: apt-get install openssh-client"),
]
# What `sftp -D` starts: its input and output are the socket's.
RELAY = """#!{python} -I
import os, socket, threading
end = socket.socket(socket.AF_UNIX)
end.connect({socket!r})
def up():
    while data := os.read(0, 65536):
        end.sendall(data)
    end.shutdown(socket.SHUT_WR)
threading.Thread(target=up, daemon=True).start()
while data := end.recv(65536):
    os.write(1, data)
"""


@asynccontextmanager
async def served(desk: FileDesk, home: Path, labels: tuple[ContentLabel, ...] = ()) -> AsyncIterator[Path]:
    """A program that speaks as the server behind the gate does."""
    home.mkdir()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pipe = asyncio.subprocess.PIPE
        server = await asyncio.create_subprocess_exec(SERVER, "-d", home, stdin=pipe, stdout=pipe)
        assert server.stdin is not None
        assert server.stdout is not None
        gate = Gate(desk, writer.write, server.stdin.write, labels, "none", server.stdin.close)

        async def hear() -> None:
            assert server.stdout is not None
            while data := await server.stdout.read(1 << 18):
                gate.from_server(data)
            gate.server_eof()

        hearing = asyncio.ensure_future(hear())
        while data := await reader.read(1 << 18):
            gate.from_client(data)
        gate.client_eof()
        await hearing
        await server.wait()
        writer.close()

    place = home.parent / "socket"
    listener = await asyncio.start_unix_server(serve, place)
    program = home.parent / "relay"
    program.write_text(RELAY.format(python=sys.executable, socket=str(place)))
    program.chmod(0o755)
    try:
        yield program
    finally:
        listener.close()
        await listener.wait_closed()


async def run(*command: str | Path, batch: str = "") -> tuple[int, str]:
    pipe = asyncio.subprocess.PIPE
    client = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
    async with asyncio.timeout(60):
        out, _ = await client.communicate(batch.encode())
    assert client.returncode is not None
    return client.returncode, out.decode()


async def settled(desk: FileDesk) -> None:
    async with asyncio.timeout(10):
        while not desk.settled():
            await asyncio.sleep(0.01)


async def test_sftp(tmp_path: Path) -> None:
    content = os.urandom(5 << 20)
    (tmp_path / "big").write_bytes(content)
    (tmp_path / "half").write_bytes(content[:1 << 20])
    home = tmp_path / "home"
    desk = FileDesk(lambda action, path: "deny" if "forbidden" in path else "permit", keep=False)
    async with served(desk, home) as program:
        code, told = await run("sftp", "-D", program, "-b", "-", batch=f"""
            pwd
            mkdir d
            put {tmp_path}/big d/big
            get d/big {tmp_path}/back
            put {tmp_path}/half d/half
            reput {tmp_path}/big d/half
            ls -la d
            chmod 600 d/big
            rename d/big d/new
            ln -s new d/link
            ln d/new d/hard
            cp d/new d/copy
            df d
            -put {tmp_path}/big d/forbidden
            -rm d/forbidden
            rm d/link
            ls -1 d
            """)
        await settled(desk)
    assert code == 0, told
    assert f"Remote working directory: {home}" in told
    assert told.count("Permission denied") == 2
    assert "ls -1 d\nd/copy\nd/half\nd/hard\nd/new\n" in told, told
    assert (tmp_path / "back").read_bytes() == (home / "d/copy").read_bytes() == content
    assert (home / "d/half").read_bytes() == content


async def test_scp_as_it_is_today(tmp_path: Path) -> None:
    """It speaks SFTP."""
    source, home = tmp_path / "from", tmp_path / "home"
    (source / "deep").mkdir(parents=True)
    for number in range(50):
        (source / f"deep/{number}").write_text(str(number))
    (source / "big").write_bytes(os.urandom(3 << 20))
    desk = FileDesk()
    async with served(desk, home, secret("*/deep/7")) as program:
        code, told = await run("scp", "-D", program, "-s", "-rp", source, "host:up")
        assert (code, told.count("Permission denied")) == (1, 1), told
        assert desk.last("open").status
        (home / "up/deep/7").write_text("seven\n")
        code, told = await run("scp", "-D", program, "-s", "-rp", "host:up", tmp_path / "back")
        assert code == 0, told
        await settled(desk)
    assert (tmp_path / "back/deep/7").read_text() == "*****\n"
    for path in ("deep/8", "big"):
        assert (tmp_path / "back" / path).read_bytes() == (source / path).read_bytes()
