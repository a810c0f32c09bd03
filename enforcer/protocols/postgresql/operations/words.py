"""What is said of a text: what its names mean, what its statements do, and why one is refused."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from enforcer.protocols.postgresql.catalogue import Catalogue
from enforcer.words.operations import Request

TEXT_LIMIT: Final = 1 << 20           # bytes of a text that is analysed
CASTING: Final = "parameters of a type whose values run a function are not carried by Weir: use a cast"


@dataclass(frozen=True)
class Meaning:
    """What names mean; any change of the fields gives another version."""

    database: str
    role: str
    schemas: tuple[str, ...]          # effective search path, pg_catalog and the temporary schema included
    catalogue: Catalogue | None
    version: int
    altered: bool = False             # DDL of this transaction, which the catalogue does not know: names may have moved
    timeout: int = 0                  # milliseconds of statement_timeout; gives no other version


@dataclass(frozen=True)
class Statement:
    kind: str
    requests: tuple[Request, ...] = ()
    shows: tuple[str, ...] = ()       # labels that may be in its output, as bare columns
    blocked: tuple[str, ...] = ()     # labels whose way through it cannot be told: refused to who may not see them
    blocked_reason: str = ""
    barrier: bool = False             # may change what later text means
    alters_catalogue: bool = False
    writes: bool = False
    early: bool = False               # reading it may run a user's function
    copy: str = ""                    # "in" | "out"
    name: str = ""                    # of PREPARE, EXECUTE, DEALLOCATE, DECLARE, FETCH, CLOSE; "" is ALL
    inner: Analysis | None = None     # what PREPARE and DECLARE hold


@dataclass(frozen=True)
class Analysis:
    statements: tuple[Statement, ...]
    error: str = ""                   # why nothing of the text may be forwarded
    recorded: bytes = b""             # the text as recorded: what flows into labelled columns, and passwords, hidden
    hide_parameters: bool = False
    code: str = "42601"               # SQLSTATE of `error`
    hides: bool = False               # `recorded` was made by hiding, also where that left it as it was


class Refused(Exception):
    """A statement that is not forwarded whatever policy says: it changes how text is read."""
