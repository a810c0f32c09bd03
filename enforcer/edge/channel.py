"""The enforcer's end of the agent's channel: frames of agent.contract.messages over an inherited socket.

What the agent asks is answered by one table; what the enforcer asks has a number, a future and a time limit.  When the
channel closes the agent is dead: the enforcer ends (docs/decisions/0003).
"""
from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeVar

import msgspec

from agent.contract import messages
from agent.contract.credential import Credential
from agent.contract.owner import Owner
from enforcer.approval.views import fit
from enforcer.edge.changes import Changes
from enforcer.edge.edge import Edge
from enforcer.words.errors import RecordingError

LOG = logging.getLogger("weir.channel")

WHOIS: Final = 5.0                    # seconds
CREDENTIAL: Final = 40.0              # seconds: a helper of the operator's may take 30
RECORDED: Final = 5.0                 # seconds
KEPT: Final = 10.0                    # seconds
WHO: Final = 1000                     # characters
LISTED: Final = 3 << 20               # bytes of a list of holds: it goes into a frame of the control socket as well

_Answer = (messages.WhoisAnswer | messages.CredentialAnswer | messages.AskerAnswer | messages.NameRecorded
           | messages.TicketKept)
_ANSWERS: Final = (messages.WhoisAnswer, messages.CredentialAnswer, messages.AskerAnswer, messages.NameRecorded,
                   messages.TicketKept)
Resolve = Callable[[str], Awaitable[tuple[tuple[str, ...], int]]]
_Named = TypeVar("_Named")


class Networks(Protocol):
    """enforcer.networks.Networks."""

    async def open(self, message: messages.OpenNetwork) -> str: ...
    def close(self, netns: int) -> None: ...


