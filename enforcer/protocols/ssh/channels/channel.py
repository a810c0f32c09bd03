"""A channel between a crew and a server: pure.  What it is made of passes on as it comes; what it asks is for those who
know its kind (tunnel, session)."""
from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from enforcer.core.book import Book
from enforcer.protocols.ssh import messages
from enforcer.protocols.ssh.channels.flow import PACKET, SMALL, WINDOW, Half
from enforcer.protocols.ssh.channels.replies import Awaited, Owed, Then
from enforcer.protocols.ssh.messages import FAILURE, STDERR, SUCCESS, Open, Request
from enforcer.words.commands import CLIENT, SERVER, Command
from enforcer.words.errors import RemoteProtocolError

MANY: Final = 8                       # channels with a large window


class Line(Protocol):
    """The connection that a channel is on."""

    book: Book

    def send(self, peer: int, message: bytes) -> None: ...

    def say(self, command: Command) -> None:
        """To the edge."""
        ...

    def gone(self, channel: Channel) -> None: ...

    @property
    def behind(self) -> Callable[[int], bool]:
        """Whether more waits to be sent to this peer than should, on the whole connection."""
        ...

    def timer(self, channel: Channel, seconds: float) -> None:
        """`channel.fired` after that; 0: not any more."""
        ...

    def expect(self, what: bytes) -> None:
        """The server may open channels of this kind, or for this forward."""
        ...

    @property
    def crowded(self) -> bool: ...


class Channel:
    def __init__(self, line: Line, number: int, opener: int, opened: Open) -> None:
        self.line, self.number, self.opener, self.kind, self.rest = line, number, opener, opened.kind, opened.rest
        window = SMALL if line.crowded else WINDOW
        self.halves = (Half(CLIENT, number, line.send, window), Half(SERVER, number, line.send, window))
        self.halves[opener].confirm(opened.sender, opened.window, opened.packet)
        self.asked = self.opened = False       # of the other side; both ends are
        self.owed = (Owed(lambda message: self._reply(CLIENT, message)),
                     Owed(lambda message: self._reply(SERVER, message)))
        self._awaited = (Awaited(), Awaited())

    @property
    def crew(self) -> Half:
        return self.halves[CLIENT]

    @property
    def server(self) -> Half:
        return self.halves[SERVER]

    # Opening

    def begin(self) -> None:
        """Its opener has asked for it."""
        self.open_other()

    def open_other(self) -> None:
        other, self.asked = self.halves[1 - self.opener], True
        self.line.send(other.peer, messages.render_open(self.kind, self.number, other.granted, PACKET, self.rest))

    def confirmed(self, theirs: int, window: int, packet: int) -> None:
        self.halves[1 - self.opener].confirm(theirs, window, packet)
        self.confirm()

    def confirm(self) -> None:
        mine = self.halves[self.opener]
        self.opened = True
        self.line.send(self.opener, messages.render_opened(mine.theirs, self.number, mine.granted, PACKET))

    def refuse(self, code: int, reason: str) -> None:
        self.line.send(self.opener, messages.render_refused(self.halves[self.opener].theirs, code, reason))
        self.line.gone(self)

    def refused(self, code: int, reason: str) -> None:
        """By the other side."""
        self.refuse(code, reason)

    # Messages

    def data(self, peer: int, kind: int, data: bytes) -> None:
        self.halves[peer].took(len(data))
        if kind not in (0, STDERR):
            raise RemoteProtocolError(f"extended data of type {kind}, which nobody knows")
        self.received(peer, kind, data)

    def received(self, peer: int, kind: int, data: bytes) -> None:
        self.pass_on(peer, kind, data)

    def pass_on(self, peer: int, kind: int, data: bytes) -> None:
        self.halves[1 - peer].put(data, kind)
        self.settle(peer, len(data))

    def settle(self, peer: int, size: int = 0) -> None:
        """So much of what `peer` sent is on its way; it may send more where the other side keeps up."""
        self.halves[peer].give_back(size, self.halves[1 - peer].queued < PACKET and not self.line.behind(1 - peer))

    def adjust(self, peer: int, amount: int) -> None:
        self.halves[peer].adjust(amount)
        self.settle(1 - peer)

    def eof(self, peer: int) -> None:
        half = self.halves[peer]
        if half.closed:
            raise RemoteProtocolError("the end of a channel that is closed")
        if not half.ended:
            half.ended = True
            self.received_end(peer)

    def received_end(self, peer: int) -> None:
        self.halves[1 - peer].end()

    def close(self, peer: int) -> None:
        half = self.halves[peer]
        if half.closed:
            raise RemoteProtocolError("a channel is closed twice")
        half.closed = True
        self.received_close(peer)
        half.drop()
        self.halves[1 - peer].close()
        self.check()

    def received_close(self, peer: int) -> None: ...

    def end(self) -> None:
        """Weir ends it."""
        for half in self.halves:
            half.drop()
        self.check()

    def check(self) -> None:
        if all(half.over for half in self.halves):
            self.line.gone(self)

    def request(self, peer: int, request: Request) -> None:
        """One that its kind does not know."""
        self.answer(peer, request, False)

    def pass_request(self, peer: int, request: Request, then: Then = lambda success, rest: None) -> None:
        """On to the other side, and its answer back."""
        if not request.wants_reply:
            self.ask(1 - peer, request, None)
            return
        slot = self.owed[peer].slot()

        def answered(success: bool, rest: bytes) -> None:
            then(success, rest)
            self.owed[peer].answer(slot, self._verdict(peer, success))

        self.ask(1 - peer, request, answered)

    def ask(self, peer: int, request: Request, then: Then | None) -> None:
        if self.halves[peer].sent_close:
            if then is not None:
                then(False, b"")
            return
        if then is not None:
            self._awaited[peer].ask(then)
        self.line.send(peer, messages.render_request(self.halves[peer].theirs, request))

    def replied(self, peer: int, success: bool) -> None:
        self._awaited[peer].answered(success)

    def answer(self, peer: int, request: Request, success: bool) -> None:
        """At once, by Weir itself."""
        if request.wants_reply:
            owed = self.owed[peer]
            owed.answer(owed.slot(), self._verdict(peer, success))

    def _reply(self, peer: int, message: bytes) -> None:
        """A request may cross a close: behind that nothing is said (RFC 4254 5.3)."""
        if not self.halves[peer].sent_close:
            self.line.send(peer, message)

    def _verdict(self, peer: int, success: bool) -> bytes:
        return messages.render_bare(SUCCESS if success else FAILURE, self.halves[peer].theirs)

    def fired(self) -> None:
        """The timer."""

    def lost(self) -> None:
        """The connection is over."""
