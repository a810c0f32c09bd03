"""The transports against asyncssh's own peers: what Weir's subclasses rely on of asyncssh still means the same.

`Ends` is who is told: it gives back every message of the connection protocol that it hears, so that what a peer sends
is what it gets.
"""
from __future__ import annotations

import asyncio
import os
import random
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from asyncssh.packet import Boolean, String, UInt32
from sshpeers import (
    PASSWORD,
    SERVER_KEY,
    USER_KEY,
    WEIR_KEY,
    Client,
    Pipe,
    client_options,
    known,
    make_client,
    make_server,
    private,
    server_options,
)

from agent.contract.credential import Credential
from agent.contract.target import Target
from enforcer.protocols.ssh import wire
from enforcer.protocols.ssh.wire import CrewWire, ServerWire
from enforcer.words.commands import CLIENT, SERVER
from enforcer.words.errors import AuthenticationError, RemoteProtocolError

TARGET = Target("t", "ssh", ("host",), 22, ("127.0.0.1",), host_keys=(private(WEIR_KEY),),
                known_hosts=known(SERVER_KEY))
DATA = 94


class Ends:
    """Weir's one side and a real peer at the other end of it."""

    def __init__(self, peer: int, *, cut: int = 0, options: dict[str, Any] | None = None, admit: str | None = "",
                 methods: tuple[str, ...] = wire.METHODS, credential: Credential | None = None,
                 target: Target = TARGET, client: type[Client] = Client) -> None:
        self.peer, self.admission = peer, admit
        self.heard: list[bytes] = []
        self.admitted: list[str] = []
        self.then: list[Callable[[str], None]] = []
        self.is_ready, self.is_over = asyncio.Event(), asyncio.Event()
        self.error: Exception | None = None
        self.fulls: list[tuple[int, bool]] = []
        self.relief = 0
        self.bug: Exception | None = None
        self.on_message: Callable[[bytes], None] = self.heard.append
        given = options or {}
        self.wire: Any
        self.real: Any
        if peer == CLIENT:
            self.options = client_options(client_factory=client, **given)
            self.real = make_client(self.options)
            self.wire = CrewWire(CLIENT, self, wire.crew_options(target), methods)
        else:
            self.options = server_options(**given)
            self.real = make_server(self.options)
            made = wire.server_options(target, credential or Credential("app", password=PASSWORD))
            self.wire = ServerWire(SERVER, self, made)
            self.wire.set_address("127.0.0.1")
        self.to_real = Pipe(self.real.data_received, self.real.connection_lost, cut)
        self.to_weir = Pipe(self._feed, lambda: self.wire.drop(), cut)
        self.wire.open()
        self.real.connection_made(self.to_weir)

    def _feed(self, data: bytes) -> None:
        self.wire.feed(data)

    # wire.Events

    def written(self, peer: int, data: bytes, answers: bool) -> None:
        assert peer == self.peer
        if hasattr(self, "to_real"):
            self.to_real.write(data)
        else:
            asyncio.get_running_loop().call_soon(lambda: self.to_real.write(data))

    def message(self, peer: int, payload: bytes) -> None:
        assert peer == self.peer
        self.on_message(payload)

    def admit(self, account: str, then: Callable[[str], None]) -> None:
        self.admitted.append(account)
        self.then.append(then)
        if self.admission is not None:
            then(self.admission)

    def ready(self, peer: int) -> None:
        self.is_ready.set()

    def over(self, peer: int, error: Exception | None) -> None:
        assert not self.is_over.is_set()
        self.error = error
        self.is_over.set()

    def full(self, peer: int, on: bool) -> None:
        self.fulls.append((peer, on))

    def relieved(self, peer: int) -> None:
        self.relief += 1

    def broken(self, error: Exception) -> None:
        self.bug = error

    # The test

    async def ready_(self) -> Ends:
        await asyncio.wait_for(self.is_ready.wait(), 10)
        while not self.real._auth_complete:
            await asyncio.sleep(0)
        return self

    async def over_(self) -> Exception | None:
        await asyncio.wait_for(self.is_over.wait(), 10)
        return self.error

    async def until(self, there: Callable[[], object], seconds: float = 10) -> None:
        async with asyncio.timeout(seconds):
            while not there():
                await asyncio.sleep(0)

    async def close(self) -> None:
        self.real.abort()
        self.wire.drop()
        await self.over_()
        for _ in range(100):
            await asyncio.sleep(0)
        waiter = self.options.waiter
        if waiter.done() and not waiter.cancelled():
            waiter.exception()             # it is known
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left