class Channel(asyncio.Protocol):
    """`configure` puts a Configure in force and gives what is wrong with it, or ""; `drain` ends everything.

    `closed` is set when the agent is gone."""

    def __init__(
        self, configure: Callable[[messages.Configure], Awaitable[str]], drain: Callable[[], Awaitable[None]],
        resolve: Resolve | None = None, force: Callable[[messages.PutInForce], Awaitable[str]] | None = None,
    ) -> None:
        """`force` as `configure`, of what that has prepared.  `resolve` gives a name's addresses and seconds, or raises
        with the reason."""
        self._configure, self._drain, self._resolve, self._force = configure, drain, resolve, force
        self.edge: Edge | None = None
        self.networks: Networks | None = None
        self.changes = Changes(self._send)
        self.closed = asyncio.Event()
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._number = 0
        self._asked: dict[int, asyncio.Future[_Answer | None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._configuring = asyncio.Lock()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            while len(self._buffer) >= 4:
                size = messages.parse_length(bytes(self._buffer[:4]))
                if len(self._buffer) < 4 + size:
                    return
                body = bytes(self._buffer[4:4 + size])
                del self._buffer[:4 + size]
                self._received(messages.parse_from_agent(body))
        except (ValueError, msgspec.MsgspecError):
            LOG.error("the agent sent what is no message: the channel is closed")
            self._close()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        for future in self._asked.values():
            if not future.done():
                future.set_result(None)
        self.closed.set()

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.abort()
        self.closed.set()

    def _send(self, message: messages.Message) -> None:
        if self._transport is not None:
            self._transport.write(messages.render_frame(message))

    # What the enforcer asks

    async def whois(self, cookie: int, netns: int, address: bytes, port: int, redirected: str) -> Owner | str:
        """The owner, or why there is none."""
        number = self._next()
        answer = await self._ask(number, messages.Whois(number, cookie, netns, address, port, redirected), WHOIS)
        if not isinstance(answer, messages.WhoisAnswer):
            return "the agent does not answer"
        return answer.owner or answer.reason or "the agent does not know this connection"

    async def whois_local(self, target: str, pid: int, uid: int) -> Owner | str:
        number = self._next()
        answer = await self._ask(number, messages.WhoisLocal(number, target, pid, uid), WHOIS)
        if not isinstance(answer, messages.WhoisAnswer):
            return "the agent does not answer"
        return answer.owner or answer.reason or "the agent does not know this process"

    async def credential(
        self, target: str, database: str, role: str, groups: tuple[str, ...], who: str = "",
    ) -> Credential | str:
        """The credential, or why there is none.  `who`: whose login it is, which an SSH server logs."""
        number = self._next()
        asked = messages.AskCredential(number, target, database, role, groups, who[:WHO])
        answer = await self._ask(number, asked, CREDENTIAL)
        if not isinstance(answer, messages.CredentialAnswer):
            return "the agent does not answer"
        return answer.credential or answer.reason or f"no credential for target {target}"

    def unused(self, credential: Credential) -> None:
        """A session does not use it any more."""
        if credential.lease:
            self._send(messages.CredentialUnused(0, credential.lease))

    async def who_asks(self, netns: int, stream: bool, address: bytes, port: int) -> tuple[str, str]:
        """(workload, ""), ("", why there is none), or (workload, why it is given addresses of targets alone)."""
        number = self._next()
        answer = await self._ask(number, messages.WhoAsks(number, netns, stream, address, port), WHOIS)
        if not isinstance(answer, messages.AskerAnswer):
            return "", "the agent does not answer"
        return answer.workload, answer.reason or ("" if answer.workload else "the agent does not know who asks")

    async def name_asked(self, asked: messages.NameAsked) -> messages.NameRecorded:
        number = self._next()
        answer = await self._ask(number, msgspec.structs.replace(asked, number=number), RECORDED)
        if not isinstance(answer, messages.NameRecorded):
            return messages.NameRecorded(number, error="the agent does not answer")
        return answer

    async def keep(self, ticket: str, content: bytes) -> str:
        """What is wrong, or "": the agent keeps it (or, with b"", has forgotten it) whatever happens from here on."""
        number = self._next()
        answer = await self._ask(number, messages.KeepTicket(number, ticket, content), KEPT)
        return answer.error if isinstance(answer, messages.TicketKept) else "the agent does not answer"

    def _next(self) -> int:
        self._number += 1
        return self._number

    async def _ask(self, number: int, message: messages.Message, seconds: float) -> _Answer | None:
        if self._transport is None:
            return None
        future: asyncio.Future[_Answer | None] = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        try:
            self._send(message)
            async with asyncio.timeout(seconds):
                return await future
        except TimeoutError:
            return None
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self._unwanted(future.result())
            raise
        finally:
            del self._asked[number]

    # What the agent asks

    def _received(self, message: messages.FromAgent) -> None:
        if isinstance(message, _ANSWERS):
            future = self._asked.get(message.number)
            if future is not None and not future.done():
                future.set_result(message)
            else:
                self._unwanted(message)
        elif isinstance(message, messages.Ping):
            self._send(messages.Pong(message.number))
        elif isinstance(message, messages.WatchChanges):
            self.changes.watch(message.on)
            self._send(messages.Done(message.number))
        elif isinstance(message, messages.Configure):
            self._spawn(self._put_in_force(message))
        elif isinstance(message, messages.PutInForce):
            self._spawn(self._put_prepared(message))   # a task: after those whom an answer before this has woken
        elif isinstance(message, messages.Drain):
            self._spawn(self._end(message))
        elif isinstance(message, messages.OpenNetwork):
            self._spawn(self._opened(message))
        elif isinstance(message, messages.CloseNetwork):
            self._spawn(self._closed(message))       # as a task, too: in order with OpenNetwork's
        elif isinstance(message, messages.ResolveName):
            self._spawn(self._resolved(message))
        elif isinstance(message, messages.DecideHold | messages.RevokeHold | messages.AskElevation):
            self._spawn(self._decided(message))
        else:
            self._send(self._answer(message))

    def _unwanted(self, answer: object) -> None:
        """Nobody waits for it any more."""
        if isinstance(answer, messages.CredentialAnswer) and answer.credential is not None:
            self.unused(answer.credential)
        elif isinstance(answer, messages.WhoisAnswer) and answer.owner is not None and self.edge is not None:
            self.edge.known_too_late(answer.owner)

    async def _put_in_force(self, message: messages.Configure) -> None:
        async with self._configuring:
            error = await self._configure(message)
        self._send(messages.Configured(message.number, error))

    async def _put_prepared(self, message: messages.PutInForce) -> None:
        error = await self._force(message) if self._force is not None else "nothing is prepared here"
        self._send(messages.Done(message.number, error))

    async def _resolved(self, message: messages.ResolveName) -> None:
        """Whatever goes wrong is a reason: a name that cannot be resolved ends nothing."""
        try:
            if self._resolve is None:
                raise OSError("this process resolves nothing")
            addresses, ttl = await self._resolve(message.name)
        except Exception as reason:
            error = str(reason) or type(reason).__name__
            self._send(messages.NameResolved(message.number, error=error[:messages.TEXT]))
        else:
            self._send(messages.NameResolved(message.number, addresses, ttl))

    async def _decided(
        self, message: messages.DecideHold | messages.RevokeHold | messages.AskElevation
    ) -> None:
        """Told when it is kept and recorded: what counts does so over a restart."""
        revoke = isinstance(message, messages.RevokeHold)
        try:
            ticket, error = self._decide(message)
            error = error or await self._kept(ticket, revoke)
        except RecordingError as reason:
            ticket, error = "", f"it cannot be recorded, and counts for nothing: {reason}"
        if isinstance(message, messages.AskElevation):
            self._send(messages.ElevationAsked(message.number, ticket, error))
        else:
            self._send(messages.HoldDecided(message.number, error))

    async def _kept(self, ticket: str, revoke: bool) -> str:
        """What is wrong, or "".  Raises RecordingError: what was let through is ended again."""
        edge = self.edge
        assert edge is not None
        assert edge.holds is not None
        error = await edge.keeper.settled(ticket) if edge.keeper is not None else ""
        if edge.commit is not None:
            try:
                edge.commit.write_now()
            except RecordingError:
                edge.holds.unrecorded(ticket)
                raise
        if error and revoke:
            return f"it is ended, but not on the disk yet, which is tried again and again: {error}"
        return error

    def _decide(
        self, message: messages.DecideHold | messages.RevokeHold | messages.AskElevation
    ) -> tuple[str, str]:
        edge = self.edge
        if edge is None or edge.holds is None:
            return "", "the enforcer is not configured yet"
        if edge.commit is not None and edge.commit.failure and not isinstance(message, messages.RevokeHold):
            raise RecordingError(edge.commit.failure)
        by = () if isinstance(message, messages.AskElevation) else (
            message.approver if isinstance(message, messages.DecideHold) else message.by, *message.names)
        if locked := edge.why_locked(by):
            return "", locked         # since the agent looked: a lock is in force before what came together with it
        if isinstance(message, messages.DecideHold):
            return message.ticket, edge.holds.decide(
                message.ticket, message.approve, message.approver, message.groups, message.reason, message.break_glass,
                message.names)
        if isinstance(message, messages.RevokeHold):
            return message.ticket, edge.holds.revoke(
                message.ticket, message.by, message.groups, message.reason, message.names)
        return edge.elevate(message)

    async def _opened(self, message: messages.OpenNetwork) -> None:
        error = await self.networks.open(message) if self.networks is not None else "this process serves no networks"
        self._send(messages.Done(message.number, error))

    async def _closed(self, message: messages.CloseNetwork) -> None:
        if self.networks is not None:
            self.networks.close(message.netns)
        self._send(messages.Done(message.number))

    async def _end(self, message: messages.Drain) -> None:
        await self._drain()
        self._send(messages.Done(message.number))
        if self._transport is not None:
            self._transport.close()

    def _answer(
        self, message: messages.ListHolds | messages.ListSessions | messages.AskStatistics | messages.AskFigures
        | messages.EndSession
        | messages.EndLogin | messages.PutLocks,
    ) -> messages.Message:
        edge = self.edge
        if isinstance(message, messages.PutLocks):
            return messages.LocksTaken(message.number, edge.lock(message.locks) if edge is not None else 0)
        if isinstance(message, messages.EndLogin):
            if edge is not None:
                edge.end_login(message.login, message.reason)
            return messages.Done(message.number)
        holds = edge.holds if edge else None
        if isinstance(message, messages.ListHolds):
            if holds is not None and message.ticket:
                return messages.HoldsAnswer(message.number, holds.view(message.ticket))
            waiting = fit(holds.views(), LISTED) if holds else ()
            return _fitting(lambda some: messages.HoldsAnswer(message.number, some), waiting)
        if isinstance(message, messages.ListSessions):
            views = tuple(one.view() for one in edge.live.values()) if edge else ()
            return _fitting(lambda some: messages.SessionsAnswer(message.number, some), views)
        if isinstance(message, messages.AskStatistics):
            return messages.StatisticsAnswer(message.number, edge.statistics() if edge else {})
        if isinstance(message, messages.AskFigures):
            return messages.Figures(message.number, *(edge.figures() if edge else ({},)))
        one = edge.find(message.session) if edge else "no session is open"
        if isinstance(one, str):
            return messages.SessionEnded(message.number, None, one)
        view = one.view()
        one.end(message.reason)
        return messages.SessionEnded(message.number, view)

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            LOG.error("a message of the agent could not be carried out: %s", type(task.exception()).__name__)
            self._close()


def _fitting(make: Callable[[tuple[_Named, ...]], messages.Message], some: tuple[_Named, ...]) -> messages.Message:
    """A list whose texts come from crews may outgrow a frame: then the oldest of it."""
    while True:
        message = make(some)
        try:
            messages.render_frame(message)
        except ValueError:
            some = some[:len(some) // 2]
        else:
            return message


async def open_channel(descriptor: int, channel: Channel) -> None:
    link = socket.socket(fileno=descriptor)
    await asyncio.get_running_loop().create_unix_connection(lambda: channel, sock=link)
