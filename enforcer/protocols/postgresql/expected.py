"""What a session has named, and what it expects of the server: data of the conversation."""
from __future__ import annotations

from typing import Final

from enforcer.hot.rows import Mask
from enforcer.protocols.postgresql.book import Operation
from enforcer.protocols.postgresql.errors import Denial
from enforcer.protocols.postgresql.judge import Prepared
from enforcer.protocols.postgresql.messages import Bind
from enforcer.protocols.postgresql.studied import Verdict
from enforcer.words.decisions import HoldTerms

# Types of the client's messages, which say what an expectation is of (55.7).
Q: Final = 0x51                       # Query
P: Final = 0x50                       # Parse
B: Final = 0x42                       # Bind
D: Final = 0x44                       # Describe
E: Final = 0x45                       # Execute
C: Final = 0x43                       # Close
S: Final = 0x53                       # Sync


class Definition:
    """A name of the session: a prepared statement or portal; None where it was closed."""

    __slots__ = ("batch", "confirmed", "name", "names", "previous", "value")

    def __init__(self, value: Prepared | Portal | None, batch: int, names: Definitions, name: bytes) -> None:
        self.value, self.batch, self.names, self.name = value, batch, names, name
        self.previous, self.confirmed = names.get(name), False


class Portal:
    __slots__ = (
        "asked", "bind", "described", "holds", "masks", "names", "parameters", "prepared", "recorded", "ticket",
        "verdict",
    )

    def __init__(self, prepared: Prepared, verdict: Verdict, bind: Bind | None) -> None:
        self.prepared, self.verdict, self.bind = prepared, verdict, bind
        self.parameters = b""
        self.ticket = ""                       # of the approval that it was bound under,
        self.holds: tuple[HoldTerms, ...] = ()         # and what that was asked by
        self.recorded = False                  # an intent covers its Bind
        self.masks: list[Mask | None] | None = None
        self.described = 0                     # version of the policies that `masks` are of
        self.asked = (0, 0)                    # batch and policies of the last Describe that was forwarded
        self.names: list[tuple[Definitions, bytes, object]] = []      # what it was judged with

    @property
    def by_sql(self) -> bool:
        """It runs what DECLARE or PREPARE holds: its text is that of the whole string, which has run already."""
        return self.bind is None or bool(self.prepared.name)


class Expectation:
    __slots__ = (
        "barrier", "batch", "definition", "denial", "hidden", "index", "kind", "masks", "operation", "portal",
        "verdict",
    )

    def __init__(self, kind: int, batch: int) -> None:
        self.kind, self.batch = kind, batch
        self.operation: Operation | None = None
        self.verdict: Verdict | None = None
        self.definition: Definition | None = None
        self.portal: Portal | None = None
        self.denial: Denial | None = None
        self.masks: list[Mask | None] | None = None
        self.hidden = self.barrier = False
        self.index = 0                         # statements of a Query that are complete

    @property
    def about(self) -> Portal | None:
        """What it binds, describes or executes."""
        if self.portal is not None:
            return self.portal
        value = self.definition.value if self.definition is not None else None
        return value if isinstance(value, Portal) else None


def failed_with(head: Expectation, other: Expectation) -> bool:
    """Is the error of `head` that of `other`, which waits for it: an Execute of what could not be parsed or bound?"""
    portal = other.about
    if head is other or portal is None:
        return head is other
    return head.about is portal or (head.definition is not None and head.definition.value is portal.prepared)


Definitions = dict[bytes, Definition]
