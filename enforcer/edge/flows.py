"""Egress: opaque bytes both ways, recorded as a flow.

FlowOpened is in the journal before the first packet leaves.  What a client says first is held until it is found right
(enforcer.core.first): where it begins as TLS, HTTP or SOCKS do, for HOLD seconds, and then it ends; else for BRIEF
seconds, and then it goes on and is judged all the same.  What a flow ended of is its recorded reason.  Backpressure and
half-close go through as they came.

In the modes shadow and record (docs/decisions/0015) nothing is held and nothing ends it: FlowNoted says what was found,
and in shadow what would have ended it.
"""
from __future__ import annotations

import asyncio
from typing import Final

from agent.contract.messages import SessionView
from agent.contract.owner import Owner, Process
from agent.contract.target import ENFORCE, SHADOW
from enforcer import protocols
from enforcer.core.first import ADDRESS, BRIEF, HOLD, PASS, UNKNOWN, Beginning
from enforcer.edge import clock, tls, upstream
from enforcer.edge.edge import Edge
from enforcer.edge.peer import HIGH, LOW
from enforcer.words import events
from enforcer.words.commands import CLIENT, SERVER
from enforcer.words.errors import RecordingError, UpstreamError
from enforcer.words.inputs import HoldAnswered

LONGEST: Final = 255                  # characters of a name that is recorded
LINGER: Final = 60.0                  # seconds that a side may take to read what is left, once the other is lost


