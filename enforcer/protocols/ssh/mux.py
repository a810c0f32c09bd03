"""The connection protocol between a crew and a server (RFC 4254): channels and global requests.  Pure."""
from __future__ import annotations

from collections.abc import Callable
from typing import Final

from enforcer.core.book import Book
from enforcer.core.carrying import answer, carry
from enforcer.core.desk import Ask, Verdict
from enforcer.protocols.ssh import messages
from enforcer.protocols.ssh.channels.channel import MANY, Channel
from enforcer.protocols.ssh.channels.replies import Awaited, Owed, Then
from enforcer.protocols.ssh.channels.session import SessionChannel
from enforcer.protocols.ssh.channels.tunnel import (
    NAME,
    TO_SERVER,
    UNCLEAR,
    Direct,
    Tunnel,
    Uplink,
    Way,
    endpoint,
    forwarded,
    socket,
    unclear_host,
    unclear_path,
)
from enforcer.protocols.ssh.messages import (
    CLOSE,
    DATA,
    EOF,
    EXTENDED_DATA,
    FAILURE,
    PROHIBITED,
    REQUEST_FAILURE,
    REQUEST_SUCCESS,
    SHORTAGE,
    SUCCESS,
    UNKNOWN_TYPE,
    WINDOW_ADJUST,
    Fields,
    Request,
    show,
)
from enforcer.words import inputs
from enforcer.words.commands import CLIENT, SERVER, Command, StartTimer, ThroughFailed
from enforcer.words.errors import RemoteProtocolError

SPARE: Final = 64                     # channels more that sessions through this one may have
MOST: Final = 256                     # channels of a session at a time
EXPECTED: Final = 256                 # forwards of a session
NUMBERS: Final = 1 << 32              # of channels, then from 0 again
FROM_SERVER: Final = (
    b"forwarded-tcpip", b"forwarded-streamlocal@openssh.com", b"x11", b"auth-agent@openssh.com")


