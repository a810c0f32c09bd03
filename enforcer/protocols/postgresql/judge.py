"""Judgement of statements: text -> analysis -> decision, each cached on everything that it depends on.

Analyses depend on the text and its meaning (database, role, search path, catalogue) and are shared by all sessions of a
target; verdicts depend on the principal and the policies as well and are kept by the session.  A text that is new is
looked up by its shape (hot/shape.py): the parse tree without constants that no analysis looks at, where none is hidden.
Never by a fingerprint.

Where all numbers of a plain text are such constants, its *skeleton* (the text with 0 for each of them) stands for the
shape, and the next text of it is not even parsed: another number of the same token class at the same place gives the
same tree but for its value.  That all are is seen by other numbers in all those places, which must give the same shape.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec
from msgspec import structs
from pglast.parser import ParseError, parse_sql_json

from enforcer.core.context import Context
from enforcer.hot.chain import make_digest
from enforcer.hot.shape import strip
from enforcer.protocols.postgresql.book import SALT
from enforcer.protocols.postgresql.errors import SYNTAX_ERROR, Denial
from enforcer.protocols.postgresql.operations.analysis import analyse
from enforcer.protocols.postgresql.operations.words import Analysis, Meaning, Statement
from enforcer.protocols.postgresql.studied import Studied, Verdict
from enforcer.words.decisions import DENY, PERMIT, Decision

SHARED: Final = 4096                  # analyses kept for a target
OWN: Final = 512                      # verdicts kept by a session
SHORT: Final = 16 << 10               # bytes of text; a longer one is not kept
SHAPED: Final = 4 << 10               # bytes of text; a longer one is looked up by its text only
NOTHING_ASKED: Final = Decision(PERMIT, ("empty",))
# What these mean depends on what the session has prepared or declared.
_OWN_NAMES: Final = frozenset(("execute", "fetch"))
_NAMING: Final = frozenset(("prepare", "deallocate", "declare", "close", "discard"))
ENDING: Final = frozenset(("commit", "rollback", "rollback_to", "release"))
# No quotes, comments, parameters or backslashes; so a number between these stands alone and is an ICONST (4.1.2.6).
_PLAIN: Final = re.compile(rb"[A-Za-z0-9_ \t\r\n,.=<>()*;+-]*")
_NUMBER: Final = re.compile(rb"(?<![A-Za-z0-9_.])[0-9]{1,9}(?![A-Za-z0-9_.])")
_SHAPED: Final = (b"select", b"insert", b"update", b"delete")
_FREE: Final = frozenset(("sql:select", "sql:insert", "sql:update", "sql:delete", "sql:transaction"))
_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Judge:
    def __init__(self, context: Context) -> None:
        self._context = context
        shared = {} if context.shared is None else context.shared
        self._shared: dict[object, Studied] = shared.setdefault("studied", {})  # type: ignore[assignment]
        self._shapes: dict[object, Studied] = shared.setdefault("shapes", {})  # type: ignore[assignment]
        self._skeletons: dict[object, Studied] = shared.setdefault("skeletons", {})  # type: ignore[assignment]
        self._own: dict[bytes, Verdict] = {}
        self._last: tuple[Studied, int, Decision] | None = None    # what was decided last, and under which policies
        self.meaning = Meaning("", "", (), None, 0)

    def learn(self, meaning: Meaning) -> None:
        self.meaning = meaning

    def verdict(self, text: bytes, names: Mapping[str, Analysis]) -> Verdict:
        """Of a text under the present meaning and policies."""
        kept = self._own.get(text)
        if kept is not None and kept.meaning == self.meaning.version and kept.gate == self._context.gate.version:
            return kept
        studied = self.study(text, names)
        found = self.decide(studied, False)
        if studied.lasting and len(text) <= SHORT:
            while len(self._own) >= OWN:
                del self._own[next(iter(self._own))]
            self._own[text] = found
        return found

    def study(self, text: bytes, names: Mapping[str, Analysis]) -> Studied:
        key = (text, self.meaning.version)
        kept = self._shared.get(key)
        if kept is not None:
            return kept
        studied = self._by_shape(text, names)
        if studied.lasting and len(text) <= SHORT:
            _keep(self._shared, key, studied)
        return studied

    def _by_shape(self, text: bytes, names: Mapping[str, Analysis]) -> Studied:
        skeleton = make_skeleton(text)
        bare = (skeleton, self.meaning.version)
        kept = self._skeletons.get(bare) if skeleton is not None else None
        if kept is not None:
            return self._alike(kept, text)
        shape = make_shape(text)
        if shape is None:
            return self._study(text, names)
        key = (shape, self.meaning.version)
        kept = self._shapes.get(key)
        if kept is None:
            studied = kept = self._study(text, names)
            if not is_free(studied):
                return studied
            _keep(self._shapes, key, studied)
        else:
            studied = self._alike(kept, text)
        if skeleton is not None and make_shape(change_numbers(text)) == shape:
            _keep(self._skeletons, bare, kept)
        return studied

    def _alike(self, kept: Studied, text: bytes) -> Studied:
        """What `_study` would say of another text of this shape."""
        salt = self._context.random(SALT)
        return Studied(
            text, kept.analysis, kept.requests, kept.named, kept.shows, kept.blocked,
            (make_digest(salt, text), salt, text), make_digest(self._context.forwarded_key, text), kept.lasting,
            kept.writes, kept.barrier, kept.alters, kept.names, kept.ends, kept.copies_in, kept.reasons)

    def _study(self, text: bytes, names: Mapping[str, Analysis]) -> Studied:
        analysis = self._analyse(text, names)
        statements = analysis.statements
        requests = tuple(dict.fromkeys(request for s in statements for request in s.requests))
        salt = self._context.random(SALT)
        return Studied(
            text, analysis, requests, tuple((request.action, request.resource) for request in requests),
            tuple(dict.fromkeys(label for s in statements for label in s.shows)),
            tuple(dict.fromkeys(label for s in statements for label in s.blocked)),
            (make_digest(salt, analysis.recorded), salt, analysis.recorded),
            make_digest(self._context.forwarded_key, text),
            not any(s.kind in _OWN_NAMES for s in statements),
            any(s.writes for s in statements), any(s.barrier or s.alters_catalogue for s in statements),
            any(s.alters_catalogue for s in statements), any(s.kind in _NAMING for s in statements),
            any(s.kind in ENDING for s in statements), any(s.copy == "in" for s in statements),
            tuple((s.blocked, s.blocked_reason) for s in statements if s.blocked),
        )

    def _analyse(self, text: bytes, names: Mapping[str, Analysis]) -> Analysis:
        try:
            return analyse(text.decode(), self.meaning, self._context.target, names)
        except UnicodeDecodeError:
            return Analysis((), "invalid byte sequence for encoding \"UTF8\"", b"(not UTF-8)", True)

    def decide(self, studied: Studied, approved: bool) -> Verdict:
        gate, meaning = self._context.gate, self.meaning.version
        if studied.analysis.error:
            code, reason = studied.analysis.code, studied.analysis.error
            detail = "Weir forwards only what PostgreSQL's own grammar reads." if code == SYNTAX_ERROR else ""
            return Verdict(studied, Decision(DENY, ("unparsed",), reason), meaning, gate.version, Denial(
                code, reason, detail))
        if not studied.analysis.statements:
            return Verdict(studied, NOTHING_ASKED, meaning, gate.version)
        last = self._last
        if last is not None and not approved and last[1] == gate.version and _asks_the_same(last[0], studied):
            return Verdict(studied, last[2], meaning, gate.version)
        labels = tuple(dict.fromkeys((*studied.shows, *studied.blocked)))
        decision = gate.decide(self._context.principal, studied.requests, labels, approved)
        if decision.outcome != DENY and any(label in decision.masked for label in studied.blocked):
            decision = Decision(DENY, ("strict-masking",), blocked_reason(studied, decision.masked))
        if not approved:
            self._last = (studied, gate.version, decision)
        return Verdict(studied, decision, meaning, gate.version)


def _keep(kept: dict[object, Studied], key: object, studied: Studied) -> None:
    if len(kept) >= SHARED:
        kept.clear()
    kept[key] = studied


def _asks_the_same(one: Studied, other: Studied) -> bool:
    """Of one shape: the very same objects, not equal ones."""
    return (one.requests is other.requests and one.shows is other.shows and one.blocked is other.blocked
            and one.reasons is other.reasons)


def make_skeleton(text: bytes) -> bytes | None:
    """A short plain text with 0 in place of each number of up to nine digits, or None where there is none."""
    if len(text) > SHAPED or text[:6].lower() not in _SHAPED or not _PLAIN.fullmatch(text) or b"--" in text:
        return None
    skeleton, count = _NUMBER.subn(b"0", text)
    return skeleton if count else None


def change_numbers(text: bytes) -> bytes:
    """Every number that a skeleton leaves out is another one."""
    return _NUMBER.sub(lambda found: b"%d" % (int(found[0]) % 99_999_999 + 1), text)


def make_shape(text: bytes) -> bytes | None:
    """The canonical bytes of a short statement's shape, or None where it has none."""
    if len(text) > SHAPED or text[:6].lower() not in _SHAPED:
        return None
    try:
        tree = _decode(parse_sql_json(text.decode()))
    except (ParseError, ValueError, RecursionError, msgspec.DecodeError):
        return None
    return _encode(tree) if strip(tree) else None


