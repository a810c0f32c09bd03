"""Whose is this connection, and which credential goes with it: all that the enforcer may ask the agent."""
from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from pathlib import Path

from agent.block.kernel import Kernel, Origin
from agent.config import Config
from agent.contract.messages import (
    REPORTS,
    AskCredential,
    AskerAnswer,
    CredentialAnswer,
    KeepTicket,
    Message,
    NameAsked,
    NameRecorded,
    TicketKept,
    WhoAsks,
    Whois,
    WhoisAnswer,
    WhoisLocal,
)
from agent.contract.owner import Owner, Process
from agent.credential.credentials import Credentials
from agent.credential.secrets import SecretError
from agent.network.local import REPORTING
from agent.network.names import Askers
from agent.network.resolve import Place, Places
from agent.people.identity import Principal
from agent.workload.facts import Hashes, read_process
from agent.workload.owners import Owners, Start

LOG = logging.getLogger("weir.whois")

Question = Whois | WhoisLocal | AskCredential | WhoAsks | NameAsked | KeepTicket


async def _at_once() -> None:
    pass


class Answers:
    """`config` and `places` are looked at anew for each question: a reload changes them."""

    def __init__(
        self, kernel: Kernel, owners: Owners, hashes: Hashes, cgroups: Path, config: Callable[[], Config],
        places: Callable[[], Places], handed: Callable[[int], None] = lambda cookie: None,
        askers: Askers | None = None, credentials: Credentials | None = None,
        keep: Callable[[str, bytes], str] | None = None, *, principal: Callable[[Start], Principal | str],
        stamp: Callable[[Start, Principal | str], int] = lambda start, who: 0,
        settled: Callable[[], Awaitable[object]] = _at_once,
    ) -> None:
        """`handed(cookie)`: the enforcer is told whose this socket is; `keep` is Tickets.keep; `principal`: who is
        behind a start, or why nobody is; `stamp`: that as a number.  `settled`: waited for before anything is said of
        somebody by the configuration; from there to the answer nothing is awaited."""
        self._stamp, self._settled = stamp, settled
        self._askers, self._credentials, self._principal = askers, credentials, principal
        self._keep, self._keeping = keep, asyncio.Lock()
        self._kernel, self._owners, self._hashes, self._cgroups = kernel, owners, hashes, cgroups
        self._config, self._places, self._handed = config, places, handed

    async def answer(self, question: Question) -> Message:
        try:
            return await self._answer(question)
        except Exception as reason:   # the answer is no, whatever it is; its text may hold what is nobody's business
            LOG.error("a question of the enforcer failed: %s", type(reason).__name__)
            return _refusal(question, "the agent could not tell")

    async def _answer(self, question: Question) -> Message:
        if isinstance(question, Whois | WhoisLocal):
            found = await (self._whois(question) if isinstance(question, Whois) else self._whois_local(question))
            return WhoisAnswer(question.number, found) if isinstance(found, Owner) else WhoisAnswer(
                question.number, None, found)
        if isinstance(question, AskCredential):
            return await self._credential(question)
        if isinstance(question, KeepTicket):
            return await self._ticket(question)
        if self._askers is None:
            return _refusal(question, "names are not resolved here")
        if isinstance(question, WhoAsks):
            return await self._askers.who_asks(question)
        return self._askers.name_asked(question)

    async def _ticket(self, question: KeepTicket) -> TicketKept:
        if self._keep is None:
            return TicketKept(question.number, "nothing is kept here")
        async with self._keeping:     # in the order of the questions
            return TicketKept(question.number, await asyncio.to_thread(self._keep, question.ticket, question.content))

    async def _whois(self, question: Whois) -> Owner | str:
        """Or why it cannot be told."""
        origin = self._kernel.take(question.cookie)
        redirected = origin is None and bool(question.redirected)
        if redirected:
            origin = await asyncio.to_thread(
                self._kernel.by_redirect, question.netns, question.address, question.port)
        if origin is None:
            return "no connect of a crew has led to it"
        if redirected and not _led_by(origin, *_destination(question.redirected)):
            return "it has waited, and another socket has its client's address and port by now"
        start = self._start(origin)
        if start is None:
            return f"owner {origin.owner} is no workload that this agent has started"
        owner = await self._owner(origin, start, question.redirected if redirected else "")
        if isinstance(owner, Owner):
            self._handed(origin.cookie)
        return owner

    def _start(self, origin: Origin) -> Start | None:
        """By the task's mark; where it has none, by the cgroup."""
        return self._owners.whose(origin.owner, origin.cgroup)

    async def _owner(self, origin: Origin, start: Start, redirected: str) -> Owner | str:
        """`redirected`: the destination as the firewall knew it, where the probes did not see the connect."""
        destination, port = _destination(redirected) if redirected else (origin.destination, origin.port)
        process = None
        if not redirected and origin.tgid:
            process = await read_process(origin.tgid, origin.when, self._hashes)
        await self._settled()
        place = self._places().find(destination, port)
        if place.conflict:
            return place.conflict
        attribution = "redirect" if redirected else "mark" if origin.owner else "cgroup"
        return self._said(start, origin.cookie, process, destination, port, attribution, place)

    async def _whois_local(self, question: WhoisLocal) -> Owner | str:
        """Or why it cannot be told.  The pid may be another process' by now: the enforcer looks at that afterwards."""
        found = await asyncio.to_thread(self._kernel.task, question.pid)
        start = self._owners.whose(*found) if found else None
        if found is None or start is None:
            return f"process {question.pid} is no crew's"
        if question.uid != start.uid:
            return f"it was connected by uid {question.uid}, which workload {start.workload} does not run as"
        process = await read_process(question.pid, time.monotonic_ns(), self._hashes)
        await self._settled()
        dialled = self._dialled(question.target)
        if dialled is None:
            return f"target {question.target} has no socket that crews may dial"
        return self._said(start, 0, process, *dialled[:2], "mark" if found[0] else "cgroup", dialled[2], local=True)

    def _dialled(self, name: str) -> tuple[str, int, Place] | None:
        """Path, port and place of a Unix socket of Weir's, by whose it is."""
        if name == REPORTS:
            return REPORTING[0], 0, Place()
        target = next((one for one in self._config().targets if one.name == name and one.sockets), None)
        return (target.sockets[0], target.port, Place(target=target.name)) if target else None

    def _said(
        self, start: Start, cookie: int, process: Process | None, destination: str, port: int, attribution: str,
        place: Place, *, local: bool = False,
    ) -> Owner:
        who = self._principal(start)
        stamp = self._stamp(start, who)
        nobody, who = (who, Principal("", ())) if isinstance(who, str) else ("", who)
        return Owner(
            workload=start.workload, uid=start.uid, user=start.user, subject=who.subject, groups=who.groups,
            login=who.login, nobody=nobody,
            process=process, cgroup=self._below(start.cgroup), cookie=cookie, destination=destination,
            port=port, attribution=attribution, target=place.target, egress=place.egress, names=place.names,
            listed=place.listed, others=place.others, local=local, stamp=stamp)

    def _below(self, path: str) -> str:
        return "/" + str(Path(path).relative_to(self._cgroups)) if Path(path).is_relative_to(self._cgroups) else path

    async def _credential(self, question: AskCredential) -> CredentialAnswer:
        await self._settled()
        config = self._config()
        target = next((one for one in config.targets if one.name == question.target), None)
        if target is None or self._credentials is None:
            return CredentialAnswer(question.number, None, f"no target {question.target} is configured")
        try:
            found = await self._credentials.find(config, target, question.database, question.role, question.groups,
                                                 question.who)
        except SecretError as reason:
            return CredentialAnswer(question.number, None, str(reason))
        return CredentialAnswer(question.number, found)


def _destination(redirected: str) -> tuple[str, int]:
    """"ADDRESS PORT", as the enforcer read it from SO_ORIGINAL_DST."""
    address, _, port = redirected.partition(" ")
    mapped = address.lower().removeprefix("::ffff:")
    return (mapped if "." in mapped else address), int(port)


def _led_by(origin: Origin, destination: str, port: int) -> bool:
    """Whether it may be the socket whose connect was redirected.  Where several of a cgroup's have that end, only the
    firewall knows which."""
    return not origin.destination or (ip_address(origin.destination), origin.port) == (ip_address(destination), port)


def _refusal(question: Question, reason: str) -> Message:
    if isinstance(question, Whois | WhoisLocal):
        return WhoisAnswer(question.number, None, reason)
    if isinstance(question, AskCredential):
        return CredentialAnswer(question.number, None, reason)
    if isinstance(question, WhoAsks):
        return AskerAnswer(question.number, reason=reason)
    if isinstance(question, KeepTicket):
        return TicketKept(question.number, reason)
    return NameRecorded(question.number, error=reason)
