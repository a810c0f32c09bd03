"""HTTP/1.1 over TLS: the layer that the edge runs, for every protocol over HTTP.

Theory: one connection of the crew's is one session and one connection to the server.  Requests are taken one by one;
each is whole before the protocol's Exchange is asked, and what is sent to the server is rendered from what was read.
Its answer flows, piece by piece.  After 101 both directions are a Passage's.

    login --TLS, policy, entry.py --> open      each request: ask -> forward -> answered, pieces, done
      `-- denied, no way in --------> refusing  each request is answered with why

Whatever ends a connection between two answers ends both sides: a client that finds its connection closed connects
again, as without Weir.  A server that closes while a request is being read, or is held, is asked on another one.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Final

from enforcer.core.book import Book, Manner
from enforcer.core.context import Context
from enforcer.core.sessions import refused, session_opened
from enforcer.http.codec import BadRequest, CrewSide, Ended, Piece, ServerSide, length_of
from enforcer.http.entry import ALPN, Entry
from enforcer.http.exchange import Exchange, Service, Unreadable
from enforcer.http.messages import Answer, Head, value
from enforcer.http.passage import Passage
from enforcer.http.turns import SOON, TIMER, Turns
from enforcer.words import commands as words
from enforcer.words import inputs
from enforcer.words.commands import CLIENT, SERVER, CloseConnection, Command, Record, SendData
from enforcer.words.decisions import PERMIT
from enforcer.words.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from enforcer.words.operations import Request

EARLY: Final = 256 << 10              # bytes of a crew that wait until its first request can be taken
PIECES: Final = 1000                  # in which a body may come, whatever their size;
LEAST: Final = 64                     # beyond that bytes of one, on the average
AGENT: Final = 200                    # characters of what a client calls itself
TURN: Final = 32                      # requests of a connection that Weir answers itself before others have their turn
WHOLE: Final = "whole"                # timer, and seconds that what is left of a request may take once the server has
LATEST: Final = 60.0                  # closed: what nobody waits for would be kept for ever
_SECOND: Final = 1_000_000_000

# Where an exchange is.
READING, ASKED, FORWARDED, ANSWERING = range(4)


class HttpLayer:
    """`serve` makes the protocol's Service of a session."""

    def __init__(
        self, context: Context, protocol: str, serve: Callable[[Context, Book], Service], manner: Manner | None = None,
    ) -> None:
        self._context, self._protocol = context, protocol
        self._out: list[Command] = []
        self.book = Book(context, self._say, manner)
        self._service = serve(context, self.book)
        self._crew, self._server = CrewSide(), ServerSide()
        self._exchange: Exchange | None = None
        self._where = READING
        self._body: list[bytes] = []
        self._size = self._early = 0
        self._waiting: tuple[Head, bytes, bytes] | None = None     # until it can go to the server
        self._passage: Passage | None = None
        self._turns: Turns | None = None       # of its peers
        self._entry = Entry(context, self._say)
        self._client_tls = self._said = ""
        self._refusal: tuple[int, str] | None = None
        self._opened = self._over = self._last = self._stopped = False
        self._reading = self._bodiless = self._rests = self._hurries = False
        self._taken = 0                        # requests that were taken in this turn
        self._ending = ""

    @property
    def state(self) -> str:
        if not self._opened:
            return "login"
        return "held" if self.book.held else "active" if self.book.busy else "idle"

    @property
    def operations(self) -> int:
        return self.book.operations

    # core.layer.Layer

    def start(self) -> list[Command]:
        self._say(words.StartTls(CLIENT, alpn=ALPN))
        return self._take()

    def receive(self, peer: int, data: bytes) -> list[Command]:
        if self._over:
            return []
        if self._turns is not None:
            self._turns.receive(peer, data)
        elif peer == CLIENT:
            self._crew.feed(data)
            self._early += 0 if self._opened else len(data)
            self._read()
        else:
            self._server.feed(data)
            self._hear()
        return self._take()

    def handle(self, event: inputs.Input) -> list[Command]:
        if not self._over:
            self._happened(event)
        return self._take()

    def refuse(self, error: Exception) -> list[Command]:
        if isinstance(error, ProtocolError):
            self._end(f"protocol error: {error}", 502, str(error))
        else:
            self._end("bug", 500, "internal error of Weir: nothing more is forwarded")
        return self._take()

    def _happened(self, event: inputs.Input) -> None:
        if isinstance(event, inputs.TlsStarted):
            self._secured(event)
        elif isinstance(event, inputs.CredentialReady):
            if self._entry.credential_ready(event.credential):
                self._go()
        elif isinstance(event, inputs.Connected):
            self._entry.connected(event.address)
        elif isinstance(event, inputs.CredentialFailed):
            self._unavailable(f"no credential: {event.reason}")
        elif isinstance(event, inputs.ConnectFailed):
            self._unavailable(event.reason)
        elif isinstance(event, inputs.ConnectionLost):
            self._lost(event)
        elif isinstance(event, inputs.HoldOpened):
            self.book.opened(event)
        elif isinstance(event, inputs.HoldAnswered):
            self.book.answered(event)
        elif isinstance(event, inputs.Ended):
            self._ended(event)
        elif isinstance(event, inputs.RecordingFailed):
            why = f"nothing can be recorded, so nothing is forwarded: {event.reason}"
            self._end("recording failed", 503, why)
        else:
            self._carried(event)

    def _carried(self, event: inputs.Input) -> None:
        if isinstance(event, inputs.TimerFired) and self._fired(event.name):
            return
        if self._passage is not None:
            self._passage.handle(event)

    def _fired(self, name: str) -> bool:
        """Whether this timer was the layer's own."""
        self.book.fired(name)
        if name == WHOLE:
            self._too_late()
            return True
        if name != TIMER:
            return False
        if self._turns is not None:
            self._turns.fired()
        else:
            self._rests = False
            self._read()
        return True

    def _too_late(self) -> None:
        if self._hurries:
            self._hurries = False
            self._bad(408, f"the server has closed, and the rest did not come within {LATEST:.0f} seconds")

    def _say(self, command: Command) -> None:
        self._out.append(command)

    def _take(self) -> list[Command]:
        out, self._out = self._out, []
        return out

    # Login

    def _secured(self, event: inputs.TlsStarted) -> None:
        if event.peer == SERVER:
            self._open(event.version)
            return
        self._client_tls = event.version
        decision = self._context.gate.decide(self._context.principal, self._service.connect())
        if decision.outcome == PERMIT:
            self._entry.begin()
            return
        reason = decision.reason or "connecting is held, and a connection cannot wait"
        self._no(403, reason, decision.rules)

    def _open(self, version: str) -> None:
        upstream = self._entry.secured(version)
        if self._opened:
            self._server = ServerSide()
            self.book.tell("reconnected", upstream)
            self._go()
            return
        self._opened = True
        self._say(Record(session_opened(
            self._context, self._protocol, "", upstream=upstream, client_tls=self._client_tls)))
        self._say(words.LoginDone())
        self._read()

    def _unavailable(self, reason: str) -> None:
        if self._opened:
            self._end(reason, 503, f"target {self._context.target.name}: {reason}")
        else:
            self._no(503, f"target {self._context.target.name}: {reason}")

    def _no(self, status: int, reason: str, rules: tuple[str, ...] = ()) -> None:
        """It never becomes a session; whoever asks for anything is told why."""
        if self._refusal is None:
            self._say(Record(refused(self._context, reason, rules)))
            self._refusal = (status, reason)
            self._read()

    # The crew

    def _read(self) -> None:
        """What the crew has sent, as far as it can be taken now."""
        if self._reading or self._rests or not (self._opened or self._refusal):
            self._restrain()
            return
        self._reading, self._taken = True, 0
        try:
            while self._may_take() and (piece := self._crew.next()) is not None:
                self._took(piece)
        except BadRequest as error:
            self._bad(error.status, error.reason)
        finally:
            self._reading = False
        self._restrain()

    def _may_take(self) -> bool:
        if self._over or self._where != READING:
            return False
        if self._taken >= TURN:
            self._rests = True
            self._say(words.StartTimer(TIMER, SOON))
        return not self._rests

    def _restrain(self) -> None:
        """Not read while it sends what cannot be taken: nobody has to keep that."""
        if self._over or self._passage is not None:
            return
        stop = (self._crew.behind or self._rests) if self._opened else self._early > EARLY
        if stop != self._stopped:
            self._stopped = stop
            self._say(words.PauseReading(CLIENT) if stop else words.ResumeReading(CLIENT))

    def _took(self, piece: Piece) -> None:
        if isinstance(piece, Head):
            self._begun(piece)
        elif self._exchange is None:
            raise LocalProtocolError("a body of no request")
        elif isinstance(piece, bytes):
            self._collect(self._exchange, piece)
        else:
            if self._hurries:
                self._hurries = False
                self._say(words.StartTimer(WHOLE, 0))
            self._where, self._taken = ASKED, self._taken + 1
            body, self._body = b"".join(self._body), []
            self._exchange.ask(body, self)

    def _collect(self, exchange: Exchange, piece: bytes) -> None:
        self._body.append(piece)
        self._size += len(piece)
        if self._size > exchange.most:
            raise BadRequest(413, f"a body of more than {exchange.most} bytes")
        if len(self._body) > PIECES and self._size < len(self._body) * LEAST:
            raise BadRequest(400, "a body in too many pieces")

    def _begun(self, head: Head) -> None:
        self._bodiless = head.method == "HEAD"
        if self._refusal is not None:
            self._plainly(*self._refusal)
            return
        self._named(head)
        self._size, self._body = 0, []
        self._exchange = self._service.begin(head)
        if self._crew.waits_for_continue:
            self._say(SendData(CLIENT, self._crew.proceed()))

    def _named(self, head: Head) -> None:
        said = value(head.headers, b"user-agent").decode("latin-1")[:AGENT]
        if said and not self._said:
            self._said = said
            self.book.tell("application", said)

    def _bad(self, status: int, reason: str) -> None:
        """No request, or none that can be taken: what follows it is not read any more."""
        self._last = True
        if self._exchange is not None and self._where == READING:
            self._where = ASKED
            self._body = []
            self._exchange.refuse(status, reason, self)
        elif self._opened:
            self._where = ASKED
            self._exchange = self._service.begin(Head("", b"", ()))
            self._exchange.refuse(status, reason, self)
        else:
            self._plainly(status, reason)

    def _plainly(self, status: int, reason: str) -> None:
        """Of what is no session."""
        self._last = True
        self._write(*self._service.explain(status, reason))
        self._close("refused")

    # exchange.Way

    def forward(self, head: Head, body: bytes, upgrade: bytes = b"") -> None:
        self._waiting = (head, body, upgrade)
        if self._entry.ready():
            self._go()

    def _go(self) -> None:
        """What waits, to the server."""
        if self._waiting is None:
            return
        if self._entry.expired():
            self._unavailable("no credential: it has expired already")
            return
        (head, body, upgrade), self._waiting = self._waiting, None
        head = Head(head.method, head.target, (*head.headers, *self._entry.headers()))
        self._where = FORWARDED
        self._say(SendData(SERVER, self._server.request(head, body, self._host(), upgrade)))

    def _host(self) -> bytes:
        target = self._context.target
        host = f"[{target.hosts[0]}]" if ":" in target.hosts[0] else target.hosts[0]
        return (host if target.port == 443 else f"{host}:{target.port}").encode()

    def answer(self, answer: Answer, body: bytes, last: bool = False) -> None:
        self._last = self._last or last
        self._write(answer, body)
        self._over_with()

    def _write(self, answer: Answer, body: bytes) -> None:
        crew, shown = self._crew, b"" if self._bodiless else body
        self._say(SendData(CLIENT, crew.answer(answer, len(body), self._last) + crew.piece(shown) + crew.end()))

    # The server

    def _hear(self) -> None:
        while not self._over and self._passage is None:
            piece = self._server.next()
            if piece is None:
                return
            if self._exchange is None or self._where < FORWARDED:
                raise RemoteProtocolError("the server answers what it was not asked")
            try:
                self._heard(self._exchange, piece)
            except Unreadable as error:
                self._unreadable(self._exchange, str(error))

    def _heard(self, exchange: Exchange, piece: Piece) -> None:
        if isinstance(piece, Answer):
            if piece.status == 101:
                self._upgrade(exchange, piece)
            else:
                self._head(exchange, piece)
        elif isinstance(piece, Ended):
            self._say(SendData(CLIENT, self._crew.piece(exchange.done()) + self._crew.end()))
            self._over_with()
        else:
            assert isinstance(piece, bytes)
            if data := self._crew.piece(exchange.piece(piece)):
                self._say(SendData(CLIENT, data))

    def _head(self, exchange: Exchange, answer: Answer) -> None:
        self._last = self._last or self._server.closing
        if answer.status == 401:
            self._entry.refused()
        shown = exchange.answered(answer)
        length = None if exchange.changes else length_of(answer.headers)
        self._where = ANSWERING
        self._say(SendData(CLIENT, self._crew.answer(shown, length, self._last)))

    def _unreadable(self, exchange: Exchange, reason: str) -> None:
        """What the server answered is not shown."""
        exchange.lost(reason)
        self._exchange = None
        if self._where == FORWARDED:
            self._last = True
            self._write(*self._service.explain(502, reason))
        self._close(f"an answer that cannot be read: {reason}")

    def _upgrade(self, exchange: Exchange, answer: Answer) -> None:
        passage = exchange.upgrade(answer, self)
        shown = exchange.answered(answer)
        self._say(SendData(CLIENT, self._crew.switch(shown.headers)))
        self._passage = passage
        turns = self._turns = Turns(passage, self._say, self.now, lambda: self._over)
        if self._stopped:
            self._stopped = False
            self._say(words.ResumeReading(CLIENT))
        for peer, left in ((CLIENT, self._crew.left()), (SERVER, self._server.left())):
            if left and not self._over:
                turns.receive(peer, left)

    def _over_with(self) -> None:
        """This exchange; whether another may come."""
        self._exchange, forwarded = None, self._where >= FORWARDED
        self._where, self._size = READING, 0
        again = not self._last and not self._ending and self._crew.renew() and (not forwarded or self._server.renew())
        if again:
            self._read()
        else:
            self._close(self._ending or "closed after an answer")

    # passage.Outlet

    @property
    def desk(self) -> Book:
        return self.book

    def send(self, peer: int, data: bytes) -> None:
        self._say(SendData(peer, data))

    def close(self, reason: str) -> None:
        self._close(reason)

    def say(self, command: Command) -> None:
        if self._turns is not None and isinstance(command, words.PauseReading | words.ResumeReading):
            self._turns.restrain(command)
        else:
            self._say(command)

    def now(self) -> float:
        return self._context.monotonic() / _SECOND

    # The end

    def _lost(self, event: inputs.ConnectionLost) -> None:
        if event.peer == SERVER and not self._entry.there:
            self._unavailable(event.reason or "it closed the connection")
        elif self._turns is not None:
            self._turns.ended(event.peer)
        elif event.peer == CLIENT:
            self._gone(f"client lost: {event.reason}" if event.reason else "client closed")
        elif self._exchange is not None and self._where < FORWARDED:
            if self._where == READING:
                self._hurries = True
                self._say(words.StartTimer(WHOLE, LATEST))
            self._entry.leave()
        else:
            if self._where == ANSWERING:
                self._server.feed(b"")
                self._hear()
            if not self._over:
                reason = f"server lost: {event.reason}" if event.reason else "server closed"
                self._end(reason, 502, f"target {self._context.target.name}: it closed the connection", False)

    def _gone(self, reason: str) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None and self._where != READING:
            exchange.lost(reason)
        self._close(reason)

    def _ended(self, event: inputs.Ended) -> None:
        if event.finish and (self._exchange is not None or self._passage is not None):
            self._ending = event.reason
            return
        self._end(event.reason, 503, event.reason)

    def _end(self, reason: str, status: int, told: str, always: bool = True) -> None:
        """It ends now: whoever waits for an answer is told why; not `always`: a server that just
        closed is not explained, and a client finds its connection closed, as without Weir."""
        if self._over:
            return
        exchange, self._exchange = self._exchange, None
        if self._passage is not None:
            self._passage.stop(told)
        elif exchange is not None and self._where in (ASKED, FORWARDED):
            exchange.unanswered(told)
            if always:
                self._last = True
                self._write(*self._service.explain(status, told))
        elif exchange is not None and self._where == ANSWERING:
            exchange.lost(reason)
        self._close(reason)

    def _close(self, reason: str) -> None:
        if self._over:
            return
        self._over = True
        if self._opened:
            self.book.closed(reason)
        self._say(CloseConnection(SERVER, reason))
        self._say(CloseConnection(CLIENT, reason))


def connecting(target: str) -> tuple[Request, ...]:
    return (Request("connect", "Target", (target,)),)
