"""The completeness oracle: what the server says it ran is contained in what the recording says was forwarded.

    executed  = statements of csvlog (log_statement=all), by backend, from the crew's host
    forwarded = intents of the recording, by session and its backend, with the keyed digest of the forwarded bytes

Every executed statement must be there as often as it was run (multisets).  What was forwarded and not executed must be
accounted for: its result is an error, it was skipped or cancelled, or a gap says that nobody knows.
"""
from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import msgspec

from enforcer.words import events
from enforcer.words.decisions import PERMIT
from lab.hosts import CREW
from lab.postgresql import Database, LoggedStatement

# Verbs whose bytes csvlog does not show as a statement that ran.
QUIET = frozenset(("bind", "parse", "login", "denial", "connect", "cancel", "catalogue", "describe"))
UNFINISHED = frozenset(("error", "skipped", "cancelled", "denied"))
SOURCES = (CREW.ipv4, CREW.ipv6)
LOCAL = "[local]"


@dataclass
class Told:
    """One session as the recording tells it."""

    backend: int = 0
    subject: str = ""
    intents: dict[int, events.Intent] = field(default_factory=dict)
    status: dict[int, str] = field(default_factory=dict)
    gaps: set[int] = field(default_factory=set)


def read_events(recording: Path) -> list[bytes]:
    """Canonical bytes of all events in their order."""
    bodies: list[bytes] = []
    for file in sorted(recording.glob("recording-*.sqlite")):
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
            bodies += [row[0] for row in connection.execute("SELECT body FROM event ORDER BY seq")]
    return bodies


def tell(bodies: Iterable[bytes]) -> dict[str, Told]:
    sessions: dict[str, Told] = {}
    for body in bodies:
        kind = msgspec.msgpack.decode(body)[0]
        if kind == events.SESSION_OPENED:
            opened = msgspec.msgpack.decode(body, type=events.SessionOpened)
            told = sessions.setdefault(opened.session, Told())
            told.backend, told.subject = opened.backend, opened.subject
        elif kind == events.INTENT:
            intent = msgspec.msgpack.decode(body, type=events.Intent)
            sessions.setdefault(intent.session, Told()).intents[intent.operation] = intent
        elif kind == events.RESULT:
            result = msgspec.msgpack.decode(body, type=events.Result)
            sessions.setdefault(result.session, Told()).status[result.operation] = result.status
        elif kind == events.GAP:
            gap = msgspec.msgpack.decode(body, type=events.Gap)
            sessions.setdefault(gap.session, Told()).gaps |= set(gap.operations)
    return sessions


def candidates(statement: LoggedStatement) -> list[str]:
    """The text of a logged statement: after a name that may itself hold ": "."""
    if statement.message.startswith("statement: "):
        return [statement.message.removeprefix("statement: ")]
    pieces = statement.message.split(": ")
    return [": ".join(pieces[i:]) for i in range(1, len(pieces))]


def digest(key: bytes, text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogateescape"), digest_size=32, key=key).digest()


def complaints(bodies: Iterable[bytes], executed: Iterable[LoggedStatement], key: bytes) -> list[str]:
    """What does not agree; empty where everything does."""
    sessions = tell(bodies)
    by_backend = {told.backend: told for told in sessions.values() if told.backend}
    left = {
        backend: Counter(i.forwarded for i in told.intents.values() if i.decision == PERMIT and i.forwarded)
        for backend, told in by_backend.items()
    }
    # A catalogue is read by a connection whose backend Weir does not know when it must say what it will send.
    unknown = Counter(
        i.forwarded for told in sessions.values() if not told.backend for i in told.intents.values() if i.forwarded)
    wrong = []
    for statement in executed:
        counter = left.get(statement.backend, unknown if statement.application == "weir" else None)
        if counter is None:
            wrong.append(f"backend {statement.backend} ran a statement and no session is its own: {statement.message}")
            continue
        found = next((d for d in (digest(key, text) for text in candidates(statement)) if counter[d] > 0), None)
        if found is None:
            wrong.append(f"backend {statement.backend} ran what nobody recorded: {statement.message}")
        else:
            counter[found] -= 1
    for backend, counter in left.items():
        wrong += _unexecuted(by_backend[backend], counter)
    return wrong


def _unexecuted(told: Told, counter: Counter[bytes]) -> list[str]:
    """Forwarded, and the server says nothing of it: errors, gaps and what it does not log."""
    wrong = []
    spare = Counter({d: n for d, n in counter.items() if n > 0})
    for number, intent in told.intents.items():
        if spare[intent.forwarded] <= 0 or intent.verb in QUIET or intent.decision != PERMIT:
            continue
        status = told.status.get(number, "")
        if status in UNFINISHED or number in told.gaps or not status:
            spare[intent.forwarded] -= 1
    for intent in told.intents.values():
        if spare[intent.forwarded] > 0 and intent.verb in QUIET:
            spare[intent.forwarded] -= 1
    for d, n in spare.items():
        if n > 0:
            wrong.append(f"{n} of {d.hex()[:16]} were forwarded with success and never ran (backend {told.backend})")
    return wrong


def executed_by_weir(database: Database, since: int = 0, through: Collection[str] = ()) -> list[LoggedStatement]:
    """Everything that came from the crew's host, from addresses that tunnels lead `through`, or by the server's Unix
    socket from anybody but its administrator; from row `since` of the log on."""
    return [s for s in database.statements()[since:] if not s.error and (
        s.source in (*SOURCES, *through) or (s.source == LOCAL and s.user != "postgres"))]
