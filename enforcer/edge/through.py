"""Registered targets through another session: their own layers, over streams that the outer layer carries.

Theory: a tunnel is a session like any, with its target's protocol, policy and recording.  What it has in place of
sockets of its own are pairs of connected ones: one end is the inner session's (so that TLS and its limits work as
ever), the other, a Line, is where the outer layer's commands write and from where its inputs come.

    crew == outer session (ssh, ...) ============ its server == the target
               | SendThrough  ^ ThroughData
             Line CLIENT    Line SERVER
               | a pair       | a pair
              inner session (postgresql, ...)

A Line is read as long as the outer session's socket to that side and its layer take more, and tells the layer where the
inner session does not: bounded by the pair's buffers and MOST.  The inner session writes to its server only what its
own journal entries precede, and so does the outer one: what leaves the host stands behind both.

Weir's own connections to the target (catalogue, plan, cancel) take the same way, each as a Line with a number below 0.
"""
from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from agent.contract.target import Target
from enforcer import protocols
from enforcer.core.places import find_target
from enforcer.edge import clock, upstream
from enforcer.edge.peer import FULL, LAYER, QUEUED, Peer
from enforcer.words import commands as words
from enforcer.words import events, inputs
from enforcer.words.commands import CLIENT, SERVER, Command
from enforcer.words.errors import ConfigError, LocalProtocolError, UpstreamError

if TYPE_CHECKING:
    from enforcer.edge.session import Session

MOST: Final = 4 << 20                 # bytes that a layer may send although it is told that the line is full
WAY: Final = 0.25                     # seconds that last words of sessions through another have for their way,
LONGEST_WAY: Final = 5.0              # and where the server says that it has passed them on: until then, at the latest
DEEPEST: Final = 4                    # tunnels inside of each other
ATTRIBUTION: Final = "tunnel"         # of its owner: no kernel saw a connect, the outer session's is the one


class Line:
    """The outer layer's end of one stream."""

    def __init__(self, tunnels: Tunnels, tunnel: Tunnel, number: int, peer: int) -> None:
        self._tunnels, self._tunnel, self.number, self.peer = tunnels, tunnel, number, peer
        self.end = Peer(self, peer)
        self.end.early = None
        self.answer: asyncio.Future[str] | None = None         # of whoever waits for ThroughConnected
        self._ended = False

    async def open(self) -> socket.socket:
        """Gives the other end, which its caller owns.  Raises UpstreamError."""
        try:
            near, far = socket.socketpair()
        except OSError:
            raise UpstreamError("there are no more sockets") from None
        for one in (near, far):
            one.setblocking(False)
        try:
            transport = await attach(far, self.end)
        except BaseException:
            near.close()
            raise
        if self.end.closing:
            transport.abort()
            near.close()
            raise UpstreamError("it was closed meanwhile")
        self.end.attach(transport)
        return near

    async def join(self, protocol: asyncio.BaseProtocol) -> asyncio.Transport:
        """Open, with this at the other end.  Raises UpstreamError."""
        return await attach(await self.open(), protocol)

    def send(self, data: bytes) -> None:
        transport = self.end.transport
        if transport is not None and transport.get_write_buffer_size() > MOST:
            raise LocalProtocolError("a layer goes on sending through a line that is full")
        self.end.write(data)

    def no_more(self) -> None:
        """The inner session's side reads to an end."""
        transport = self.end.transport
        if transport is not None and not self.end.closing and not transport.is_closing():
            transport.write_eof()

    def close(self, reason: str = "") -> None:
        """By the outer side: `reason` where it was lost."""
        self._ended = True
        waited = self._fail(reason or "it was closed")
        if reason and not waited:
            self._tunnel.lost(self, reason)
        if reason:
            self.end.abort()
        else:
            self.end.close()
        self._gone_at_once()

    def drop(self) -> None:
        """By the inner side, before or after it was connected."""
        self.gone(self.peer, "")
        self._gone_at_once()

    def _gone_at_once(self) -> None:
        if self.end.transport is None:         # it has none yet: nobody will say that it is lost
            self.lost()

    @property
    def reaches(self) -> bool:
        """The server has connected it."""
        answer = self.answer
        return answer is not None and answer.done() and not answer.cancelled() and answer.exception() is None

    def connected(self, address: str) -> None:
        if self.answer is not None and not self.answer.done():
            self.answer.set_result(address)

    def failed(self, reason: str) -> None:
        if self._fail(reason):
            self._ended = True
        else:
            self.close(reason)

    def _fail(self, reason: str) -> bool:
        """Whoever waits is told; False where nobody does."""
        if self.answer is None or self.answer.done():
            return False
        self.answer.set_exception(UpstreamError(reason))
        return True

    # enforcer.edge.peer.Events

    def received(self, peer: int, data: bytes) -> None:
        self._tunnels.tell(inputs.ThroughData(self.number, peer, data))

    def gone(self, peer: int, reason: str) -> None:
        self.end.close()
        if not self._ended:
            self._ended = True
            self._tunnels.part(self)
            self._tunnels.tell(inputs.ThroughEnded(self.number, peer))

    def lost(self) -> None:
        self._tunnels.forget(self, self._tunnel)

    def full(self, peer: int, on: bool) -> None:
        if not self._ended:
            self._tunnels.tell(inputs.ThroughFull(self.number, peer, on))


