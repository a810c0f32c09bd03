"""A process beside the enforcer, as the agent's child: configured over its channel, and asked whether it lives.

It parses what somebody out there says, and may be broken by it; what it may say is its channel's to know.
"""
from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from agent.channel import Channel, ChannelError
from agent.network.doors import close_all
from agent.processes import python_module
from agent.services import DRAIN, HANG, PING_EVERY, Service, Tell

Kind = TypeVar("Kind", bound=Channel)


class Beside(Service, Generic[Kind]):
    """`configure` renders the Configure of now."""

    module: str
    contract: Any                     # its module, which has Done, Ping and Pong
    peer: str                         # as errors have it

    def __init__(
        self, user: str, cgroup: Path, tell: Tell, changed: Callable[[], None], configure: Callable[[int], Any],
    ) -> None:
        super().__init__(user, cgroup, tell, changed)
        self._configure = configure
        self._channel: Kind | None = None

    @property
    def channel(self) -> Kind:
        """Raises ChannelError where it is not running."""
        if self._channel is None:
            raise ChannelError(f"{self.peer} is not running")
        return self._channel

    async def configure(self, seconds: float | None = None) -> str:
        """What is wrong, or empty.  Raises ChannelError."""
        done = await self.channel.ask(self._configure, self.contract.Done, seconds)
        return str(done.error)

    # a kind says these

    async def _open(self, ours: socket.socket) -> Kind:
        raise NotImplementedError

    def _listeners(self) -> Sequence[int]:
        """Descriptors that it is given besides."""
        return ()

    def _configured(self, error: str) -> str:
        """Why it cannot go on, or ""."""
        return f"its configuration: {error}" if error else ""

    async def _began(self) -> None:
        """It is up."""

    def _over(self, reason: str) -> None:
        """It is no more."""

    async def _life(self) -> str:
        listeners = self._listeners()
        ours, theirs = socket.socketpair()
        reason = ""
        try:
            with theirs:
                command = [*python_module(self.module), "--channel", str(theirs.fileno())]
                command += ["--listeners", ",".join(map(str, listeners))] if listeners else []
                await self._spawn(command, (theirs.fileno(), *listeners), dies_with_parent=True)
            self._channel = await self._open(ours)
            reason = await self._serve(self._channel)
            return reason
        finally:
            if self._channel is not None:
                self._channel.close()
                self._channel = None
            ours.close()
            self._over(reason or "ended")

    async def _serve(self, channel: Kind) -> str:
        assert self._process is not None
        ended = asyncio.get_running_loop().create_task(self._process.wait())
        try:
            if wrong := self._configured(await self._begin(self.configure, channel.patience)):
                return wrong
            self._set(True, "")
            await self._began()
            while not ended.done() and not channel.closed.is_set():
                await asyncio.wait({ended}, timeout=PING_EVERY)
                if not ended.done():
                    await channel.ask(self.contract.Ping, self.contract.Pong, HANG)
        except ChannelError as reason:
            await asyncio.wait({ended}, timeout=DRAIN if self._stopping else 0.5)
            return f"{channel.reason} ({self._ended()})" if ended.done() else f"{reason}; {channel.reason}"
        finally:
            ended.cancel()
        return channel.reason if channel.closed.is_set() else self._ended()


class Listening(Beside[Kind]):
    """`listen` opens its listeners, which stay open while it is started again: connections wait."""

    def __init__(
        self, user: str, cgroup: Path, tell: Tell, changed: Callable[[], None],
        listen: Callable[[], list[socket.socket]], configure: Callable[[int], Any],
    ) -> None:
        super().__init__(user, cgroup, tell, changed, configure)
        self._listen = listen
        self._open_listeners: list[socket.socket] = []

    async def stop(self) -> None:
        await super().stop()
        close_all(self._open_listeners)
        self._open_listeners = []

    def _listeners(self) -> tuple[int, ...]:
        self._open_listeners = self._open_listeners or self._listen()
        return tuple(one.fileno() for one in self._open_listeners)
