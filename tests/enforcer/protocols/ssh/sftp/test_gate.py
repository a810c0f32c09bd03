"""Conversations of SFTP, written down packet by packet; the server's side is what OpenSSH answers."""
from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from struct import pack
from typing import Final

import pytest
from filedesk import FileDesk, digest, secret
from hypothesis import given
from hypothesis import strategies as st
from sftpstage import SERVER

from agent.contract.target import ContentLabel
from enforcer.protocols.ssh.sftp import Gate
from enforcer.protocols.ssh.sftp import messages as m
from enforcer.words.errors import ProtocolError

S = m.string
CUTS: Final = (1, 2, 3, 5, 7, 64, 1 << 20)
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


# --- the beginning ---

def test_version_and_extensions() -> None:
    talk = Talk(ready=False)
    talk.ask(m.render(m.INIT, 6, S(b"x@y") + S(b"1")), m.render(m.LSTAT, 7, S(b"/a")))
    assert talk.server == [m.render(m.INIT, 3)]
    talk.hear(m.render(m.VERSION, 3, S(b"evil@x"), S(b"1"), S(b"copy-data"), S(b"1"), S(b"statvfs@openssh.com"), S(b"9")))
    assert talk.client == [m.render(m.VERSION, 3, S(b"copy-data"), S(b"1"))]
    assert kinds(talk.server) == [m.INIT, m.REALPATH]
    assert talk.gate.backlog > 0
    talk.answer(named(0, b"/home/u"))
    assert kinds(talk.server[2:]) == [m.REALPATH]        # of "/", where "/a" is
    talk.ask(m.render(m.EXTENDED, 8, S(b"hardlink@openssh.com"), S(b"/a"), S(b"/b")))
    assert talk.client[1][4:9] == bytes([m.STATUS]) + u32(8)
    assert talk.client[1][9:13] == u32(m.OP_UNSUPPORTED)


@pytest.mark.parametrize("packets", [
    [m.render(m.LSTAT, 1, S(b"/"))], [m.render(m.INIT, 3), m.render(m.INIT, 3)], [u32(4) + b"\1\0\0\0"],
    [u32(0)], [u32(256 * 1024 + 1)],
])
def test_a_client_that_begins_wrongly(packets: list[bytes]) -> None:
    talk = Talk(ready=False)
    with pytest.raises(ProtocolError):
        for packet in packets:
            talk.ask(packet)
            if talk.server:
                talk.hear(m.render(m.VERSION, 3))
                talk.answer(named(0, b"/"))


@pytest.mark.parametrize("packet", [m.render(m.VERSION, 2), m.render(m.VERSION, 6), status(3), b"\0\0\0\1\2"])
def test_a_server_that_begins_wrongly(packet: bytes) -> None:
    talk = Talk(ready=False)
    talk.ask(m.render(m.INIT, 3))
    with pytest.raises(ProtocolError):
        talk.hear(packet)


def test_a_server_that_speaks_first() -> None:
    with pytest.raises(ProtocolError, match="first"):
        Talk(ready=False).hear(m.render(m.VERSION, 3))


def test_without_a_home_relative_paths_are_refused() -> None:
    talk = Talk(ready=False)
    talk.ask(m.render(m.INIT, 3))
    talk.hear(m.render(m.VERSION, 3))
    talk.answer(status(0, 4))
    talk.server.clear()
    talk.ask(m.render(m.STAT, 1, S(b"x")), m.render(m.STAT, 2, S(b"/x")))
    assert talk.client[-1][9:13] == u32(m.FAILURE)
    assert kinds(talk.server) == [m.REALPATH, m.LSTAT]


# --- what is malformed ---