class Side(asyncio.Protocol):
    """One end of a flow."""

    __slots__ = ("_flow", "ended", "number", "transport")

    def __init__(self, flow: Flow, number: int) -> None:
        self._flow, self.number = flow, number
        self.transport: asyncio.Transport | None = None
        self.ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.attach(transport)  # type: ignore[arg-type]

    def attach(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        transport.set_write_buffer_limits(HIGH, LOW)

    def data_received(self, data: bytes) -> None:
        self._flow.received(self.number, data)

    def eof_received(self) -> bool:
        self.ended = True
        self._flow.ended(self.number)
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        self._flow.lost(self.number, "" if error is None else tls.explain(error))

    def pause_writing(self) -> None:
        self._flow.full(self.number, True)

    def resume_writing(self) -> None:
        self._flow.full(self.number, False)


class Flow:
    """`record`, then `take` starts it; FlowClosed is recorded once, when both sides are lost."""

    def __init__(self, edge: Edge, owner: Owner, mode: str = ENFORCE, wrong: str = "") -> None:
        """`wrong`: why `mode` alone permits the address."""
        self._edge, self._owner = edge, owner
        self._mode, self._wrong = mode, wrong
        self._fault = ("", "")                    # rule and reason that would have ended it, and did not
        self._said = ("", "", "", "")             # of its beginning
        self.name = clock.session_name()
        self._sides = (Side(self, CLIENT), Side(self, SERVER))
        self._bytes = [0, 0]
        self._early: list[bytes] | None = []
        by_name = () if owner.listed else owner.names
        self._first = Beginning(by_name, owner.destination, protocols.spoken, mode != ENFORCE)
        self._held: list[bytes] = []              # what waits until it is told
        self._let = False                         # its brief time is over
        self._hold: asyncio.TimerHandle | None = None
        self._since = clock.now()
        self._reason = ""
        self._closed = False
        self._full = [False, False]
        self._linger: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def record(self) -> None:
        """RecordingError where it cannot be: then nothing may be dialled."""
        commit = self._edge.commit
        if commit is None:
            raise RecordingError("there is no journal")
        commit.append(self._opened())
        if self._mode != ENFORCE:
            wrong = self._wrong if self._mode == SHADOW else ""
            commit.append(self._note("", "", ADDRESS if wrong else "", wrong))
        commit.write_now()

    def take(self, transport: asyncio.Transport, early: bytes, ended: bool) -> None:
        """The client's connection, what it has sent until now, and whether that is all it will."""
        self._sides[CLIENT].attach(transport)
        self._sides[CLIENT].ended = ended
        transport.set_protocol(self._sides[CLIENT])
        self._edge.add(self)
        self._edge.count("flows_total")
        if early:
            self.received(CLIENT, early)
        if ended:
            self._no_more()
        self._task = self._edge.loop.create_task(self._dial())

    async def _dial(self) -> None:
        owner = self._owner
        if self._reason:
            return                    # it was refused by what it had said already
        try:
            configuration = self._edge.configuration
            entry = configuration.egress.get(owner.egress) if configuration is not None else None
            known = entry.addresses if entry is not None and not owner.names else owner.others
            if self._wrong:
                known = self._edge.families.others(owner.workload, owner.destination)
            choices = tuple(one for one in upstream.with_other_family(owner.destination, known)
                            if not self._edge.is_target(one, owner.port))
            transport, _, _ = await upstream.dial(choices, owner.port, lambda: self._sides[SERVER])
        except UpstreamError as error:
            self._end(str(error), True)
            return
        early, self._early = self._early, None
        if self._reason:
            transport.abort()
            return
        if early:
            transport.write(b"".join(early))
        if self._sides[CLIENT].ended:
            transport.write_eof()
        self._read(CLIENT)

    def received(self, number: int, data: bytes) -> None:
        verdict = self._judge(number, data)
        if verdict:
            self._refuse(verdict)
        elif number == SERVER:
            self._bytes[SERVER] += len(data)
            self._send(number, data)
        else:
            self._held.append(data)
            if verdict is UNKNOWN and (not self._let or self._first.waits()):
                self._wait()
            else:
                self._release()

    def _judge(self, number: int, data: bytes) -> str | None:
        verdict = self._first.client(data) if number == CLIENT else self._first.server(data)
        if self._mode == ENFORCE:
            return verdict
        if verdict is UNKNOWN and self._first.waits():
            self._wait()
        elif verdict or self._first.told:
            self._found(verdict or PASS)
        return PASS

    def _found(self, reason: str) -> None:
        """Record what its beginning is, and the first thing that would have ended it, before it goes on."""
        if reason and not self._fault[1]:
            self._fault = (self._first.rule, reason)
        fault = self._fault if self._mode == SHADOW else ("", "")
        said = (self._first.speaks, self._first.name[:LONGEST], *fault)
        if said == self._said or self._edge.commit is None:
            return
        self._said = said
        try:
            self._edge.commit.append(self._note(*said))
            self._edge.commit.write_now()
        except RecordingError as error:
            self._end(f"nothing can be recorded: {error}", True)

    def _wait(self) -> None:
        if self._hold is None:
            self._hold = self._edge.loop.call_later(BRIEF, self._after_brief)

    def _after_brief(self) -> None:
        if self._first.waits():
            self._hold = self._edge.loop.call_later(HOLD - BRIEF, self._late)
        else:
            self._hold, self._let = None, True
            self._release()

    def _no_more(self) -> None:
        """The client has said all that it will: what is held is the whole of it."""
        self._late()
        if not self._reason:
            self._release()

    def _refuse(self, reason: str) -> None:
        self._held.clear()
        self._edge.count("flows_refused")
        self._end(reason, True)

    def _late(self) -> None:
        if not self._first.waits():
            return
        if self._mode == ENFORCE:
            self._refuse(self._first.late())
        else:
            self._found(self._first.late())

    def reconsider(self) -> None:
        """Under what has come into force: what only a laxer mode has let through ends, and what is a target now."""
        if self._edge.is_target(self._owner.destination, self._owner.port):
            self._end("a target has this address and port now", True)
        elif self._mode != ENFORCE and self._edge.mode(self._owner.workload) == ENFORCE:
            self._mode = ENFORCE
            if wrong := self._wrong or self._fault[1]:
                self._end(f"egress is enforced now: {wrong}", True)

    def _release(self) -> None:
        held = b"".join(self._held)
        self._held.clear()
        if held:
            self._forward(held)

    def _forward(self, data: bytes) -> None:
        self._bytes[CLIENT] += len(data)
        if self._early is not None:
            self._early.append(data)
            self._read(CLIENT)
        else:
            self._send(CLIENT, data)

    def _send(self, number: int, data: bytes) -> None:
        other = self._sides[1 - number].transport
        if other is not None and not other.is_closing():
            other.write(data)

    def ended(self, number: int) -> None:
        """Half-close; the whole flow is over when both sides have.  What was held is all that there is."""
        if number == CLIENT:
            self._no_more()
            if self._reason:
                return
        other = self._sides[1 - number]
        if other.ended:
            self._end("closed", False)
        elif other.transport is not None and not other.transport.is_closing():
            other.transport.write_eof()

    def lost(self, number: int, reason: str) -> None:
        who = "client" if number == CLIENT else "server"
        self._end(f"{who}: {reason}" if reason else f"{who} closed", bool(reason))
        if all(side.transport is None for side in self._sides):
            self._finish()

    def full(self, number: int, on: bool) -> None:
        self._full[number] = on
        self._read(1 - number)

    def press(self, on: bool) -> None:
        """A flow writes two events in all: the recorder's trouble is not its own."""

    def answered(self, event: HoldAnswered) -> None:
        """Flows hold nothing."""

    def end(self, reason: str, finish: bool = False) -> None:
        """Nobody sees where an operation of a flow ends."""
        self._end(reason, True)

    def recording_failed(self, reason: str) -> None:
        self._end(reason, True)

    @property
    def owner(self) -> Owner:
        return self._owner

    def view(self) -> SessionView:
        process = self._owner.process
        return SessionView(
            self.name, self._since, self._owner.subject, self._owner.workload, process.pid if process else 0,
            self._owner.egress, "", 0, "flow",
        )

    def _read(self, number: int) -> None:
        """Read this side, or not: where the other is full, or not there yet and enough is kept."""
        transport = self._sides[number].transport
        if transport is None or transport.is_closing():
            return
        waiting = number == CLIENT and self._early is not None and sum(map(len, self._early)) >= LOW
        if self._full[1 - number] or waiting:
            transport.pause_reading()
        else:
            transport.resume_reading()

    def _end(self, reason: str, reset: bool) -> None:
        self._reason = self._reason or reason
        for side in self._sides:
            if side.transport is not None and reset:
                upstream.reset(side.transport)
            elif side.transport is not None:
                side.transport.close()
        if self._linger is None:
            self._linger = self._edge.loop.call_later(LINGER, self._abort)
        if all(side.transport is None for side in self._sides):
            self._finish()

    def _abort(self) -> None:
        for side in self._sides:
            if side.transport is not None:
                side.transport.abort()

    def _finish(self) -> None:
        if self._closed:
            return
        self._closed = True
        for timer in (self._linger, self._hold):
            if timer is not None:
                timer.cancel()
        if self._task is not None and not self._task.done():
            self._task.cancel()
        self._edge.remove(self)
        if self._edge.commit is not None:
            self._edge.commit.append(events.FlowClosed(
                events.FLOW_CLOSED, clock.now(), clock.monotonic(), self.name, self._bytes[CLIENT], self._bytes[SERVER],
                self._reason,
            ))

    def _opened(self) -> events.FlowOpened:
        owner = self._owner
        process = owner.process or Process(0)
        return events.FlowOpened(
            events.FLOW_OPENED, self._since, clock.monotonic(), self.name, owner.egress, owner.subject, owner.workload,
            process.pid, process.exe, process.exe_sha256, process.argv, f"{owner.destination} {owner.port}",
            owner.attribution, owner.cookie,
        )

    def _note(self, speaks: str, name: str, rule: str, reason: str) -> events.FlowNoted:
        return events.FlowNoted(events.FLOW_NOTED, clock.now(), clock.monotonic(), self.name, self._mode, speaks, name,
                                rule, reason)
