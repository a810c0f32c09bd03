"""Where every part of a session asks and reports: the gate, the hold and the book are behind it."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from enforcer.words.operations import Request


@dataclass(frozen=True, slots=True)
class Ask:
    verb: str                         # "exec", "shell", "open", "remove", "forward-local": of the recording
    text: bytes                       # what is recorded, shown to approvers and searched
    requests: tuple[Request, ...]
    exact: bytes                      # all that tells this operation from another: what an approval is bound to
    labels: tuple[str, ...] = ()      # that what comes back carries
    writes: bool = False              # waits for the disk, where writes do
    parameters: tuple[str, ...] = ()  # what else it goes with: "LANG=C.UTF-8"
    shape: bytes = b""                # digest of what alike operations have in common, where a rule may ask for it
    covers: str = ""                 # the same in words for approvers: words.commands.Hold


@dataclass(frozen=True, slots=True)
class Verdict:
    permitted: bool
    number: int                       # of the operation, from 1 in a session
    reason: str = ""                  # where it is not permitted: for the client's user, one sentence
    masked: tuple[str, ...] = ()      # of the labels: what carries them is masked


class Desk(Protocol):
    @property
    def target(self) -> str: ...

    @property
    def account(self) -> str:
        """User name that the crew asked for."""
        ...

    def ask(self, ask: Ask, then: Callable[[Verdict], None], waits: Callable[[str], None] = lambda line: None) -> None:
        """Decide and record the intent; `then` is called once, at once or when people have answered.  What is sent to
        the server after it stands behind the intent.  `waits`: a line for the client's user, once it is held."""
        ...

    def withdraw(self, then: Callable[[Verdict], None]) -> None:
        """Nobody waits for this answer any more: what is held for it is cancelled."""
        ...

    def own(self, verb: str, text: bytes) -> int:
        """Record what Weir itself sends to the server; gives its number, for `done`."""
        ...

    def piece(self, number: int, stream: str, data: bytes, keep: bool = True) -> None:
        """A piece of `in`, `out` or `err`, in order; not `keep`: only size and hash.  Call it before `in` is sent and
        when `out` and `err` are."""
        ...

    def typed(self, number: int, size: int) -> None:
        """At a terminal: so many bytes are on their way.  What of them may be recorded follows (`shown`)."""
        ...

    def shown(self, number: int, offset: int, content: bytes) -> None:
        """Of what was typed: with stars for what the terminal did not show."""
        ...

    def note(self, number: int, stream: str, content: bytes) -> None:
        """`size` or `signal`: events.Streamed."""
        ...

    def done(self, number: int, status: str, tag: str = "", error: bytes = b"") -> None:
        """Its result: status as in events.Result, tag "exit 0"; ends its streams.  Once for every permitted number."""
        ...

    def tell(self, name: str, value: str) -> None:
        """Something of the session: events.SessionNoted."""
        ...
