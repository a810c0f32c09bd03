"""The metrics process: what scrapers send is parsed here, where there is nothing to be had but figures.

    python -I -m enforcer.metrics.app --channel FD --listeners FD

The agent starts it as the user weir-web where [metrics] has a `listen`, and it ends with the agent
(docs/decisions/0051).  Exit: 0 after SIGTERM or the agent's end, 1 where it may not run.
"""
from __future__ import annotations

import asyncio
import signal
import socket
import sys

from agent.contract.metrics import Admit, Admitted
from enforcer.frames import NoAnswer, connect
from enforcer.metrics.channel import Channel
from enforcer.metrics.site import Site
from enforcer.process import parser_of, run
from enforcer.web.door import Door


class Process:
    """Everything that lives as long as it does."""

    def __init__(self, listeners: tuple[socket.socket, ...]) -> None:
        self._listeners = listeners
        self.channel = Channel(self.configured)
        self.door = Door(
            Site(self.channel.ask, all(one.family == socket.AF_UNIX for one in listeners)), self.admit)
        self._serving: list[asyncio.Task[None]] = []

    async def admit(self, question: Admit) -> str:
        try:
            return (await self.channel.ask(question, Admitted)).reason
        except NoAnswer as reason:
            return str(reason)

    def configured(self) -> None:
        """Connections are taken from the first one on."""
        if not self._serving:
            loop = asyncio.get_running_loop()
            self._serving = [loop.create_task(self.door.serve(one)) for one in self._listeners]

    async def run(self, channel: int) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.channel.closed.set)
        await connect(self.channel, channel)
        await self.channel.closed.wait()
        for task in self._serving:
            task.cancel()
        self.door.close()


async def serve(channel: int, descriptors: tuple[int, ...]) -> None:
    await Process(tuple(socket.socket(fileno=one) for one in descriptors)).run(channel)


def main(argv: list[str] | None = None) -> int:
    parser = parser_of("metrics")
    parser.add_argument("--listeners", required=True, metavar="FD,FD")
    options = parser.parse_args(argv)
    listeners = tuple(int(one) for one in options.listeners.split(",") if one)
    return run("metrics", lambda: serve(options.channel, listeners))


if __name__ == "__main__":
    sys.exit(main())
