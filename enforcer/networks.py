"""Other network namespaces that the enforcer serves: the agent opens the sockets in them and hands them over.

A packet with the sockets lies in the doors' socket pair before the message that says what they are.  Where the two do
not belong together nothing is served: each socket says itself in which namespace it was made.
"""
from __future__ import annotations

import array
import asyncio
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from agent.contract.messages import DOORS, OpenNetwork
from enforcer.dns.server import Server
from enforcer.edge.edge import Edge
from enforcer.edge.ends import netns_cookie
from enforcer.edge.listener import listen

_DESCRIPTOR: Final = array.array("i").itemsize


@dataclass
class _Network:
    waiting: tuple[socket.socket, ...]            # listeners: connections wait until names are known
    dns: Server
    servers: list[asyncio.Server] = field(default_factory=list)


class Networks:
    """`door`: descriptor of the socket pair's end, -1 where there is none."""

    def __init__(self, edge: Edge, resolver: Server, door: int = -1) -> None:
        self._edge, self._resolver = edge, resolver
        self._door = socket.socket(fileno=door) if door >= 0 else None
        self._there: dict[int, _Network] = {}
        self._ready = False

    async def open(self, message: OpenNetwork) -> str:
        """What is wrong, or empty.  Those that are served already are closed again."""
        sockets = self._receive()
        wrong = _wrong(sockets, message)
        if wrong or message.netns in self._there:
            _close(sockets)
            return wrong
        listeners, dns = sockets[:message.listeners], sockets[message.listeners:]
        network = self._there[message.netns] = _Network(tuple(listeners), self._resolver.another())
        try:
            await network.dns.open(tuple(one.detach() for one in dns))
            if self._ready:
                await self._listen(network)
        except OSError as reason:
            self._there.pop(message.netns, None)
            _shut(network)
            return f"its sockets cannot be served: {reason}"
        if self._there.get(message.netns) is not network:
            _shut(network)            # closed meanwhile
        return ""

    def close(self, netns: int) -> None:
        """Sessions that are open there end by themselves."""
        if network := self._there.pop(netns, None):
            _shut(network)

    async def ready(self) -> None:
        """Names are known: connections are taken from now on."""
        self._ready = True
        for network in tuple(self._there.values()):
            await self._listen(network)

    def end(self) -> None:
        for netns in tuple(self._there):
            self.close(netns)

    async def _listen(self, network: _Network) -> None:
        waiting, network.waiting = network.waiting, ()
        network.servers += await listen(self._edge, tuple(one.detach() for one in waiting))

    def _receive(self) -> list[socket.socket]:
        """The packet's sockets; none where it is not there."""
        if self._door is None:
            return []
        try:
            _, ancillary, _, _ = self._door.recvmsg(
                1, socket.CMSG_SPACE(DOORS * _DESCRIPTOR), socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC)
        except OSError:
            return []
        numbers = array.array("i")
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                numbers.frombytes(data[:len(data) - len(data) % _DESCRIPTOR])
        return [socket.socket(fileno=one) for one in numbers]


def _wrong(sockets: Sequence[socket.socket], message: OpenNetwork) -> str:
    if not sockets or len(sockets) != message.listeners + message.dns:
        return f"{len(sockets)} sockets came"
    return "" if all(netns_cookie(one) == message.netns for one in sockets) else "sockets of another network came"


def _shut(network: _Network) -> None:
    waiting, network.waiting = network.waiting, ()
    _close(waiting)
    network.dns.close()
    for server in network.servers:
        server.close()


def _close(sockets: Sequence[socket.socket]) -> None:
    for one in sockets:
        one.close()
