"""What the draft does not allow, of the client and of the server."""
from __future__ import annotations

import pytest
from sftptalk import S, Talk, named, reading, status, u32, u64

from enforcer.protocols.ssh.sftp import messages as m
from enforcer.words.errors import ProtocolError


@pytest.mark.parametrize("packet", [
    m.render(m.OPEN, 1, S(b"/x"), u32(1)), m.render(m.OPEN, 1, S(b"/x"), u32(1, 0), b"x"), m.render(m.STAT, 1),
    m.render(m.STAT, 1, u32(100), b"x"), m.render(m.STAT, 1, S(b"/" * 4097)), m.render(m.STAT, 1, S(b"/a"), b"\0"),
    m.render(m.SETSTAT, 1, S(b"/x"), u32(0x10)), m.render(m.SETSTAT, 1, S(b"/x"), u32(0x80000000, 1 << 30)),
    m.render(m.CLOSE, 1, S(b"h" * 257)), m.render(m.CLOSE, 1, S(b"h"), b"x"), reading(1),
    m.render(m.READ, 1, S(b"h")),
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
    status(0, 0), m.render(m.HANDLE, 0, S(b"h")), m.render(7, 0), m.render(m.STATUS, 0, u32(2), u32(50)),
    m.render(m.STATUS, 0),
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
