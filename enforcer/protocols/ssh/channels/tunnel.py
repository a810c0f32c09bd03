"""Bytes to somewhere else: forwards of ports and sockets (RFC 4254 7), agents and X11."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from enforcer.core.desk import Ask, Desk, Verdict
from enforcer.core.places import plain_host
from enforcer.core.raw import Raw
from enforcer.protocols import spoken
from enforcer.protocols.ssh.channels.channel import Channel, Line
from enforcer.protocols.ssh.channels.flow import PACKET
from enforcer.protocols.ssh.messages import PROHIBITED, Fields, Open
from enforcer.protocols.ssh.paths import canonical
from enforcer.words.commands import (
    CLIENT,
    SERVER,
    CloseThrough,
    EndThrough,
    OpenThrough,
    PauseThrough,
    ResumeThrough,
    SendThrough,
    ThroughConnected,
    ThroughFailed,
)
from enforcer.words.operations import Request

LAST_PORT: Final = 65535
UNCLEAR: Final = "unclear-place"      # the rule that refuses what has no one meaning
NAME: Final = 4096                    # bytes of a host's name or a path
BEHIND: Final = 256 << 10             # bytes that may wait for a side before the edge is told


@dataclass(frozen=True, slots=True)
class Way:
    """Where a tunnel leads: what it is called, and what it is asked as."""

    verb: str
    text: bytes
    requests: tuple[Request, ...]
    wrong: str = ""                   # why no policy permits it: servers do not read it alike


def unclear_host(host: str, port: int) -> str:
    """Where servers may see another place than policy does: they end a name at a NUL, take a port modulo 65536, and
    read letters that are not ASCII as others (IDNA)."""
    if not host.isascii() or not host.isprintable() or " " in host:
        return "a host whose name has other characters than ASCII ones that are seen"
    return f"port {port}: there are 65535" if port > LAST_PORT else ""


def unclear_path(path: str) -> str:
    """Relative to where a server runs, or by way of what may be links."""
    clear = path.startswith("/") and canonical(path)
    return "" if clear else "the path of a socket that is not absolute, or has .. in it"


def endpoint(desk: Desk, action: str, host: str, port: int) -> tuple[Request, ...]:
    # In one spelling.  An empty host is every address (RFC 4254 7.1); as a name it would be none.
    named = plain_host(host) or "*"
    if action == "ssh:forward-remote" and named in ("0.0.0.0", "::"):      # noqa: S104
        named = "*"
    return (Request(action, "Endpoint", (desk.target, desk.account, f"{named} {port}"),
                    (("host", named), ("port", str(port)))),)


def socket(desk: Desk, path: str) -> tuple[Request, ...]:
    named = canonical(path) if not unclear_path(path) else path or "-"
    return (Request("ssh:forward-stream", "Socket", (desk.target, desk.account, named), (("path", named),)),)


def account(desk: Desk, action: str) -> tuple[Request, ...]:
    return (Request(action, "Account", (desk.target, desk.account)),)


def _direct(desk: Desk, rest: bytes) -> Way:
    fields = Fields(rest)
    host, port = fields.text(NAME), fields.number()
    return Way("forward-local", f"{host} {port}".encode(), endpoint(desk, "ssh:forward-local", host, port),
               unclear_host(host, port))


def _stream(desk: Desk, rest: bytes) -> Way:
    path = Fields(rest).text(NAME)
    return Way("forward-stream", path.encode(), socket(desk, path), unclear_path(path))


def _tun(desk: Desk, rest: bytes) -> Way:
    return Way("tun", b"", account(desk, "ssh:tun"))


# Channels that a crew opens.
TO_SERVER: Final[dict[bytes, Callable[[Desk, bytes], Way]]] = {
    b"direct-tcpip": _direct, b"direct-streamlocal@openssh.com": _stream, b"tun@openssh.com": _tun,
}


def forwarded(desk: Desk, kind: bytes, rest: bytes) -> tuple[bytes, Way]:
    """Of a channel that the server opens: what it must have been asked for, and the way."""
    fields = Fields(rest)
    if kind == b"forwarded-tcpip":
        host, port = fields.text(NAME), fields.number()
        way = Way("forwarded", f"{host} {port}".encode(), endpoint(desk, "ssh:forward-remote", host, port))
        return kind + f" {host} {port}".encode(), way
    if kind == b"forwarded-streamlocal@openssh.com":
        path = fields.text(NAME)
        return kind + b" " + path.encode(), Way("forwarded", path.encode(), socket(desk, path))
    name = "x11" if kind == b"x11" else "agent"
    return kind, Way(name, name.encode(), account(desk, f"ssh:{name}"))


class Tunnel(Channel):
    """One whose opener is asked about before the other side hears of it."""

    def __init__(self, line: Line, number: int, opener: int, opened: Open, way: Way) -> None:
        super().__init__(line, number, opener, opened)
        self._way = way
        self._operation = 0

    def begin(self) -> None:
        way = self._way
        ask = Ask(way.verb, way.text, way.requests, self.kind + b"\0" + self.rest, writes=True)
        if way.wrong:
            self.line.book.refuse(ask, UNCLEAR, way.wrong, self._decided)
        else:
            self.line.book.ask(ask, self._decided)

    def _decided(self, verdict: Verdict) -> None:
        if not verdict.permitted:
            self.refuse(PROHIBITED, f"weir: {verdict.reason}")
            return
        self._operation = verdict.number
        self.permitted()

    def permitted(self) -> None:
        self.open_other()

    def allowed(self) -> None:
        """It comes of what was permitted before: a forward, an agent, X11."""
        self._operation = self.line.book.allow(Ask(
            self._way.verb, self._way.text, self._way.requests, self.kind + b"\0" + self.rest))
        self.open_other()

    def refused(self, code: int, reason: str) -> None:
        self.line.book.done(self._operation, "error", "", reason.encode())
        super().refused(code, reason)

    def received(self, peer: int, kind: int, data: bytes) -> None:
        self.line.book.piece(self._operation, "in" if peer == CLIENT else "out", data, keep=False)
        self.pass_on(peer, kind, data)

    def received_close(self, peer: int) -> None:
        self.line.book.done(self._operation, "ok")


class Carried(Channel):
    """One side of it is a peer (`side`), the other a line of the edge's, `line_number`."""

    side = CLIENT
    _full = _paused = False

    @property
    def line_number(self) -> int:
        return self.number

    def through_data(self, data: bytes) -> None:
        half = self.halves[self.side]
        half.put(data)
        if half.queued > BEHIND and not self._paused:
            self._paused = True
            self.line.say(PauseThrough(self.line_number, self.side))

    def through_full(self, on: bool) -> None:
        self._full = on
        self.settle(self.side)

    def adjust(self, peer: int, amount: int) -> None:
        super().adjust(peer, amount)
        if self._paused and self.halves[self.side].queued <= BEHIND // 2:
            self._paused = False
            self.line.say(ResumeThrough(self.line_number, self.side))


