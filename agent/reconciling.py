"""The ledger while the agent runs: what the recorder says is open, judged by what the kernel says; said and recorded.

Nothing is kept here that matters: what is open, ended or an alarm stands in the recording, and a recorder that starts
reads it from there.  An agent that was killed loses only whom it had told the enforcer about, and that enforcer ended
with it.
"""
from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from agent.block.kernel import Kernel
from agent.contract import ledger as words
from agent.contract.clock import uptime
from agent.contract.control import LedgerView
from agent.contract.ledger import Alarm, AskLedger, LedgerAnswer
from agent.contract.logs import about
from agent.ledger import SECOND, SETTLED, Evidence, Rounds, Settled
from agent.workload.owners import Owners, Start

LOG = logging.getLogger("weir.ledger")

RECENT: Final = 100_000               # connections that whois has answered for, remembered
COOKIES: Final = 200                  # in one event; a value of it has 4096 characters
SHARE: Final = 20                     # of the time, one part is spent at most on looking at sockets; but none waits
LONGEST: Final = 20 * SECOND          # longer than that: who was stopped or suspended during a look has not been busy

Tell = Callable[[str, Mapping[str, object], str], None]


class Ledger:
    """`tell` records; `changed` is called when the alarms are others; `enforcer` says when the running one was started
    (CLOCK_BOOTTIME nanoseconds) and whether it can record."""

    def __init__(
        self, kernel: Kernel, owners: Owners, journal: Path, port: int, tell: Tell, changed: Callable[[], None],
        enforcer: Callable[[], tuple[int, bool]],
    ) -> None:
        self._kernel, self._owners, self._journal, self._port = kernel, owners, journal, port
        self._tell, self._changed, self._enforcer = tell, changed, enforcer
        self._rounds = Rounds()
        self._handed: dict[int, int] = {}
        self._failing = self._not_before = self._not_looked_before = 0
        self._judging = asyncio.Lock()
        self.answer: LedgerAnswer | None = None        # the last one

    def handed(self, cookie: int) -> None:
        """Whois has said whose it is: the enforcer has it."""
        if cookie:
            self._handed.pop(cookie, None)
            while len(self._handed) >= RECENT:
                del self._handed[next(iter(self._handed))]
            self._handed[cookie] = uptime()

    def question(self, number: int) -> AskLedger:
        return AskLedger(number, uptime() - SETTLED)

    async def told(self, answer: LedgerAnswer) -> None:
        """The recorder's answer to `question`."""
        before = self.answer.alarms if self.answer is not None else ()
        self.answer = answer
        if answer.alarms != before:
            self._changed()
        if answer.open and uptime() >= self._not_before and not self._judging.locked():
            async with self._judging:
                try:
                    await self._judge(answer)
                except OSError as reason:
                    LOG.warning("the sockets of this host could not be looked at: %s", reason)

    async def _judge(self, answer: LedgerAnswer) -> None:
        since, records = self._enforcer()
        began = uptime()
        if not records:
            self._failing = began
        written = _written(self._journal)
        sockets = await asyncio.to_thread(self._kernel.tcp_sockets)
        self._not_before = _rested(began)
        evidence = Evidence(
            began, time.time_ns() - began, self._port, {one.cookie: one for one in sockets},
            {(one.netns, one.remote, one.remote_port) for one in sockets if one.local_port == self._port}, self._handed,
            since, self._failing)
        self._say(self._rounds.settle(answer.open, evidence, written, answer.taken), answer)

    def _say(self, settled: Settled, answer: LedgerAnswer) -> None:
        until = max(one.seq for one in answer.open)
        for how, cookies in settled.ended.items():
            for some in _pieces(cookies):
                self._tell(words.ENDED, {"how": how, "until": until, "cookies": " ".join(f"{one:x}" for one in some)},
                           "")
        for one, judged in settled.alarms:
            LOG.error("nobody accounts for a connect of %s (pid %d) to %s: %s", one.workload, one.pid, one.destination,
                      judged.why, extra=about(workload=one.workload, pid=one.pid))
            self._tell(words.UNACCOUNTED, {
                "cookie": f"{one.cookie:x}", "connect": one.seq, "destination": one.destination, "pid": one.pid,
                "why": judged.why, "peer": judged.peer}, one.workload)

    async def look(self, end: str) -> None:
        """For sockets that crews hold and that were made outside; not more often than its share of the time."""
        if uptime() < self._not_looked_before:
            return
        began = uptime()
        try:
            found = await asyncio.to_thread(self._kernel.foreign_sockets, end)
        except Exception as reason:   # what is wrong with the block is said by the watch
            LOG.warning("the crews' sockets could not be looked at: %s", reason)
            found = []
        self._not_looked_before = _rested(began)
        for one in found:
            start = self._start(one.place.pid)
            LOG.error("pid %d holds a socket that was made outside: %s, peer %s: %s", one.place.pid, one.family,
                      one.peer or "none", one.done, extra=about(
                          workload=start.workload if start else "", pid=one.place.pid))
            self._tell(words.FOREIGN, {
                "pid": one.place.pid, "thread": one.place.tid, "fd": one.place.fd, "exe": one.exe,
                "family": one.family, "peer": one.peer, "cookie": f"{one.cookie:x}", "inode": one.inode,
                "done": one.done}, start.workload if start else "")

    def _start(self, pid: int) -> Start | None:
        try:
            owner = self._kernel.owner_of(pid)
            return self._owners.find(owner) if owner else self._owners.find_process(pid)
        except Exception:             # without the probes there is no mark
            return None

    def alarms(self) -> tuple[str, ...]:
        """For `weir status`: what nobody has acknowledged."""
        found = [one for one in self._alarms() if one.name != words.GLASS]
        said = [_said(one) for one in found[-5:]]
        return (*said, *([f"and {len(found) - 5} more: weir ledger"] if len(found) > 5 else []))

    def broken_glass(self) -> tuple[str, ...]:
        """As `alarms`: nothing went round, but one person let something through alone."""
        found = [one for one in self._alarms() if one.name == words.GLASS]
        said = [f"the glass was broken: {words.said_of_glass(one)}; weir ledger --acknowledge" for one in found[-5:]]
        return (*said, *([f"and {len(found) - 5} more: weir ledger"] if len(found) > 5 else []))

    def _alarms(self) -> tuple[Alarm, ...]:
        return self.answer.alarms if self.answer is not None else ()

    def view(self) -> LedgerView:
        answer = self.answer
        if answer is None:
            return LedgerView()
        return LedgerView(True, answer.counts, answer.waiting, answer.open[:words.MOST // 100], answer.alarms,
                          answer.number)

    def acknowledge(self, by: str) -> None:
        self._tell(words.ACKNOWLEDGED, {"by": by}, "")


def _rested(began: int) -> int:
    """When there may be another look after one that began then, and ends now."""
    now = uptime()
    return now + min(SHARE * (now - began), LONGEST)


def _said(one: Alarm) -> str:
    if one.name == words.FOREIGN:
        return (f"a socket from elsewhere in {one.workload or 'the slice'}, pid {one.detail.get('pid')}, connected "
                f"with {one.detail.get('peer') or 'nobody'} ({one.detail.get('done')}); weir ledger --acknowledge")
    return (f"nobody accounts for a connect of {one.workload or 'the slice'}, pid {one.detail.get('pid')}, to "
            f"{one.detail.get('destination')}: {one.detail.get('why')}; weir ledger --acknowledge")


def _pieces(cookies: list[int]) -> Iterator[list[int]]:
    return (cookies[at:at + COOKIES] for at in range(0, len(cookies), COOKIES))


def _written(journal: Path) -> dict[str, int]:
    """Bytes of the enforcer's journal files."""
    found = {}
    with suppress(OSError), os.scandir(journal) as entries:
        for entry in entries:
            if entry.name.endswith(".journal") and entry.name.startswith("enforcer"):
                with suppress(OSError):
                    found[entry.name] = entry.stat(follow_symlinks=False).st_size
    return found
