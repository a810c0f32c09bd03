"""What the parts of the edge share: configuration in force, live sessions and flows, the commit, holds, counters."""
from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from typing import Final
from typing import Protocol as Interface

from agent.contract.credential import Credential
from agent.contract.locks import LockedOut, LockSet
from agent.contract.messages import FIGURES, AskElevation, SessionView, TargetFigures
from agent.contract.owner import Owner
from agent.contract.people import People
from agent.contract.target import ENFORCE, Egress, Target
from enforcer.approval.holds import Holds
from enforcer.core.bucket import Bucket
from enforcer.core.context import Context
from enforcer.core.gate import CedarGate, Gate, RefusingGate, ReportingGate
from enforcer.edge import clock
from enforcer.edge.cancel import Cancels
from enforcer.edge.commit import GroupCommit
from enforcer.edge.families import Families
from enforcer.edge.keeping import Keeper
from enforcer.edge.salts import Salts
from enforcer.edge.tally import Tally
from enforcer.edge.tls import Contexts
from enforcer.edge.upstream import Road
from enforcer.words import events
from enforcer.words.commands import Explain
from enforcer.words.decisions import DENY
from enforcer.words.errors import RecordingError
from enforcer.words.inputs import HoldAnswered
from enforcer.words.operations import Principal, Request
from enforcer.words.reported import Calls, nothing

LOG = logging.getLogger("weir.edge")


class Asking(Interface):
    """The agent, as far as the edge may ask it (agent.contract.messages.FromEnforcer)."""

    async def whois(self, cookie: int, netns: int, address: bytes, port: int, redirected: str) -> Owner | str: ...

    async def whois_local(self, target: str, pid: int, uid: int) -> Owner | str: ...

    async def credential(
        self, target: str, database: str, role: str, groups: tuple[str, ...], who: str = "",
    ) -> Credential | str: ...

    def unused(self, credential: Credential) -> None: ...

    async def keep(self, ticket: str, content: bytes) -> str: ...


class Live(Interface):
    """A session or a flow."""

    @property
    def name(self) -> str: ...

    @property
    def owner(self) -> Owner: ...

    def end(self, reason: str, finish: bool = False) -> None: ...

    def recording_failed(self, reason: str) -> None: ...

    def press(self, on: bool) -> None: ...

    def answered(self, event: HoldAnswered) -> None: ...

    def view(self) -> SessionView: ...


class Planning(Interface):
    """edge.plans.Plans, likewise."""

    async def add(
        self, context: Context, database: str, credential: Credential | None, explain: Explain, ticket: str,
        road: Road | None = None,
    ) -> None: ...


class Loading(Interface):
    """edge.catalogue.Catalogues, which needs an Edge itself."""

    async def load(
        self, context: Context, database: str, credential: Credential, stale: int, road: Road | None = None,
    ) -> tuple[object, str]: ...

    def lost_labels(self) -> int: ...


class Reporting(Interface):
    """edge.reporters.Reporters, likewise."""

    def of(self, owner: Owner) -> Callable[[], Calls]: ...


ARRIVING: Final = 4096                # connections that are not attributed yet: the turns of four (probes/bpf)
LOGINS: Final = 4096                  # that have ended and are remembered: what arrives late is refused
CANCELLING: Final = 32                # sessions that were ended whose operations are being cancelled at a time
TOLD: Final = 20                      # refusals a second of whom nobody knows that are recorded one by one


@dataclass(frozen=True, slots=True)
class Configuration:
    """What is in force; replaced as a whole."""

    targets: dict[str, Target]
    egress: dict[str, Egress]
    gate: Gate
    forwarded_key: bytes
    max_sessions: int
    durable: str
    modes: dict[str, str] = field(default_factory=dict)     # workload -> egress mode, where it is not ENFORCE
    standing: frozenset[int] = frozenset()     # stamps below `horizon` of owners who are who they were
    horizon: int = 0

    def __repr__(self) -> str:
        return f"Configuration(targets={tuple(self.targets)})"