class Mux:
    """`send` gives a message to a peer's transport, `say` a command to the edge; `behind` tells of a peer to whom more
    waits to be sent than should."""

    def __init__(self, book: Book, send: Callable[[int, bytes], None], say: Callable[[Command], None],
                 behind: Callable[[int], bool] = lambda peer: False) -> None:
        self.book, self.send, self.say, self.behind = book, send, say, behind
        self._channels: dict[int, Channel] = {}
        self._next = 0
        self._directs: dict[int, Direct] = {}  # until the edge is done with them,
        self._uplinks: dict[int, Uplink] = {}  # and lines of its own, by its numbers
        self._expected: set[bytes] = set()
        self._no_more = False         # sessions (no-more-sessions@openssh.com)
        self._sessions = 0
        self._owed = tuple(Owed(lambda message, peer=peer: send(peer, message))  # type: ignore[misc]
                           for peer in (CLIENT, SERVER))
        self._awaited = (Awaited(), Awaited())

    # channels.channel.Line

    def gone(self, channel: Channel) -> None:
        self.timer(channel, 0)
        self._channels.pop(channel.number, None)
        if isinstance(channel, Uplink):
            self._uplinks.pop(channel.through, None)
        elif isinstance(channel, Direct) and not channel.through:
            self._directs.pop(channel.number, None)

    def timer(self, channel: Channel, seconds: float) -> None:
        self.say(StartTimer(f"channel {channel.number}", seconds))

    def expect(self, what: bytes) -> None:
        self._expected.add(what)      # bounded where forwards are asked for

    @property
    def crowded(self) -> bool:
        return len(self._channels) >= MANY

    # Messages

    def message(self, peer: int, payload: bytes) -> None:
        """RemoteProtocolError where it may not be."""
        kind = payload[0]
        if kind == DATA:
            fields = Fields(payload, 5)
            self._channel(payload).data(peer, 0, fields.string())
            return
        handler = _HANDLERS.get(kind)
        if handler is None:
            raise RemoteProtocolError(f"a message of type {kind}, which nobody knows")
        handler(self, peer, payload)

    def _channel(self, payload: bytes) -> Channel:
        found = self._channels.get(messages.parse_channel(payload))
        if found is None or not found.opened:
            raise RemoteProtocolError("a message for a channel that is not open")
        return found

    def _extended(self, peer: int, payload: bytes) -> None:
        fields = Fields(payload, 5)
        self._channel(payload).data(peer, fields.number(), fields.string())

    def _adjust(self, peer: int, payload: bytes) -> None:
        self._channel(payload).adjust(peer, Fields(payload, 5).number())

    def _eof(self, peer: int, payload: bytes) -> None:
        self._channel(payload).eof(peer)

    def _close(self, peer: int, payload: bytes) -> None:
        self._channel(payload).close(peer)

    def _request(self, peer: int, payload: bytes) -> None:
        channel = self._channel(payload)
        if channel.halves[peer].closed:
            raise RemoteProtocolError("a request on a channel that is closed")
        channel.request(peer, messages.parse_request(payload))

    def _success(self, peer: int, payload: bytes) -> None:
        self._channel(payload).replied(peer, True)

    def _failure(self, peer: int, payload: bytes) -> None:
        self._channel(payload).replied(peer, False)

    # Opening

    def _open(self, peer: int, payload: bytes) -> None:
        asked = messages.parse_open(payload)
        why = self._why_not(peer, asked.kind)
        if why:
            self.send(peer, messages.render_refused(asked.sender, *why))
            return
        number = self._number()
        if peer == SERVER:
            self._from_server(number, asked)
        elif asked.kind == b"session":
            self._session(number, asked)
        else:
            self._tunnel(number, asked)

    def _why_not(self, peer: int, kind: bytes) -> tuple[int, str] | None:
        if len(self._channels) >= MOST:
            return SHORTAGE, f"weir: {MOST} channels are open, which is the most"
        known = FROM_SERVER if peer == SERVER else (b"session", *TO_SERVER)
        if kind not in known:
            return UNKNOWN_TYPE, f"weir: channels of type {show(kind)!r} are not carried"
        if kind == b"session" and self._no_more:
            return PROHIBITED, "weir: no more sessions were wanted"
        return None

    def _number(self) -> int:
        while self._next in self._channels or self._next in self._directs:
            self._next = (self._next + 1) % NUMBERS
        number, self._next = self._next, (self._next + 1) % NUMBERS
        return number

    def _session(self, number: int, asked: messages.Open) -> None:
        self._sessions += 1
        if self._sessions == 2:
            # Several clients may be behind one connection (ControlMaster): its process is whose it was made by.
            self.book.tell("shared", "several sessions in one connection")
        self._add(SessionChannel(self, number, asked)).begin()

    def _tunnel(self, number: int, asked: messages.Open) -> None:
        way = TO_SERVER[asked.kind](self.book, asked.rest)
        if asked.kind != b"direct-tcpip":
            self._add(Tunnel(self, number, CLIENT, asked, way)).begin()
            return
        tunnel = self._directs[number] = Direct(self, number, asked, way)
        self._add(tunnel)
        tunnel.begin()

    def _from_server(self, number: int, asked: messages.Open) -> None:
        wanted, way = forwarded(self.book, asked.kind, asked.rest)
        if wanted not in self._expected:
            self.send(SERVER, messages.render_refused(asked.sender, PROHIBITED, "nobody asked for that"))
            return
        tunnel = Tunnel(self, number, SERVER, asked, way)
        self._add(tunnel)
        tunnel.allowed()

    def _add(self, channel: Channel) -> Channel:
        self._channels[channel.number] = channel
        return channel

    def _opened(self, peer: int, payload: bytes) -> None:
        channel = self._opening(peer, payload)
        fields = Fields(payload, 5)
        channel.confirmed(fields.number(), fields.number(), fields.number())

    def _refused(self, peer: int, payload: bytes) -> None:
        channel = self._opening(peer, payload)
        fields = Fields(payload, 5)
        channel.refused(fields.number(), fields.text(4096))

    def _opening(self, peer: int, payload: bytes) -> Channel:
        found = self._channels.get(messages.parse_channel(payload))
        if found is None or found.opened or found.opener == peer or not found.asked:
            raise RemoteProtocolError("an answer to no channel that was asked for")
        return found

    # Global requests

    def _global(self, peer: int, payload: bytes) -> None:
        request = messages.parse_global(payload)
        known = _GLOBAL[peer].get(request.name)
        if known is not None:
            known(self, peer, request)
        else:
            self._answer(peer, request, False)

    def _pass(self, peer: int, request: Request) -> None:
        if not request.wants_reply:
            self.send(1 - peer, messages.render_global(request))
            return
        slot = self._owed[peer].slot()
        self._ask(1 - peer, request, lambda success, rest: self._owed[peer].answer(slot, _verdict(success, rest)))

    def _ask(self, peer: int, request: Request, then: Then) -> None:
        self._awaited[peer].ask(then)
        self.send(peer, messages.render_global(Request(request.name, True, request.rest)))

    def _answer(self, peer: int, request: Request, success: bool) -> None:
        if request.wants_reply:
            owed = self._owed[peer]
            owed.answer(owed.slot(), _verdict(success, b""))

    def _succeeded(self, peer: int, payload: bytes) -> None:
        self._awaited[peer].answered(True, payload[1:])

    def _failed(self, peer: int, payload: bytes) -> None:
        self._awaited[peer].answered(False)

    def _last_session(self, peer: int, request: Request) -> None:
        self._no_more = True
        self._pass(peer, request)

    def _ignore(self, peer: int, request: Request) -> None:
        """The server's other host keys are nothing to a client that knows Weir's."""
        self._answer(peer, request, False)

    def _listen(self, peer: int, request: Request) -> None:
        fields = Fields(request.rest)
        if request.name == b"tcpip-forward":
            host, port = fields.text(NAME), fields.number()
            fields.end()
            way = Way("forward-remote", f"{host} {port}".encode(), endpoint(
                self.book, "ssh:forward-remote", host, port), unclear_host(host, port))
            self._forward(request, way, lambda rest: b"forwarded-tcpip " + f"{host} {_port(port, rest)}".encode())
        else:
            path = fields.text(NAME)
            fields.end()
            way = Way("forward-remote", path.encode(), socket(self.book, path), unclear_path(path))
            self._forward(request, way, lambda rest: b"forwarded-streamlocal@openssh.com " + path.encode())

    def _forward(self, request: Request, way: Way, expected: Callable[[bytes], bytes]) -> None:
        if len(self._expected) >= EXPECTED:
            self._answer(CLIENT, request, False)
            return
        slot = self._owed[CLIENT].slot() if request.wants_reply else None

        def answer(success: bool, rest: bytes) -> None:
            if slot is not None:
                self._owed[CLIENT].answer(slot, _verdict(success, rest))

        def decided(verdict: Verdict) -> None:
            if not verdict.permitted:
                answer(False, b"")
                return

            def answered(success: bool, rest: bytes) -> None:
                if success:
                    self.expect(expected(rest))
                self.book.done(verdict.number, "ok" if success else "error")
                answer(success, rest)

            self._ask(SERVER, request, answered)

        ask = Ask(way.verb, way.text, way.requests, request.name + b"\0" + request.rest, writes=True)
        if way.wrong:
            self.book.refuse(ask, UNCLEAR, way.wrong, decided)
        else:
            self.book.ask(ask, decided)

    def _unlisten(self, peer: int, request: Request) -> None:
        fields = Fields(request.rest)
        what = (b"forwarded-tcpip " + f"{fields.text(NAME)} {fields.number()}".encode()
                if request.name == b"cancel-tcpip-forward"
                else b"forwarded-streamlocal@openssh.com " + fields.text(NAME).encode())
        if what not in self._expected:
            self._pass(peer, request)
            return
        self._expected.discard(what)
        number = self.book.allow(Ask("forward-end", what.partition(b" ")[2], (), request.name + b"\0" + request.rest))
        slot = self._owed[peer].slot() if request.wants_reply else None

        def answered(success: bool, rest: bytes) -> None:
            self.book.done(number, "ok" if success else "error")
            if slot is not None:
                self._owed[peer].answer(slot, _verdict(success, rest))

        self._ask(SERVER, request, answered)

    # Events of the edge

    def fired(self, name: str) -> None:
        number = name.removeprefix("channel ")
        if number.isdecimal() and int(number) in self._channels:
            self._channels[int(number)].fired()

    @property
    def carries(self) -> bool:
        """Sessions, whose lines to the server are not closed there."""
        return bool(self._uplinks)

    def carried(self, event: inputs.Input) -> None:
        """What sessions through this one want."""
        if isinstance(event, inputs.ThroughDials):
            tunnel = self._directs.get(event.tunnel)
            if tunnel is None or len(self._channels) >= MOST + SPARE:
                self.say(ThroughFailed(event.number, "too many channels are open"))
                return
            uplink = self._uplinks[event.number] = Uplink(self, self._number(), event.number, tunnel)
            self._add(uplink).begin()
        elif isinstance(event, inputs.ThroughData | inputs.ThroughFull | inputs.ThroughEnded):
            lines: dict[int, Direct] | dict[int, Uplink] = self._directs if event.peer == CLIENT else self._uplinks
            if (line := lines.get(event.number)) is not None:
                carry(line, event)
        elif isinstance(event, inputs.ThroughOpened | inputs.ThroughRefused | inputs.ThroughClosed):
            if (direct := self._directs.get(event.number)) is not None:
                answer(direct, event)
                if isinstance(event, inputs.ThroughClosed):
                    self._directs.pop(event.number, None)

    def settle(self) -> None:
        """Something was answered, or sent, that a channel may have waited for."""
        for channel in list(self._channels.values()):
            if channel.opened:
                channel.settle(CLIENT)
                channel.settle(SERVER)

    def lost(self) -> None:
        """The connection is over."""
        for channel in list(self._channels.values()):
            channel.lost()

    @property
    def ending(self) -> bool:
        """A channel's end is on its way to the crew, which has not said that it has read it."""
        return any(one.crew.closing and not one.crew.closed for one in self._channels.values())

    def kill(self) -> None:
        for channel in list(self._channels.values()):
            if isinstance(channel, SessionChannel):
                channel.kill()