class Listener:
    """What the real peer hears on a channel's number, in place of its own channels."""

    def __init__(self, ends: Ends) -> None:
        self.heard: list[bytes] = []
        ends.real._channels = {7: self}

    def log_received_packet(self, *given: object) -> None: ...

    def process_packet(self, kind: int, number: int, packet: Any) -> bool:
        self.heard.append(packet.get_full_payload())
        return True

    def process_connection_close(self, error: object) -> None: ...


def message(size: int, index: int = 0) -> bytes:
    return bytes((DATA,)) + UInt32(7) + String(random.Random(index).randbytes(size))


async def both_ways(ends: Ends, sizes: list[int]) -> None:
    """Every message arrives as it was sent, in order, either way."""
    listener = Listener(ends)
    sent = [message(size, index) for index, size in enumerate(sizes)]
    for one in sent:
        ends.wire.send(one)
        ends.real.send_packet(one[0], one[1:])
        await asyncio.sleep(0)
    await ends.until(lambda: len(listener.heard) == len(sent) and len(ends.heard) == len(sent))
    assert listener.heard == sent
    assert ends.heard == sent


SIZES = [0, 1, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 32, 33, 255, 256, 1000, 32768]


@pytest.mark.parametrize("peer", [CLIENT, SERVER])
@pytest.mark.parametrize("cipher", wire.CIPHERS)
@pytest.mark.parametrize("mac", ["hmac-sha2-256-etm@openssh.com", "hmac-sha2-256"])
async def test_every_cipher(peer: int, cipher: str, mac: str) -> None:
    """`send` is `send_packet` for whoever hears it, with each cipher, with MACs before and after."""
    ends = await Ends(peer, options={"encryption_algs": [cipher], "mac_algs": [mac]}).ready_()
    await both_ways(ends, SIZES)
    assert cipher in ends.wire.describe()
    if "ctr" in cipher:
        assert mac in ends.wire.describe()
    await ends.close()


@pytest.mark.parametrize("peer", [CLIENT, SERVER])
@pytest.mark.parametrize("compression", ["none", "zlib@openssh.com", "zlib"])
async def test_compression(peer: int, compression: str) -> None:
    ends = await Ends(peer, options={"compression_algs": [compression]}).ready_()
    await both_ways(ends, SIZES)
    assert (compression in ends.wire.describe()) == (compression != "none")
    await ends.close()


@pytest.mark.parametrize("peer", [CLIENT, SERVER])
@pytest.mark.parametrize("seed", range(3))
async def test_cut_anywhere(peer: int, seed: int) -> None:
    ends = await Ends(peer, cut=(1, 7, 100)[seed]).ready_()
    await both_ways(ends, [0, 5, 300, 2000])
    await ends.close()


@pytest.mark.parametrize("peer", [CLIENT, SERVER])
@pytest.mark.parametrize("compression", ["none", "zlib@openssh.com"])
@pytest.mark.parametrize("who", ["peer", "weir", "both"])
async def test_new_keys_in_the_middle_of_bulk(peer: int, compression: str, who: str) -> None:
    ends = Ends(peer, options={"compression_algs": [compression],
                               "rekey_bytes": 100_000 if who != "weir" else 1 << 30})
    if who != "peer":
        ends.wire._rekey_bytes = 70_000
    await ends.ready_()
    exchanges = 0
    before = ends.wire.send_newkeys

    def counted(k: bytes, h: bytes) -> None:
        nonlocal exchanges
        exchanges += 1
        before(k, h)

    ends.wire.send_newkeys = counted
    await both_ways(ends, [20_000] * 60)
    assert exchanges >= 5
    await ends.close()


@pytest.mark.parametrize("peer", [CLIENT, SERVER])
async def test_new_keys_after_a_time(peer: int) -> None:
    ends = await Ends(peer).ready_()
    ends.wire._rekey_time = 0
    await both_ways(ends, [10] * 20)
    assert ends.wire._rekey_time > 0
    await ends.close()


@pytest.mark.parametrize("peer", [CLIENT, SERVER])
async def test_key_exchange_is_strict_and_extensions_are_known(peer: int) -> None:
    ends = await Ends(peer).ready_()
    assert ends.wire._strict_kex
    assert ends.real._strict_kex
    if peer == CLIENT:
        assert ends.real._server_sig_algs
    else:
        assert ends.wire._server_sig_algs
    await ends.close()


