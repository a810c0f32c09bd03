"""The DNS server that Weir asks: a fresh port and number for each question, TCP where the answer does not fit.

Answers are parsed here, in the process without privileges.  What does not answer the very question is not heard: the
datagram socket is connected, so that the kernel drops what other addresses send.
"""
from __future__ import annotations

import asyncio
import secrets
import socket
from collections import Counter
from typing import Final

import dns.rcode
import dns.rdatatype

from enforcer.dns.messages import AAAA, ANSWER, A, Found, Truncated, parse_answer, render_question

TRY: Final = 1.5                      # seconds for one attempt
TRIES: Final = 2
AT_ONCE: Final = 256                  # questions of crews that are open; more fail
EACH: Final = 32                      # of one workload, what waits for an equal one too


class Unanswered(Exception):
    """Why there is no answer."""


class Upstream:
    def __init__(self, server: tuple[str, int] | None) -> None:
        self.server = server
        self._open: dict[tuple[str, dns.rdatatype.RdataType], asyncio.Task[Found]] = {}
        self._waiting: Counter[str] = Counter()        # questions, by workload

    async def ask(self, name: str, kind: dns.rdatatype.RdataType, workload: str = "") -> Found:
        """What it says, whatever that is; equal questions are one while it is open.  `workload`: "" for the agent
        itself, which has its place whatever crews do.  Raises Unanswered."""
        if self.server is None:
            raise Unanswered("there is no resolver: set [dns] resolver")
        if workload and self._waiting[workload] >= EACH:
            raise Unanswered(f"{EACH} questions of this workload are open")
        running = self._open.get((name, kind))
        if running is None:
            if workload and len(self._open) >= AT_ONCE:
                raise Unanswered("too many questions are open")
            running = self._begin(self.server, name, kind)
        self._waiting[workload] += 1
        try:
            return await asyncio.shield(running)
        except OSError as reason:
            raise Unanswered(f"the resolver cannot be reached: {reason.strerror or type(reason).__name__}") from None
        finally:
            self._waiting[workload] -= 1
            if not self._waiting[workload]:
                del self._waiting[workload]

    def _begin(self, server: tuple[str, int], name: str, kind: dns.rdatatype.RdataType) -> asyncio.Task[Found]:
        running = asyncio.get_running_loop().create_task(self._ask(server, name, kind))
        self._open[name, kind] = running

        def done(task: asyncio.Task[Found]) -> None:
            del self._open[name, kind]
            if not task.cancelled():
                task.exception()      # whoever asked may have gone

        running.add_done_callback(done)
        return running

    async def _ask(self, server: tuple[str, int], name: str, kind: dns.rdatatype.RdataType) -> Found:
        for _ in range(TRIES):
            try:
                async with asyncio.timeout(TRY):
                    return await _by_datagram(server, name, kind)
            except TimeoutError:
                continue
            except Truncated:
                break
        else:
            raise Unanswered(f"the resolver did not answer within {TRY * TRIES:.0f} seconds")
        try:
            async with asyncio.timeout(TRY * TRIES):
                return await _by_stream(server, name, kind)
        except (TimeoutError, EOFError, Truncated):
            raise Unanswered("the resolver did not answer over TCP") from None

    async def addresses(self, name: str) -> tuple[tuple[str, ...], int]:
        """Every address of a name, IPv4 first, and for how many seconds.  Raises Unanswered."""
        said = await asyncio.gather(*(self.ask(name, kind) for kind in (A, AAAA)), return_exceptions=True)
        found = [one for one in said if isinstance(one, Found) and one.addresses]
        if found:
            return tuple(address for one in found for address in one.addresses), min(one.ttl for one in found)
        failed = next((one for one in said if isinstance(one, BaseException)), None)
        if isinstance(failed, Unanswered):
            raise failed
        if failed is not None:
            raise failed
        codes = {one.rcode for one in said if isinstance(one, Found)}
        if codes == {dns.rcode.NOERROR}:
            raise Unanswered(f"{name} has no address")
        raise Unanswered("there is no such name" if dns.rcode.NXDOMAIN in codes else "the resolver refused or failed")


async def _by_datagram(server: tuple[str, int], name: str, kind: dns.rdatatype.RdataType) -> Found:
    """By a socket and a reader: uvloop's datagram transports keep the loop from closing."""
    loop = asyncio.get_running_loop()
    number = secrets.randbelow(1 << 16)
    answer: asyncio.Future[Found] = loop.create_future()

    def read() -> None:
        try:
            found = parse_answer(link.recv(ANSWER + 1), name, kind, number)
            if found is not None and not answer.done():
                answer.set_result(found)
        except BlockingIOError:
            return
        except (OSError, Truncated) as reason:
            if not answer.done():
                answer.set_exception(reason)

    with socket.socket(socket.AF_INET6 if ":" in server[0] else socket.AF_INET, socket.SOCK_DGRAM) as link:
        link.setblocking(False)
        link.connect(server)
        link.send(render_question(name, kind, number))
        loop.add_reader(link, read)
        try:
            return await answer
        finally:
            loop.remove_reader(link)


async def _by_stream(server: tuple[str, int], name: str, kind: dns.rdatatype.RdataType) -> Found:
    """RFC 7766."""
    number = secrets.randbelow(1 << 16)
    question = render_question(name, kind, number)
    reader, writer = await asyncio.open_connection(*server, limit=ANSWER)
    try:
        writer.write(len(question).to_bytes(2, "big") + question)
        size = int.from_bytes(await reader.readexactly(2), "big")
        if size > ANSWER:
            raise Unanswered(f"the resolver's answer has {size} bytes")
        found = parse_answer(await reader.readexactly(size), name, kind, number)
        if found is None:
            raise Unanswered("the resolver answered something else")
        return found
    finally:
        writer.transport.abort()
