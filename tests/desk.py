"""Holds with a clock that the test turns, and an agent that keeps what it is told to, when the test lets it."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from agent.contract.owner import Owner, Process
from agent.contract.target import Target
from enforcer.approval.holds import Holds
from enforcer.core.context import Context
from enforcer.words.commands import Hold
from enforcer.words.decisions import Decision, HoldTerms
from enforcer.words.events import HoldChanged
from enforcer.words.inputs import HoldAnswered, HoldOpened
from enforcer.words.operations import Principal, Request

NANO = 1_000_000_000
MONDAY = 1_767_600_000 * NANO         # 2026-01-05 08:00:00 UTC
KEY = b"k" * 32


class NoGate:
    version = 1

    def decide(
        self, principal: Principal, requests: tuple[Request, ...], labels: tuple[str, ...] = (), approved: bool = False
    ) -> Decision:
        raise AssertionError("holds never ask policy")


@dataclass
class Agent:
    """`broken`: why it keeps nothing; `slow`: it answers when `go_on` is called."""

    kept: dict[str, bytes] = field(default_factory=dict)
    broken: str = ""
    slow: bool = False
    waiting: list[tuple[str, bytes, Callable[[str], None]]] = field(default_factory=list)
    over: set[str] = field(default_factory=set)        # it was to forget them, and gives them to nobody

    def keep(self, ticket: str, content: bytes, done: Callable[[str], None]) -> None:
        self.waiting.append((ticket, content, done))
        if not self.slow:
            self.go_on()

    def go_on(self) -> None:
        while self.waiting:
            ticket, content, done = self.waiting.pop(0)
            if not self.broken and content:
                self.kept[ticket] = content
            elif not self.broken:
                self.kept.pop(ticket, None)
            elif not content:
                self.over.add(ticket)
            done(self.broken)


@dataclass
class Desk:
    clock: int = 1_000
    utc: int = MONDAY
    boot: str = "one"
    agent: Agent = field(default_factory=Agent)
    answers: list[tuple[str, HoldAnswered]] = field(default_factory=list)
    changes: list[HoldChanged] = field(default_factory=list)
    elevated: frozenset[tuple[str, str]] = frozenset()
    drawn: int = 0
    running: set[tuple[int, int]] = field(default_factory=set)       # (pid, started)

    def __post_init__(self) -> None:
        self.holds = self.start()

    def start(self) -> Holds:
        """Another life of the enforcer: what the agent has kept, and nothing else."""
        self.holds = Holds(
            lambda: self.utc, lambda: self.clock, self.random,
            lambda session, answer: self.answers.append((session, answer)), self.changes.append, self.agent.keep, KEY,
            self._elevate, self.boot, lambda pid, started: (pid, started) in self.running)
        for ticket in self.agent.over if not self.agent.broken else ():
            self.agent.kept.pop(ticket, None)
        over = self.agent.over
        self.holds.restore({ticket: one for ticket, one in self.agent.kept.items() if ticket not in over})
        return self.holds

    def _elevate(self, pairs: frozenset[tuple[str, str]]) -> None:
        self.elevated = pairs

    def random(self, size: int) -> bytes:
        self.drawn += 1
        return self.drawn.to_bytes(size, "big")

    def context(self, session: str = "s1", subject: str = "local:crew", target: str = "orders",
                workload: str = "crew", exe: str = "", process: Process | None = None, attribution: str = "mark",
                login: str = "") -> Context:
        process = process or (Process(7, exe) if exe else None)
        owner = Owner(workload, 1000, "crew", subject, ("data",), process, "", 0, "10.0.0.1", 5432, attribution, target,
                      login=login)
        place = Target(target, "postgresql", ("db",), 5432, ("10.0.0.1",))
        return Context(
            session, Principal(subject, ("data",), owner), place, NoGate(), lambda: self.utc, lambda: self.clock,
            self.random, b"k" * 32)

    def ask(
        self, terms: HoldTerms | tuple[HoldTerms, ...], session: str = "s1", operation: int = 7, exact: bytes = b"e",
        shape: bytes = b"s", database: str = "shop", action: str = "sql:delete public.orders",
        asked: bytes = b"a", inexact: str = "", covers: str = "", account: str = "", **who: Any,
    ) -> HoldOpened | HoldAnswered | None:
        chosen = terms if isinstance(terms, tuple) else (terms,)
        return self.holds.open(self.context(session, **who), Hold(
            operation, chosen, action, "delete from orders", (), tuple(one.rule for one in chosen), b"digest", database,
            exact, shape, asked=asked, inexact=inexact, covers=covers, account=account))

    def open(self, terms: HoldTerms | tuple[HoldTerms, ...], **more: object) -> str:
        opened = self.ask(terms, **more)  # type: ignore[arg-type]
        assert isinstance(opened, HoldOpened), opened
        return opened.ticket

    def approve(self, ticket: str, by: str = "local:ann", group: str = "dba", reason: str = "fine") -> str:
        return self.holds.decide(ticket, True, by, (group,), reason)

    def turn(self, seconds: float) -> None:
        self.clock += int(seconds * NANO)
        self.utc += int(seconds * NANO)
        self.holds.expire()

    @property
    def states(self) -> list[str]:
        return [change.state for change in self.changes]

    @property
    def last(self) -> HoldAnswered:
        return self.answers[-1][1]
