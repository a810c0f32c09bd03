"""One conversation with OpenSSH's server: however it is cut, wherever it ends."""
from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import pytest
from filedesk import FileDesk, digest
from sftpstage import SERVER
from sftptalk import S, Talk, reading, u32, writing

from enforcer.protocols.ssh.sftp import Gate
from enforcer.protocols.ssh.sftp import messages as m

CUTS: Final = (1, 2, 3, 5, 7, 64, 1 << 20)
PLAY: Final = (
    m.render(m.INIT, 3), m.render(m.REALPATH, 1, S(b".")), m.render(m.OPEN, 2, S(b"a"), u32(26, 0)),
    writing(3, b"hello\n", b"H"),
    writing(4, b"world", b"H", 6), m.render(m.FSETSTAT, 5, S(b"H"), u32(4, 0o600)), m.render(m.CLOSE, 6, S(b"H")),
    m.render(m.OPEN, 7, S(b"a"), u32(1, 0)), reading(8, b"H", 0, 100), reading(9, b"H", 11, 100),
    m.render(m.CLOSE, 10, S(b"H")),
    m.render(m.REMOVE, 11, S(b"no")), m.render(m.EXTENDED, 12, S(b"posix-rename@openssh.com"), S(b"a"), S(b"b")),
    m.render(m.OPENDIR, 13, S(b".")), m.render(m.READDIR, 14, S(b"H")), m.render(m.CLOSE, 15, S(b"H")),
)


def rule(action: str, path: str) -> str:
    return "deny" if path.endswith("/no") else "permit"


async def record(home: Path) -> list[tuple[str, bytes]]:
    """Every step of this conversation with OpenSSH's server."""
    pipe = asyncio.subprocess.PIPE
    server = await asyncio.create_subprocess_exec(SERVER, "-d", home, stdin=pipe, stdout=pipe)
    assert server.stdin is not None
    assert server.stdout is not None
    steps: list[tuple[str, bytes]] = []
    answers: list[bytes] = []
    gate = Gate(FileDesk(rule), answers.append, server.stdin.write, payload="content")
    handle = b""
    for packet in PLAY:
        packet = packet.replace(S(b"H"), S(handle)) if handle else packet
        packet = u32(len(packet) - 4) + packet[4:]
        steps.append(("client", packet))
        count = len(answers)
        gate.from_client(packet)
        while len(answers) == count:
            size = await server.stdout.readexactly(4)      # one by one: Weir asks on in between, in this order
            data = size + await server.stdout.readexactly(int.from_bytes(size, "big"))
            steps.append(("server", data))
            gate.from_server(data)
        if answers[-1][4] == m.HANDLE:
            handle = answers[-1][13:]
    server.stdin.close()
    await server.wait()
    return steps


def replay(steps: list[tuple[str, bytes]], cut: int, end: int = 1 << 30) -> tuple[FileDesk, list[bytes], list[bytes]]:
    talk = Talk(FileDesk(rule), ready=False)
    for who, data in steps:
        data, end = data[:end], end - min(end, len(data))
        for at in range(0, len(data), cut):
            (talk.gate.from_client if who == "client" else talk.gate.from_server)(data[at:at + cut])
    talk.gate.client_eof()
    talk.gate.closed()
    assert talk.desk.settled()
    return talk.desk, talk.client, talk.server


@pytest.mark.skipif(not SERVER.exists(), reason=f"no {SERVER}: apt-get install openssh-sftp-server")
async def test_however_it_is_cut_and_wherever_it_ends(tmp_path: Path) -> None:
    steps = await record(tmp_path)
    assert (tmp_path / "b").read_bytes() == b"hello\nworld"
    desk, client, server = replay(steps, 1 << 20)
    assert len(client) == len(PLAY)
    assert [booked.tag for booked in desk.asked() if booked.verb == "open"] == [
        f"{verb} 11 bytes sha256={digest(b'hello' + bytes([10]) + b'world')}" for verb in ("wrote", "read")]
    for cut in CUTS:
        other, *sent = replay(steps, cut)
        assert sent == [client, server]
        assert other.booked == desk.booked
    for end in range(sum(len(data) for _, data in steps)):
        replay(steps, 1 << 20, end)
