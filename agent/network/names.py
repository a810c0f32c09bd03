"""What the resolver tells the agent: whose socket asks, and what a name leads to.  The enforcer has parsed the peers'
bytes; here are only words of the contract, and each is checked again.
"""
from __future__ import annotations

import asyncio
import string
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from agent.block.kernel import Kernel
from agent.config import Config
from agent.contract.messages import AskerAnswer, NameAsked, NameRecorded, WhoAsks
from agent.contract.names import covers
from agent.contract.target import ENFORCE, SHADOW
from agent.journal import VALUE, Journal, JournalError
from agent.network.resolve import Known, Own, check_addresses, nobodys, why_withheld
from agent.settings.fields import is_address
from agent.workload.owners import Owners, Start

UNLISTED: Final = "no target and no egress entry has this name"
VERDICTS: Final = ("answered", "refused", "failed")
MOST: Final = 256                     # addresses in one word of the enforcer's; it has 32 of a server's
_PLAIN: Final = frozenset(string.ascii_letters + string.digits + "-_")


def patterns(config: Config) -> tuple[str, ...]:
    """Names of targets and egress entries, wildcards too."""
    hosts = [host for one in config.targets for host in one.hosts]
    hosts += [host for one in config.egress for host in one.addresses]
    return tuple(dict.fromkeys(host for host in hosts if not is_address(host)))


async def at_intervals(asked: asyncio.Event, pause: float, work: Callable[[], Awaitable[None]]) -> None:
    """`work` once for all that was asked since it began last, and not again before `pause` seconds."""
    while True:
        await asked.wait()
        asked.clear()
        await work()
        await asyncio.sleep(pause)


class Askers:
    """`changed` is called when a name leads somewhere new; then what `known` says is in force before the answer is."""

    def __init__(
        self, kernel: Kernel, owners: Owners, journal: Journal, config: Callable[[], Config], known: Known,
        changed: Callable[[str], None], own: Own = nobodys, barred: Callable[[Start], str] = lambda start: "",
    ) -> None:
        """`barred`: why nobody is behind a start, or they are locked out; "" where neither is."""
        self._kernel, self._owners, self._journal = kernel, owners, journal
        self._config, self._known, self._changed, self._own = config, known, changed, own
        self._barred = barred
        # Of its own: however many ask, the threads in which connections are attributed are free.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="askers")

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)

    async def who_asks(self, question: WhoAsks) -> AskerAnswer:
        start = await asyncio.get_running_loop().run_in_executor(self._thread, self._start, question)
        if start is None:
            return AskerAnswer(question.number, reason="no socket of a workload has this address and port")
        return AskerAnswer(question.number, start.workload, self._barred(start))

    def _start(self, question: WhoAsks) -> Start | None:
        cgroup = self._kernel.asker(question.netns, question.stream, question.address, question.port)
        return self._owners.find_cgroup(cgroup) if cgroup else None

    def name_asked(self, asked: NameAsked) -> NameRecorded:
        """Recorded, or not answered."""
        if asked.verdict not in VERDICTS:
            return NameRecorded(asked.number, error="no such verdict")
        if len(asked.addresses) > MOST or max(map(len, (asked.name, *asked.addresses))) > VALUE:
            return NameRecorded(asked.number, error="it is too long")
        given: tuple[str, ...] = ()
        pattern = self._pattern(asked.name)
        reachable = check_addresses(asked.addresses) if asked.verdict == "answered" else ()
        permitted, why = self._permitted(asked.name, reachable) if pattern else ((), UNLISTED)
        lax = self._lax(asked, why) if why else {}
        if asked.verdict == "answered":
            if not pattern and not lax:
                return NameRecorded(asked.number, error=UNLISTED)
            given = reachable if lax else permitted
        detail = self._detail(asked, given, "" if lax else why) | lax
        try:
            self._journal.record(f"dns.{asked.verdict}", asked.workload, detail)
        except JournalError as reason:
            return NameRecorded(asked.number, error=f"it cannot be recorded: {reason}")
        if permitted and pattern and self._known.update(asked.name, permitted, asyncio.get_running_loop().time()):
            if pattern.startswith("*."):
                self._known.bound(pattern)
            self._changed(asked.name)
        return NameRecorded(asked.number, given)

    def _pattern(self, name: str) -> str:
        return next((one for one in patterns(self._config()) if covers(one, name)), "") if _is_plain(name) else ""

    def _permitted(self, name: str, addresses: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
        """Those to which a configured name may lead, and why it may not to another.  A target's may to each."""
        config = self._config()
        if any(name in target.hosts for target in config.targets):
            return addresses, ""
        entries = [(entry, pattern) for entry in config.egress for pattern in entry.addresses if covers(pattern, name)]
        kept, why = [], ""
        for address in addresses:
            reasons = [why_withheld(entry, pattern, address, self._own) for entry, pattern in entries]
            if all(reasons):
                why = why or reasons[0]
            else:
                kept.append(address)
        return tuple(kept), why

    def _lax(self, asked: NameAsked, why: str) -> dict[str, object]:
        """What is said beside, where the workload's mode lets through what is not permitted; empty where it does
        not."""
        mode = self._config().egress_modes.get(asked.workload, ENFORCE)
        if mode == ENFORCE or asked.verdict == "refused" or not _is_plain(asked.name):
            return {}
        return {"mode": mode, **({"would_refuse": why} if mode == SHADOW else {})}

    @staticmethod
    def _detail(asked: NameAsked, given: tuple[str, ...], why: str) -> dict[str, object]:
        withheld = [one for one in asked.addresses if one not in given]
        detail = {"name": asked.name, "type": asked.kind, "rcode": asked.rcode, "addresses": " ".join(given),
                  "withheld": " ".join(withheld), "reason": asked.reason or why,
                  "count": asked.count if asked.count != 1 else ""}
        return {key: value for key, value in detail.items() if value != ""}


def _is_plain(name: str) -> bool:
    return 0 < len(name) <= 253 and all(label and _PLAIN.issuperset(label) for label in name.split("."))
