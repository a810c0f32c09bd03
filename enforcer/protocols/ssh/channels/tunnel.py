"""Bytes to somewhere else: forwards of ports and sockets (RFC 4254 7), agents and X11."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from enforcer.protocols.ssh.channels.channel import Channel, Line
from enforcer.protocols.ssh.desk import Ask, Desk, Verdict
from enforcer.protocols.ssh.messages import PROHIBITED, Fields, Open
from enforcer.words.commands import CLIENT
from enforcer.words.operations import Request

NAME: Final = 4096                    # bytes of a host's name or a path


@dataclass(frozen=True, slots=True)
class Way:
    """Where a tunnel leads: what it is called, and what it is asked as."""

    verb: str
    text: bytes
    requests: tuple[Request, ...]


def endpoint(desk: Desk, action: str, host: str, port: int) -> tuple[Request, ...]:
    # An empty host is every address (RFC 4254 7.1); as a name it would be none.
    named = host or "*"
    return (Request(action, "Endpoint", (desk.target, desk.account, f"{named} {port}"),
                    (("host", named), ("port", str(port)))),)


def socket(desk: Desk, path: str) -> tuple[Request, ...]:
    return (Request("ssh:forward-stream", "Socket", (desk.target, desk.account, path or "-"), (("path", path),)),)


def account(desk: Desk, action: str) -> tuple[Request, ...]:
    return (Request(action, "Account", (desk.target, desk.account)),)


def _direct(desk: Desk, rest: bytes) -> Way:
    fields = Fields(rest)
    host, port = fields.text(NAME), fields.number()
    return Way("forward-local", f"{host} {port}".encode(), endpoint(desk, "ssh:forward-local", host, port))


def _stream(desk: Desk, rest: bytes) -> Way:
    path = Fields(rest).text(NAME)
    return Way("forward-stream", path.encode(), socket(desk, path))


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
        self._decided: Callable[[Verdict], None] | None = None

    def begin(self) -> None:
        self._decided = self._open
        self.line.book.ask(
            Ask(self._way.verb, self._way.text, self._way.requests, self.kind + b"\0" + self.rest, writes=True),
            self._decided)

    def _open(self, verdict: Verdict) -> None:
        self._decided = None
        if not verdict.permitted:
            self.refuse(PROHIBITED, f"weir: {verdict.reason}")
            return
        self._operation = verdict.number
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
