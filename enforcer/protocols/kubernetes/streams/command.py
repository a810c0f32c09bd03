"""Exec and attach: a program's streams between a crew and a server, booked as SSH's are.

Both sides are read and written anew.  The result is what the error stream says, or that nobody waited for it.
"""
from __future__ import annotations

from typing import Final

from enforcer.core.desk import Desk
from enforcer.core.terminal.alarm import Alarm
from enforcer.core.terminal.plain import First, Plain
from enforcer.http.passage import Outlet
from enforcer.http.websocket import NORMAL
from enforcer.policy.stream_masks import StreamMask
from enforcer.protocols.kubernetes.info import Query
from enforcer.protocols.kubernetes.streams.sizes import UNSAID, Sizes
from enforcer.protocols.kubernetes.streams.statuses import read_ending, render_failure
from enforcer.protocols.kubernetes.streams.words import (
    ERROR,
    RESIZE,
    STDERR,
    STDIN,
    STDOUT,
    TO_CREW,
    TO_SERVER,
    Accepted,
    Answered,
    Asked,
    Dropped,
    Ended,
    Opened,
    Over,
    Said,
    Wire,
    Word,
    join_words,
)
from enforcer.words.commands import CLIENT, SERVER, StartTimer
from enforcer.words.errors import ProtocolError, RemoteProtocolError
from enforcer.words.inputs import Input, TimerFired

TIMER: Final = "streams"
COLUMNS: Final = 80                   # of a terminal whose client has not said
STATUS: Final = 64 << 10              # bytes of an error stream that are read for the result
CLOSING: Final = 25.0                 # seconds that a crew has to read to the end, and to close as well: one that is
                                      # closed before loses what it has not read (spdystream); session.LINGER is longer
ALIVE: Final = 2.0                    # seconds for which what a server says shows that it is there
GONE: Final = 1001                    # WebSocket: an end that goes away (RFC 6455 7.4.1)


