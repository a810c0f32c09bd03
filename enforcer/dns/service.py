"""A question from arrival to answer: whose is it, may it be asked, what is said, is it recorded.

The agent records every answer before it goes out, and from then on knows that its addresses belong to the name.
Refusals are recorded one by one up to a number a second, beyond that as a number: nobody fills the recording by asking.
Whatever is bounded is so for each workload.  All share how often the agent is asked whose a question is, and the kernel
bounds what takes of that: datagrams and new streams of a workload together (probes/bpf), those of everybody who is none
(agent.block.ruleset).  What else comes on a stream is its workload's own turn.
"""
from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Protocol

import dns.rcode
import msgspec

from agent.contract.messages import TEXT, NameAsked, NameRecorded
from agent.contract.names import unreachable
from agent.contract.target import ENFORCE, Names
from enforcer.core.bucket import Bucket
from enforcer.dns import messages
from enforcer.dns.decision import Decisions, Empty, Refused, Unlisted
from enforcer.dns.messages import Found, Query
from enforcer.dns.upstream import Unanswered, Upstream

LOG = logging.getLogger("weir.dns")

# How often a second the agent is asked for an asker: five workloads that hurry, and everybody who is none.
ASKED, ASKED_AT_ONCE = 1100.0, 2200.0
AGAIN: Final = 1.0                    # seconds between looks at whether a workload whose streams are barred still is
SHOWN: Final = TEXT                   # characters of a name that is recorded; 253 bytes, each escaped as four, and dots


class Asking(Protocol):
    """The agent, as far as the resolver may ask it (agent.contract.messages.FromEnforcer)."""

    async def who_asks(self, netns: int, stream: bool, address: bytes, port: int) -> tuple[str, str]:
        """(workload, ""), ("", why it is none's), or (workload, why it is given addresses of targets alone)."""
        ...

    async def name_asked(self, asked: NameAsked) -> NameRecorded: ...


@dataclass(frozen=True)
class Asker:
    netns: int
    stream: bool
    address: bytes                    # 16 bytes
    port: int

    @property
    def key(self) -> tuple[int, bool, bytes, int]:
        return self.netns, self.stream, self.address, self.port


Whose = asyncio.Task[tuple[str, str]]


