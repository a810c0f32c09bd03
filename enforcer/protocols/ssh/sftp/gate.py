"""The gate of one SFTP channel: bytes of both sides in, bytes for both sides out; draft-ietf-secsh-filexfer-02.

    begin     nothing came           INIT of the client          -> greeted   INIT 3 to the server
    greeted   VERSION is awaited     VERSION of the server       -> lost      VERSION 3 to the client, REALPATH "."
    lost      home is not known      the answer                  -> ready
    ready     requests of the client; what came earlier waited

Requests that name paths are visits.py's, those that name handles traffic.py's.  Everything is answered once, with the
id that the client gave it.
"""
from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from agent.contract.target import ContentLabel
from enforcer.core.desk import Desk
from enforcer.protocols.ssh.sftp.exchange import Exchange
from enforcer.protocols.ssh.sftp.framing import Framing
from enforcer.protocols.ssh.sftp.handles import EXTENSIONS as OF_HANDLES
from enforcer.protocols.ssh.sftp.handles import HANDLES
from enforcer.protocols.ssh.sftp.messages import (
    CLOSE,
    EXTENDED,
    EXTENDED_REPLY,
    EXTENSIONS,
    FSETSTAT,
    FSTAT,
    INIT,
    NAME,
    OP_UNSUPPORTED,
    READ,
    READDIR,
    REALPATH,
    STATUS,
    VERSION,
    VERSION_3,
    WRITE,
    Fields,
    Status,
    parse_names,
    parse_status,
    parse_version,
    render,
    render_limits,
    string,
)
from enforcer.protocols.ssh.sftp.paths import Labels, normal
from enforcer.protocols.ssh.sftp.requests import (
    EXTENDED_FORMS,
    FORMS,
    NAMES_BY_ID,
    parse_wish,
)
from enforcer.protocols.ssh.sftp.traffic import Traffic
from enforcer.protocols.ssh.sftp.visits import Visits
from enforcer.words.errors import RemoteProtocolError

BEGIN, GREETED, LOST, READY, OVER = range(5)
# Requests that wait for a decision or for others: each is compared with all, and what a server answers may come all at
# once, with a decision for each.
PENDING: Final = 128
BY_HANDLE: Final = frozenset((CLOSE, READ, WRITE, FSTAT, FSETSTAT, READDIR))
LIMITS: Final = b"limits@openssh.com"