def is_free(studied: Studied) -> bool:
    """Nothing in the analysis can come from a constant that a shape leaves out."""
    analysis = studied.analysis
    return not (
        analysis.error or analysis.hides or analysis.hide_parameters or studied.barrier or studied.alters
        or studied.names or studied.ends or not studied.lasting or studied.blob[2] != studied.text
        or any(request.action not in _FREE for request in studied.requests))


def blocked_reason(studied: Studied, masked: tuple[str, ...]) -> str:
    return next(why for labels, why in studied.reasons if any(label in masked for label in labels))


def only(studied: Studied, one: Statement) -> Studied:
    """Of one of its statements, or of what that runs."""
    return structs.replace(
        studied, requests=one.requests, named=tuple((request.action, request.resource) for request in one.requests),
        shows=one.shows, blocked=one.blocked, reasons=((one.blocked, one.blocked_reason),) if one.blocked else (),
        writes=one.writes, barrier=one.barrier)


def covers(one: Studied, other: Studied) -> bool:
    """Who is asked for `one` is asked for all of `other`."""
    return one is other or (
        set(one.requests) >= set(other.requests) and set(one.shows) >= set(other.shows)
        and set(one.blocked) >= set(other.blocked))


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared statement or a portal, by the text that made it; `name` where that was SQL (PREPARE, DECLARE).

    `seen` is what its names meant when the server may have looked them up, by the search path of then (() for any): the
    server keeps that as long as the path is the same, also where a new table stands before the old (plancache.c)."""

    text: bytes
    name: str = ""
    types: tuple[int, ...] = ()       # of parameters, as Parse has them
    seen: dict[tuple[str, ...], tuple[Studied, ...]] = field(default_factory=dict, compare=False)


class Names(Mapping[str, Analysis]):
    """What a session has prepared, as `analyse` asks for it: analysed when asked, under the present meaning."""

    def __init__(self, judge: Judge, find: Callable[[str], Prepared | None], depth: int = 0) -> None:
        self._judge, self._find, self._depth = judge, find, depth

    def __getitem__(self, name: str) -> Analysis:
        found = self._find(name)
        if found is None or self._depth > 2:
            raise KeyError(name)
        analysis = self._judge.study(found.text, Names(self._judge, self._find, self._depth + 1)).analysis
        if not found.name:
            return analysis
        for statement in analysis.statements:
            if statement.name == found.name and statement.inner is not None:
                return statement.inner
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0
