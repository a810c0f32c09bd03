"""Accepting: who is it, what did it want, is it a session, a flow or refused.

An accepted connection is read only to keep a bounded beginning until the agent has said whose it is (uvloop reads from
the start, whatever pause_reading says in connection_made).  What cannot be attributed is reset without a word.
"""
from __future__ import annotations

import asyncio
import logging
import socket
from functools import partial
from typing import Final

from agent.contract.names import unreachable
from agent.contract.owner import Owner
from agent.contract.target import ENFORCE
from enforcer import protocols
from enforcer.edge.caller import find_caller
from enforcer.edge.edge import Edge
from enforcer.edge.ends import netns_cookie, original_destination, packed, socket_cookie
from enforcer.edge.flows import Flow
from enforcer.edge.session import Session
from enforcer.edge.upstream import keep_alive, render_address, reset
from enforcer.words.commands import CLIENT
from enforcer.words.errors import ConfigError, RecordingError

LOG = logging.getLogger("weir.listener")

EARLY: Final = 16 << 10               # bytes kept before attribution
BACKLOG: Final = 1024
_CLOSE: Final = b"\7"                 # TCP_CLOSE, include/net/tcp_states.h; tcpi_state, linux/tcp.h


class Arrival(asyncio.Protocol):
    """A connection that nobody has accounted for yet."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._early: list[bytes] = []
        self._size = 0
        self._ended = False
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._edge.arriving += 1
        self._task = self._edge.loop.create_task(self._attribute())
        self._task.add_done_callback(self._done)

    def data_received(self, data: bytes) -> None:
        self._early.append(data)
        self._size += len(data)
        if self._size > EARLY and self._transport is not None:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._ended = True            # it may have said all that it wanted: whoever takes it over is told
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None        # whose it was is recorded all the same: the kernel saw its connect

    def _done(self, task: asyncio.Task[None]) -> None:
        self._edge.arriving -= 1
        error = None if task.cancelled() else task.exception()
        if error is not None:
            LOG.error("an arriving connection failed: %s", type(error).__name__)
            self._edge.count("bugs")
        if task.cancelled() or error is not None:
            self._drop()

    def _drop(self) -> None:
        if self._transport is not None:
            reset(self._transport)
            self._transport = None

    def _refuse(self, owner: Owner | None, destination: str, reason: str) -> None:
        self._edge.refused(owner, destination, reason)
        self._drop()

    async def _attribute(self) -> None:
        if self._transport is None:
            return
        reason, where = self._edge.why_not(), self._where(self._transport)
        if reason:
            self._refuse(None, where, reason)
            return
        answer = await self._whose(self._transport)
        if isinstance(answer, str):
            self._refuse(None, where, answer)
            return
        destination = f"{answer.destination} {answer.port}"
        gone = "" if self._is_there() else "gone before it could be attributed"
        reason = gone or self._edge.why_not(answer) or self._place(answer)
        if reason:
            self._refuse(answer, destination, reason)

    def _is_there(self) -> bool:
        """One that was reset while it is not read says so nowhere else; the answer may be of another that has its
        address and port since."""
        if self._transport is None:
            return False
        link: socket.socket = self._transport.get_extra_info("socket")
        return link.family == socket.AF_UNIX or link.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) != _CLOSE

    def _where(self, transport: asyncio.Transport) -> str:
        """Where it wanted to, or where it comes from, as far as the socket tells."""
        peer = transport.get_extra_info("peername")
        return original_destination(transport.get_extra_info("socket")) or (
            f"from {render_address(*peer[:2])}" if peer else "")

    async def _whose(self, transport: asyncio.Transport) -> Owner | str:
        """Or why it cannot be told."""
        link, peer = transport.get_extra_info("socket"), transport.get_extra_info("peername")
        if peer is None:              # reset before it was accepted
            return "gone before it could be attributed"
        asked = socket_cookie(link), netns_cookie(link), packed(peer[0]), peer[1], original_destination(link)
        answer = await self._edge.asking.whois(*asked)
        return f"not attributed: {answer}" if isinstance(answer, str) else answer

    def _place(self, owner: Owner) -> str:
        """Make it a session or a flow.  Gives why not, else ""."""
        if owner.target:
            return self._session(owner)
        if reason := self._edge.barred(owner)[1]:
            return reason
        if self._edge.is_target(owner.destination, owner.port):
            return "a target has this address and port now: connect again"
        wrong, mode = self._why_no_flow(owner), self._edge.mode(owner.workload)
        if wrong and (mode == ENFORCE or (never := _never(owner.destination))):
            return wrong if mode == ENFORCE else f"{wrong}, and it is {never}: no mode lets it through"
        return self._flow(owner, mode, wrong)

    def _why_no_flow(self, owner: Owner) -> str:
        """As it is said in the mode enforce; "" where an entry permits it."""
        if not owner.egress:
            return "no target and no egress entry has this address and port"
        configuration = self._edge.configuration
        entry = configuration.egress.get(owner.egress) if configuration else None
        permitted = entry is not None and (owner.names or owner.destination in entry.addresses)
        if entry is None or not permitted or owner.port not in entry.ports:
            return f"egress {owner.egress} does not permit this address and port"
        return ""

    def _session(self, owner: Owner) -> str:
        configuration = self._edge.configuration
        target = configuration.targets.get(owner.target) if configuration else None
        if target is None:
            return f"no target {owner.target} is configured"
        try:
            session = Session(self._edge, self._edge.context(owner, target), protocols.find(target.protocol))
        except ConfigError as error:
            return error.message
        transport, early = self._hand_over()
        session.take(transport, early)
        if self._ended:
            session.gone(CLIENT, "")
        return ""

    def _flow(self, owner: Owner, mode: str, wrong: str) -> str:
        flow = Flow(self._edge, owner, mode, wrong)
        try:
            flow.record()
        except RecordingError as error:
            return f"nothing can be recorded: {error}"
        transport, early = self._hand_over()
        flow.take(transport, early, self._ended)
        return ""

    def _hand_over(self) -> tuple[asyncio.Transport, bytes]:
        transport, self._transport = self._transport, None
        assert transport is not None      # _attribute has looked, and nothing was awaited since
        try:
            keep_alive(transport)
        except OSError:
            LOG.info("a connection was reset while it arrived")     # connection_lost follows
        if self._size > EARLY:
            transport.resume_reading()
        return transport, b"".join(self._early)


def _never(address: str) -> str:
    """Why nobody is let there without an entry: this host's own services, and where it has credentials from."""
    try:
        return unreachable(address)
    except ValueError:
        return "no address"


