"""A recording in small pages, for who reads it from afar: frozen, bounded, without anything that needs the files.

Texts are as they are recorded, masks and all, each cut at TEXT characters; whoever shows them makes them safe.  Times
are nanoseconds UTC.  `more` of a page is where the next one begins, 0: there is none.  `wrong` says why a page is not
there or not whole.
"""
from __future__ import annotations

from typing import Final

import msgspec

TEXT: Final = 4000                    # characters of one text
SESSIONS: Final = 50                  # of one page
LINES: Final = 100
PIECES: Final = 2000                  # of streams
PASTS: Final = 20                     # rows of a subject's history


class RecordedSession(msgspec.Struct, frozen=True):
    seq: int                          # of the event that opened it
    session: str
    opened: int
    closed: int                       # 0: open, or never closed
    subject: str
    workload: str
    pid: int
    exe: str
    protocol: str
    target: str
    database: str
    role: str
    operations: int                   # of the crew; the three up to COUNTED, then that is what they say
    denied: int
    held: int
    reason: str = ""                  # how it ended


class Line(msgspec.Struct, frozen=True):
    """One event of a session, as a transcript has it."""

    seq: int
    at: int
    kind: str                         # "opened" | "asked" | "answered" | "hold" | "stream" | "noted" | "gap" | "closed"
    operation: int = 0
    says: str = ""                    # "permit" | "deny" | "hold"; status of an answer; state of a hold
    actor: str = ""                   # "weir": what it sent itself
    verb: str = ""
    text: str = ""                    # statement, error, or what is said of the event
    erased: bool = False              # there was a text, and it is gone
    facts: tuple[tuple[str, str], ...] = ()   # ("rules", "..."), ("because", "..."), ("masked", "...")
    rows: tuple[str, ...] = ()        # payload as the client got it, the first rows
    tape: str = ""                    # where an operation's streams begin: "terminal" | "streams"


class TapePiece(msgspec.Struct, frozen=True, array_like=True):
    seq: int
    after: int                        # nanoseconds since the first piece of the operation
    stream: str
    content: bytes | None             # None: erased


class TapePage(msgspec.Struct, frozen=True):
    """Streams of one operation, in the order of the chain."""

    terminal: bool = False
    length: int = 0                   # nanoseconds, of what there is
    pieces: tuple[TapePiece, ...] = ()
    last: int = 0                     # number of the last one here
    more: bool = False                # there are others after it
    ended: bool = False               # and nothing will come after them
    wrong: str = ""


class Past(msgspec.Struct, frozen=True):
    """What a subject asked people for, or was refused."""

    at: int
    what: str
    target: str
    state: str                        # "pending" | ... | "used" | "refused"
    by: str = ""
    reason: str = ""
    ticket: str = ""
    subject: str = ""
    form: str = ""


class SessionsPage(msgspec.Struct, frozen=True):
    """The newest first."""

    sessions: tuple[RecordedSession, ...] = ()
    more: int = 0
    wrong: str = ""


class LinesPage(msgspec.Struct, frozen=True):
    """In the order of the chain.  `last`: the number of the last event that was looked at."""

    session: RecordedSession | None = None
    lines: tuple[Line, ...] = ()
    last: int = 0
    more: int = 0
    wrong: str = ""


class HistoryPage(msgspec.Struct, frozen=True):
    """The newest first: of one subject, or of all."""

    pasts: tuple[Past, ...] = ()
    sessions: int = -1                # of the subject, -1: not counted
    more: int = 0
    wrong: str = ""
