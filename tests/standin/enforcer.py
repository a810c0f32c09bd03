"""A tiny enforcer for the tests of the agent: speaks agent/contract/messages.py and says to each client whose it is.

Configure is refused where a policy holds WRONG, and answered late where one holds SLOW; where one holds DIES or HANGS,
that happens when what was prepared is to be put in force.  A client that connects gets one JSON line, the answer to its
whois (and to a question for a credential, where it has a target), and the end.
"""
from __future__ import annotations

import argparse
import asyncio
import os
import socket
import struct
import sys

import msgspec

from agent.contract import messages


class Enforcer(asyncio.Protocol):
    def __init__(self) -> None:
        self.buffer, self.number = bytearray(), 0
        self.asked: dict[int, asyncio.Future] = {}
        self.configured: messages.Configure | None = None
        self.prepared: messages.Configure | None = None
        self.decided: list[messages.DecideHold] = []
        self.ready, self.ended = asyncio.Event(), asyncio.Event()

    def connection_made(self, transport) -> None:
        self.transport = transport

    def connection_lost(self, error) -> None:
        self.ready.set()
        self.ended.set()

    def send(self, message) -> None:
        self.transport.write(messages.render_frame(message))

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while len(self.buffer) >= 4:
            size = messages.parse_length(bytes(self.buffer[:4]))
            if len(self.buffer) < 4 + size:
                return
            body = bytes(self.buffer[4:4 + size])
            del self.buffer[:4 + size]
            self.received(messages.parse_from_agent(body))

    def received(self, message) -> None:
        match message:
            case messages.Configure():
                wrong = [name for name, text in message.policies.items() if "WRONG" in text]
                if not wrong and message.prepare:
                    self.prepared = message
                elif not wrong:
                    self.configured = message
                    if message.ready:
                        self.ready.set()
                answer = messages.Configured(message.number, f"{wrong[0]}:1:1: WRONG is wrong" if wrong else "")
                late = message.prepare and "SLOW" in str(message.policies)
                asyncio.get_running_loop().call_later(3 if late else 0, self.send, answer)
            case messages.PutInForce():
                said = str(self.prepared.policies)
                if "DIES" in said:
                    os._exit(9)
                if "HANGS" not in said:
                    self.configured = self.prepared
                    self.send(messages.Done(message.number))
            case messages.Ping():
                self.send(messages.Pong(message.number))
            case messages.WhoisAnswer() | messages.CredentialAnswer():
                self.asked.pop(message.number).set_result(message)
            case messages.ListHolds():
                hold = messages.HoldView(
                    "abc123", 1, 1 << 62, "local:games", "crew", 7, "/usr/bin/python3\x1b[2J", "orders", "shop",
                    "sql:delete public.orders", "DELETE FROM orders\x1b]0;x\x07", ("1",), ("r",), ("dba",), True, "s1")
                self.send(messages.HoldsAnswer(message.number, (hold,)))
            case messages.DecideHold():
                self.decided.append(message)
                error = "" if "dba" in message.groups else f"{message.approver} is in none of the groups"
                self.send(messages.HoldDecided(message.number, error))
            case messages.WatchChanges():
                self.send(messages.Done(message.number))
            case messages.ListSessions():
                self.send(messages.SessionsAnswer(message.number, ()))
            case messages.AskStatistics():
                targets = self.configured.targets if self.configured else ()
                self.send(messages.StatisticsAnswer(message.number, {
                    "sessions": 0, "unknown_ca": 1, "unknown_ca:orders": 1, "targets": len(targets),
                    "pid": os.getpid()}))
            case messages.AskFigures():
                self.send(messages.Figures(message.number, {"holds": 1, "oldest_hold": 1, "refused": 3}, (
                    messages.TargetFigures("orders", 1, 5, 4, 3, 2, 1, 0, 0),
                    messages.TargetFigures("made up", 1, 1, 1, 1, 1, 1, 1, 1))))
            case messages.ResolveName():
                self.send(messages.NameResolved(message.number, error="there is no such name"))
            case messages.Drain():
                self.send(messages.Done(message.number))
                self.ready.set()
                self.ended.set()

    async def ask(self, make):
        self.number += 1
        future = self.asked[self.number] = asyncio.get_running_loop().create_future()
        self.send(make(self.number))
        return await future

    async def client(self, reader, writer) -> None:
        link = writer.get_extra_info("socket")
        own, cookie = (struct.unpack("=Q", link.getsockopt(socket.SOL_SOCKET, one, 8))[0] for one in (57, 71))
        address, port = writer.get_extra_info("peername")[:2]
        six = link.family == socket.AF_INET6
        try:
            raw = link.getsockopt(41 if six else 0, 80, 28 if six else 16)
            original = socket.inet_ntop(link.family, raw[8:24] if six else raw[4:8])
            redirected = f"{original} {struct.unpack_from('!H', raw, 2)[0]}"
        except OSError:
            redirected = ""
        packed = socket.inet_pton(link.family, address)
        packed = packed if six else b"\0" * 10 + b"\xff\xff" + packed
        found = await self.ask(lambda number: messages.Whois(number, own, cookie, packed, port, redirected))
        said = {"owner": found.owner, "reason": found.reason}
        if found.owner and found.owner.target:
            asked = await self.ask(lambda number: messages.AskCredential(number, found.owner.target, "shop", "x", ()))
            said["user"] = asked.credential.user if asked.credential else asked.reason
        writer.write(msgspec.json.encode(said) + b"\n")
        await writer.drain()
        writer.close()


async def serve(channel: int, listeners: list[int]) -> None:
    enforcer = Enforcer()
    loop = asyncio.get_running_loop()
    await loop.create_unix_connection(lambda: enforcer, sock=socket.socket(fileno=channel))
    await enforcer.ready.wait()       # connections wait until names are known
    for descriptor in listeners:
        await asyncio.start_server(enforcer.client, sock=socket.socket(fileno=descriptor))
    await enforcer.ended.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--channel", type=int)
    parser.add_argument("--doors")
    parser.add_argument("--listeners")
    parser.add_argument("--dns")
    parser.add_argument("--local")
    given = parser.parse_args()
    with open("/proc/self/status") as status:
        bad = [line for line in status if line.startswith(("CapEff", "CapPrm", "CapBnd")) and int(line.split()[1], 16)]
    if bad or os.getuid() == 0 or os.getgroups():
        sys.exit(f"too much privilege: {bad}")
    asyncio.run(serve(given.channel, [int(one) for one in given.listeners.split(",")]))
