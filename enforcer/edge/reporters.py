"""Crews' own reports: which tool call is active in a process, from its listener at a Unix socket (decision 0027).

Theory.  Whose a connection is says the kernel, as at the socket of a target (SO_PEERCRED, the agent's mark, and then
whether the process is still there): a process speaks for itself alone.  Before that is known nothing is read.

What a process has written before it sent a statement has arrived when the statement is read, but not necessarily been
read: so whoever asks for the calls reads what is there first, once a pass of the event loop, and all that is decided
and recorded in that pass sees the same.  A connection that says what is no report, or more than a listener has to say,
is closed, and its process then has reported nothing.
"""
from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from functools import partial
from typing import Final

from agent.contract.messages import REPORTS
from agent.contract.owner import Owner
from enforcer.core.bucket import Bucket
from enforcer.core.reports import Frames, parse_report
from enforcer.edge.caller import Caller, find_caller
from enforcer.edge.edge import Edge
from enforcer.words.reported import Calls, nothing

LOG = logging.getLogger("weir.reporters")

MOST: Final = 1024                    # connections,
EACH: Final = 256                     # and of one uid
RATE, BURST = 2.0, 64.0               # new ones of one uid: a second, and at once
UIDS: Final = 1024                    # of which that is remembered, and what follows
CHUNK: Final = 64 << 10               # bytes of one read
READS: Final = 8                      # in one pass: more than the kernel keeps of one connection
COST: Final = 512                     # bytes that a frame counts for, besides its own
BYTES, BYTES_BURST = 1 << 20, 4 << 20     # of one uid: a second, and at once
PAUSE: Final = 1.0                    # seconds without accepting, where no descriptor is left
WHERE: Final = "the socket of reports"

Process = tuple[int, int]             # pid, and when it was started


class Reporter:
    """One connection, of a process that is known."""

    __slots__ = ("_calls", "_frames", "_link", "_read_at", "_reporters", "owner", "process", "uid")

    def __init__(
        self, reporters: Reporters, link: socket.socket, owner: Owner, process: Process, uid: int,
    ) -> None:
        self._reporters, self._link, self.owner, self.process, self.uid = reporters, link, owner, process, uid
        self._frames = Frames()
        self._calls: Calls = ()
        self._read_at = -1            # the pass in which it was read last
        reporters.loop.add_reader(link, self.read)

    def calls(self) -> Calls:
        if self._read_at != self._reporters.edge.passes:
            self._read_at = self._reporters.edge.passes
            self.read()
        return self._calls

    def read(self) -> None:
        """All that has arrived."""
        body = None
        try:
            for _ in range(READS):
                data = self._link.recv(CHUNK)
                if not data:
                    self.close()
                    return
                count, last = self._frames.feed(data)
                body = body if last is None else last
                if not self._reporters.may_say(self.uid, len(data) + count * COST):
                    raise ValueError("more reports than a listener has to make")
            raise ValueError("more reports at once than a listener has to make")
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        except ValueError as reason:
            self.close(str(reason))
            return
        if body is not None:
            try:
                self._calls = parse_report(body)
            except ValueError as reason:
                self.close(str(reason))

    def close(self, reason: str = "") -> None:
        """From here on nothing is reported.  `reason`: it said what it should not."""
        self._reporters.loop.remove_reader(self._link)
        self._link.close()
        self._calls = ()
        self._reporters.gone(self, reason)