class Direct(Carried, Tunnel):
    """A crew's way to a host and port: through that target's protocol where there is one, else as it is, unless it
    begins like what has no business there (core/raw.py)."""

    def __init__(self, line: Line, number: int, opened: Open, way: Way) -> None:
        super().__init__(line, number, CLIENT, opened, way)
        fields = Fields(opened.rest)
        self.host, self.port = fields.text(NAME), fields.number()
        self._raw = Raw(self.host, spoken)
        self._inner = False
        self.through = False          # the edge has it

    def permitted(self) -> None:
        self.through = True
        self.line.say(OpenThrough(self.number, self.host, self.port))

    # A registered target

    def through_opened(self, target: str, session: str) -> None:
        self._inner = True
        self.server.closed = self.server.sent_close = True     # there is no other side: the edge is
        self.line.book.tell("tunnel", f"operation {self._operation}: target {target}, session {session}")
        self.confirm()

    def through_refused(self, reason: str) -> None:
        self.through = False
        if reason:
            self.line.book.done(self._operation, "error", "", reason.encode())
            self.refuse(PROHIBITED, f"weir: {reason}")
        else:
            self.open_other()

    def through_data(self, data: bytes) -> None:
        self.line.book.piece(self._operation, "out", data, keep=False)
        super().through_data(data)

    def through_ended(self) -> None:
        self.crew.end()
        self.crew.close()
        self.check()

    def through_closed(self) -> None:
        self.line.book.done(self._operation, "ok")
        self.crew.close()
        self.check()

    # Streams

    def settle(self, peer: int, size: int = 0) -> None:
        if self._inner:
            self.halves[peer].give_back(size, not self._full)
        else:
            super().settle(peer, size)

    def received(self, peer: int, kind: int, data: bytes) -> None:
        self.line.book.piece(self._operation, "in" if peer == CLIENT else "out", data, keep=False)
        if self._inner:
            self.line.say(SendThrough(self.number, CLIENT, data))
            self.settle(CLIENT, len(data))
            return
        passed, reason = self._raw.client(data) if peer == CLIENT else self._raw.server(data)
        self._judged(peer, passed, reason)
        self.settle(peer, len(data))
        self.line.timer(self, self._raw.wait)

    def _judged(self, peer: int, passed: bytes, reason: str) -> None:
        if reason:
            self.line.book.done(self._operation, "denied", "", reason.encode())
            self.end()
        elif passed:
            self.halves[1 - peer].put(passed)

    def fired(self) -> None:
        self._judged(CLIENT, *self._raw.due())
        self.line.timer(self, self._raw.wait)

    def received_end(self, peer: int) -> None:
        if self._inner:
            self.line.say(EndThrough(self.number, CLIENT))
            return
        if peer == CLIENT:
            self._judged(CLIENT, *self._raw.no_more())
        super().received_end(peer)

    def received_close(self, peer: int) -> None:
        super().received_close(peer)
        if self._inner:
            self.line.say(CloseThrough(self.number, CLIENT))