async def test_the_name_that_each_says() -> None:
    ends = await Ends(CLIENT).ready_()
    assert ends.wire.client.startswith("AsyncSSH_")
    assert ends.real.get_extra_info("server_version") == "SSH-2.0-Weir"
    await ends.close()
    ends = await Ends(SERVER).ready_()
    assert ends.wire.server.startswith("AsyncSSH_")
    assert ends.real.get_extra_info("client_version") == "SSH-2.0-Weir"
    await ends.close()


# Who gets in

class Interactive(Client):
    def password_auth_requested(self) -> str | None:
        return None

    def kbdint_auth_requested(self) -> str | None:
        return ""

    def kbdint_challenge_received(self, name: str, instructions: str, lang: str, prompts: Any) -> list[str]:
        return ["anything"] * len(prompts)


@pytest.mark.parametrize(("method", "options", "client"), [
    ("none", {}, Client), ("password", {}, Client), ("publickey", {"client_keys": [USER_KEY]}, Client),
    ("keyboard-interactive", {}, Interactive),
])
async def test_each_method_lets_whoever_is_admitted_in(
    method: str, options: dict[str, Any], client: type[Client],
) -> None:
    ends = await Ends(CLIENT, methods=(method,), options=options, client=client).ready_()
    assert ends.admitted == ["app"]
    await both_ways(ends, [10])
    await ends.close()


@pytest.mark.parametrize("method", ["none", "password"])
async def test_nobody_is_in_before_the_server_has_let_weir_in(method: str) -> None:
    ends = Ends(CLIENT, methods=(method,), admit=None)
    await ends.until(lambda: ends.admitted)
    for _ in range(100):
        await asyncio.sleep(0)
    assert not ends.is_ready.is_set()
    assert not ends.real._auth_complete
    assert not ends.wire._auth_complete
    ends.then[0]("")
    await ends.ready_()
    await ends.close()


async def test_who_is_not_admitted_is_told_why() -> None:
    ends = Ends(CLIENT, admit="permission denied: no")
    assert await ends.over_() is None
    await ends.until(lambda: ends.options.waiter.done())
    assert "permission denied: no" in str(ends.options.waiter.exception())
    assert not ends.is_ready.is_set()
    await ends.close()


def _ask(ends: Ends, user: str, method: str, *rest: bytes) -> None:
    ends.real.send_packet(50, String(user), String("ssh-connection"), String(method), *rest)


async def test_another_user_name_after_the_first_was_asked_for() -> None:
    ends = Ends(CLIENT, methods=("password",), admit=None)
    await ends.until(lambda: ends.admitted)
    _ask(ends, "root", "password", Boolean(False), String("x"))
    assert "another user name" in str(await ends.over_())
    assert ends.admitted == ["app"]
    ends.then[0]("")
    await ends.close()
    assert not ends.is_ready.is_set()


async def test_the_same_user_asks_again_while_it_waits() -> None:
    ends = Ends(CLIENT, methods=("password",), admit=None)
    await ends.until(lambda: ends.admitted)
    _ask(ends, "app", "password", Boolean(False), String("x"))
    for _ in range(50):
        await asyncio.sleep(0)
    assert ends.admitted == ["app"]
    ends.then[0]("")
    await ends.ready_()
    await ends.close()


async def test_messages_before_the_login() -> None:
    ends = Ends(CLIENT, methods=("password",), admit=None)
    await ends.until(lambda: ends.admitted)
    ends.real._auth_complete = True
    ends.real.send_packet(90, String("session"), UInt32(0), UInt32(1), UInt32(1))
    assert "before authentication" in str(await ends.over_())
    assert ends.heard == []
    await ends.close()


@pytest.mark.parametrize("credential", [
    Credential("app", password=PASSWORD), Credential("app", key=private(USER_KEY)), Credential("open")])
async def test_the_servers_methods(credential: Credential) -> None:
    ends = await Ends(SERVER, credential=credential).ready_()
    await both_ways(ends, [10])
    await ends.close()


async def test_a_server_that_lets_everybody_in_without_asking_is_not_believed_to_be_another() -> None:
    """Success without any proof: the host key is what counts, and the session goes on."""
    ends = await Ends(SERVER, credential=Credential("open", password="unused")).ready_()
    await ends.close()