@dataclass(slots=True, eq=False)
class Edge:
    loop: asyncio.AbstractEventLoop
    asking: Asking
    contexts: Contexts = field(default_factory=Contexts)
    cancels: Cancels = field(default_factory=Cancels)
    configuration: Configuration | None = None
    commit: GroupCommit | None = None
    holds: Holds | None = None
    keeper: Keeper | None = None
    catalogues: Loading | None = None
    plans: Planning | None = None
    reports: Reporting | None = None
    passes: int = 0                   # how often a session was told something: what was looked at before may be old
    live: dict[str, Live] = field(default_factory=dict)
    arriving: int = 0                 # accepted, not yet attributed
    draining: bool = False
    shared: dict[str, tuple[Target, dict[object, object]]] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    idle: asyncio.Event = field(default_factory=asyncio.Event)
    pressed: bool = False
    salts: Salts = field(default_factory=Salts)
    tally: Tally = field(default_factory=Tally)
    families: Families = field(default_factory=Families)
    told: Bucket = field(default_factory=lambda: Bucket(TOLD, TOLD))
    ended: dict[str, str] = field(default_factory=dict)     # login -> why it ended; the oldest goes
    locks: int = 0                    # serial of the set that is in force
    locked: LockedOut = field(default_factory=LockedOut)
    people: People = field(default_factory=People)
    cancelling: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CANCELLING))
    barring: Callable[[], None] = lambda: None         # called where somebody may be barred from now on, or no more
    untold: int = 0                   # refusals of whom nobody knows, not recorded yet
    on_holds: Callable[[], None] = lambda: None        # called when what is held is not as it was,
    on_live: Callable[[], None] = lambda: None         # and when a session or flow begins or ends

    def count(self, name: str) -> None:
        self.counters[name] = self.counters.get(name, 0) + 1

    def add(self, one: Live) -> None:
        self.live[one.name] = one
        self.on_live()
        self.idle.clear()
        if self.pressed:
            one.press(True)

    def end_login(self, login: str, reason: str) -> None:
        """What speaks for it ends once what runs has finished."""
        if not login:
            return                    # of local users, who have none
        self.ended[login] = reason
        while len(self.ended) > LOGINS:
            self.ended.pop(next(iter(self.ended)))
        self.barring()
        self._end_of(lambda owner: reason if owner.login == login else "", finish=True)

    def lock(self, locks: LockSet) -> int:
        """These are locked out, and nothing else; how many sessions and flows end.  With an older set what is in force
        stays, and is looked for again: what was kept may be back only since then (PutLocks may be read before the first
        Configure is carried out)."""
        if locks.serial >= self.locks:
            self.locks, self.locked = locks.serial, LockedOut(locks.locks)
        self.barring()
        count = self._end_of(self._why_locked, finish=False)
        if self.holds is not None:
            self.holds.lock_out(self.why_locked)
        return count

    def _end_of(self, why: Callable[[Owner], str], finish: bool) -> int:
        """End whatever is open of whom `why` has a reason for.  Whose was attributed before that and is no session yet
        meets `barred`: between that and its place among the live ones nothing is awaited."""
        found = [(one, reason) for one in self.live.values() if (reason := why(one.owner))]
        for one, reason in found:
            self._end_one(one, reason, finish)
        return len(found)

    def _end_one(self, one: Live, reason: str, finish: bool) -> None:
        try:
            one.end(reason, finish)
        except Exception as error:             # one's trouble does not spare the others
            LOG.error("%s could not be ended in order: %s", one.name, type(error).__name__)
            self.count("bugs")

    def know(self, people: People) -> None:
        """Who is one person under several names."""
        self.people = people
        if self.holds is not None:
            self.holds.people = people

    def why_locked(self, subjects: Iterable[str], workload: str = "", target: str = "") -> str:
        """By whichever of a person's names, "" where nothing of it is."""
        return self.locked.why(self.people.names(subjects), workload, target)

    def _why_locked(self, owner: Owner) -> str:
        """Also by the local user that somebody else speaks through."""
        return self.why_locked((owner.subject, f"local:{owner.user}"), owner.workload, owner.target)

    def put_in_force(self, configuration: Configuration) -> None:
        """For everybody at once, in one pass: nothing is judged by policies of one configuration and groups or labels
        of another.  So what is open of whom it says something else of, or with a target that is another now, ends once
        what runs has finished."""
        before, self.configuration = self.configuration, configuration
        for one in tuple(self.live.values()):
            if why := self._stale(one.owner) or self._another(before, one):
                self._end_one(one, why, True)

    def _stale(self, owner: Owner) -> str:
        """Why what was said of this owner holds no more, or ""."""
        configuration = self.configuration
        if configuration is None or not 0 < owner.stamp < configuration.horizon or (
                owner.stamp in configuration.standing):
            return ""
        return "the configuration has changed, and with it who this is or in which groups: connect again"

    def _another(self, before: Configuration | None, one: Live) -> str:
        """Why a session with this target is of another configuration, or ""."""
        name = one.owner.target
        if not name or before is None or self.configuration is None:
            return ""
        old, new = before.targets.get(name), self.configuration.targets.get(name)
        if old is None or (new is not None and _judged(old) == _judged(new)):
            return ""
        return f"target {name} is {'configured otherwise' if new else 'not configured any more'}: connect again"

    def why_elsewhere(self, target: Target) -> str:
        """Why a session that began with this target may not log in there (any more), "": a credential that is asked for
        now is of the configuration's target now, and is shown to nobody else."""
        configuration = self.configuration
        now = configuration.targets.get(target.name) if configuration is not None else None
        if now is None or _reached(now) == _reached(target):
            return ""                 # of one that is not configured any more the agent has no credential
        return f"target {target.name} is reached otherwise now: connect again"

    def barred(self, owner: Owner) -> tuple[str, str]:
        """Rule and reason by which nothing of this owner is let through, ("", "") where there are none."""
        if stale := self._stale(owner):
            return "reconfigured", stale
        if owner.nobody:
            return "no-identity", owner.nobody
        if reason := self.ended.get(owner.login):
            return "login-ended", reason
        reason = self._why_locked(owner)
        return ("locked", reason) if reason else ("", "")

    def find(self, beginning: str) -> Live | str:
        """What is open and whose name begins so, or why it is not one."""
        found = self.live.get(beginning) or [one for name, one in self.live.items() if name.startswith(beginning)]
        if not isinstance(found, list):
            return found
        if len(found) == 1 and beginning:
            return found[0]
        number = f"{len(found)} sessions and flows are" if found else "no session or flow is"
        return f"{number} open whose name begins with {beginning!r}"

    def remove(self, one: Live) -> None:
        self.live.pop(one.name, None)
        self.on_live()
        if not self.live:
            self.idle.set()

    def why_not(self, owner: Owner | None = None) -> str:
        """Why no new connection (of this owner) can be taken now, "" if it can."""
        if self.configuration is None or self.commit is None:
            return "the enforcer is not configured yet"
        if self.draining:
            return "the enforcer is stopping"
        if self.commit.failure:
            return f"nothing can be recorded: {self.commit.failure}"
        if self.arriving > ARRIVING:
            return "too many connections arrive at once"
        return self._no_place(owner, self.configuration.max_sessions) if owner is not None else ""

    def _no_place(self, owner: Owner, most: int) -> str:
        """The last tenth is for workloads that have less than half of all: none keeps every other one out."""
        free = most - len(self.live)
        if free <= 0:
            return f"{most} sessions are open, which is the most"
        if free <= most // 10:
            own = sum(one.owner.workload == owner.workload for one in self.live.values())
            if own * 2 >= most:
                return f"{own} sessions of this workload are open, and the last places are for others"
        return ""

    def mode(self, workload: str) -> str:
        return self.configuration.modes.get(workload, ENFORCE) if self.configuration is not None else ENFORCE

    def is_target(self, address: str, port: int) -> bool:
        """Whether it must not be a flow, whoever permits it."""
        targets = self.configuration.targets.values() if self.configuration is not None else ()
        return any(port == one.port and address in one.addresses for one in targets)

    def context(self, owner: Owner, target: Target) -> Context:
        """For a new session with this target.  Only where `why_not` is empty."""
        configuration = self.configuration
        if configuration is None:
            raise RecordingError("not configured")
        rule, reason = self.barred(owner)
        gate: Gate = RefusingGate(rule, reason) if rule else configuration.gate
        reported = self.reports.of(owner) if self.reports is not None else nothing
        if reported is not nothing and isinstance(gate, CedarGate):
            gate = ReportingGate(gate, reported)
        name = clock.session_name()
        return Context(
            session=name, counts=lambda ticket: self.holds is not None and self.holds.counts(name, ticket),
            principal=Principal(owner.subject, owner.groups, owner), target=target,
            gate=gate, now=clock.now, monotonic=clock.monotonic, random=self.salts.take,
            forwarded_key=configuration.forwarded_key, durable=configuration.durable,
            shared=self._caches(target), reported=reported,
        )

    def _caches(self, target: Target) -> dict[object, object]:
        """One set of caches a target, new where the target changed."""
        kept = self.shared.get(target.name)
        if kept is None or kept[0] != target:
            kept = self.shared[target.name] = (target, {})
        return kept[1]

    def refused(self, owner: Owner | None, destination: str, reason: str) -> None:
        """Record that a connection never became a session.  A crew's turn bounds how many of its there are; those of
        nobody are recorded one by one up to TOLD a second, and beyond that as a number."""
        self.count("refused")
        if owner is None:
            self.count("refused_nobody")
        if self.commit is None or self.commit.failure:
            return                    # a full disk must not fill memory: whoever dials then is counted only
        if owner is not None or self.told.take(self.loop.time()):
            self._record_refusal(owner, destination, reason)
            return
        self.untold += 1
        if self.untold == 1:
            self.loop.call_later(1.0, self.tell)

    def known_too_late(self, owner: Owner) -> None:
        """Its connection was refused as nobody's meanwhile.  The agent has said whose it is, and so its ledger waits
        for an account of it."""
        if owner.cookie:
            self._record_refusal(
                owner, f"{owner.destination} {owner.port}", "not attributed: the agent answered too late")

    def tell(self) -> None:
        """Record how many refusals were not recorded one by one."""
        number, self.untold = self.untold, 0
        if number:
            self._record_refusal(None, "", f"{number} more connections that were not attributed")

    def _record_refusal(self, owner: Owner | None, destination: str, reason: str) -> None:
        process = owner.process if owner else None
        try:
            if self.commit is not None and not self.commit.failure:
                self.commit.append(events.Refused(
                    events.REFUSED, clock.now(), clock.monotonic(), owner.workload if owner else "",
                    owner.subject if owner else "", process.pid if process else 0, process.exe if process else "",
                    destination, owner.target if owner else "", reason, (), owner.cookie if owner else 0,
                ))
        except RecordingError as error:
            LOG.error("a refusal could not be recorded: %s", error)

    def recording_failed(self, reason: str) -> None:
        LOG.error("recording failed, sessions end: %s", reason)
        for one in tuple(self.live.values()):
            one.recording_failed(f"the operation cannot be recorded: {reason}")

    def press(self, on: bool) -> None:
        LOG.warning("the recorder falls behind: clients wait" if on else "the recorder has caught up")
        self.pressed = on
        for one in tuple(self.live.values()):
            one.press(on)

    def elevate(self, message: AskElevation) -> tuple[str, str]:
        """A person's request, as policy has it: (ticket, ""), or why not."""
        configuration, holds = self.configuration, self.holds
        if configuration is None or holds is None:
            return "", "the enforcer is not configured yet"
        if message.target not in configuration.targets:
            return "", f"there is no target {message.target}"
        if locked := self.why_locked((message.subject, f"local:{message.user}"), "", message.target):
            return "", locked
        owner = Owner("", message.uid, message.user, message.subject, message.groups, None, "", 0, "", 0, "person")
        decision = configuration.gate.decide(
            Principal(message.subject, message.groups, owner), (Request("elevate", "Target", (message.target,)),))
        if decision.outcome == DENY:
            return "", decision.reason
        return holds.elevate(
            message.subject, message.user, message.target, message.seconds, message.reason, decision.holds)

    def answer_hold(self, session: str, event: HoldAnswered) -> None:
        one = self.live.get(session)
        if one is not None:
            one.answered(event)

    def hold_changed(self, event: events.HoldChanged) -> None:
        self.on_holds()
        if self.commit is not None:
            try:
                self.commit.append(event)
            except RecordingError as error:
                self.loop.call_soon(self.recording_failed, str(error))
                raise
        self.tally.hold_changed(event)

    def statistics(self) -> dict[str, int]:
        views = [one.view() for one in self.live.values()]
        flows = sum(view.state == "flow" for view in views)
        return {
            "sessions": len(views) - flows,
            "flows": flows,
            "arriving": self.arriving,
            "holds": self.holds.waiting() if self.holds else 0,
            "events": self.commit.appended if self.commit else 0,
            "recording_failed": int(bool(self.commit and self.commit.failure)),
            "recorder_behind": int(self.pressed),
            "lost_labels": self.catalogues.lost_labels() if self.catalogues else 0,
            **self.counters,
        }

    def figures(self) -> tuple[dict[str, int], tuple[TargetFigures, ...]]:
        """For the metrics: values of no target, and those of each."""
        commit, holds, tally = self.commit, self.holds, self.tally
        targets = self.configuration.targets if self.configuration is not None else {}
        opened = Counter(one.owner.target for one in self.live.values())
        values = {name: value for name, value in self.statistics().items() if ":" not in name} | {
            "oldest_hold": holds.oldest() if holds else 0,
            "syncs": commit.syncs if commit else 0,
            "sync_microseconds": int(commit.sync_seconds * 1e6) if commit else 0,
            "asked": tally.asked,
            **{f"hold_{state}": number for state, number in tally.outcomes.items()},
        }
        return values, tuple(tally.of(name).figures(name, opened[name]) for name in islice(targets, FIGURES))


def _judged(target: Target) -> tuple[object, ...]:
    """What of a target goes into decisions, masks and what is recorded; the rest is how it is reached."""
    return (target.protocol, target.databases, target.labels, target.content_labels, target.detectors, target.payload,
            target.payload_limit, target.options, target.field_labels, target.forwards)


def _reached(target: Target) -> tuple[object, ...]:
    """Who it is that is shown a credential.  Not by addresses: names lead to others as time goes by."""
    return target.protocol, target.hosts, target.port, target.tls, target.tls_ca, target.known_hosts, target.socket