class Gate:
    """`to_client` and `to_server` are called with whole packets; `finished` once, when the client has sent its end and
    nothing of it waits any more: then the server may be told the end.  `say`: a line for the client's user (of a
    denial, of a hold), where the channel has a place for it; not more than a hundred in a session."""

    def __init__(
        self, desk: Desk, to_client: Callable[[bytes], None], to_server: Callable[[bytes], None],
        labels: tuple[ContentLabel, ...] = (), payload: str = "none", finished: Callable[[], None] = lambda: None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._to_client, self._to_server, self._finished = to_client, to_server, finished
        self._exchange = Exchange(desk, to_client, to_server, say)
        self._exchange.after = self._run
        known = Labels(labels)
        self._traffic = Traffic(self._exchange, known.of, payload == "content")
        self._visits = Visits(self._exchange, self._traffic, known)
        self._client, self._server = Framing(), Framing()
        self._phase = BEGIN
        self._offered: set[bytes] = set()      # extensions of the server
        self._ended = self._running = False

    @property
    def client_backlog(self) -> int:
        """Bytes of the client that were neither sent nor answered."""
        return self._client.waiting + self._traffic.waiting

    @property
    def server_backlog(self) -> int:
        """Bytes of the server that are no whole packet yet: never more than one of them."""
        return self._server.waiting

    @property
    def backlog(self) -> int:
        return self.client_backlog + self.server_backlog

    # --- what comes ---

    def from_client(self, data: bytes) -> None:
        if self._phase == OVER:
            return
        self._client.feed(data)
        self._run()

    def from_server(self, data: bytes) -> None:
        if self._phase == OVER:
            return
        self._server.feed(data)
        while self._phase != OVER and (packet := self._server.next()) is not None:
            self._hear(packet)
        self._run()

    def client_eof(self) -> None:
        """What it sent before is still done."""
        self._ended = True
        self._run()

    def server_eof(self) -> None:
        """Nothing is answered any more."""
        self.closed()

    def closed(self) -> None:
        """The channel is gone: book what is open.  Nothing is sent after it."""
        if self._phase == OVER:
            return
        self._phase = OVER
        self._traffic.close()
        self._exchange.close()

    def _run(self) -> None:
        if self._running:
            return
        self._running = True
        try:
            while not self._stalls() and (packet := self._client.next()) is not None:
                self._take(packet)
        finally:
            self._running = False
        if self._ended and not self._stalls() and not len(self._visits) and not self._traffic.queued:
            self._ended, self._exchange.sealed = False, True
            self._finished()

    def _stalls(self) -> bool:
        waits = len(self._visits) + self._traffic.queued >= PENDING
        return waits or self._exchange.full or self._phase not in (BEGIN, READY)

    # --- the beginning ---

    def _begin(self, packet: memoryview) -> None:
        if packet[4] != INIT:
            raise RemoteProtocolError(f"the client begins with type {packet[4]}")
        parse_version(packet)
        self._phase = GREETED
        done = self._exchange.own("init", b"init")
        self._to_server(render(INIT, VERSION_3))
        done(None)

    def _greet(self, packet: memoryview) -> None:
        """What the server offers and Weir knows is offered to the client (section 4)."""
        if packet[4] != VERSION:
            raise RemoteProtocolError(f"the server begins with type {packet[4]}")
        version, pairs = parse_version(packet)
        if version != VERSION_3:
            raise RemoteProtocolError(f"the server speaks version {version} of SFTP")
        known = [(name, value) for name, value in pairs if EXTENSIONS.get(name) == value]
        self._offered = {name for name, _ in known}
        self._phase = LOST
        self._to_client(render(VERSION, VERSION_3, *(string(name) + string(value) for name, value in known)))
        self._visits.begin()
        done = self._exchange.own("resolve", b"realpath .")
        self._exchange.ask(REALPATH, string(b"."), (NAME, STATUS), partial(self._arrive, done))

    def _arrive(self, done: Callable[[Status | None], None], kind: int, packet: memoryview) -> None:
        """Where relative paths begin; without it there are none."""
        done(parse_status(packet) if kind == STATUS else None)
        names = parse_names(packet) if kind == NAME else []
        if len(names) == 1 and names[0].startswith(b"/") and b"\0" not in names[0]:
            self._visits.home = normal(names[0])
        self._phase = READY

    def _hear(self, packet: memoryview) -> None:
        if self._phase == GREETED:
            self._greet(packet)
            return
        if self._phase == BEGIN:
            raise RemoteProtocolError("the server speaks first")
        if len(packet) < 9:
            raise RemoteProtocolError("the server's packet has no id")
        flight = self._exchange.land(packet)
        if flight.then is None:
            self._traffic.arrived(flight, packet)
        else:
            flight.then(packet[4], packet)

    # --- requests ---

    def _take(self, packet: memoryview) -> None:
        if self._phase == BEGIN:
            self._begin(packet)
            return
        if len(packet) < 9:
            raise RemoteProtocolError("the client's packet has no id")
        kind, client = packet[4], int.from_bytes(packet[5:9], "big")
        if kind == INIT:
            raise RemoteProtocolError("the client begins twice")
        self._exchange.claim(client)
        if kind in BY_HANDLE:
            self._traffic.take(client, packet)
        elif kind == EXTENDED:
            self._extended(client, packet)
        elif (form := FORMS.get(kind)) is not None:
            self._visits.take(client, parse_wish(form, Fields(packet)))
        else:
            self._exchange.refuse(client, OP_UNSUPPORTED, f"requests of type {kind} are not known")

    def _extended(self, client: int, packet: memoryview) -> None:
        fields = Fields(packet)
        name = bytes(fields.view())
        if name not in self._offered:
            self._exchange.refuse(client, OP_UNSUPPORTED, "this extension is not offered")
        elif name in OF_HANDLES or name == b"copy-data":
            self._traffic.line_up(client, packet)
        elif name == LIMITS:
            fields.end()
            self._limits(client)
        elif name == NAMES_BY_ID:
            self._visits.names(client, fields)
        else:
            self._visits.take(client, parse_wish(EXTENDED_FORMS[name], fields))

    def _limits(self, client: int) -> None:
        """Nothing of the server's files: no question of policy."""
        done = self._exchange.own("limits", b"limits")

        def arrived(kind: int, packet: memoryview) -> None:
            done(parse_status(packet) if kind == STATUS else None)
            if kind == STATUS:
                self._exchange.relay(client, packet)
            else:
                self._exchange.reply(client, render_limits(client, packet, HANDLES))

        self._exchange.forward(client, EXTENDED, string(LIMITS), (EXTENDED_REPLY, STATUS), arrived)
