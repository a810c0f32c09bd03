"""`analyse`: a text as a whole, its statements in order, each under the names that those before it leave."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import msgspec
from pglast.parser import ParseError, parse_sql_json

from agent.contract.target import Target
from enforcer.protocols.postgresql.operations.reader import UNKNOWN, Reader
from enforcer.protocols.postgresql.operations.redaction import hide, hide_passwords, unread
from enforcer.protocols.postgresql.operations.statements import read
from enforcer.protocols.postgresql.operations.tree import Node
from enforcer.protocols.postgresql.operations.words import TEXT_LIMIT, Analysis, Meaning, Refused, Statement

TREE_LIMIT: Final = 16 << 20          # bytes of a parse tree; reading one takes about a second
STATEMENTS_LIMIT: Final = 1000
_ANYTHING: Final = frozenset(("do", "call", "execute"))
_LATER: Final = frozenset(("prepare", "execute"))      # PREPARE's text is read again for each EXECUTE of it
_ENDS: Final = frozenset(("commit", "rollback", "rollback_to", "release"))


def analyse(text: str, meaning: Meaning, target: Target, prepared: Mapping[str, Analysis]) -> Analysis:
    """`prepared` are the session's prepared statements, asked by name when an EXECUTE names one."""
    raw = text.encode()
    if len(raw) > TEXT_LIMIT:
        return unread(text, target, f"a statement of {len(raw)} bytes is longer than {TEXT_LIMIT}", "54000")
    try:
        parsed = parse_sql_json(text)
        if len(parsed) > TREE_LIMIT:
            return unread(text, target, "the statement has too many parts", "54001")
        tree = msgspec.json.decode(parsed)
    except ParseError as error:
        return unread(text, target, str(error.args[0]), "42601")
    except (ValueError, RecursionError, msgspec.DecodeError):
        return unread(text, target, "the statement is nested too deeply", "54001")
    nodes = [entry["stmt"] for entry in tree.get("stmts", ()) if entry.get("stmt")]
    if len(nodes) > STATEMENTS_LIMIT:
        reason = f"{len(nodes)} statements in one string; at most {STATEMENTS_LIMIT}"
        return unread(text, target, reason, "54001")
    hidden: set[int] = set()
    try:
        readers, statements = _read(nodes, meaning, target, prepared, hidden)
    except RecursionError:
        return unread(text, target, "the statement is nested too deeply", "54001")
    except Refused as refused:
        return unread(text, target, str(refused), "0A000")
    every = any(reader.secret for reader in readers)
    parameters = every or any(reader.hides_parameters for reader in readers)
    hides = bool(hidden) or every
    recorded = hide(text, hidden, every) if hides else raw
    if not every and any(one.barrier or one.alters_catalogue for one in statements):
        shown = hide_passwords(recorded)
        hides, recorded = hides or shown != recorded, shown
    return Analysis(statements, "", recorded, parameters, hides=hides)


def _read(
    nodes: list[Node], meaning: Meaning, target: Target, prepared: Mapping[str, Analysis], hidden: set[int]
) -> tuple[list[Reader], tuple[Statement, ...]]:
    """Each statement under the names that those before it in the string leave.  Raises Refused where that cannot be
    told: the server decides the whole string at once, before any of it has run."""
    readers, statements = [], []
    shifted = lost = False
    altered = meaning.altered
    made: set[str] = set()
    for node in nodes:
        reader = Reader(meaning, target, prepared, hidden, altered, made)
        statement = read(reader, node)
        if (lost and (reader.found.resolves or statement.kind in _ANYTHING)) or (
                shifted and statement.kind in _LATER):
            raise Refused("what names mean changes in the middle of the string: send the rest in a message of its own")
        shift = reader.found.shift
        lost |= shift is UNKNOWN or (shifted and statement.kind in _ENDS)
        shifted |= shift is not None
        altered |= statement.alters_catalogue or reader.found.doubtful
        if shift is not None and shift is not UNKNOWN:
            meaning, lost = replace(meaning, schemas=shift), False
        readers.append(reader)
        statements.append(statement)
    return readers, tuple(statements)
