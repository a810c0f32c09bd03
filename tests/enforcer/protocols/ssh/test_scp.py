"""The legacy scp protocol: transcripts, and OpenSSH's own scp at both ends."""
from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest
from filedesk import FileDesk, digest, secret
from hypothesis import given
from hypothesis import strategies as st

from agent.contract.target import ContentLabel
from enforcer.protocols.ssh.scp import Call, Scp, parse_call
from enforcer.words.errors import ProtocolError

Step = tuple[str, bytes]


class Talk:
    """Both sides of a transfer; what each got."""

    def __init__(
        self, call: Call, desk: FileDesk | None = None, labels: tuple[ContentLabel, ...] = (), home: bytes = b"/home/u",
    ) -> None:
        self.desk = desk or FileDesk()
        self.client, self.server = bytearray(), bytearray()
        self.finished = 0
        self.scp = Scp(self.desk, self.client.extend, self.server.extend, call, labels, "content", self._end, home)

    def _end(self) -> None:
        self.finished += 1

    def play(self, steps: list[Step], cut: int = 1 << 20) -> None:
        for who, data in steps:
            hear = self.scp.from_client if who == "client" else self.scp.from_server
            for at in range(0, len(data), cut):
                hear(data[at:at + cut])


GET = Call(True, (b"/srv/d",), recursive=True)
PUT = Call(False, (b"/srv/up/",), recursive=True)
CONTENT = b"hello\nworld"
TREE = [b"D0755 0 d\n", b"T1 0 1 0\n", b"C0644 11 a\n", CONTENT + b"\0", b"C0600 0 empty\n", b"\0", b"E\n"]
DOWN: list[Step] = [
    ("client", b"\0"), *[step for data in TREE for step in (("server", data), ("client", b"\0"))]]
DOWN.remove(("server", b"T1 0 1 0\n"))
DOWN.insert(3, ("server", b"T1 0 1 0\n"))
UP: list[Step] = [({"client": "server", "server": "client"}[who], data) for who, data in DOWN]


@pytest.mark.parametrize("cut", [1, 2, 3, 5, 7, 1 << 20])
@pytest.mark.parametrize(("call", "steps"), [(GET, DOWN), (PUT, UP)])
def test_a_tree(call: Call, steps: list[Step], cut: int) -> None:
    talk = Talk(call)
    talk.play(steps, cut)
    talk.scp.client_eof()
    sink, source = (talk.client, talk.server) if call.source else (talk.server, talk.client)
    assert bytes(sink) == b"".join(TREE)
    assert source.count(b"\0") == len(source) == 8
    root, stream, verb = ("/srv/d", "out", "read") if call.source else ("/srv/up/d", "in", "wrote")
    assert [booked.requests for booked in talk.desk.asked()] == [
        [(f"scp:{'read' if call.source else 'write'}", path)] for path in (root, f"{root}/a", f"{root}/empty")]
    assert [booked.tag for booked in talk.desk.asked()] == [
        "", f"{verb} 11 bytes sha256={digest(CONTENT)}", "0 bytes"]
    assert talk.desk.booked[2].content(stream) == CONTENT
    assert talk.desk.settled()
    assert talk.finished == 1


@pytest.mark.parametrize(("call", "steps"), [(GET, DOWN), (PUT, UP)])
def test_an_end_anywhere(call: Call, steps: list[Step]) -> None:
    for cut in range(sum(len(data) for _, data in steps)):
        talk, left = Talk(call), cut
        for who, data in steps:
            talk.play([(who, data[:left])])
            left -= min(left, len(data))
        talk.scp.closed()
        talk.scp.closed()
        assert talk.desk.settled()


def test_denied_files_do_not_pass_and_the_rest_does() -> None:
    desk = FileDesk(lambda action, path: "deny" if path.endswith("/no") else "permit")
    talk = Talk(Call(True, (b"/srv/*",)), desk)
    talk.play([
        ("client", b"\0"), ("server", b"C0644 3 no\n"), ("server", b"C0644 2 yes\n"), ("client", b"\0"),
        ("server", b"hi\0"), ("client", b"\0")])
    assert bytes(talk.server) == b"\0\1scp: forbidden by rule\n\0\0"
    assert bytes(talk.client) == b"\1scp: forbidden by rule\nC0644 2 yes\nhi\0"


def test_what_is_not_permitted_yet_is_not_sent() -> None:
    desk = FileDesk(lambda action, path: "hold")
    talk = Talk(PUT, desk)
    talk.play([("server", b"\0"), ("client", b"C0644 3 a\nabc\0")])
    talk.scp.client_eof()
    assert (bytes(talk.server), talk.finished, talk.scp.backlog) == (b"", 0, 4)
    desk.answer()
    assert bytes(talk.server) == b"C0644 3 a\n"
    talk.play([("server", b"\0\0")])
    assert bytes(talk.server) == b"C0644 3 a\nabc\0"
    assert talk.finished == 1
    assert desk.settled()