@pytest.mark.parametrize("packet", [
    m.render(m.OPEN, 1, S(b"/x"), u32(1)), m.render(m.OPEN, 1, S(b"/x"), u32(1, 0), b"x"), m.render(m.STAT, 1),
    m.render(m.STAT, 1, u32(100), b"x"), m.render(m.STAT, 1, S(b"/" * 4097)), m.render(m.STAT, 1, S(b"/a"), b"\0"),
    m.render(m.SETSTAT, 1, S(b"/x"), u32(0x10)), m.render(m.SETSTAT, 1, S(b"/x"), u32(0x80000000, 1 << 30)),
    m.render(m.CLOSE, 1, S(b"h" * 257)), m.render(m.CLOSE, 1, S(b"h"), b"x"), reading(1) + b"", m.render(m.READ, 1, S(b"h")),
    m.render(m.READ, 1, S(b"h"), u64(0), u32(1), b"x"), m.render(m.WRITE, 1, S(b"h"), u64(0), u32(5), b"four"),
    m.render(m.WRITE, 1, S(b"h"), u64(0), S(b"abc"), b"d"), m.render(m.EXTENDED, 1, u32(9)), m.render(m.EXTENDED, 1),
    m.render(m.EXTENDED, 1, S(b"copy-data"), S(b"h"), u64(0)), m.render(m.EXTENDED, 1, S(b"limits@openssh.com"), b"x"),
    m.render(m.EXTENDED, 1, S(b"users-groups-by-id@openssh.com"), S(b"abc"), S(b"")), b"\0\0\0\6\x05\0\0\0\0\0",
    m.render(m.FSETSTAT, 1, S(b"h"), u32(0x40)),
])
def test_packets_that_are_malformed(packet: bytes) -> None:
    talk = Talk()
    talk.open(flags=m.FLAG_READ | m.FLAG_WRITE)
    if packet == reading(1):
        packet += reading(1)                             # one id twice
    with pytest.raises(ProtocolError):
        talk.ask(packet)
    assert not talk.server or packet == reading(1) * 2


@pytest.mark.parametrize("packet", [
    status(99), m.render(m.DATA, 0, S(b"x")), m.render(m.ATTRS, 0, u32(0), b"x"), m.render(m.ATTRS, 0, u32(4)),
    status(0, 0), m.render(m.HANDLE, 0, S(b"h")), m.render(7, 0), m.render(m.STATUS, 0, u32(2), u32(50)), m.render(m.STATUS, 0),
])
def test_answers_that_are_wrong(packet: bytes) -> None:
    talk = Talk()
    talk.ask(m.render(m.STAT, 5, S(b"/x")))
    talk.real()
    number = int.from_bytes(packet[5:9], "big")
    told = packet if number else packet[:5] + talk.server[0][5:9] + packet[9:]
    with pytest.raises(ProtocolError):
        talk.hear(told)
    assert not talk.client


@pytest.mark.parametrize("names", [[], [b"/a", b"/b"], [b"relative"], [b"/nul\0"]])
def test_real_paths_that_are_none(names: list[bytes]) -> None:
    talk = Talk()
    talk.ask(m.render(m.STAT, 5, S(b"/x")))
    with pytest.raises(ProtocolError):
        talk.hear(named(int.from_bytes(talk.server[0][5:9], "big"), *names))


def test_data_that_nobody_asked_for() -> None:
    talk = Talk()
    talk.open()
    talk.ask(reading(5, size=3))
    with pytest.raises(ProtocolError, match="length"):
        talk.answer(m.render(m.DATA, 0, S(b"four")))


@pytest.mark.parametrize("name", [b"../x", b"a/b", b"", b"a\0"])
def test_names_of_a_hostile_server(name: bytes) -> None:
    talk = Talk()
    talk.ask(m.render(m.OPENDIR, 1, S(b"/d")))
    talk.real()
    opening = talk.server.pop(0)
    talk.real()
    talk.hear(m.render(m.HANDLE, int.from_bytes(opening[5:9], "big"), S(b"d")))
    talk.ask(m.render(m.READDIR, 2, S(b"d")))
    with pytest.raises(ProtocolError, match="name"):
        talk.answer(named(0, b".", name))


# --- handles ---

def test_a_handle_is_valid_for_what_it_was_opened_for() -> None:
    talk = Talk()
    talk.open()
    talk.ask(writing(2, b"x"), m.render(m.FSETSTAT, 3, S(b"h"), u32(1), u64(0)), reading(4, b"made up"),
             m.render(m.CLOSE, 5, S(b"made up")), m.render(m.READDIR, 6, S(b"h")))
    assert [packet[9:13] for packet in talk.client] == [u32(code) for code in (3, 3, 4, 4, 4)]
    assert not talk.server
    talk.ask(m.render(m.CLOSE, 7, S(b"h")), reading(8))
    assert kinds(talk.server) == [m.CLOSE]
    assert talk.client[-1][5:13] == u32(8, 4)


def test_open_flags() -> None:
    """OpenSSH reads what is opened with neither READ nor WRITE."""
    for flags, actions in {
        0: ["read"], m.FLAG_READ: ["read"], m.FLAG_WRITE: ["write"], m.FLAG_READ | m.FLAG_WRITE: ["read", "write"],
        m.FLAG_CREAT: ["read", "write"], m.FLAG_WRITE | m.FLAG_TRUNC: ["write"], m.FLAG_EXCL: ["read"],
        m.FLAG_READ | m.FLAG_TRUNC: ["read", "write"], m.FLAG_APPEND: ["read", "write"],
    }.items():
        talk = Talk()
        talk.open(flags=flags)
        assert talk.desk.last("open").requests == [(f"sftp:{action}", "/f") for action in actions]
    talk.ask(m.render(m.OPEN, 9, S(b"/x"), u32(0x41, 0)))
    assert talk.client[-1][9:13] == u32(m.OP_UNSUPPORTED)


