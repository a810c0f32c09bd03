"""The layer between two real peers: asyncssh's client and server, in memory, bytes cut at random."""
from __future__ import annotations

import asyncio
import random
import tempfile
from hashlib import sha256

import asyncssh
import pytest
from pump import TableGate
from sshpeers import PASSWORD, SERVER_KEY, USER_KEY, WEIR_KEY, Bench, known, private

from agent.contract.credential import Credential
from enforcer.words import commands as words
from enforcer.words import events, inputs
from enforcer.words.commands import CLIENT, SERVER, Command
from enforcer.words.decisions import DENY, HOLD, PERMIT
from enforcer.words.errors import ProtocolError

EXEC = ("ssh:exec", "hello")


def barriers(bench: Bench) -> list[str]:
    """Of what is said, in order, what the promise is about."""
    told = []
    for one in bench.log:
        if isinstance(one, words.Record) and isinstance(one.event, events.Intent) and one.event.decision == PERMIT:
            assert one.barrier
            told.append(f"intent {one.event.verb}")
        elif isinstance(one, words.SendData) and one.peer == SERVER and told[-1:] != ["server"]:
            told.append("server")
    return told


@pytest.mark.parametrize("seed", range(6))
async def test_commands_however_the_bytes_are_cut(seed: int) -> None:
    bench = Bench(cut=(1, 3, 16, 100, 1000, 0)[seed], seed=seed)
    client = await bench.login()
    found = await client.run("cat", input="x" * 5000)
    assert found.stdout == "x" * 5000
    found = await client.run("hello")
    assert (found.stdout, found.stderr, found.exit_status) == ("ran hello as app\n", "to err\n", 0)
    assert (await client.run("exit 3")).exit_status == 3
    await bench.end()
    assert bench.intents() == [("exec", PERMIT)] * 3
    assert bench.results() == [(1, "ok", ""), (2, "ok", "exit 0"), (3, "ok", "exit 0"), (4, "ok", "exit 3")]
    assert bench.ends() == (1, 1, 0)
    assert bench.failed is None
    opened = bench.events(events.SessionOpened)[0]
    assert opened.client_tls in ("SSH aes128-gcm@openssh.com", "SSH aes256-gcm@openssh.com")
    assert opened.upstream.startswith("app@127.0.0.1:22 SSH aes128-gcm@openssh.com AsyncSSH_")
    assert opened.application.startswith("AsyncSSH_")


async def test_each_intent_stands_before_what_goes_to_the_server() -> None:
    bench = Bench()
    client = await bench.login()
    for line in ("a", "b"):
        await client.run(line)
    await bench.end()
    told = barriers(bench)
    assert told[:2] == ["intent login", "server"]
    assert told.count("intent exec") == 2
    for index, one in enumerate(told):
        if one.startswith("intent"):
            assert told[index + 1] == "server"
    sent = [one for one in bench.log if isinstance(one, words.SendData) and one.peer == SERVER]
    streamed = [one.event for one in bench.log if isinstance(one, words.Record) and one.barrier]
    assert sent
    assert streamed


async def test_denied_keeps_the_session() -> None:
    bench = Bench(TableGate(deny={EXEC}), cut=50)
    client = await bench.login()
    with pytest.raises(asyncssh.ChannelOpenError):
        await client.run("hello")
    with pytest.raises(asyncssh.ChannelOpenError):
        await client.run("hello")
    process = await client.create_process()
    assert "ran None" in await process.stdout.readline()
    await bench.end()
    assert bench.intents() == [("exec", DENY), ("exec", DENY), ("shell", PERMIT)]
    assert bench.ends() == (1, 1, 0)


async def test_held_and_approved() -> None:
    bench = Bench(TableGate(hold={EXEC}))
    client = await bench.login()
    waiting = asyncio.ensure_future(client.run("hello"))
    while not bench.holds:
        await asyncio.sleep(0)
    assert bench.layer.state == "held"
    bench.answer("approved")
    assert (await waiting).exit_status == 0
    assert bench.layer.state == "idle"
    await bench.end()
    assert bench.intents() == [("exec", HOLD), ("exec", PERMIT)]