def test_a_hold_is_given_up_with_the_channel() -> None:
    desk = FileDesk(lambda action, path: "hold")
    talk = Talk(PUT, desk)
    talk.play([("server", b"\0"), ("client", b"C0644 3 a\n")])
    number, then = desk.held[0]
    talk.scp.closed()
    assert (desk.held, desk.withdrawn) == ([], 1)
    desk.booked[number].decision = "permit"
    then(desk.verdict(number, True))                     # it came too late
    assert desk.booked[number].status == "cancelled"
    assert bytes(talk.server) == b""


def test_a_path_that_may_be_a_directory_is_asked_both_ways() -> None:
    talk = Talk(Call(False, (b"up",)), FileDesk(lambda action, path: "permit" if path == "/home/u/up/a" else "deny"))
    talk.play([("server", b"\0"), ("client", b"C0644 1 a\n")])
    assert talk.desk.booked[1].requests == [("scp:write", "/home/u/up"), ("scp:write", "/home/u/up/a")]
    assert bytes(talk.client) == b"\0\1scp: forbidden by rule; write / behind a directory\n"
    assert bytes(talk.server) == b""


@pytest.mark.parametrize(("operand", "home", "path"), [
    (b"~/x/", b"/home/u", "/home/u/x/a"), (b"~root/", b"/home/u", "~root/a"), (b".", b"/home/u", "/home/u/a"),
    (b"x/", b"", "./x/a"), (b"/srv//./x/", b"", "/srv/x/a"),
])
def test_paths_that_are_relative(operand: bytes, home: bytes, path: str) -> None:
    talk = Talk(Call(False, (operand,)), home=home)
    talk.play([("server", b"\0"), ("client", b"C0644 1 a\n")])
    assert talk.desk.booked[1].requests == [("scp:write", path)]


def test_the_server_may_be_asked_where_it_leads() -> None:
    desk = FileDesk()
    talk = Talk(PUT, desk)
    asked: list[bytes] = []

    def resolve(path: bytes, then: object) -> None:
        asked.append(path)
        then(b"/etc/cron.d/a")  # type: ignore[operator]

    talk.scp = Scp(desk, talk.client.extend, talk.server.extend, PUT, secret("/etc/*"), resolve=resolve)
    talk.play([("server", b"\0"), ("client", b"C0644 1 a\n")])
    assert asked == [b"/srv/up/a"]
    assert desk.booked[1].requests == [("scp:write", "/etc/cron.d/a")]
    assert desk.booked[1].status == "denied"             # the label is on it
    assert b"masked for you: secret" in bytes(talk.client)
    assert bytes(talk.server) == b""


@pytest.mark.parametrize("name", [b"..", b".", b"a/b", b"", b"a\x1b[2J", b"a\0b", b"\x7f"])
def test_names_of_a_hostile_server(name: bytes) -> None:
    """CVE-2019-6111, CVE-2018-20685, CVE-2019-6109."""
    talk = Talk(Call(True, (b"/srv/*",)))
    with pytest.raises(ProtocolError):
        talk.play([("client", b"\0"), ("server", b"C0644 1 " + name + b"\n")])
    assert bytes(talk.client) == b""
    assert not talk.desk.booked


def test_a_file_that_nobody_asked_for() -> None:
    talk = Talk(Call(True, (b"/srv/a", b"/srv/*.txt")))
    with pytest.raises(ProtocolError, match="nobody asked for"):
        talk.play([("client", b"\0"), ("server", b"C0644 1 .bashrc\n")])
    talk = Talk(Call(True, (b"/srv/a",)))
    with pytest.raises(ProtocolError, match="nobody asked for"):
        talk.play([("client", b"\0"), ("server", b"D0755 0 a\n")])


@pytest.mark.parametrize("line", [
    b"X", b"C0644 1", b"C644 1 a", b"C0648 1 a", b"C0644 -1 a", b"C0644 9999999999999999999 a", b"T1 0 1", b"E", b"\3",
    b"C0644 1 a" + b"a" * 5000, b"T1 0 1 0 x", b"No match.",
])
def test_garbage(line: bytes) -> None:
    talk = Talk(GET)
    with pytest.raises(ProtocolError):
        talk.play([("client", b"\0"), ("server", line + b"\n")])
    assert bytes(talk.client) == b""


def test_what_the_source_could_not_read_is_passed_on() -> None:
    talk = Talk(GET)
    talk.play([("client", b"\0"), ("server", b"\1scp: x: Permission denied\n"), ("server", b"D0755 0 d\n"),
               ("client", b"\1no room\n"), ("server", b"\2gone\n")])
    assert bytes(talk.client) == b"\1scp: x: Permission denied\nD0755 0 d\n\2gone\n"
    assert (talk.desk.booked[1].status, talk.desk.booked[1].error) == ("error", "no room")