class LocalArrival(Arrival):
    """One at the Unix socket of a target: by the process that called connect(2), as the kernel noted it."""

    def __init__(self, edge: Edge, target: str) -> None:
        super().__init__(edge)
        self._target = target

    def _where(self, transport: asyncio.Transport) -> str:
        return f"the socket of target {self._target}"

    async def _whose(self, transport: asyncio.Transport) -> Owner | str:
        caller = find_caller(transport.get_extra_info("socket"))
        if caller is None:
            return "not attributed: the process that connected has ended or cannot be seen"
        with caller:
            answer = await self._edge.asking.whois_local(self._target, caller.pid, caller.uid)
            # Only now: a pid that is still the caller's has been so all the while.
            if not isinstance(answer, str) and not caller.is_there():
                answer = "the process that connected has ended"
        return f"not attributed: {answer}" if isinstance(answer, str) else answer


async def listen_local(edge: Edge, descriptors: dict[str, int]) -> list[asyncio.AbstractServer]:
    """Accept from inherited listening Unix sockets, by target."""
    return [
        await edge.loop.create_unix_server(
            partial(LocalArrival, edge, target), sock=socket.socket(fileno=descriptor), backlog=BACKLOG,
            start_serving=True)
        for target, descriptor in descriptors.items()
    ]


async def listen(edge: Edge, descriptors: tuple[int, ...]) -> list[asyncio.Server]:
    """Accept from inherited listening sockets."""
    return [
        await edge.loop.create_server(
            lambda: Arrival(edge), sock=socket.socket(fileno=descriptor), backlog=BACKLOG, start_serving=True
        )
        for descriptor in descriptors
    ]