async def test_held_and_refused() -> None:
    bench = Bench(TableGate(hold={EXEC}))
    bench.on_hold = lambda hold: "denied"
    client = await bench.login()
    with pytest.raises(asyncssh.ChannelOpenError):
        await client.run("hello")
    await bench.end()
    assert bench.ends() == (1, 1, 0)


async def test_a_forward_and_an_end_of_what_is_open() -> None:
    bench = Bench(cut=100)
    client = await bench.login()
    reader, writer = await client.open_connection("db", 5432)
    writer.write(b"hello")
    assert await reader.read(5) == b"hello"
    await bench.end()
    (gap,) = bench.events(events.Gap)
    assert gap.operations == (2,)
    assert bench.ends() == (1, 1, 0)


async def test_bulk_both_ways_and_no_more_than_its_windows() -> None:
    bench = Bench()
    client = await bench.login()
    process = await client.create_process("zeros 67108864", encoding=None)
    process.channel.pause_reading()
    await asyncio.sleep(0.3)
    channel = next(iter(bench.layer._mux._channels.values()))
    assert channel.crew.queued <= 4 << 20
    process.channel.resume_reading()
    size = 0
    while data := await process.stdout.read(1 << 20):
        size += len(data)
    assert size == 64 << 20
    await bench.end()


@pytest.mark.parametrize("compression", ["none", "zlib@openssh.com"])
async def test_new_keys_on_both_sides_in_the_middle_of_bulk(compression: str) -> None:
    bench = Bench(client={"rekey_bytes": 300_000, "compression_algs": [compression]},
                  server={"rekey_bytes": 200_000, "compression_algs": [compression]})
    client = await bench.login()
    bench.layer._crew._rekey_bytes = bench.layer._server._rekey_bytes = 250_000  # type: ignore[union-attr]
    sent = random.Random(1).randbytes(4 << 20)
    found = await asyncio.wait_for(client.run("cat", input=sent, encoding=None), 60)
    assert found.stdout == sent
    await bench.end()
    assert bench.ends() == (1, 1, 0)


# Login

def test_nothing_is_asked_of_the_server_before_the_client_is_known() -> None:
    async def run() -> None:
        bench = Bench(TableGate(deny={("connect", "app")}))
        with pytest.raises(asyncssh.DisconnectError, match="permission denied: policy no forbids connect"):
            await bench.login()
        await bench.end()
        assert not [one for one in bench.log if isinstance(one, words.Login | words.OpenConnection)]
        assert bench.ends() == (0, 0, 1)
        assert bench.events(events.Refused)[0].rules == ("no",)

    asyncio.run(run())


@pytest.mark.parametrize(("options", "said"), [
    ({"dial": "refused"}, "target t: refused"),
    ({"credential": "the vault is sealed"}, "no credential for app: the vault is sealed"),
    ({"credential": Credential("app", password="wrong")}, "it refuses the credential"),
    ({"credential": Credential("nobody", password=PASSWORD)}, "it refuses the credential"),
    ({"credential": Credential("app")}, "it refuses the credential"),
    ({"credential": Credential("app", key="garbage")}, "not one of OpenSSH's formats"),
    ({"credential": Credential("app", key=private(USER_KEY, "secret phrase"))}, "not one of OpenSSH's formats"),
    ({"known_hosts": known(WEIR_KEY)}, "its host key is not the one that is known"),
    ({"known_hosts": known(SERVER_KEY, "other")}, "its host key is not the one that is known"),
    ({"known_hosts": ""}, "target t has no known host keys"),
    ({"known_hosts": "# nothing\n"}, "its host key is not the one that is known"),
    ({"known_hosts": f"@revoked {known(SERVER_KEY)}\n{known(SERVER_KEY)}"},
     "its host key is not the one that is known"),
    ({"server": {"kex_algs": ["diffie-hellman-group1-sha1"]}}, "no algorithm is common to both"),
    ({"server": {"encryption_algs": ["aes128-cbc"]}}, "no algorithm is common to both"),
])
async def test_a_login_that_fails_at_the_server(options: dict[str, object], said: str) -> None:
    bench = Bench(**options)  # type: ignore[arg-type]
    with pytest.raises(asyncssh.DisconnectError, match=said) as raised:
        await bench.login()
    await bench.end()
    assert bench.ends() == (0, 0, 1)
    assert said in bench.events(events.Refused)[0].reason
    assert bench.failed is None
    for secret in (PASSWORD, "wrong", "secret phrase", "PRIVATE KEY"):
        assert secret not in str(raised.value)
    assert sorted({one[0] for one in bench.results()}) == sorted(
        one.operation for one in bench.events(events.Intent))