def test_labels_mask_what_is_read_and_protect_what_is_written() -> None:
    talk = Talk(Call(True, (b"/srv/a",)), labels=secret("/etc/*"))     # a link could lead there
    talk.play([("client", b"\0"), ("server", b"C0644 7 a\n"), ("client", b"\0"), ("server", b"ab\ncd\ne\0"),
               ("client", b"\0")])
    assert bytes(talk.client) == b"C0644 7 a\n**\n**\n*\0"
    assert talk.desk.booked[1].content("out") == b"**\n**\n*"
    talk = Talk(PUT, labels=secret("/etc/*"))
    talk.play([("server", b"\0"), ("client", b"C0644 7 a\n")])
    assert bytes(talk.server) == b""
    assert talk.desk.booked[1].status == "denied"


@pytest.mark.parametrize(("words", "call"), [
    (b"scp -f /a", Call(True, (b"/a",))), (b"/usr/bin/scp -v -r -p -d -t -- /a", Call(False, (b"/a",), True, True)),
    (b"scp -rpt /a", Call(False, (b"/a",), True)), (b"scp -f /a /b*", Call(True, (b"/a", b"/b*"))),
    (b"scp -t /a /b", None), (b"scp -f", None), (b"scp -S x -f /a", None), (b"scp -t /srv/*", None),
    (b"scp -f /*/a", None), (b"scp -f -t /a", None), (b"scp /a host:/b", None), (b"cp -f /a", None),
])
def test_the_command_line(words: bytes, call: Call | None) -> None:
    assert parse_call(tuple(words.split())) == call


@given(st.lists(st.tuples(st.booleans(), st.one_of(
    st.binary(max_size=20), st.sampled_from([b"\0", b"\1x\n", b"\2\n", *TREE])))), st.booleans())
def test_whatever_comes(steps: list[tuple[bool, bytes]], gets: bool) -> None:
    """Never another exception, and nothing of a source to a sink that was not asked for."""
    desk = FileDesk(lambda action, path: "deny")
    talk = Talk(GET if gets else PUT, desk)
    try:
        for client, data in steps:
            talk.play([("client" if client else "server", data)])
    except ProtocolError:
        pass
    talk.scp.closed()
    sink = talk.client if gets else talk.server
    assert b"C0644" not in sink
    assert b"D0755" not in sink
    assert CONTENT not in sink


# --- OpenSSH's own ---

async def transfer(call: Call, desk: FileDesk, source: list[str | Path], sink: list[str | Path]) -> tuple[int, int]:
    """`source` and `sink` are arguments of `scp -f` and `scp -t`; their exit codes."""
    program = shutil.which("scp")
    assert program is not None
    pipe = asyncio.subprocess.PIPE
    ends = [await asyncio.create_subprocess_exec(program, *args, stdin=pipe, stdout=pipe) for args in
            (["-f", *source], ["-t", *sink])]
    server, client = ends if call.source else reversed(ends)
    assert client.stdin is not None
    assert server.stdin is not None
    scp = Scp(desk, client.stdin.write, server.stdin.write, call, payload="content")

    async def hear(end: asyncio.subprocess.Process, other: asyncio.subprocess.Process, feed: object) -> None:
        assert end.stdout is not None
        while data := await end.stdout.read(1 << 16):
            feed(data)  # type: ignore[operator]
        assert other.stdin is not None
        other.stdin.close()

    await asyncio.gather(hear(client, server, scp.from_client), hear(server, client, scp.from_server))
    codes = await ends[0].wait(), await ends[1].wait()
    scp.closed()
    assert desk.settled()
    return codes


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.skipif(shutil.which("scp") is None, reason="no scp: apt-get install openssh-client")
@pytest.mark.parametrize("gets", [True, False])
async def test_openssh_at_both_ends(tmp_path: Path, gets: bool) -> None:
    source, sink = tmp_path / "from" / "d", tmp_path / "to"
    (source / "deep").mkdir(parents=True)
    sink.mkdir()
    (source / "big").write_bytes(os.urandom(8 << 20))
    (source / "deep/empty").touch()
    (source / "deep/no").write_text("secret")
    (source / "a b").write_text("spaced")
    os.utime(source / "a b", (1, 2))
    desk = FileDesk(lambda action, path: "deny" if path.endswith("/no") else "permit")
    call = Call(True, (str(source).encode(),), True) if gets else Call(False, (str(sink).encode(),), True, True)
    codes = await transfer(call, desk, ["-rp", source], ["-rpd", sink])
    wanted = {name: content for name, content in tree(source).items() if name != "deep/no"}
    assert tree(sink / "d") == wanted
    assert (sink / "d/a b").stat().st_mtime == 2
    assert 1 in codes                                     # the client says that something was refused
    big = desk.booked[next(number for number, one in desk.booked.items() if "/big" in one.text)]
    assert digest(wanted["big"]) in big.tag
