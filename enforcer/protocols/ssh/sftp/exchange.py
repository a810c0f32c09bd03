"""Requests under way: the client's and Weir's own, under ids of Weir's own; and what of them is not booked yet."""
from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from enforcer.core.desk import Ask, Desk, Verdict
from enforcer.protocols.ssh.sftp.messages import (
    DATA,
    OK,
    READ,
    STATUS,
    Status,
    parse_status,
    render,
    render_status,
    renumber,
)
from enforcer.words.errors import RemoteProtocolError

if TYPE_CHECKING:
    from enforcer.protocols.ssh.sftp.handles import Handle

FLIGHTS: Final = 4096                 # under way at most; the rest waits
ASKED: Final = 1024                   # that wait for a decision
QUIET: Final = ("users-groups-by-id",) # what every `ls -l` asks, and shows numbers where it may not
SAID: Final = 100                     # lines: some clients never read them
IDS: Final = 1 << 32
OWN: Final = -1
ERROR_LIMIT: Final = 1024
UNSAID: Final = b"the connection ended before the server answered"
Answer = Callable[[int, memoryview], None]


class Flight:
    """One request that the server has not answered."""

    __slots__ = ("client", "expects", "handle", "kind", "length", "offset", "then")

    def __init__(self, client: int, kind: int, expects: tuple[int, ...], then: Answer | None = None) -> None:
        self.client, self.kind, self.expects, self.then = client, kind, expects, then
        self.handle: Handle | None = None      # of READ and WRITE, which have no `then`
        self.offset = self.length = 0


class Exchange:
    __slots__ = (
        "_asking", "_next", "_numbers", "_said", "_say", "_to_client", "_to_server", "after", "busy", "closed", "desk",
        "flights", "sealed",
    )

    def __init__(
        self, desk: Desk, to_client: Callable[[bytes], None], to_server: Callable[[bytes], None],
        say: Callable[[str], None],
    ) -> None:
        self.desk, self._to_client, self._to_server, self._say = desk, to_client, to_server, say
        self._said = 0
        self.flights: dict[int, Flight] = {}
        self.busy: set[int] = set()            # ids of the client's requests without an answer
        self._asking: dict[int, Callable[[Verdict], None]] = {}
        self._numbers: set[int] = set()        # of the desk's, permitted and without a result
        self._next = 0
        self.closed = False
        self.after: Callable[[], None] = lambda: None            # a decision was acted on: what waited may go on
        self.sealed = False                    # the server was told the end: it gets nothing more

    @property
    def full(self) -> bool:
        return len(self.flights) >= FLIGHTS or len(self._asking) >= ASKED

    # --- to the server ---

    def fly(self, flight: Flight) -> int:
        number = self._next
        while number in self.flights:
            number = (number + 1) % IDS
        self._next = (number + 1) % IDS
        self.flights[number] = flight
        return number

    def send(self, data: bytes) -> None:
        if not self.sealed:
            self._to_server(data)

    def forward(self, client: int, kind: int, body: bytes, expects: tuple[int, ...], then: Answer) -> None:
        self.send(render(kind, self.fly(Flight(client, kind, expects, then)), body))

    def pass_on(self, client: int, packet: memoryview, expects: tuple[int, ...], then: Answer) -> None:
        """The client's packet as it is."""
        self.send(renumber(packet, self.fly(Flight(client, packet[4], expects, then))))

    def ask(self, kind: int, body: bytes, expects: tuple[int, ...], then: Answer) -> None:
        self.forward(OWN, kind, body, expects, then)

    # --- to the client ---

    def claim(self, client: int) -> None:
        if client in self.busy:
            raise RemoteProtocolError(f"the client uses the id {client} twice")
        self.busy.add(client)

    def reply(self, client: int, data: bytes) -> None:
        self.busy.discard(client)
        self._to_client(data)

    def refuse(self, client: int, code: int, reason: str) -> None:
        self.reply(client, render_status(client, code, reason))

    def relay(self, client: int, packet: memoryview) -> None:
        """The server's packet as it is."""
        self.reply(client, renumber(packet, client))

    def fail(self, client: int, status: Status) -> None:
        self.refuse(client, status.code, status.message.decode("utf-8", "backslashreplace"))

    # --- from the server ---

    def land(self, packet: memoryview) -> Flight:
        """Whose answer it is."""
        number = int.from_bytes(packet[5:9], "big")
        flight = self.flights.pop(number, None)
        if flight is None:
            raise RemoteProtocolError(f"the server answers a request {number} that nobody sent")
        kind = packet[4]
        if kind not in flight.expects:
            raise RemoteProtocolError(f"the server answers a request of type {flight.kind} with type {kind}")
        if kind == STATUS and len(flight.expects) > 1 and parse_status(packet).code == OK:
            raise RemoteProtocolError(f"the server answers a request of type {flight.kind} with nothing but OK")
        if kind == DATA and flight.kind != READ:
            raise RemoteProtocolError("the server sends data that nobody asked for")
        return flight

    # --- the book ---

    def decide(self, ask: Ask, then: Callable[[Verdict], None]) -> None:
        key = id(ask)

        def decided(verdict: Verdict) -> None:
            self._asking.pop(key, None)
            if verdict.permitted:
                self._numbers.add(verdict.number)
            elif ask.verb not in QUIET:
                self.tell(f"{ask.text.decode()}: {verdict.reason}")
            if not self.closed:
                then(verdict)
                self.after()
            elif verdict.permitted:
                self.done(verdict.number, "cancelled")

        self._asking[key] = decided
        self.desk.ask(ask, decided, self.tell)

    def tell(self, line: str) -> None:
        """To the client's user: clients of OpenSSH show no message of a STATUS."""
        if self._said < SAID and not self.closed:
            self._said += 1
            self._say(line)

    def done(self, number: int, status: str, tag: str = "", error: bytes = b"") -> None:
        self._numbers.discard(number)
        self.desk.done(number, status, tag, error[:ERROR_LIMIT])

    def finish(self, number: int, trouble: Status | None, tag: str = "") -> None:
        error = (trouble.message or b"status %d" % trouble.code) if trouble else b""
        self.done(number, "error" if trouble else "ok", tag, error)

    def own(self, verb: str, text: bytes) -> Callable[[Status | None], None]:
        number = self.desk.own(verb, text)
        self._numbers.add(number)
        return partial(self.finish, number)

    def close(self) -> None:
        """Nothing more is sent or heard."""
        self.closed = True
        asking, self._asking = self._asking, {}
        for then in asking.values():
            self.desk.withdraw(then)
        for number in sorted(self._numbers):
            self.done(number, "error", error=UNSAID)
        self.flights.clear()
