"""The web process: what browsers send is parsed here, where there is nothing to be had but what they sent.

    python -I -m enforcer.web.app --channel FD --listeners FD,FD

The agent starts it as the user weir-web where [web] has a `url`, and it ends with the agent (docs/decisions/0029).
Exit: 0 after SIGTERM or the agent's end, 1 where it may not run.
"""
from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import sys

from agent.contract import web as messages
from enforcer.process import parser_of, run
from enforcer.web.channel import Channel, NoAnswer, open_channel
from enforcer.web.door import Door
from enforcer.web.site import Site


class Process:
    """Everything that lives as long as it does."""

    def __init__(self) -> None:
        self.channel = Channel(self.configure, lambda message: self.site.news(message))
        self.site = Site(self.channel.ask)
        self.door = Door(self.site, self.admit)
        self._serving: list[asyncio.Task[None]] = []
        self._listeners: tuple[socket.socket, ...] = ()

    async def admit(self, question: messages.Admit) -> str:
        try:
            return (await self.channel.ask(question, messages.Admitted)).reason
        except NoAnswer as reason:
            return str(reason)

    def configure(self, message: messages.Configure) -> str:
        """What is wrong with it, or ""; connections are taken from the first one that is right on."""
        try:
            context = context_of(message.certificate, message.key) if message.key else None
        except (ssl.SSLError, OSError):
            return "tls_certificate and tls_key are no certificate and its key"
        self.door.context, self.site.configuration = context, message
        loop = asyncio.get_running_loop()
        if not self._serving:
            self._serving = [loop.create_task(self.door.serve(one)) for one in self._listeners]
        return ""

    async def run(self, channel: int, listeners: tuple[int, ...]) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.channel.closed.set)
        self._listeners = tuple(socket.socket(fileno=one) for one in listeners)
        await open_channel(channel, self.channel)
        await self.channel.closed.wait()
        for task in self._serving:
            task.cancel()
        self.door.close()


def context_of(certificate: str, key: str) -> ssl.SSLContext:
    """TLS 1.2 with forward secrecy at least, by a file that has no name.  Raises ssl.SSLError, OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    descriptor = os.memfd_create("web", os.MFD_CLOEXEC)
    with open(descriptor, "wb") as file:
        file.write(f"{certificate}\n{key}".encode())
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    return context


def main(argv: list[str] | None = None) -> int:
    parser = parser_of("web")
    parser.add_argument("--listeners", required=True, metavar="FD,FD")
    options = parser.parse_args(argv)
    listeners = tuple(int(one) for one in options.listeners.split(",") if one)
    return run("web", lambda: Process().run(options.channel, listeners))


if __name__ == "__main__":
    sys.exit(main())