async def attach(link: socket.socket, protocol: asyncio.BaseProtocol) -> asyncio.Transport:
    """Closes it where it fails, or nobody waits for it any more: uvloop leaves a transport behind that is cancelled."""
    loop = asyncio.get_running_loop()
    making = loop.create_task(loop.create_unix_connection(lambda: protocol, sock=link))
    try:
        transport, _ = await asyncio.shield(making)
    except asyncio.CancelledError:
        making.add_done_callback(lambda done: link.close() if done.exception() else done.result()[0].abort())
        raise
    except OSError:
        link.close()
        raise UpstreamError("there are no more sockets") from None
    return transport


class Tunnel:
    """How an inner session gets to its target: an upstream.Road."""

    def __init__(self, tunnels: Tunnels, number: int, shown: str) -> None:
        self._tunnels, self.number, self.shown = tunnels, number, shown
        self._at: int | None = None   # number of the line to its server; a later one has another
        self.session: Session | None = None

    @property
    def through(self) -> str:
        return self._tunnels.name

    @property
    def depth(self) -> int:
        return self._tunnels.depth

    async def dial(self, protocol: asyncio.BaseProtocol) -> tuple[asyncio.Transport, str]:
        self._at = self.number if self._at is None else self._tunnels.own()
        near, address = await self._reach(self._at)
        return await attach(near, protocol), address

    async def streams(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        near, _ = await self._reach(self._tunnels.own())
        return await asyncio.open_unix_connection(sock=near)

    @asynccontextmanager
    async def link(self) -> AsyncIterator[socket.socket]:
        number = self._tunnels.own()
        near, _ = await self._reach(number)
        near.setblocking(True)
        try:
            yield near
        finally:
            self._tunnels.drop(number)

    async def _reach(self, number: int) -> tuple[socket.socket, str]:
        """A connected line's other end.  UpstreamError where there is none within upstream.TIMEOUT."""
        line = self._tunnels.line(self, number, SERVER)
        near = None
        try:
            near = await line.open()
            line.answer = asyncio.get_running_loop().create_future()
            async with asyncio.timeout(upstream.TIMEOUT):
                self._tunnels.dial(line, self.number)
                return near, await line.answer or self.shown
        except BaseException as error:
            if near is not None:
                near.close()
            line.drop()
            if isinstance(error, TimeoutError):
                raise UpstreamError(f"no answer within {upstream.TIMEOUT:.0f} seconds") from None
            raise

    def lost(self, line: Line, reason: str) -> None:
        """The inner session's own peer, with the reason that a pair of sockets cannot tell."""
        if line.number == (self.number if line.peer == CLIENT else self._at) and self.session is not None:
            self.session.gone(line.peer, reason)

    def opened(self) -> events.SessionNoted:
        return events.SessionNoted(events.SESSION_NOTED, clock.now(), clock.monotonic(),
                                   self.session.name if self.session is not None else "", "through", self.through)

    @property
    def lines(self) -> tuple[tuple[int, int], ...]:
        """Of its session."""
        return (self.number, CLIENT), (self.number, SERVER), (self.number if self._at is None else self._at, SERVER)

    def over(self) -> None:
        """Its session is."""
        self._tunnels.settle(self)


class Tunnels:
    """All that go through one session."""

    def __init__(self, outer: Session) -> None:
        self._outer, self.name = outer, outer.name
        self.depth: int = outer.road.depth + 1 if outer.road is not None else 1
        self._lines: dict[tuple[int, int], Line] = {}
        self._open: dict[int, Tunnel] = {}
        self._last = 0
        self._ways = 0.0              # until then last words may be on their way
        self._parting: set[int] = set()                # lines whose end the server has not confirmed
        client, server = outer.peers
        queued = QUEUED if client.stopped(QUEUED) else 0
        self._paused = [              # why lines to that side are not read
            FULL if server.stopped(FULL) else 0, queued | (FULL if client.stopped(FULL) else 0)]

    # What the outer layer wants

    async def open(self, command: words.OpenThrough) -> None:
        """An errand of the outer session's."""
        if command.number < 0 or command.number in self._open:
            raise LocalProtocolError("a tunnel of this number is open")
        found = self._find(command)
        if isinstance(found, str):
            self.tell(inputs.ThroughRefused(command.number, found))
            return
        tunnel = self._open[command.number] = Tunnel(
            self, command.number, upstream.render_address(command.host, command.port))
        line = self.line(tunnel, command.number, CLIENT)
        try:
            transport = await line.join(asyncio.Protocol())
        except UpstreamError as error:
            self._refuse(tunnel, line, str(error))
            return
        self._begin(tunnel, line, transport, found, command)

    def _begin(
        self, tunnel: Tunnel, line: Line, transport: asyncio.Transport, target: Target, command: words.OpenThrough,
    ) -> None:
        owner = replace(
            self._outer.owner, cookie=0, destination=command.host, port=command.port, attribution=ATTRIBUTION,
            target=target.name, egress="", names=(), listed=False, others=(), local=False)
        reason = "it was closed" if line.end.closing or self._outer.over else self._outer.edge.why_not(owner)
        if self._find(command) is not target:
            reason = reason or "the configuration has changed: connect again"
        try:
            protocol = protocols.find(target.protocol)
        except ConfigError as error:
            reason = reason or error.message
        if reason:
            transport.abort()
            self._refuse(tunnel, line, reason)
            return
        tunnel.session = session = self._outer.inner(self._outer.edge.context(owner, target), protocol, tunnel)
        self.tell(inputs.ThroughOpened(command.number, target.name, session.name))
        session.take(transport, b"")

    def _refuse(self, tunnel: Tunnel, line: Line, reason: str) -> None:
        self._open.pop(tunnel.number, None)
        line.close()
        self.tell(inputs.ThroughRefused(tunnel.number, reason))

    def _find(self, command: words.OpenThrough) -> Target | str:
        """Or why not, "" where it is not registered."""
        edge = self._outer.edge
        configuration = edge.configuration
        if configuration is None:
            return "the enforcer is not configured"
        targets = configuration.targets
        found = targets.get(command.target) if command.target else find_target(
            targets.values(), command.host, command.port, self._outer.context.target)
        if found is None:
            return f"there is no target {command.target}" if command.target else ""
        return found if self.depth <= DEEPEST else "there are too many tunnels inside of each other"

    def order(self, command: Command) -> None:
        _ORDERS[type(command)](self, command)

    def _connected(self, command: words.ThroughConnected) -> None:
        if (line := self._lines.get((command.number, SERVER))) is not None:
            line.connected(command.address)

    def _failed(self, command: words.ThroughFailed) -> None:
        if (line := self._lines.get((command.number, SERVER))) is not None:
            line.failed(command.reason)

    def _send(self, command: words.SendThrough) -> None:
        if (line := self._lines.get((command.number, command.peer))) is not None:
            line.send(command.data)

    def _end(self, command: words.EndThrough) -> None:
        if (line := self._lines.get((command.number, command.peer))) is not None:
            line.no_more()

    def _close(self, command: words.CloseThrough) -> None:
        if command.peer == SERVER:
            self._parting.discard(command.number)
        if (line := self._lines.get((command.number, command.peer))) is not None:
            line.close(command.reason)

    def _pause(self, command: words.PauseThrough) -> None:
        if (line := self._lines.get((command.number, command.peer))) is not None:
            line.end.stop_reading(LAYER)

    def _resume(self, command: words.ResumeThrough) -> None:
        if (line := self._lines.get((command.number, command.peer))) is not None:
            line.end.go_on_reading(LAYER)

    # What happens to the outer session

    def full(self, peer: int, why: int, on: bool) -> None:
        """The way to that side is (FULL: its socket, QUEUED: what waits for the journal)."""
        self._paused[peer] = self._paused[peer] | why if on else self._paused[peer] & ~why
        for line in tuple(self._lines.values()):
            if line.peer == peer:
                (line.end.stop_reading if on else line.end.go_on_reading)(why)

    def lost(self, peer: int, reason: str) -> None:
        """That side of the outer session is."""
        who = "client" if peer == CLIENT else "server"
        for line in tuple(self._lines.values()):
            if line.peer == peer:
                line.close(f"session {self.name}, which it goes through, has no {who} any more"
                           f"{f': {reason}' if reason else ''}")

    def end(self, reason: str, finish: bool = False) -> None:
        for tunnel in tuple(self._open.values()):
            if tunnel.session is not None:
                tunnel.session.end(f"session {self.name}, which it goes through, ends: {reason}", finish)

    # For lines and tunnels

    def tell(self, event: inputs.Input) -> None:
        self._outer.tell(event)

    @property
    def busy(self) -> bool:
        """Some are open, or have just said their last words: these are still on their way, and a server that loses the
        connection drops what it was to pass on."""
        return bool(self._open or self._parting) or asyncio.get_running_loop().time() < self._ways

    def part(self, line: Line) -> None:
        """Its inner side has ended it."""
        if line.peer == SERVER and line.reaches:
            self._parting.add(line.number)

    def let_pass(self, then: Callable[[], None]) -> None:
        """Once what is on its way has arrived."""
        loop = asyncio.get_running_loop()
        latest = loop.time() + LONGEST_WAY

        def look() -> None:
            if self.busy and loop.time() < latest:
                loop.call_later(WAY / 10, look)
            else:
                then()

        look()

    def own(self) -> int:
        self._last -= 1
        return self._last

    def drop(self, number: int) -> None:
        if (line := self._lines.get((number, SERVER))) is not None:
            line.drop()

    def line(self, tunnel: Tunnel, number: int, peer: int) -> Line:
        line = self._lines[number, peer] = Line(self, tunnel, number, peer)
        for why in (FULL, QUEUED):
            if self._paused[peer] & why:
                line.end.stop_reading(why)
        return line

    def dial(self, line: Line, tunnel: int) -> None:
        if self._outer.over:
            raise UpstreamError(f"session {self.name}, which it goes through, is over")
        self.tell(inputs.ThroughDials(line.number, tunnel))

    def forget(self, line: Line, tunnel: Tunnel) -> None:
        if self._lines.get((line.number, line.peer)) is line:
            del self._lines[line.number, line.peer]
            self.settle(tunnel)

    def settle(self, tunnel: Tunnel) -> None:
        """Where its session is over and everything that it said was taken, the tunnel is closed."""
        session, number = tunnel.session, tunnel.number
        if self._open.get(number) is not tunnel or session is None or not session.finished:
            return
        if not any(one in self._lines for one in tunnel.lines):
            del self._open[number]
            self._ways = asyncio.get_running_loop().time() + WAY
            self.tell(inputs.ThroughClosed(number, session.reason))


_ORDERS: Final[dict[type[Command], Any]] = {
    words.ThroughConnected: Tunnels._connected,
    words.ThroughFailed: Tunnels._failed,
    words.SendThrough: Tunnels._send,
    words.EndThrough: Tunnels._end,
    words.CloseThrough: Tunnels._close,
    words.PauseThrough: Tunnels._pause,
    words.ResumeThrough: Tunnels._resume,
}