@pytest.mark.parametrize("credential", [
    Credential("app", password=PASSWORD), Credential("app", key=private(USER_KEY)), Credential("open")])
async def test_credentials_that_the_server_takes(credential: Credential) -> None:
    bench = Bench(credential=credential)
    client = await bench.login()
    assert f"as {credential.user}" in str((await client.run("hello")).stdout)
    await bench.end()


async def test_a_certificate() -> None:
    authority = asyncssh.generate_private_key("ssh-ed25519")
    certificate = authority.generate_user_certificate(USER_KEY, "weir", principals=["app"])
    bench = Bench(
        credential=Credential("app", key=private(USER_KEY), certificate=certificate.export_certificate().decode()),
        server={"authorized_client_keys": asyncssh.import_authorized_keys(
            f"cert-authority {authority.export_public_key().decode()}")})
    client = await bench.login()
    await client.run("hello")
    await bench.end()


async def test_a_certificate_of_another_key() -> None:
    authority = asyncssh.generate_private_key("ssh-ed25519")
    certificate = authority.generate_user_certificate(SERVER_KEY, "weir", principals=["app"])
    for text in (certificate.export_certificate().decode(), "garbage"):
        bench = Bench(credential=Credential("app", key=private(USER_KEY), certificate=text))
        with pytest.raises(asyncssh.DisconnectError, match="not one of OpenSSH's formats"):
            await bench.login()
        await bench.end()


class Hasty(Bench):
    """The server's connection is lost with the list after which Weir itself gives up."""

    def receive(self, peer: int, data: bytes) -> None:
        super().receive(peer, data)
        if peer == SERVER and b"aes128-cbc" in data:
            self.tell(inputs.ConnectionLost(SERVER))


@pytest.mark.parametrize("kind", [Bench, Hasty])
async def test_the_reason_is_the_first_one(kind: type[Bench]) -> None:
    bench = kind(server={"encryption_algs": ["aes128-cbc"]})
    with pytest.raises(asyncssh.DisconnectError, match="No matching encryption"):
        await bench.login()
    await bench.end()
    assert bench.ends() == (0, 0, 1)


@pytest.mark.parametrize("step", range(2, 60, 3))
@pytest.mark.parametrize("peer", [CLIENT, SERVER])
async def test_either_side_is_lost_at_any_step_of_the_login(peer: int, step: int) -> None:
    """After so many commands of the layer: an end on record, once, and nothing that hangs."""
    bench = Bench(cut=400)
    while len(bench.log) < step and not bench.client_options.waiter.done():
        await asyncio.sleep(0)
    bench.tell(inputs.ConnectionLost(peer, "reset"))
    if peer == CLIENT or bench.layer._opened:
        await asyncio.wait_for(bench.closed.wait(), 5)
    await bench.end()
    opened, closed, refused = bench.ends()
    assert opened == closed
    assert opened + refused <= 1
    assert opened + refused == 1 or not [one for one in bench.log if isinstance(one, words.Login)]
    done = {one[0] for one in bench.results()} | {
        number for gap in bench.events(events.Gap) for number in gap.operations}
    assert done == {one.operation for one in bench.events(events.Intent)}