def _verdict(success: bool, rest: bytes) -> bytes:
    return bytes((REQUEST_SUCCESS,)) + rest if success else bytes((REQUEST_FAILURE,))


def _port(asked: int, rest: bytes) -> int:
    """That the server listens on: with 0 it says which (RFC 4254 7.1)."""
    return asked or Fields(rest).number()


_HANDLERS: Final[dict[int, Callable[[Mux, int, bytes], None]]] = {
    messages.GLOBAL_REQUEST: Mux._global,
    REQUEST_SUCCESS: Mux._succeeded,
    REQUEST_FAILURE: Mux._failed,
    messages.CHANNEL_OPEN: Mux._open,
    messages.OPEN_CONFIRMATION: Mux._opened,
    messages.OPEN_FAILURE: Mux._refused,
    WINDOW_ADJUST: Mux._adjust,
    EXTENDED_DATA: Mux._extended,
    EOF: Mux._eof,
    CLOSE: Mux._close,
    messages.REQUEST: Mux._request,
    SUCCESS: Mux._success,
    FAILURE: Mux._failure,
}
_Global = Callable[[Mux, int, Request], None]
_GLOBAL: Final[tuple[dict[bytes, _Global], dict[bytes, _Global]]] = (
    {
        b"tcpip-forward": Mux._listen,
        b"streamlocal-forward@openssh.com": Mux._listen,
        b"cancel-tcpip-forward": Mux._unlisten,
        b"cancel-streamlocal-forward@openssh.com": Mux._unlisten,
        b"keepalive@openssh.com": Mux._pass,
        b"no-more-sessions@openssh.com": Mux._last_session,
    },
    {
        b"keepalive@openssh.com": Mux._pass,
        b"hostkeys-00@openssh.com": Mux._ignore,
    },
)
