"""Conversations of SFTP, packet by packet: the gate, and what each side got of it."""
from __future__ import annotations

from struct import pack
from typing import Final

from filedesk import FileDesk

from agent.contract.target import ContentLabel
from enforcer.protocols.ssh.sftp import Gate
from enforcer.protocols.ssh.sftp import messages as m

S = m.string
OFFERED: Final = b"".join(S(name) + S(value) for name, value in m.EXTENSIONS.items())


def u32(*values: int) -> bytes:
    return pack(f">{len(values)}I", *values)


def u64(value: int) -> bytes:
    return pack(">Q", value)


def named(number: int, *names: bytes) -> bytes:
    return m.render(m.NAME, number, u32(len(names)), *(S(name) + S(name) + u32(0) for name in names))


def status(number: int, code: int = 0) -> bytes:
    return m.render(m.STATUS, number, u32(code), S(b"told"), S(b"en"))


def kinds(packets: list[bytes]) -> list[int]:
    return [packet[4] for packet in packets]


class Talk:
    def __init__(
        self, desk: FileDesk | None = None, labels: tuple[ContentLabel, ...] = (), payload: str = "content",
        ready: bool = True,
    ) -> None:
        self.desk = desk or FileDesk()
        self.client: list[bytes] = []
        self.server: list[bytes] = []
        self.ends = 0
        self.said: list[str] = []
        self.gate = Gate(
            self.desk, self.client.append, self.server.append, labels, payload, self._end, self.said.append)
        if ready:
            self.ask(m.render(m.INIT, 3))
            self.hear(m.render(m.VERSION, 3, OFFERED))
            self.answer(named(0, b"/home/u"))
            for packet in self.server[1:-1]:             # no links are known
                self.hear(status(int.from_bytes(packet[5:9], "big"), 2))
            self.client.clear()
            self.server.clear()

    def _end(self) -> None:
        self.ends += 1

    def ask(self, *packets: bytes) -> None:
        for packet in packets:
            self.gate.from_client(packet)

    def hear(self, data: bytes) -> None:
        self.gate.from_server(data)

    def answer(self, packet: bytes) -> None:
        """The last that the server got."""
        self.hear(packet[:5] + self.server[-1][5:9] + packet[9:])

    def real(self, links: dict[bytes, bytes] | None = None) -> None:
        """Answers REALPATH and LSTAT until something else comes."""
        while self.server and all(packet[4] in (m.REALPATH, m.LSTAT) for packet in self.server):
            packet = self.server.pop(0)
            number, path = int.from_bytes(packet[5:9], "big"), packet[13:]
            if packet[4] == m.REALPATH:
                self.hear(named(number, (links or {}).get(path, path)))
            else:
                self.hear(m.render(m.ATTRS, number, u32(4, 0o120777 if path in (links or {}) else 0o100644)))

    def open(self, path: bytes = b"/f", flags: int = m.FLAG_READ, handle: bytes = b"h", number: int = 1) -> None:
        self.ask(m.render(m.OPEN, number, S(path), u32(flags, 0)))
        self.real()
        opening = self.server.pop(0)
        assert opening[4] == m.OPEN
        self.real()
        self.hear(m.render(m.HANDLE, int.from_bytes(opening[5:9], "big"), S(handle)))
        assert self.client.pop() == m.render(m.HANDLE, number, S(handle))
        self.server.clear()


def reading(number: int, handle: bytes = b"h", offset: int = 0, size: int = 10) -> bytes:
    return m.render(m.READ, number, S(handle), u64(offset), u32(size))


def writing(number: int, content: bytes, handle: bytes = b"h", offset: int = 0) -> bytes:
    return m.render(m.WRITE, number, S(handle), u64(offset), S(content))