def test_one_handle_keeps_its_order_while_another_goes_on() -> None:
    desk = FileDesk(lambda action, path: "hold" if action == "sftp:setstat" else "permit")
    talk = Talk(desk)
    talk.open(b"/a", 3, b"a")
    talk.open(b"/b", 3, b"b")
    talk.ask(writing(2, b"x", b"a"), m.render(m.FSETSTAT, 3, S(b"a"), u32(4, 0)), writing(4, b"y", b"a"),
             m.render(m.CLOSE, 5, S(b"a")), writing(6, b"z", b"b"),
             m.render(m.EXTENDED, 7, S(b"copy-data"), S(b"b"), u64(0), u64(0), S(b"a"), u64(0)), reading(8, b"b"))
    assert kinds(talk.server) == [m.WRITE, m.WRITE]      # what follows copy-data waits with it
    assert talk.gate.client_backlog > 0
    talk.gate.client_eof()
    assert talk.ends == 0
    desk.answer()
    assert kinds(talk.server) == [m.WRITE, m.WRITE, m.FSETSTAT, m.WRITE, m.CLOSE, m.READ]
    assert talk.client[-1][5:13] == u32(7, m.FAILURE)    # copy-data into what is closed
    assert (talk.gate.client_backlog, talk.ends) == (0, 1)


def test_a_thousand_handles_and_no_more() -> None:
    talk = Talk()
    for number in range(1000):
        talk.open(b"/f%d" % number, handle=b"%d" % number)
    talk.ask(m.render(m.OPEN, 1, S(b"/g"), u32(1, 0)))
    assert talk.client[-1][9:13] == u32(m.FAILURE)
    talk.ask(m.render(m.CLOSE, 2, S(b"7")), m.render(m.OPEN, 3, S(b"/g"), u32(1, 0)))
    assert m.REALPATH in kinds(talk.server)
    talk.gate.closed()
    assert talk.desk.settled()


def test_one_handle_given_twice() -> None:
    talk = Talk()
    talk.open(b"/a")
    with pytest.raises(ProtocolError, match="twice"):
        talk.open(b"/b")


# --- decisions ---

def test_what_is_denied_never_reaches_the_server() -> None:
    talk = Talk(FileDesk(lambda action, path: "deny"))
    for number, packet in enumerate((
        m.render(m.OPEN, 0, S(b"/x"), u32(26, 0)), m.render(m.REMOVE, 1, S(b"/x")), m.render(m.MKDIR, 2, S(b"/x"), u32(0)),
        m.render(m.SYMLINK, 3, S(b"t"), S(b"/x")), m.render(m.RENAME, 4, S(b"/x"), S(b"/y")), m.render(m.STAT, 5, S(b"/x")),
        m.render(m.REALPATH, 6, S(b"/x")), m.render(m.EXTENDED, 7, S(b"statvfs@openssh.com"), S(b"/x")),
        m.render(m.EXTENDED, 8, S(b"hardlink@openssh.com"), S(b"/x"), S(b"/y")), m.render(m.SETSTAT, 9, S(b"/x"), u32(0)),
        m.render(m.EXTENDED, 10, S(b"users-groups-by-id@openssh.com"), S(u32(0)), S(b"")),
    )):
        talk.ask(packet)
        talk.real()
        assert not talk.server
        assert talk.client[-1][:13] == m.render_status(number, 3, "forbidden by rule")[:13]
        assert b"forbidden by rule" in talk.client[-1]
    assert talk.said[0] == "open /x for writing: forbidden by rule"
    assert len(talk.said) == 11
    talk.ask(m.render(99, 20), m.render(m.EXTENDED, 21, S(b"evil@x")))
    assert [packet[9:13] for packet in talk.client[-2:]] == [u32(8)] * 2
    assert talk.desk.settled()


