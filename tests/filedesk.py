"""A desk for what carries files: decides by rules of paths, keeps what it is told, holds until the test answers."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256

from agent.contract.target import ContentLabel
from enforcer.core.desk import Ask, Verdict

Rule = Callable[[str, str], str]      # action, path: "permit" | "deny" | "hold"


@dataclass
class Booked:
    verb: str
    text: str
    requests: list[tuple[str, str]]
    labels: tuple[str, ...] = ()
    exact: bytes = b""
    decision: str = "permit"
    status: str = ""
    tag: str = ""
    error: str = ""
    pieces: dict[str, list[bytes]] = field(default_factory=dict)
    kept: set[bool] = field(default_factory=set)
    own: bool = False

    def content(self, stream: str) -> bytes:
        return b"".join(self.pieces.get(stream, ()))


class FileDesk:
    target, account = "files", "crew"

    def __init__(self, rule: Rule = lambda action, path: "permit", unmasked: bool = False, keep: bool = True) -> None:
        self.rule, self.unmasked, self.keep = rule, unmasked, keep
        self.booked: dict[int, Booked] = {}
        self.held: list[tuple[int, Callable[[Verdict], None]]] = []
        self.withdrawn = 0
        self.recorded: Callable[[], None] = lambda: None

    def ask(self, ask: Ask, then: Callable[[Verdict], None], waits: Callable[[str], None] = lambda line: None) -> None:
        number = len(self.booked) + 1
        answers = {self.rule(request.action, request.path[2]) for request in ask.requests}
        decision = next((one for one in ("deny", "hold") if one in answers), "permit")
        self.booked[number] = Booked(
            ask.verb, ask.text.decode(), [(request.action, request.path[2]) for request in ask.requests], ask.labels,
            ask.exact, decision)
        if decision == "hold":
            self.held.append((number, then))
        else:
            then(self.verdict(number, decision == "permit"))

    def verdict(self, number: int, permitted: bool) -> Verdict:
        masked = () if self.unmasked else self.booked[number].labels
        return Verdict(permitted, number, "" if permitted else "forbidden by rule", masked if permitted else ())

    def answer(self, permitted: bool = True) -> None:
        """The first that is held."""
        number, then = self.held.pop(0)
        self.booked[number].decision = "permit" if permitted else "deny"
        then(self.verdict(number, permitted))

    def withdraw(self, then: Callable[[Verdict], None]) -> None:
        self.held = [(number, other) for number, other in self.held if other is not then]
        self.withdrawn += 1

    def own(self, verb: str, text: bytes) -> int:
        self.booked[len(self.booked) + 1] = Booked(verb, text.decode(), [], own=True)
        return len(self.booked)

    def piece(self, number: int, stream: str, data: bytes, keep: bool = True) -> None:
        booked = self.booked[number]
        assert not booked.status, "a piece after the result"
        booked.kept.add(keep)
        if self.keep:
            booked.pieces.setdefault(stream, []).append(data)

    def note(self, number: int, stream: str, content: bytes) -> None:
        raise AssertionError("files have no sizes and signals")

    def done(self, number: int, status: str, tag: str = "", error: bytes = b"") -> None:
        booked = self.booked[number]
        assert not booked.status, "two results"
        assert booked.decision == "permit", "a result of what was not permitted"
        booked.status, booked.tag, booked.error = status, tag, error.decode("utf-8", "replace")

    # --- for assertions ---

    def asked(self) -> list[Booked]:
        return [booked for booked in self.booked.values() if not booked.own]

    def last(self, verb: str) -> Booked:
        return next(booked for booked in reversed(self.asked()) if booked.verb == verb)

    def settled(self) -> bool:
        """Everything that was permitted has its result."""
        return all(booked.status or booked.decision != "permit" for booked in self.booked.values())


def secret(pattern: str) -> tuple[ContentLabel, ...]:
    return (ContentLabel("secret", path=pattern),)


def digest(content: bytes) -> str:
    return sha256(content).hexdigest()
