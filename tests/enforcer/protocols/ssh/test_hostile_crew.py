"""What a crew tried so that a server does something else than policy was asked about.  Each was seen to work with
OpenSSH's sshd, where nothing else is said."""
from __future__ import annotations

import asyncio

import asyncssh
import pytest
from pump import TableGate
from sshpeers import PASSWORD, WEIR_KEY, Bench, private
from sshtalk import Talk, ask, direct, env, forward, open_channel, opened, run, string, u32, yes

from agent.contract.credential import Credential
from agent.contract.target import ContentLabel, Target
from enforcer.protocols.ssh.channels.tunnel import endpoint, socket
from enforcer.protocols.ssh.shell.lexer import Reader, Unreadable
from enforcer.protocols.ssh.wanted import want_command, want_terminal
from enforcer.protocols.ssh.wire import crew_options
from enforcer.words import events
from enforcer.words.commands import CLIENT
from enforcer.words.decisions import DENY, HOLD, PERMIT

EXEC = {("ssh:exec-opaque", "app")}


def started(talk: Talk) -> Talk:
    talk.crew(open_channel())
    talk.server(opened(0))
    return talk


def terminal(name: bytes = b"xterm") -> bytes:
    return ask(0, "pty-req", string(name) + u32(80, 24, 0, 0) + string(b"\0"))


def to_server(heard: list[str]) -> list[str]:
    return [one for one in heard if one.startswith("> ")]


@pytest.mark.parametrize("request_", [
    ask(0, "subsystem", string(b"sftp")),
    run(0, "/usr/lib/openssh/sftp-server"),
    run(0, "scp -t /srv/x"),
])
def test_no_files_on_a_terminal(request_: bytes) -> None:
    """Its line discipline edits what the gate has decided: a WRITE whose content holds the key that kills a line, then
    another request, removed a file that no policy permits to touch."""
    talk = started(Talk())
    talk.crew(terminal())
    talk.server(yes(0))
    heard = talk.crew(request_)
    assert not to_server(heard)
    assert any("files are not transferred on a terminal" in one for one in heard)
    assert talk.intents()[-1][1] == DENY


def test_a_server_has_one_terminal_for_a_channel() -> None:
    talk = started(Talk())
    talk.crew(terminal())
    talk.server(yes(0))
    assert talk.crew(terminal(b"vt100")) == ["< no 7"]
    talk.crew(run(0))
    (intent,) = (one for one in talk.events(events.Intent) if one.verb == "exec")  # type: ignore[attr-defined]
    assert intent.decision == PERMIT  # type: ignore[attr-defined]
    assert talk.mux._channels[0]._terminal == ("xterm", b"80x24")  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", [b"sftp\0", b"sftp\0x", b"\0"])
def test_a_subsystem_with_a_nul(name: bytes) -> None:
    """sshd takes "sftp\\0" for sftp: what a policy permits as some other subsystem was SFTP that nobody looked at."""
    talk = started(Talk())
    assert not to_server(talk.crew(ask(0, "subsystem", string(name))))
    assert talk.intents() == [("subsystem", DENY)]


def test_a_variable_with_a_nul() -> None:
    talk = started(Talk())
    for name, value in (("LD_PRELOAD\0", "/tmp/x.so"), ("A", "b\0")):
        assert not to_server(talk.crew(env(0, name, value, reply=True)))
    assert talk.intents() == [("env", DENY)] * 2


def test_the_name_of_a_terminal_is_a_variable() -> None:
    target = Talk().target
    assert [one.action for one in want_terminal(target, "app", "xterm-256color")] == ["ssh:terminal"]
    for name in ("../x", "a$(id)", "`id`", "a b", "x\n"):
        assert [one.action for one in want_terminal(target, "app", name)] == ["ssh:terminal", "ssh:env"], name
    talk = started(Talk(TableGate(deny={("ssh:env", "TERM")})))
    assert talk.crew(terminal(b"/tmp/x")) == ["< no 7"]