class Uplink(Carried):
    """A connection that the edge wants to where a tunnel leads: to the server, and no crew's."""

    side = SERVER

    def __init__(self, line: Line, number: int, through: int, tunnel: Direct) -> None:
        super().__init__(line, number, CLIENT, Open(b"direct-tcpip", 0, 0, PACKET, tunnel.rest))
        self.through, self._unwanted = through, False
        self.crew.closed = self.crew.sent_close = True
        self._operation = line.book.own("dial", f"{tunnel.host} {tunnel.port}".encode()) if through < 0 else 0

    @property
    def line_number(self) -> int:
        return self.through

    def confirm(self) -> None:
        self.opened = True
        if self._unwanted:
            self.server.close()
        else:
            self.line.say(ThroughConnected(self.through))

    def refused(self, code: int, reason: str) -> None:
        self.line.book.done(self._operation, "error", "", reason.encode())
        if not self._unwanted:
            self.line.say(ThroughFailed(self.through, reason))
        self.line.gone(self)

    def received(self, peer: int, kind: int, data: bytes) -> None:
        self.line.say(SendThrough(self.through, SERVER, data))
        self.settle(SERVER, len(data))

    def settle(self, peer: int, size: int = 0) -> None:
        if peer == SERVER:
            self.server.give_back(size, not self._full)

    def received_end(self, peer: int) -> None:
        self.line.say(EndThrough(self.through, SERVER))

    def received_close(self, peer: int) -> None:
        self.line.book.done(self._operation, "ok")
        self.line.say(CloseThrough(self.through, SERVER))

    def through_ended(self) -> None:
        """Nobody waits for it any more."""
        if self.opened:
            self.server.close()
            self.check()
        else:
            self._unwanted = True