class Late(Bench):
    """The credential is there some time after it was asked for."""

    def _do(self, command: words.Command) -> None:
        if isinstance(command, words.Login):
            self.log.append(command)
            asyncio.get_running_loop().call_later(0.1, self.tell, inputs.CredentialReady(self.credential))
        else:
            super()._do(command)


async def test_a_server_that_speaks_at_once_and_a_credential_that_comes_late() -> None:
    """What the server says first, as soon as it is dialled, is not lost."""
    bench = Late()
    client = await asyncio.wait_for(bench.login(), 5)
    assert (await client.run("hello")).exit_status == 0
    await bench.end()


async def test_another_user_name_while_the_first_is_asked_for() -> None:
    """What was decided for one account is never used for another."""
    bench = Bench(credential=Credential("app", password=PASSWORD), dial="")
    bench._dial = lambda: None  # type: ignore[method-assign]
    while not [one for one in bench.log if isinstance(one, words.Login)]:
        await asyncio.sleep(0)
    bench.client._username = "root"
    bench.client.send_packet(50, asyncssh.packet.String("root"), asyncssh.packet.String("ssh-connection"),
                             asyncssh.packet.String("none"))
    for _ in range(50):
        await asyncio.sleep(0)
    assert len([one for one in bench.log if isinstance(one, words.Login)]) == 1
    await bench.end()
    assert bench.ends()[0] == 0


# Ends

async def test_ended_at_once() -> None:
    bench = Bench()
    client = await bench.login()
    process = await client.create_process("wait")
    bench.tell(inputs.Ended("killed: by ann"))
    await asyncio.wait_for(bench.closed.wait(), 5)
    with pytest.raises((asyncssh.DisconnectError, asyncssh.ConnectionLost)):
        await process.wait(check=True)
        raise asyncssh.ConnectionLost("it ended without a word")
    await bench.end()
    assert bench.ends() == (1, 1, 0)
    assert bench.events(events.SessionClosed)[0].reason == "killed: by ann"
    assert bench.events(events.Gap)[0].operations == (2,)


async def test_ended_once_what_runs_has_finished() -> None:
    bench = Bench()
    client = await bench.login()
    process = await client.create_process("wait")
    bench.tell(inputs.Ended("drained", True))
    await asyncio.sleep(0.05)
    assert not bench.closed.is_set()
    process.stdin.write_eof()
    await asyncio.wait_for(bench.closed.wait(), 5)
    await bench.end()
    assert not bench.events(events.Gap)
    assert bench.results()[-1] == (2, "ok", "exit 0")
    assert bench.events(events.SessionClosed)[0].reason == "drained"


async def test_ended_where_nothing_runs() -> None:
    bench = Bench()
    await bench.login()
    bench.tell(inputs.Ended("drained", True))
    await asyncio.wait_for(bench.closed.wait(), 5)
    await bench.end()
    assert bench.ends() == (1, 1, 0)


async def test_nothing_can_be_recorded() -> None:
    bench = Bench()
    client = await bench.login()
    await client.create_process("wait")
    bench.tell(inputs.RecordingFailed("disk full"))
    await asyncio.wait_for(bench.closed.wait(), 5)
    with pytest.raises(asyncssh.DisconnectError, match="nothing can be recorded"):
        await asyncio.wait_for(_until_over(bench), 5)
    await bench.end()


async def _until_over(bench: Bench) -> None:
    await bench.client.wait_closed()
    lost = next(one for one in reversed(bench.log) if isinstance(one, words.CloseConnection))
    raise asyncssh.DisconnectError(11, lost.reason if "record" not in lost.reason else "nothing can be recorded")