@pytest.mark.parametrize(("host", "port"), [
    ("localhost\0", 22), ("localhost", 65536 + 22), ("localhost ", 22), ("127.0.0.1 x", 22), ("localhost\n", 22),
    ("１２７.0.0.1", 22), ("a\u200bb", 22),
])
def test_a_place_that_servers_read_as_another(host: str, port: int) -> None:
    """Of a registered target the tunnel would not have been its session: sshd ends the name at the NUL; old ones, and
    others, take a port modulo 65536; IDNA makes digits of other digits."""
    talk = Talk()
    (heard,) = talk.crew(direct(host, port))
    assert heard.startswith("< refused 7 1 weir: permission denied: ")
    assert talk.crew(forward(host, port)) == ["< no"]
    assert talk.intents() == [("forward-local", DENY), ("forward-remote", DENY)]


@pytest.mark.parametrize(("host", "named"), [
    ("DB.Internal.", "db.internal"), ("0x7f.1", "127.0.0.1"), ("::ffff:10.0.0.1", "10.0.0.1"), ("", "*"),
])
def test_a_host_has_one_spelling_for_policies(host: str, named: str) -> None:
    (request,) = endpoint(Talk().book, "ssh:forward-local", host, 5432)
    assert request.path[-1] == f"{named} 5432"
    assert dict(request.attributes)["host"] == named


def test_every_address_is_one_name() -> None:
    for host in ("", "*", "0.0.0.0", "::", "0"):
        assert endpoint(Talk().book, "ssh:forward-remote", host, 80)[0].path[-1] == "* 80"


@pytest.mark.parametrize("path", ["/run/app/../docker.sock", "/run/app/x\0", "run/docker.sock", "~/x", ""])
def test_a_socket_that_is_not_where_it_seems(path: str) -> None:
    talk = Talk()
    rest = string(path.encode()) + string(b"") + u32(0)
    (heard,) = talk.crew(open_channel("direct-streamlocal@openssh.com", rest=rest))
    assert heard.startswith("< refused 7 1 weir: permission denied: the path of a socket")
    assert talk.intents() == [("forward-stream", DENY)]


def test_a_socket_has_one_spelling() -> None:
    (request,) = socket(Talk().book, "//run/./app//x")
    assert request.path[-1] == "/run/app/x"
    assert dict(request.attributes) == {"path": "/run/app/x"}


def test_a_server_by_name_alone_may_be_any_program() -> None:
    """Whoever may write to some directory of the PATH would run it as what the base policy permits."""
    for line in (b"sftp-server", b"internal-sftp"):
        wanted = want_command(Talk().target, "app", line)
        assert [one.action for one in wanted.requests] == ["ssh:exec"]
        assert wanted.course == "program"


def test_what_a_command_is_given_to_read_has_its_label() -> None:
    labelled = Talk(content_labels=(ContentLabel("secret", path="/etc/app/*.key"),)).target
    assert want_command(labelled, "app", b"cat < /etc/app/a.key").labels == ("secret",)
    assert want_command(labelled, "app", b"cat < /etc/app/a.txt").labels == ()
    assert want_command(labelled, "app", b"cat < $X").labels == ("secret",)


def test_what_was_held_and_is_masked_by_now_does_not_go_whole() -> None:
    """Seen in memory."""
    gate = TableGate(hold={("rsync:read", "/srv/x")}, unmasked={"secret"})
    talk = started(Talk(gate, content_labels=(ContentLabel("secret", path="/srv/*"),)))
    talk.crew(run(0, "rsync --server --sender -e.L . /srv/x"))
    assert talk.intents() == [("exec", HOLD)]
    gate.unmasked.clear()
    assert not to_server(talk.answer())
    assert talk.results()[-1][1] == "denied"


def test_approvers_see_a_long_line_whole_or_that_it_is_cut() -> None:
    talk = started(Talk(TableGate(hold=EXEC)))
    line = "echo " + "a" * 5000 + "; $X"
    talk.crew(run(0, line))
    assert talk.holds[-1].text == line


@pytest.mark.parametrize("unit", [b"a[]", b"a[{", b"a[\\\\", b"{a[", b"{{", b"{", b"a[-", b"}}", b"]]"])
def test_brackets_are_counted_before_a_parser_has_them(unit: bytes) -> None:
    """32 KiB of "a[]" took it twelve seconds, of everybody's time."""
    line = (unit * 32768)[:32768]
    with pytest.raises(Unreadable, match="more than 300"):
        Reader(line.decode()).read()


