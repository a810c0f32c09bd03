"""Conversations of SFTP, written down packet by packet; the server's side is what OpenSSH answers."""
from __future__ import annotations

import pytest
from filedesk import FileDesk
from sftptalk import S, Talk, kinds, named, reading, status, u32, u64, writing

from enforcer.protocols.ssh.sftp import messages as m
from enforcer.words.errors import ProtocolError

# --- the beginning ---

def test_version_and_extensions() -> None:
    talk = Talk(ready=False)
    talk.ask(m.render(m.INIT, 6, S(b"x@y") + S(b"1")), m.render(m.LSTAT, 7, S(b"/a")))
    assert talk.server == [m.render(m.INIT, 3)]
    offered = (b"evil@x", b"1", b"copy-data", b"1", b"statvfs@openssh.com", b"9")
    talk.hear(m.render(m.VERSION, 3, *map(S, offered)))
    assert talk.client == [m.render(m.VERSION, 3, S(b"copy-data"), S(b"1"))]
    assert (kinds(talk.server)[:2], talk.server[-1][13:]) == ([m.INIT, m.REALPATH], b".")
    assert talk.gate.backlog > 0
    talk.answer(named(0, b"/home/u"))
    assert talk.server[-1][4:5] + talk.server[-1][9:] == bytes([m.REALPATH]) + S(b"/")        # where "/a" is
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


def test_what_is_approved_holds_in_another_session() -> None:
    """Handles are the server's; what an approval is bound to names none."""
    exact = []
    for handle in (b"\0\0\0\0", b"other"):
        talk = Talk()
        talk.open(b"/a", 3, handle)
        talk.open(b"/b", 3, b"b" + handle)
        talk.ask(m.render(m.FSETSTAT, 3, S(handle), u32(4, 0o600)), m.render(
            m.EXTENDED, 4, S(b"copy-data"), S(handle), u64(1), u64(2), S(b"b" + handle), u64(3)))
        exact.append([booked.exact for booked in talk.desk.asked()])
    assert exact[0] == exact[1]
    assert exact[0][-1] == b"copy-data\0/a\0/b\0" + u64(1) + u64(2) + u64(3)


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
        m.render(m.OPEN, 0, S(b"/x"), u32(26, 0)), m.render(m.REMOVE, 1, S(b"/x")),
        m.render(m.MKDIR, 2, S(b"/x"), u32(0)),
        m.render(m.SYMLINK, 3, S(b"t"), S(b"/x")), m.render(m.RENAME, 4, S(b"/x"), S(b"/y")),
        m.render(m.STAT, 5, S(b"/x")),
        m.render(m.REALPATH, 6, S(b"/x")), m.render(m.EXTENDED, 7, S(b"statvfs@openssh.com"), S(b"/x")),
        m.render(m.EXTENDED, 8, S(b"hardlink@openssh.com"), S(b"/x"), S(b"/y")),
        m.render(m.SETSTAT, 9, S(b"/x"), u32(0)),
        m.render(m.EXTENDED, 10, S(b"users-groups-by-id@openssh.com"), S(u32(0)), S(b"")),
    )):
        talk.ask(packet)
        talk.real()
        assert not talk.server
        assert talk.client[-1][:13] == m.render_status(number, 3, "forbidden by rule")[:13]
        assert b"forbidden by rule" in talk.client[-1]
    assert talk.said[0] == "open /x for writing, create, truncate: forbidden by rule"
    assert len(talk.said) == 10       # but the last, which `ls -l` asks by itself
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


def test_what_waits_is_bounded() -> None:
    """Then the rest of what the client sends stays in the backlog, and goes on."""
    desk = FileDesk(lambda action, path: "hold")
    talk = Talk(desk)
    for number in range(1500):
        talk.ask(m.render(m.REMOVE, number, S(b"/d%d/x" % number)))
        talk.real()
    assert len(desk.held) == 128
    assert talk.gate.client_backlog > 1300 * 19
    while desk.held:
        desk.answer(False)
        talk.real()
    assert talk.gate.backlog == 0
    assert len(talk.client) == 1500
    assert not talk.server


def test_many_that_wait_for_one_another() -> None:
    talk = Talk(FileDesk(lambda action, path: "hold"))
    for number in range(1024):
        talk.ask(m.render(m.REMOVE, number, S(b"/x")))
    talk.real()
    assert len(talk.desk.held) == 1
    talk.desk.rule = lambda action, path: "deny"
    talk.desk.answer(False)
    talk.real()
    for _ in range(1024):
        talk.real()
    assert len(talk.client) == 1024


def test_an_answer_that_comes_after_the_end() -> None:
    desk = FileDesk(lambda action, path: "hold")
    talk = Talk(desk)
    talk.ask(m.render(m.REMOVE, 1, S(b"/x")))
    talk.real()
    number, then = desk.held[0]
    talk.gate.closed()
    talk.gate.closed()
    assert desk.withdrawn == 1
    desk.booked[number].decision = "permit"
    then(desk.verdict(number, True))
    assert desk.booked[number].status == "cancelled"
    assert not talk.server
    talk.ask(m.render(m.STAT, 2, S(b"/x")))
    talk.hear(status(1))
    assert talk.gate.backlog == 0


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


@pytest.mark.parametrize("known", [b"/proc/self", b"/bin", b""])
def test_a_server_is_known_by_a_link_that_most_have(known: bytes) -> None:
    talk = Talk(ready=False)
    talk.ask(m.render(m.INIT, 3))
    talk.hear(m.render(m.VERSION, 3))
    del talk.server[0]
    talk.real({b".": b"/home/u", known: b"/other"})
    talk.ask(m.render(m.STAT, 2, S(b"/a/b")))
    assert kinds(talk.server) == ([m.REALPATH] if known else [m.REALPATH, m.LSTAT, m.LSTAT])


def test_a_link_to_the_root() -> None:
    talk = Talk()
    talk.ask(m.render(m.STAT, 1, S(b"/link")))
    talk.real({b"/link": b"/"})
    assert (kinds(talk.server), talk.server[0][9:]) == ([m.STAT], S(b"/"))


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
                directory = m.render(m.ATTRS, number, u32(4, 0o40755))
                talk.hear(named(number, path) if packet[4] == m.REALPATH else directory)
    raise AssertionError("nothing was opened")