@pytest.mark.parametrize(("options", "credential", "said"), [
    ({}, Credential("app", password="wrong"), "it refuses the credential"),
    ({}, Credential("app"), "it refuses the credential"),
    ({}, Credential("app", key=private(WEIR_KEY)), "it refuses the credential"),
    ({"server_host_keys": [WEIR_KEY]}, None, "its host key is not the one that is known"),
    ({"encryption_algs": ["aes128-cbc"]}, None, "no algorithm is common to both"),
    ({"kex_algs": ["diffie-hellman-group1-sha1"]}, None, "no algorithm is common to both"),
    ({"mac_algs": ["hmac-md5"], "encryption_algs": ["aes128-ctr"]}, None, "no algorithm is common to both"),
])
async def test_why_a_server_is_not_used(options: dict[str, Any], credential: Credential | None, said: str) -> None:
    ends = Ends(SERVER, options=options, credential=credential)
    error = await ends.over_()
    assert wire.explain(error).startswith(said)
    assert "wrong" not in wire.explain(error)
    assert not ends.is_ready.is_set()
    await ends.close()


async def test_no_common_algorithm_with_a_client() -> None:
    ends = Ends(CLIENT, options={"encryption_algs": ["aes128-cbc"]})
    assert wire.explain(await ends.over_()).startswith("no algorithm is common to both")
    await ends.close()


@pytest.mark.parametrize("credential", [
    Credential("app", key="garbage"), Credential("app", key="-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n"),
    Credential("app", key=private(USER_KEY, "secret phrase")), Credential("app", key=private(USER_KEY)[:200]),
    Credential("app", key=private(USER_KEY), certificate="garbage"),
    Credential("app", key=private(USER_KEY), certificate=USER_KEY.export_public_key().decode()),
    Credential("app", key="\0"), Credential("app", key="é"), Credential("app", key=private(USER_KEY), certificate="é"),
])
async def test_keys_that_cannot_be_read(credential: Credential) -> None:
    with pytest.raises(AuthenticationError) as raised:
        wire.server_options(TARGET, credential)
    assert "OpenSSH's formats" in str(raised.value)
    assert raised.value.__cause__ is None


@pytest.mark.parametrize("text", ["host ssh-ed25519 AAAA", "@nonsense host x", "host", "|1|x|y ssh-rsa AAAA", "\0"])
async def test_known_hosts_that_cannot_be_read(text: str) -> None:
    """Fails closed: no key is known, or the login fails."""
    target = Target("t", "ssh", ("host",), 22, ("127.0.0.1",), known_hosts=text)
    try:
        ends = Ends(SERVER, target=target)
    except AuthenticationError:
        return
    assert wire.explain(await ends.over_()).startswith("its host key is not the one that is known")
    await ends.close()


async def test_known_by_its_address_and_by_a_pattern() -> None:
    for host in ("127.0.0.1", "ho*", "other,host"):
        ends = await Ends(SERVER, target=Target("t", "ssh", ("host",), 22, ("127.0.0.1",),
                                                known_hosts=known(SERVER_KEY, host))).ready_()
        await ends.close()


# The end

async def test_goodbye_has_its_reason() -> None:
    ends = await Ends(CLIENT).ready_()
    ends.wire.end(wire.BY_APPLICATION, "weir: it is over")
    lost = asyncio.ensure_future(ends.real.wait_closed())
    await ends.over_()
    await asyncio.wait_for(lost, 5)
    await ends.close()


@pytest.mark.parametrize("peer", [CLIENT, SERVER])
async def test_their_goodbye(peer: int) -> None:
    ends = await Ends(peer).ready_()
    ends.real.disconnect(11, "bye")
    assert await ends.over_() is None
    ends = await Ends(peer).ready_()
    ends.real.send_packet(1, UInt32(2), String("you are wrong"), String("en"))
    assert "you are wrong" in wire.explain(await ends.over_())
    await ends.close()


@pytest.mark.parametrize("peer", [CLIENT, SERVER])
async def test_what_a_peer_says_of_itself_is_fit_for_a_terminal(peer: int) -> None:
    name = "client_version" if peer == CLIENT else "server_version"
    ends = await Ends(peer, options={name: "Evil"}).ready_()
    ends.wire.set_extra_info(**{name: "SSH-2.0-Evil\x1b[2J\r"})
    assert (ends.wire.client if peer == CLIENT else ends.wire.server) == "Evil [2J "
    ends.real.send_packet(1, UInt32(2), String("so\x1b[2J it is\n"), String("en"))
    assert wire.explain(await ends.over_()).startswith("so [2J it is ")
    await ends.close()