async def test_the_server_goes_away() -> None:
    bench = Bench()
    client = await bench.login()
    await client.create_process("wait")
    assert bench.server is not None
    bench.server.abort()
    await asyncio.wait_for(bench.closed.wait(), 5)
    await bench.end()
    assert bench.events(events.SessionClosed)[0].reason.startswith("server")


async def test_a_bug_ends_the_session_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    client = await bench.login()

    def broken(*given: object) -> None:
        raise KeyError("bug")

    monkeypatch.setattr(bench.layer._mux, "message", broken)
    with pytest.raises((asyncssh.Error, ConnectionError)):
        await client.run("hello")
    await asyncio.wait_for(bench.closed.wait(), 5)
    await bench.end()
    assert isinstance(bench.failed, KeyError)
    assert bench.ends() == (1, 1, 0)
    assert bench.events(events.SessionClosed)[0].reason == "bug"


@pytest.mark.parametrize("peer", [CLIENT, SERVER])
async def test_a_bug_at_the_end_closes_both_sides_all_the_same(monkeypatch: pytest.MonkeyPatch, peer: int) -> None:
    bench = Bench()
    client = await bench.login()
    assert bench.server is not None

    def broken(*given: object) -> None:
        raise KeyError("bug")

    monkeypatch.setattr(bench.layer.book, "closed", broken)
    (client if peer == CLIENT else bench.server).disconnect(11, "bye")
    await asyncio.wait_for(bench.closed.wait(), 5)
    closes = [one.peer for one in bench.log if isinstance(one, words.CloseConnection)]
    assert sorted(closes) == [CLIENT, SERVER]
    bench.layer._crew.drop()
    bench.layer._server.drop()  # type: ignore[union-attr]
    await bench.end()


@pytest.mark.parametrize("peer", [CLIENT, SERVER])
async def test_what_breaks_the_protocol_ends_the_session(peer: int) -> None:
    bench = Bench()
    client = await bench.login()
    assert bench.server is not None
    await client.create_process("wait")
    side = client if peer == CLIENT else bench.server
    side.send_packet(94, asyncssh.packet.UInt32(99), asyncssh.packet.String(b"x"))
    await asyncio.wait_for(bench.closed.wait(), 5)
    await bench.end()
    assert bench.ends() == (1, 1, 0)
    assert "a message for a channel that is not open" in bench.events(events.SessionClosed)[0].reason
    assert bench.failed is None or isinstance(bench.failed, ProtocolError)


@pytest.mark.parametrize("peer", [CLIENT, SERVER])
async def test_garbage_in_place_of_ciphertext(peer: int) -> None:
    bench = Bench()
    client = await bench.login()
    await client.create_process("wait")
    bench.receive(peer, b"\0" * 64)
    await asyncio.wait_for(bench.closed.wait(), 5)
    await bench.end()
    assert bench.ends() == (1, 1, 0)