class Service:
    def __init__(
        self, asking: Asking, now: Callable[[], float], count: Callable[[str], None],
        given: Callable[[str, str, tuple[str, ...]], None] = lambda workload, name, addresses: None,
        locked: Callable[[str], str] = lambda workload: "",
    ) -> None:
        """`now`: monotonic seconds; `count` is called with the name of a statistic; `given(workload, name, addresses)`
        with what a workload gets whose egress is not enforced; `locked`: why a workload is locked out, or ""."""
        self._locked = locked
        self._asking, self._now, self._count, self._given = asking, now, count, given
        self.names: Names | None = None
        self._modes: dict[str, str] = {}
        self._hosts: frozenset[str] = frozenset()
        self._upstream = Upstream(None)
        self._decisions = Decisions(())
        self._asked = Bucket(ASKED, ASKED_AT_ONCE)
        self._whose: dict[tuple[int, bool, bytes, int], Whose] = {}
        self._untold: Counter[str] = Counter()         # by workload
        self._again: dict[str, float] = {}             # workload -> when it may be asked again whether it is barred
        self._telling: asyncio.Task[None] | None = None

    def configure(self, names: Names, modes: Mapping[str, str] | None = None, hosts: Iterable[str] = ()) -> None:
        """`modes`: of workloads whose egress is not enforced; `hosts`: names of targets."""
        self._modes = {one: mode for one, mode in (modes or {}).items() if mode != ENFORCE}
        self._hosts = frozenset(hosts)
        if names != self.names:
            self._decisions = Decisions(names.patterns, self._decisions)
            if names.upstream != self._upstream.server:
                self._upstream = Upstream(names.upstream)
            self.names = names

    async def resolve(self, name: str) -> tuple[tuple[str, ...], int]:
        """For the agent itself: addresses that a name may lead to, and seconds.  Raises Unanswered."""
        addresses, ttl = await self._upstream.addresses(name)
        kept = tuple(one for one in addresses if not unreachable(one))
        if not kept:
            raise Unanswered(f"{name} leads to no address that a name may lead to")
        return kept, ttl

    async def answer(self, wire: bytes, asker: Asker) -> bytes | None:
        """None: not a word."""
        query = messages.parse_query(wire)
        if not isinstance(query, Query):
            self._count("dns_malformed")
            return query
        self._count("dns_questions")
        if asker.key not in self._whose and not self._asked.take(self._now()):
            self._count("dns_dropped")
            return None
        workload, reason = await self._who_asks(asker)
        if not workload:
            return await self._refuse(query, f"not attributed: {reason}", "")
        if not self._decisions.crew(workload).may_ask(self._now()):
            refused = await self._refuse(query, "too many questions of this workload", workload)
            return None if asker.stream else refused       # the stream ends: what it has sent besides is not read
        if query.name not in self._hosts and (barred := self._locked(workload) or reason):
            return await self._refuse(query, barred, workload)     # a target says so itself, in its protocol's words
        verdict = self._decisions.decide(query)
        if isinstance(verdict, Unlisted) and workload in self._modes:
            verdict = self._decisions.lax(query)
        if isinstance(verdict, Refused):
            return await self._refuse(query, verdict.reason, workload)
        if isinstance(verdict, Empty):
            return await self._give(query, Found(dns.rcode.NOERROR), workload, asker)
        if reason := self._decisions.why_not(query, verdict.pattern, workload, self._now()):
            return await self._refuse(query, reason, workload)
        try:
            found = await self._upstream.ask(query.name, query.kind, workload)
        except Unanswered as failed:
            return await self._fail(query, str(failed), workload)
        if found.rcode not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            return await self._fail(query, f"the resolver said {dns.rcode.to_text(found.rcode)}", workload)
        if error := await self._tell_of_targets(query, found, workload):
            return await self._fail(query, error, workload)
        return await self._give(query, found, workload, asker)

    async def _tell_of_targets(self, query: Query, found: Found, workload: str) -> str:
        """Where it is another name of a target's (CNAME), its addresses are the target's before they are given."""
        for name in self._hosts.intersection(found.chain) if found.addresses else ():
            said = await self._asking.name_asked(msgspec.structs.replace(
                self._event(query, workload, "answered", found), name=name))
            if said.error:
                return said.error
        return ""

    async def _who_asks(self, asker: Asker) -> tuple[str, str]:
        """Asked once for what comes together, and once for a stream: for as long as there is that very socket, and
        nobody is barred from it."""
        whose = self._whose.get(asker.key)
        if whose is None or self._may_be_over(whose):
            whose = asyncio.get_running_loop().create_task(self._asking.who_asks(*asker.key))
            self._whose[asker.key] = whose
            whose.add_done_callback(partial(self._known, asker))
        return await asyncio.shield(whose)

    def _known(self, asker: Asker, whose: Whose) -> None:
        told = not whose.cancelled() and whose.exception() is None
        if not (asker.stream and told) and self._whose.get(asker.key) is whose:
            del self._whose[asker.key]

    def _may_be_over(self, whose: Whose) -> bool:
        """It is a stream's that was barred: a service may have its identity since.  One of each workload's at a time,
        so that nobody has the agent asked as often as they ask."""
        workload, reason = whose.result() if whose.done() else ("", "")
        now = self._now()
        if not workload or not reason or now < self._again.get(workload, now):
            return False
        self._again[workload] = now + AGAIN
        return True

    def ask_anew(self) -> None:
        """Whose streams are, too: somebody may be barred from now on."""
        self._whose.clear()

    def gone(self, asker: Asker) -> None:
        """The stream has ended."""
        self._whose.pop(asker.key, None)

    async def _give(self, query: Query, found: Found, workload: str, asker: Asker) -> bytes:
        said = await self._asking.name_asked(self._event(query, workload, "answered", found))
        if said.error:
            self._count("dns_failed")
            return messages.render_refusal(query, dns.rcode.SERVFAIL)
        if found.addresses and not said.addresses:
            self._count("dns_refused")
            return messages.render_refusal(query, dns.rcode.REFUSED)
        kept = replace(found, addresses=tuple(one for one in found.addresses if one in said.addresses))
        if workload in self._modes and kept.addresses:
            self._given(workload, query.name, kept.addresses)
        return messages.render_answer(query, kept, 65535 if asker.stream else messages.limit_of(query))

    async def _fail(self, query: Query, reason: str, workload: str) -> bytes:
        self._count("dns_failed")
        if self._decisions.crew(workload).told.take(self._now()):
            await self._asking.name_asked(msgspec.structs.replace(
                self._event(query, workload, "failed"), rcode="SERVFAIL", reason=reason[:TEXT]))
        else:
            self._tell_later(workload)
        return messages.render_refusal(query, dns.rcode.SERVFAIL)

    async def _refuse(self, query: Query, reason: str, workload: str) -> bytes:
        self._count("dns_refused")
        if self._decisions.crew(workload).told.take(self._now()):
            await self._asking.name_asked(msgspec.structs.replace(
                self._event(query, workload, "refused"), rcode="REFUSED", reason=reason[:TEXT]))
        else:
            self._tell_later(workload)
        return messages.render_refusal(query, dns.rcode.REFUSED)

    def _event(self, query: Query, workload: str, verdict: str, found: Found | None = None) -> NameAsked:
        return NameAsked(
            0, workload, query.name[:SHOWN], query.shown, verdict, dns.rcode.to_text(found.rcode) if found else "",
            found.addresses if found else ())

    def _tell_later(self, workload: str) -> None:
        """Those that are not recorded one by one, as a number once a second."""
        self._untold[workload] += 1
        if self._telling is None:
            self._telling = asyncio.get_running_loop().create_task(self._tell())

    async def _tell(self) -> None:
        await asyncio.sleep(1.0)
        untold, self._untold, self._telling = self._untold, Counter(), None
        for workload, number in untold.items():
            await self._asking.name_asked(NameAsked(
                0, workload, "", "", "refused", "", (), f"{number} more questions that were refused or failed", number))