@pytest.mark.parametrize("peer", [CLIENT, SERVER])
async def test_nothing_is_heard_behind_a_goodbye(peer: int) -> None:
    ends = await Ends(peer).ready_()
    ends.to_weir.pause()
    ends.real.send_packet(1, UInt32(11), String("bye"), String("en"))
    ends.real.send_packet(DATA, UInt32(7), String(b"late"))
    whole = b"".join(ends.to_weir._waiting)
    ends.to_weir._waiting.clear()
    ends.wire.feed(whole)
    await ends.over_()
    assert ends.heard == []
    await ends.close()


@pytest.mark.parametrize("peer", [CLIENT, SERVER])
async def test_what_breaks_the_connection_protocol(peer: int) -> None:
    ends = await Ends(peer).ready_()

    def wrong(payload: bytes) -> None:
        ends.heard.append(payload)
        raise RemoteProtocolError("that may not be")

    ends.on_message = wrong
    ends.real.send_packet(DATA, UInt32(7), String(b"x"))
    ends.real.send_packet(DATA, UInt32(7), String(b"y"))
    assert "that may not be" in wire.explain(await ends.over_())
    assert len(ends.heard) == 1
    assert ends.bug is None
    await ends.close()


@pytest.mark.parametrize("peer", [CLIENT, SERVER])
async def test_a_bug_is_told_as_one(peer: int) -> None:
    ends = await Ends(peer).ready_()

    def wrong(payload: bytes) -> None:
        raise KeyError("bug")

    ends.on_message = wrong
    ends.real.send_packet(DATA, UInt32(7), String(b"x"))
    await ends.over_()
    assert isinstance(ends.bug, KeyError)
    await ends.close()


# Who means harm

async def test_input_that_waits_pauses_reading() -> None:
    """While a login waits, what the client sends is not read without end; then it goes on."""
    ends = Ends(CLIENT, methods=("none",), admit=None)
    await ends.until(lambda: ends.admitted)
    for _ in range(20):
        ends.wire.feed(os.urandom(32 << 10))
    assert ends.fulls == [(CLIENT, True)]
    assert len(ends.wire._inpbuf) < (1 << 20)
    ends.then[0]("")
    await ends.until(lambda: ends.is_over.is_set())
    await ends.close()


@pytest.mark.parametrize("peer", [CLIENT, SERVER])
async def test_many_small_messages_that_had_to_wait(peer: int) -> None:
    """Read in slices: asyncssh copies all that it has not read for each message."""
    ends = await Ends(peer).ready_()
    ends.to_weir.pause()
    for _ in range(20_000):
        ends.real.send_packet(2, String(b""))
    whole = b"".join(ends.to_weir._waiting)
    ends.to_weir._waiting.clear()
    handler, ends.wire._recv_handler = ends.wire._recv_handler, lambda: False
    ends.wire.feed(whole)
    ends.wire._recv_handler = handler
    loop = asyncio.get_running_loop()
    began = loop.time()
    ends.wire._recv_data()
    assert loop.time() - began < 3
    assert ends.wire._inpbuf == b""
    ends.to_weir.resume()
    await both_ways(ends, [10])
    await ends.close()


@pytest.mark.parametrize("peer", [CLIENT, SERVER])
@pytest.mark.parametrize("compression", ["zlib", "zlib@openssh.com"])
async def test_a_message_that_unpacks_without_end(peer: int, compression: str) -> None:
    ends = await Ends(peer, options={"compression_algs": [compression]}).ready_()
    packed: list[int] = []
    stream = zlib.compressobj(9)

    class Bomb:
        def compress(self, data: bytes) -> bytes:
            found = stream.compress(data + bytes(64 << 20)) + stream.flush(zlib.Z_SYNC_FLUSH)
            packed.append(len(found))
            return found

    # A stream of its own: the receiver's has seen nothing that it needs.
    ends.wire._decompressor = wire._Unpacked()
    ends.real._compressor = Bomb()
    ends.real.send_packet(DATA, UInt32(7))
    assert "ecompression" in wire.explain(await ends.over_())
    assert packed[0] < 256 << 10
    assert ends.heard == []
    await ends.close()


