"""What the judge gives: a text that was studied, and the verdict on it.  Not compiled: see docs/decisions/0008."""
from __future__ import annotations

import msgspec

from enforcer.protocols.postgresql.errors import Denial
from enforcer.protocols.postgresql.operations.words import Analysis
from enforcer.words.decisions import Decision
from enforcer.words.operations import Request


class Studied(msgspec.Struct, frozen=True, eq=False):
    """A text, analysed, with what the recording holds of it."""

    text: bytes
    analysis: Analysis
    requests: tuple[Request, ...]
    named: tuple[tuple[str, str], ...]
    shows: tuple[str, ...]
    blocked: tuple[str, ...]
    blob: tuple[bytes, bytes, bytes]           # digest, salt, content of the recorded text
    forwarded: bytes
    lasting: bool                              # may be kept: means the same in every session of this meaning
    writes: bool
    barrier: bool                              # may change what text means
    alters: bool                               # changes the catalogue
    names: bool                                # prepares, declares, closes: names of the session
    ends: bool                                 # a transaction or a savepoint
    copies_in: bool
    reasons: tuple[tuple[tuple[str, ...], str], ...]     # (labels blocked, why)


class Verdict(msgspec.Struct, frozen=True, eq=False):
    studied: Studied
    decision: Decision
    meaning: int
    gate: int
    problem: Denial | None = None              # refused by its text, whatever policies say
