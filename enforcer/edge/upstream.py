"""Dialling what is behind the enforcer."""
from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import struct
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Final, TypeVar
from typing import Protocol as Interface

from agent.contract.owner import Owner
from agent.contract.target import Target
from enforcer.words.errors import UpstreamError
from enforcer.words.events import SessionNoted

TIMEOUT: Final = 10.0                 # seconds for all addresses together

P = TypeVar("P", bound=asyncio.BaseProtocol)


class Road(Interface):
    """To a target that is not dialled: through another session (enforcer.edge.through).  UpstreamError where that does
    not lead there."""

    @property
    def through(self) -> str:
        """Name of that session."""
        ...

    @property
    def shown(self) -> str:
        """"ADDRESS:PORT" as it was asked for."""
        ...

    @property
    def depth(self) -> int:
        """How many sessions are round it."""
        ...

    async def dial(self, protocol: asyncio.BaseProtocol) -> tuple[asyncio.Transport, str]:
        """The session's own connection, and where it leads."""
        ...

    async def streams(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection of Weir's own."""
        ...

    def link(self) -> AbstractAsyncContextManager[socket.socket]:
        """Another, blocking, for a thread; when it is left the way is closed, and whoever still reads finds its end."""
        ...

    def opened(self) -> SessionNoted:
        """What is recorded behind SessionOpened."""
        ...

    def over(self) -> None:
        """The session that took it is."""
        ...


def linked(road: Road | None) -> AbstractAsyncContextManager[socket.socket | None]:
    """Nothing where the target is dialled: whoever wants a connection opens it."""
    return nullcontext() if road is None else road.link()


def addresses(target: Target, owner: Owner) -> tuple[str, ...]:
    """Where to dial: the one that the client chose (libpq's host lists choose by address).  The agent says that it is
    the target's, of names that keep changing earlier than the next configuration does."""
    if target.socket:
        return (target.socket,)
    if dialable(owner.destination) and not owner.destination.startswith("/"):
        return with_other_family(owner.destination, target.addresses)
    return target.addresses


def with_other_family(dialled: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """The dialled address, then those of the other family: without Weir a client whose IPv6 connect fails tries IPv4,
    but Weir has taken its connection already."""
    return (dialled, *(address for address in known if (":" in address) != (":" in dialled)))


def render_address(address: str, port: int) -> str:
    if address.startswith("/"):
        return address
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def dialable(address: str) -> bool:
    """The path of a Unix socket, or an address; never a name: what the agent resolved is what counts."""
    if address.startswith("/"):
        return True
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True


async def dial(
    choices: tuple[str, ...], port: int, factory: Callable[[], P], timeout: float = TIMEOUT
) -> tuple[asyncio.Transport, P, str]:
    """(transport, protocol, "ADDRESS:PORT") of the first that answers.  UpstreamError with the last reason."""
    loop = asyncio.get_running_loop()
    reason = "it has no address"
    try:
        async with asyncio.timeout(timeout):
            for address in filter(dialable, choices):
                shown = render_address(address, port)
                try:
                    transport, protocol = await (
                        loop.create_unix_connection(factory, address) if address.startswith("/")
                        else loop.create_connection(factory, address, port))
                except OSError as error:
                    reason = f"{shown}: {os.strerror(error.errno) if error.errno else 'cannot be reached'}"
                    continue
                keep_alive(transport)
                return transport, protocol, shown
    except TimeoutError:
        reason = f"no answer within {timeout:.0f} seconds"
    raise UpstreamError(reason)


async def open_streams(place: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """To a place as `dial` gives it.  Raises OSError."""
    if place.startswith("/"):
        return await asyncio.open_unix_connection(place)
    address, _, port = place.rpartition(":")
    return await asyncio.open_connection(address.strip("[]"), int(port))


def keep_alive(transport: asyncio.BaseTransport) -> None:
    """A peer that vanished is noticed within two minutes.  One at a Unix socket cannot vanish."""
    link = transport.get_extra_info("socket")
    if link.family == socket.AF_UNIX:
        return
    for level, option, value in (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
    ):
        link.setsockopt(level, option, value)


def reset(transport: asyncio.Transport) -> None:
    """Close with RST: nothing was spoken, and nobody waits for more."""
    link = transport.get_extra_info("socket")
    try:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass                          # already closed by the peer
    transport.abort()
