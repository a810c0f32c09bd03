"""Port-forward: both sides are read and written anew, and each connection is a pair of its own."""
from __future__ import annotations

from collections.abc import Callable
from typing import Final

from agent.contract.target import Forward
from enforcer.core.carrying import answer, carry
from enforcer.core.desk import Desk
from enforcer.http.passage import Outlet
from enforcer.protocols.kubernetes.info import Info, Query
from enforcer.protocols.kubernetes.streams.crews import ChannelCrew, CrewSide, Near, SpdyCrew
from enforcer.protocols.kubernetes.streams.offers import SPDY, Spoken
from enforcer.protocols.kubernetes.streams.pairs import TIMER, Line, Pair, fits
from enforcer.protocols.kubernetes.streams.pipes import Bare, Pipe, Tunnelled
from enforcer.protocols.kubernetes.streams.restraint import Restraint
from enforcer.protocols.kubernetes.streams.uplinks import Owner, Uplink, Uplinks
from enforcer.words import inputs
from enforcer.words.commands import CLIENT, SERVER, Command, StartTimer, ThroughFailed
from enforcer.words.inputs import Input

BEGIN: Final = "forward"              # name of the timer by which it begins, behind the 101 that is yet to be sent
SOON: Final = 0.001                   # seconds
LINES: Final = 512                    # at a time


class ForwardPassage:
    """A Passage, and the Ground of its pairs."""

    def __init__(
        self, outlet: Outlet, number: int, spoken: tuple[Spoken, Spoken], info: Info, query: Query,
        forwards: tuple[Forward, ...],
    ) -> None:
        self.info, self.restraint = info, Restraint(outlet.say)
        self._outlet, self._number, self._forwards = outlet, number, forwards
        self._crew = self._crew_side(spoken[CLIENT], query)
        self._uplinks = Uplinks(_pipe(spoken[SERVER], True), lambda data: outlet.send(SERVER, data), outlet.now)
        self._pairs: dict[int, Pair] = {}
        self._lines: dict[int, Line] = {}
        self._next = 0
        self._over = False
        if isinstance(self._crew, ChannelCrew):
            outlet.say(StartTimer(BEGIN, SOON))

    def _crew_side(self, spoken: Spoken, query: Query) -> CrewSide:
        if spoken.upgrade == SPDY or spoken.tunnel:
            return SpdyCrew(_pipe(spoken, False), self._to_crew, self._connect, self._asked)
        return ChannelCrew(spoken, query, self._to_crew, self._connect, self._asked, self._all_over)

    def _to_crew(self, data: bytes) -> None:
        self._outlet.send(CLIENT, data)

    def _asked(self) -> None:
        self._uplinks.ask()

    # Passage

    def receive(self, peer: int, data: bytes) -> None:
        if self._over:
            return
        more = self._crew.receive(data) if peer == CLIENT else self._uplinks.receive(data)
        if not more:
            self.ended(peer)

    def ended(self, peer: int) -> None:
        self._finish("client closed" if peer == CLIENT else "server closed")

    def handle(self, event: Input) -> None:
        if self._over:
            return
        if isinstance(event, inputs.TimerFired):
            self._fired(event.name)
        elif isinstance(event, inputs.ThroughDials):
            self._dial(event)
        elif isinstance(event, inputs.ThroughData | inputs.ThroughFull | inputs.ThroughEnded):
            of: dict[int, Pair] | dict[int, Line] = self._pairs if event.peer == CLIENT else self._lines
            if (one := of.get(event.number)) is not None:
                carry(one, event)
        elif isinstance(event, inputs.ThroughOpened | inputs.ThroughRefused | inputs.ThroughClosed):
            if (pair := self._pairs.get(event.number)) is not None:
                answer(pair, event)

    def stop(self, reason: str) -> None:
        if not self._over:
            self._end_all("cancelled", reason, reason)
            self.desk.done(self._number, "cancelled", "", reason.encode())

    def _fired(self, name: str) -> None:
        number = name.removeprefix(TIMER)
        if name == BEGIN:
            self._crew.begin()
        elif number.isdecimal() and int(number) in self._pairs:
            self._pairs[int(number)].fired()

    def _dial(self, event: inputs.ThroughDials) -> None:
        pair = self._pairs.get(event.tunnel)
        if pair is None or len(self._lines) >= LINES:
            self.say(ThroughFailed(event.number, "it is gone, or too many connections are open"))
        else:
            self._lines[event.number] = Line(self, event.number, pair.port, self._forget)

    def _forget(self, line: int) -> None:
        self._lines.pop(line, None)

    # pairs.Ground

    @property
    def desk(self) -> Desk:
        return self._outlet.desk

    @property
    def say(self) -> Callable[[Command], None]:
        return self._outlet.say

    def dial(self, port: int, owner: Owner) -> Uplink:
        return self._uplinks.dial(port, owner)

    def forward(self, port: int) -> Forward | None:
        return next((one for one in self._forwards if fits(one, self.info, port)), None)

    def gone(self, pair: Pair) -> None:
        self._pairs.pop(pair.number, None)

    # Connections

    def _connect(self, near: Near, port: int) -> Pair:
        pair = self._pairs[self._next] = Pair(self, self._next, near, port)
        self._next += 1
        pair.begin()
        return pair

    def _all_over(self) -> None:
        if not self._over:
            self._finish("all its connections are over")

    # The end

    def _finish(self, reason: str) -> None:
        if not self._over:
            self._end_all("ok", reason)
            self.desk.done(self._number, "ok")
            self._outlet.close(reason)

    def _end_all(self, status: str, reason: str, told: str = "") -> None:
        self._over = True
        for line in list(self._lines.values()):
            line.end(reason)
        for pair in list(self._pairs.values()):
            pair.end(status, reason, told)
        self._crew.close()
        self._uplinks.close()


def _pipe(spoken: Spoken, client: bool) -> Pipe:
    return Tunnelled(client) if spoken.tunnel else Bare()