class CommandPassage(Alarm):
    """A Passage, and its course's Ends."""

    def __init__(
        self, outlet: Outlet, number: int, crew: Wire, server: Wire, query: Query, labels: frozenset[str],
        states: bool, first: First | None = None,
    ) -> None:
        """`labels`: of detectors that are masked.  `states`: the error stream is a Status."""
        super().__init__(lambda seconds: outlet.say(StartTimer(TIMER, seconds)))
        self.number, self.terminal, self.unread = number, wants(query, "tty"), False
        self._outlet, self._wires, self._states = outlet, (crew, server), states
        self._typing = wants(query, "stdin")
        columns = COLUMNS if self.terminal else 0
        masks = (StreamMask(labels, "", columns), StreamMask(labels, "", columns)) if labels else None
        self._plain = Plain(self, masks, None if self.terminal else first)
        self._sizes, self._sized = Sizes(), False
        self._status = b""
        self._heard = -ALIVE          # when the server said something
        self._over, self._closing = False, ""              # why, while the crew reads to the end

    # Passage

    def receive(self, peer: int, data: bytes) -> None:
        if self._over:
            if peer == CLIENT and self._closing:
                self._read_out(data)
            return
        if peer == SERVER:
            self._heard = self.now()
        for word in join_words(self._wires[peer].receive(data)):
            self._read(peer, word)
            if self._over:
                return

    def ended(self, peer: int) -> None:
        if peer == CLIENT:
            self._close()
        self._finish("client closed" if peer == CLIENT else "server closed", peer, Over(GONE))

    def handle(self, event: Input) -> None:
        if isinstance(event, TimerFired) and event.name == TIMER:
            self._close()
            if not self._over:
                self._plain.fired()

    def stop(self, reason: str) -> None:
        self._closing = ""
        if self._over:
            return
        self._over = True
        self._plain.lost()
        crew = self._wires[CLIENT]
        # Closed in order: clients that are told of an error do not look for what the error stream says.
        if not self._status:          # how it ended is not said yet
            self._send(CLIENT, crew.say(ERROR, render_failure(reason, self._states)))
        self._send(CLIENT, crew.end(ERROR) + crew.close(NORMAL, reason))
        self._send(SERVER, self._wires[SERVER].close(GONE, ""))
        self.desk.done(self.number, "cancelled", "", reason.encode())

    # plain.Ends

    @property
    def desk(self) -> Desk:
        return self._outlet.desk

    def now(self) -> float:
        return self._outlet.now()

    def to_server(self, data: bytes) -> None:
        self._send(SERVER, self._wires[SERVER].say(STDIN, data))

    def to_client(self, data: bytes, error: bool) -> None:
        self._send(CLIENT, self._wires[CLIENT].say(STDERR if error else STDOUT, data))

    def end(self, peer: int) -> None:
        if peer == CLIENT:
            self._send(SERVER, self._wires[SERVER].end(STDIN))

    def _send(self, peer: int, data: bytes) -> None:
        if data:
            self._outlet.send(peer, data)

    # Words

    def _read(self, peer: int, word: Word) -> None:
        other = self._wires[1 - peer]
        if isinstance(word, Said):
            (self._typed if peer == CLIENT else self._printed)(word.stream, word.data)
        elif isinstance(word, Ended):
            self._ended(peer, word.stream)
        elif isinstance(word, Opened):
            self._send(1 - peer, other.open(word.stream, word.last))
        elif isinstance(word, Accepted):
            self._send(1 - peer, other.accept(word.stream))
        elif isinstance(word, Dropped):
            self._dropped(peer, word)
        elif isinstance(word, Asked):
            self._asked(peer, word.token)
        elif isinstance(word, Answered):
            self._send(1 - peer, other.answer(word.token))
        else:
            self._finish("client closed" if peer == CLIENT else "server closed", peer, word)

    def _asked(self, peer: int, token: bytes) -> None:
        """Of a server that speaks it is known that it is there.  It may have closed behind what Weir has yet to read,
        for a crew that reads slowly: what is sent to it then resets the connection, and that is lost."""
        if peer == CLIENT and self.now() - self._heard < ALIVE:
            self._send(CLIENT, self._wires[CLIENT].answer(token))
        else:
            self._send(1 - peer, self._wires[1 - peer].ask(token))

    def _typed(self, stream: int, data: bytes) -> None:
        if stream not in TO_SERVER:
            raise RemoteProtocolError(f"a client says nothing on stream {stream}")
        if stream == RESIZE:
            self._resize(data)
        elif self._typing and data:   # who did not ask for an input has none: servers pass over it
            self._tell_size()
            self._plain.from_client(data)

    def _tell_size(self) -> None:
        """A recording knows a terminal by its size, which comes first; a client may say it later, or never."""
        if self.terminal and not self._sized:
            self._sized = True
            self.desk.note(self.number, "size", UNSAID.text)

    def _resize(self, data: bytes) -> None:
        for size in self._sizes.feed(data)[-1:]:       # what came with a later one was never seen
            self._sized = True
            self.desk.note(self.number, "size", size.text)
            self._plain.resize(size.columns or COLUMNS)
            self._send(SERVER, self._wires[SERVER].say(RESIZE, size.render()))

    def _printed(self, stream: int, data: bytes) -> None:
        if stream not in TO_CREW:
            raise RemoteProtocolError(f"a server says nothing on stream {stream}")
        if stream == ERROR:
            self._stated(data)
        elif data:
            self._tell_size()
            self._plain.from_server(data, stream == STDERR)
        else:
            self._send(CLIENT, self._wires[CLIENT].say(stream, b""))

    def _stated(self, data: bytes) -> None:
        """How it ended is said behind all that it said."""
        self._plain.flush()
        self._status += data[:STATUS + 1 - len(self._status)]
        if len(self._status) > STATUS:
            raise RemoteProtocolError(f"an error stream of more than {STATUS} bytes")
        self._send(CLIENT, self._wires[CLIENT].say(ERROR, data))

    def _ended(self, peer: int, stream: int) -> None:
        if peer == CLIENT and stream == STDIN:
            self._plain.ended(CLIENT)
            return
        if peer == SERVER:
            self._plain.flush()
        self._send(1 - peer, self._wires[1 - peer].end(stream))

    def _dropped(self, peer: int, word: Dropped) -> None:
        if peer == SERVER:
            self._plain.flush()
        self._send(1 - peer, self._wires[1 - peer].drop(word.stream, word.status))

    # The end

    def _finish(self, reason: str, peer: int, word: Over) -> None:
        """`peer` says nothing more."""
        if self._over:
            return
        self._over = True
        self.unread = peer == CLIENT
        self._plain.closed()
        for one in (CLIENT, SERVER):
            self._send(one, self._wires[one].close(word.code, word.reason))
        self._done(peer)
        self._closing = reason
        if peer == CLIENT:
            self._close()
        else:                         # RFC 6455 7.1.1: closed at once, what it still sends would cost it what it reads
            self._outlet.say(StartTimer(TIMER, CLOSING))

    def _read_out(self, data: bytes) -> None:
        """Whatever it says is for nobody."""
        try:
            over = any(isinstance(word, Over) for word in self._wires[CLIENT].receive(data))
        except ProtocolError:
            over = True
        if over:
            self._close()

    def _close(self) -> None:
        if self._closing:
            reason, self._closing = self._closing, ""
            self._outlet.say(StartTimer(TIMER, 0))
            self._outlet.close(reason)

    def _done(self, peer: int) -> None:
        if peer == CLIENT and not self._status:
            self.desk.done(self.number, "cancelled", "", b"client closed")
            return
        status, tag, error = read_ending(self._status, self._states)
        self.desk.done(self.number, status, tag, error.encode())


def wants(query: Query, name: str) -> bool:
    """As API servers read a boolean: the first that is said (apimachinery, Convert_Slice_string_To_bool), in which Go
    folds letters (strings.EqualFold): "fal\u017fe" is false."""
    said = next((value for key, value in query if key == name), "false")
    return said != "0" and said.casefold() != "false"