class Reporters:
    """`listen` opens the door; `of` gives for a session what asks for its process' calls."""

    def __init__(self, edge: Edge) -> None:
        self.loop, self.edge = edge.loop, edge
        self._listening: socket.socket | None = None
        self._known: dict[Process, Reporter] = {}
        self._open: dict[int, int] = {}       # connections, also those that are not known yet, by uid
        self._turns: dict[int, tuple[Bucket, Bucket]] = {}     # of connections, and of bytes
        self._tasks: set[asyncio.Task[None]] = set()

    def listen(self, descriptor: int) -> None:
        self._listening = socket.socket(fileno=descriptor)
        self._listening.setblocking(False)
        self._wait()

    def end(self) -> None:
        if self._listening is not None:
            self.loop.remove_reader(self._listening)
            self._listening.close()
            self._listening = None
        for task in self._tasks:
            task.cancel()
        for one in tuple(self._known.values()):
            one.close()

    def of(self, owner: Owner) -> Callable[[], Calls]:
        process = owner.process
        if process is None or not process.started:
            return nothing            # it is not known which process it was
        return partial(self._calls, (process.pid, process.started))

    def _calls(self, process: Process) -> Calls:
        one = self._known.get(process)
        return one.calls() if one is not None else ()

    def gone(self, one: Reporter, reason: str) -> None:
        if self._known.get(one.process) is one:
            del self._known[one.process]
        self._release(one.uid)
        if reason:
            LOG.warning("reports of workload %s: %s", one.owner.workload, reason)
            self.edge.refused(one.owner, WHERE, reason)

    # Accepting

    def _wait(self) -> None:
        if self._listening is not None:
            self.loop.add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        listening = self._listening
        assert listening is not None      # its reader is removed before it is closed
        try:
            link, _ = listening.accept()
        except BlockingIOError:
            return
        except OSError as error:
            LOG.error("a reporter could not be accepted: %s", error)
            self.loop.remove_reader(listening)
            self.loop.call_later(PAUSE, self._wait)
            return
        link.setblocking(False)
        caller = find_caller(link)
        reason = "not attributed: the process that connected has ended or cannot be seen" if caller is None else (
            self.edge.why_not() or self._why_no_turn(caller.uid))
        if caller is None or reason:
            self._drop(link, caller, reason)
            return
        self._open[caller.uid] = self._open.get(caller.uid, 0) + 1
        task = self.loop.create_task(self._attribute(link, caller))
        self._tasks.add(task)
        task.add_done_callback(self._attributed)

    def _why_no_turn(self, uid: int) -> str:
        if sum(self._open.values()) >= MOST or self._open.get(uid, 0) >= EACH:
            return "too many processes report at once"
        return "" if self._turn(uid)[0].take(self.loop.time()) else "its uid connects too often to report"

    def may_say(self, uid: int, size: int) -> bool:
        return self._turn(uid)[1].take(self.loop.time(), size)

    def _turn(self, uid: int) -> tuple[Bucket, Bucket]:
        turn = self._turns.get(uid)
        if turn is None:
            if len(self._turns) >= UIDS:
                self._turns.clear()
            turn = self._turns[uid] = Bucket(RATE, BURST), Bucket(BYTES, BYTES_BURST)
        return turn

    def _drop(self, link: socket.socket, caller: Caller | None, reason: str) -> None:
        link.close()
        if caller is not None:
            caller.__exit__(None, None, None)
        self.edge.refused(None, WHERE, reason)

    async def _attribute(self, link: socket.socket, caller: Caller) -> None:
        """Make it a reporter, or refuse it."""
        process = None
        try:
            with caller:
                answer = await self.edge.asking.whois_local(REPORTS, caller.pid, caller.uid)
                # Only now: a pid that is still the caller's has been so all the while.
                there = caller.is_there()
            if isinstance(answer, str):
                self.edge.refused(None, WHERE, f"not attributed: {answer}")
            elif there and answer.process is not None and answer.process.started:
                process = answer.process.pid, answer.process.started
                before = self._known.get(process)
                if before is not None:
                    before.close()    # a process has one listener: the newest
                self._known[process] = Reporter(self, link, answer, process, caller.uid)
            else:
                self.edge.refused(answer, WHERE, "the process that connected has ended")
        finally:
            if process is None:
                link.close()
                self._release(caller.uid)

    def _attributed(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            LOG.error("a reporter could not be attributed: %s", type(task.exception()).__name__)
            self.edge.count("bugs")

    def _release(self, uid: int) -> None:
        left = self._open.get(uid, 0) - 1
        if left > 0:
            self._open[uid] = left
        else:
            self._open.pop(uid, None)