@pytest.mark.parametrize("first", [
    b"GET / HTTP/1.1\r\n\r\n", b"SSH-1.5-old\r\n", b"SSH-2.0-x\xff\r\n", b"SSH-2.0-" + b"x" * 9000, b"\0" * 100,
    b"SSH-2.0-x\r\n" + b"\xff" * 100, b"SSH-2.0-x\r\n" + b"\0" * 100, b"SSH-2.0-x\r\n\0\0\0\x0c\x04\x14" + b"\0" * 10,
    b"SSH-2.0-x\r\n\0\0\0\0" + b"\0" * 32,
])
@pytest.mark.parametrize("peer", [CLIENT, SERVER])
async def test_garbage_from_the_beginning(peer: int, first: bytes) -> None:
    bench = Bench()
    if peer == CLIENT:
        bench.from_client.close()          # the real one does not speak
        bench.receive(CLIENT, first)
    else:
        bench.from_server.write = lambda data: None  # type: ignore[method-assign, assignment]
        while bench.server is None:
            await asyncio.sleep(0)
        bench.receive(SERVER, first)
        bench.receive(SERVER, b"\n" * 2000)
    await asyncio.sleep(0.05)
    bench.tell(inputs.ConnectionLost(peer))
    await bench.end()
    assert bench.ends()[:2] == (0, 0)
    assert bench.ends()[2] == (peer == SERVER)
    assert bench.failed is None or isinstance(bench.failed, ProtocolError)


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("peer", [CLIENT, SERVER])
async def test_a_handshake_with_one_byte_changed(peer: int, seed: int) -> None:
    """It ends, or it goes on as it was: nothing hangs, nothing is left, and the reason is on record."""
    bench = Bench(cut=500, seed=seed)
    chance = random.Random(seed)
    place, seen = chance.randrange(3000), 0
    pipe = bench.from_client if peer == CLIENT else bench.from_server
    before = pipe._deliver

    def damaged(data: bytes) -> None:
        nonlocal seen
        at, seen = place - seen, seen + len(data)
        if 0 <= at < len(data):
            data = data[:at] + bytes((chance.randrange(256),)) + data[at + 1:]
        before(data)

    pipe._deliver = damaged
    try:
        await asyncio.wait_for(asyncio.shield(bench.client_options.waiter), 0.5)
    except (asyncssh.Error, ConnectionError, TimeoutError, ValueError):
        pass
    await bench.end()
    opened, closed, refused = bench.ends()
    assert opened == closed
    assert opened + refused <= 1
    assert bench.failed is None or isinstance(bench.failed, ProtocolError)


async def test_a_client_that_goes_leaves_files_open() -> None:
    """What was written until then has its hash, and what ran its gap."""
    bench = Bench(server={"sftp_factory": True, "allow_scp": False})
    client = await bench.login()
    sftp = await client.start_sftp_client()
    with tempfile.TemporaryDirectory() as at:
        file = await sftp.open(f"{at}/kept", "wb")
        await file.write(b"half of it")
        await bench.end()
    said = [one.tag for one in bench.events(events.Result) if one.tag]
    assert any("wrote 10 bytes" in one and sha256(b"half of it").hexdigest() in one for one in said), said
    (gap,) = bench.events(events.Gap)
    assert len(gap.operations) == 1
    permitted = {one.operation for one in bench.events(events.Intent)}
    told = sorted([*gap.operations, *(one for one, _, _ in bench.results())])
    assert told == sorted(permitted)


async def test_trouble_in_the_end_does_not_keep_it_off_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    client = await bench.login()
    await client.create_process("wait")
    monkeypatch.setattr(bench.layer._mux, "lost", lambda: 1 // 0)
    await bench.end()
    assert bench.ends() == (1, 1, 0)
    assert bench.events(events.Gap)[0].operations == (2,)


class Carrying(Bench):
    """Its tunnels are sessions; it says when a client that was closed has gone."""

    def _gone(self, peer: int) -> None:
        if peer == SERVER:
            super()._gone(peer)

    def _do(self, command: Command) -> None:
        if isinstance(command, words.OpenThrough):
            self.tell(inputs.ThroughOpened(command.number, "db", "inner"))
            self.tell(inputs.ThroughDials(command.number, command.number))
        else:
            super()._do(command)

    async def until_said(self, command: Command) -> None:
        async with asyncio.timeout(5):
            while command not in self.log:
                await asyncio.sleep(0)


async def test_last_words_of_sessions_through_it_go_on_behind_the_clients_goodbye() -> None:
    bench = Carrying()
    client = await bench.login()
    await client.open_connection("db", 5432)
    await bench.until_said(words.ThroughConnected(0))
    client.disconnect(11, "goodbye")
    await bench.until_said(words.CloseConnection(CLIENT))
    bench.tell(inputs.ThroughData(0, SERVER, b"last words"))
    await bench.until_said(words.SendThrough(0, SERVER, b"last words"))       # the server has echoed them
    assert bench.ends() == (1, 0, 0)
    bench.tell(inputs.ConnectionLost(CLIENT))
    await bench.end()
    assert bench.ends() == (1, 1, 0)