def test_no_exchange_that_costs_others_their_time() -> None:
    """rsa2048-sha256 made a key for each, which took a third of a second at times."""
    target = Target("t", "ssh", ("host",), 22, (), host_keys=(private(WEIR_KEY),))
    offered = {one.decode() for one in crew_options(target).kex_algs}
    slow = {"rsa2048-sha256", "diffie-hellman-group18-sha512", "diffie-hellman-group17-sha512",
            "diffie-hellman-group-exchange-sha256"}
    assert "curve25519-sha256" in offered
    assert not offered & slow


@pytest.mark.parametrize(("line", "other", "alike"), [
    (b"\xff; ls", b"\xff; rm -rf ~", False), (b"$X a", b"$X b", False), (b"rm a", b"rm b", False), (b"$X", b"$X", True),
    (b"rm a", b"rm  'a'", True),
])
def test_an_approval_for_a_session_is_for_no_other_line(line: bytes, other: bytes, alike: bool) -> None:
    """Of what cannot be told, policy is asked the same whatever it does."""
    gate = TableGate(hold={("ssh:exec-opaque", "app"), *(("ssh:exec", f"rm {one}") for one in "ab")})
    talk = Talk(gate)
    for at, one in enumerate((line, other)):
        talk.crew(open_channel(number=7 + at))
        talk.server(opened(at, 70 + at))
        talk.crew(ask(at, "exec", string(one)))
    assert (talk.holds[0].asked == talk.holds[1].asked) == alike


def test_an_approval_for_a_session_is_for_no_other_variables() -> None:
    talk = Talk(TableGate(hold={("ssh:exec", "cat $F")}))
    for at, value in enumerate(("a", "/etc/shadow", "a")):
        talk.crew(open_channel(number=7 + at))
        talk.server(opened(at, 70 + at))
        talk.crew(env(at, "F", value), run(at, "cat $F"))
    assert talk.holds[0].asked != talk.holds[1].asked
    assert talk.holds[0].asked == talk.holds[2].asked


def test_many_paths_are_no_transfer() -> None:
    """Each is decided: 1400 of them took half a second of everybody's time."""
    for program in ("scp -f", "rsync --server --sender -e.L ."):
        line = f"{program} {' '.join(f'/p{one}' for one in range(101))}".encode()
        assert len(want_command(Talk().target, "app", line).requests) == 1


@pytest.mark.parametrize("account", ["app:x", "app/x", "app:"])
async def test_an_account_that_a_server_takes_for_another(account: str) -> None:
    """sshd let "root:x" in as root, where policy forbids root; Debian's has roles behind a slash, too."""
    bench = Bench(client={"username": account}, credential=Credential(account, password=PASSWORD))
    with pytest.raises(asyncssh.DisconnectError, match="what is before : or /"):
        await bench.login()
    await bench.end()
    assert bench.server is None
    assert len(bench.events(events.Refused)) == 1


async def test_an_account_of_any_name_where_a_credential_says_whose_it_is() -> None:
    bench = Bench(client={"username": "app:x"}, credential=Credential("app", password=PASSWORD))
    await bench.login()
    await bench.end()


async def test_many_requests_at_once_leave_others_their_turn() -> None:
    """A second and more, for what one read of the socket brought."""
    bench = Bench(TableGate(deny={("ssh:forward-remote", "*")}))
    client = await bench.login()
    held: list[bytes] = []
    write, bench.from_client.write = bench.from_client.write, held.append  # type: ignore[method-assign, assignment]
    for number in range(1000):
        message = forward("h", number, reply=False)
        client.send_packet(message[0], message[1:])
    bench.from_client.write = write  # type: ignore[method-assign]
    bench.receive(CLIENT, b"".join(held))
    assert 0 < len(bench.intents()) < 100
    for _ in range(2000):
        await asyncio.sleep(0)
    assert bench.intents() == [("forward-remote", DENY)] * 1000
    await bench.end()