def test_two_paths_and_what_they_ask() -> None:
    talk = Talk(FileDesk(lambda action, path: "hold"))
    talk.ask(m.render(m.RENAME, 1, S(b"/a/x"), S(b"y")))
    talk.real()
    assert talk.desk.booked[max(talk.desk.booked)].requests == [
        ("sftp:rename", "/a/x"), ("sftp:rename", "/home/u/y"), ("sftp:write", "/home/u/y")]
    talk.ask(m.render(m.EXTENDED, 2, S(b"hardlink@openssh.com"), S(b"/b/x"), S(b"/b/y")))
    talk.real()
    assert talk.desk.booked[max(talk.desk.booked)].requests == [
        ("sftp:read", "/b/x"), ("sftp:write", "/b/x"), ("sftp:write", "/b/y")]
    talk.ask(m.render(m.SYMLINK, 3, S(b"../t"), S(b"/c/d/y")))
    talk.real()
    assert talk.desk.booked[max(talk.desk.booked)].requests == [("sftp:symlink", "/c/t"), ("sftp:symlink", "/c/d/y")]
    assert talk.desk.last("symlink").text == "symlink /c/d/y to ../t"


def test_limits_are_none_above_weirs_own() -> None:
    talk = Talk()
    talk.ask(m.render(m.EXTENDED, 4, S(b"limits@openssh.com")))
    talk.answer(m.render(m.EXTENDED_REPLY, 0, u64(1 << 40), u64(1000), u64(0), u64(5000)))
    assert talk.client == [m.render(m.EXTENDED_REPLY, 4, u64(1 << 18), u64(1000), u64(255 * 1024), u64(1000))]


# --- servers that do not resolve links ---

def test_a_server_that_leaves_links_in_is_not_believed() -> None:
    """As servers do whose REALPATH only takes `..` out."""
    talk = Talk()
    talk.ask(m.render(m.OPEN, 1, S(b"/pub/link"), u32(1, 0)))
    for packet in list(talk.server):
        number, path = int.from_bytes(packet[5:9], "big"), packet[13:]
        mode = 0o120777 if path == b"/pub/link" else 0o40755
        talk.hear(named(number, path) if packet[4] == m.REALPATH else m.render(m.ATTRS, number, u32(4, mode)))
    assert m.OPEN not in kinds(talk.server)
    assert b"has a link in it" in talk.client[-1]


def test_a_server_that_says_nothing_of_links_is_not_believed() -> None:
    talk = Talk()
    talk.ask(m.render(m.STAT, 1, S(b"/pub")))
    talk.hear(named(int.from_bytes(talk.server[0][5:9], "big"), b"/pub"))
    talk.hear(m.render(m.ATTRS, int.from_bytes(talk.server[1][5:9], "big"), u32(0)))
    assert b"does not say" in talk.client[-1]
    assert m.STAT not in kinds(talk.server)


def test_a_server_that_was_seen_to_follow_links_is_asked_less() -> None:
    talk = Talk()
    talk.ask(m.render(m.STAT, 1, S(b"/link")))
    talk.real({b"/link": b"/real"})
    assert (kinds(talk.server), talk.server[0][9:]) == ([m.STAT], S(b"/real"))
    talk.server.clear()
    talk.ask(m.render(m.STAT, 2, S(b"/a/b")))
    assert kinds(talk.server) == [m.REALPATH]


@pytest.mark.parametrize("follows", [False, True])
def test_a_server_whose_realpath_wants_the_file(follows: bool) -> None:
    """realpath(3) fails for what is not there yet: then its directory is asked for."""
    talk = Talk()
    if follows:
        talk.ask(m.render(m.STAT, 9, S(b"/link")))
        talk.real({b"/link": b"/real"})
        talk.server.clear()
    talk.ask(m.render(m.OPEN, 1, S(b"/d/new"), u32(10, 0)))
    for _ in range(4):
        packets, talk.server[:] = list(talk.server), []
        for packet in packets:
            number, path = int.from_bytes(packet[5:9], "big"), packet[13:]
            if packet[4] == m.OPEN:
                assert packet[9:] == S(b"/d/new") + u32(10, 0)
                return
            if path == b"/d/new":
                talk.hear(status(number, 2))
            else:
                talk.hear(named(number, path) if packet[4] == m.REALPATH else m.render(m.ATTRS, number, u32(4, 0o40755)))
    raise AssertionError("nothing was opened")


# --- however it is cut, wherever it ends ---