@pytest.mark.parametrize("peer", [CLIENT, SERVER])
@pytest.mark.parametrize("compression", ["zlib", "zlib@openssh.com"])
async def test_unpacking_is_weirs_own(peer: int, compression: str) -> None:
    ends = await Ends(peer, options={"compression_algs": [compression]}).ready_()
    assert isinstance(ends.wire._decompressor, wire._Unpacked)
    ends.real._send_kexinit()
    ends.real._kexinit_sent = True
    first = ends.wire._decompressor
    await ends.until(lambda: ends.wire._decompressor is not first and ends.real._kex_complete)
    assert isinstance(ends.wire._decompressor, wire._Unpacked)
    await both_ways(ends, [100])
    await ends.close()


@pytest.mark.parametrize("peer", [CLIENT, SERVER])
async def test_key_exchanges_again_and_again(peer: int) -> None:
    ends = await Ends(peer).ready_()
    count = 0
    while not ends.is_over.is_set() and count < 3 * wire.EXCHANGES:
        if ends.real._kex_complete and not ends.real._kex:
            count += 1
            ends.real._send_kexinit()
            ends.real._kexinit_sent = True
        await asyncio.sleep(0)
    assert "too many key exchanges" in wire.explain(await ends.over_())
    assert count < 2 * wire.EXCHANGES
    await ends.close()


@pytest.mark.parametrize("peer", [CLIENT, SERVER])
async def test_a_key_exchange_that_is_begun_and_not_ended(peer: int) -> None:
    """What waits behind it tells those who send to wait, and ends the connection at last."""
    ends = await Ends(peer).ready_()
    ends.wire._send_kexinit()
    ends.wire._kexinit_sent = True
    ends.to_real.pause()
    for _ in range(20):
        ends.wire.send(message(30_000))
    assert ends.wire.behind
    ends.to_real.resume()
    await ends.until(lambda: not ends.wire.behind)
    assert ends.relief == 1
    ends.wire._send_kexinit()
    ends.to_real.pause()
    kept, piece = 0, message(250_000)
    while ends.wire._transport is not None:
        ends.wire.send(piece)
        kept += len(piece)
        assert kept < 2 * wire.MOST
    assert "does not end" in wire.explain(await ends.over_())
    ends.to_real.resume()
    await ends.close()


@pytest.mark.parametrize("peer", [CLIENT, SERVER])
@pytest.mark.parametrize(("kind", "rest"), [
    (2, String(b"x" * 1000)), (3, UInt32(1)), (4, Boolean(True) + String("debug\x1b[2J") + String("en"))])
async def test_what_says_nothing_is_not_kept(peer: int, kind: int, rest: bytes) -> None:
    ends = await Ends(peer).ready_()
    for _ in range(200):
        ends.real.send_packet(kind, rest)
    await both_ways(ends, [10])
    await ends.close()


@pytest.mark.parametrize("peer", [CLIENT, SERVER])
@pytest.mark.parametrize(("kind", "rest"), [
    (7, UInt32(1 << 31) + b"x"), (7, UInt32(0)), (5, String("ssh-userauth")), (6, String("ssh-userauth")),
    (20, b"x" * 40), (21, b""), (30, String(b"x")), (31, String(b"x")), (51, String("") + Boolean(False)), (52, b""),
    (53, String("banner") + String("")), (60, b""), (1, b""), (3, b""), (4, b"\1"), (2, b"\xff\xff\xff\xff"),
])
async def test_messages_of_the_transport_where_they_do_not_belong(peer: int, kind: int, rest: bytes) -> None:
    """Ignored, or the end: never a session that hangs, never an exception past the transport."""
    ends = await Ends(peer).ready_()
    ends.real.send_packet(kind, rest)
    for _ in range(50):
        await asyncio.sleep(0)
    if not ends.is_over.is_set():
        ends.real.send_packet(DATA, UInt32(7), String(b"x"))
        await ends.until(lambda: ends.heard or ends.is_over.is_set())
    assert ends.bug is None
    await ends.close()


@pytest.mark.parametrize("peer", [CLIENT, SERVER])
async def test_a_message_longer_than_any(peer: int) -> None:
    ends = await Ends(peer).ready_()
    ends.real.send_packet(DATA, UInt32(7), String(bytes(300 << 10)))
    await ends.over_()
    assert ends.heard == []
    await ends.close()


async def test_a_server_with_any_number_of_lines_before_its_name() -> None:
    ends = Ends(SERVER)
    ends.to_weir.pause()
    ends.wire.feed(b"no SSH here\r\n" * 5000)
    assert "banner" in wire.explain(await ends.over_()).lower()
    await ends.close()