PLAY: Final = (
    m.render(m.INIT, 3), m.render(m.REALPATH, 1, S(b".")), m.render(m.OPEN, 2, S(b"a"), u32(26, 0)), writing(3, b"hello\n", b"H"),
    writing(4, b"world", b"H", 6), m.render(m.FSETSTAT, 5, S(b"H"), u32(4, 0o600)), m.render(m.CLOSE, 6, S(b"H")),
    m.render(m.OPEN, 7, S(b"a"), u32(1, 0)), reading(8, b"H", 0, 100), reading(9, b"H", 11, 100), m.render(m.CLOSE, 10, S(b"H")),
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
            data = await server.stdout.read(1 << 16)
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


# --- whatever comes ---

PATHS = st.sampled_from([b"/", b"/a", b"a", b"", b".", b"..", b"a/", b"//a/../b", b"/a/.", b"/\xff", b"/a\0", b"/secret/x"])
NAMES = st.sampled_from([b"h", b"H", b"", b"\0\0\0\0"])
NUMBERS = st.integers(0, 5)
ATTRIBUTES = st.sampled_from([u32(0), u32(4, 0o777), u32(1) + u64(3), u32(8, 1, 2), u32(0x80000000, 0), u32(99)])


@st.composite
def request(draw: Callable[[st.SearchStrategy[object]], object]) -> bytes:
    kind = draw(st.sampled_from([*range(1, 21), 99, m.EXTENDED]))
    parts: list[bytes] = []
    if kind == m.EXTENDED:
        parts.append(S(draw(st.sampled_from([*m.EXTENSIONS, b"evil"]))))
    for what in draw(st.lists(st.sampled_from("ppphhqia"), max_size=4)):
        source = {"p": PATHS, "h": NAMES, "q": st.integers(0, 9), "i": st.integers(0, 63), "a": ATTRIBUTES}[what]
        value = draw(source)
        parts.append(S(value) if what in "ph" else u64(value) if what == "q" else u32(value) if what == "i" else value)
    shapes = {m.OPEN: "pia", m.SETSTAT: "pa", m.MKDIR: "pa", m.READ: "hqi", m.CLOSE: "h", m.RENAME: "pp", m.STAT: "p"}
    if kind in shapes and draw(st.booleans()):
        parts = []
        for what in shapes[kind]:
            value = draw({"p": PATHS, "h": NAMES, "q": st.just(0), "i": st.integers(0, 63), "a": st.just(u32(0))}[what])
            parts.append(S(value) if what in "ph" else u64(value) if what == "q" else u32(value) if what == "i" else value)
    return m.render(kind, draw(NUMBERS), *parts)


ANSWERS = st.one_of(
    st.tuples(st.just(m.NAME), PATHS.map(lambda path: named(0, path)[9:])),
    st.tuples(st.just(m.ATTRS), ATTRIBUTES), st.tuples(st.just(m.STATUS), st.integers(0, 9).map(lambda code: status(0, code)[9:])),
    st.tuples(st.just(m.HANDLE), NAMES.map(S)), st.tuples(st.just(m.DATA), st.binary(max_size=9).map(S)),
    st.tuples(st.sampled_from([0, 101, 105, 201, 255]), st.binary(max_size=20)),
)
HARMLESS = {m.INIT, m.REALPATH, m.LSTAT, m.EXTENDED, m.CLOSE}


@given(st.lists(st.one_of(
    st.tuples(st.just("client"), request()), st.tuples(st.just("raw"), st.binary(max_size=30)),
    st.tuples(st.just("server"), ANSWERS), st.tuples(st.just("good"), st.just(b"")), st.tuples(st.just("verdict"), st.booleans()),
), max_size=40), st.sampled_from(["deny", "hold", "permit"]))
def test_whatever_is_said(steps: list[tuple[str, object]], decision: str) -> None:
    desk = FileDesk(lambda action, path: decision)
    talk = Talk(desk, secret("/secret/*"))
    asked: list[bytes] = []
    try:
        for who, data in steps:
            asked += talk.server
            talk.server.clear()
            permitted = {booked.verb for booked in desk.asked() if booked.decision == "permit"}
            if who == "client":
                talk.ask(data)  # type: ignore[arg-type]
            elif who == "raw":
                talk.ask(data)  # type: ignore[arg-type]
            elif who == "verdict" and desk.held:
                desk.answer(bool(data))
            elif who in ("server", "good") and asked:
                packet = asked.pop(0)
                number = packet[5:9]
                if who == "good" and packet[4] in (m.REALPATH, m.LSTAT, m.OPEN):
                    kind, body = {m.REALPATH: (m.NAME, named(0, packet[13:] or b"/")[9:]), m.LSTAT: (m.ATTRS, u32(4, 0o100644)),
                                  m.OPEN: (m.HANDLE, S(b"h"))}[packet[4]]
                else:
                    kind, body = data if who == "server" else (m.STATUS, status(0)[9:])  # type: ignore[misc]
                talk.hear(u32(5 + len(body)) + bytes([kind]) + number + body)
            if decision == "deny" or not permitted | {booked.verb for booked in desk.asked() if booked.decision == "permit"}:
                assert set(kinds(talk.server)) <= HARMLESS
    except ProtocolError:
        pass
    talk.gate.closed()
    assert desk.settled()
