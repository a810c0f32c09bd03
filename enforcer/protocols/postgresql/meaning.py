"""What names mean in a session now: asked in band, by a statement of Weir's own that the client never sees.

Names in it are qualified, so that nothing the session sets can change it.  Sources: PostgreSQL 15 documentation 9.26
(current_schemas), 54.18 (pg_prepared_statements).
"""
from __future__ import annotations

from dataclasses import replace
from typing import Final

import msgspec

from enforcer.protocols.postgresql.catalogue import Catalogue
from enforcer.protocols.postgresql.messages import render
from enforcer.protocols.postgresql.operations.words import Meaning
from enforcer.protocols.postgresql.settings import parse_time
from enforcer.words.errors import RemoteProtocolError

NAME: Final = b"weir_asks_what_names_mean"
ASK_TEXT: Final = (
    b"SELECT pg_catalog.json_build_array(pg_catalog.current_database(), CURRENT_USER, pg_catalog.current_schemas(true),"
    b" (SELECT pg_catalog.json_object_agg(name, statement) FROM pg_catalog.pg_prepared_statements),"
    b" pg_catalog.current_setting('statement_timeout'))"
)
# Parse, Bind, Execute, Close of statement and portal under a name that no client may use.
ASK: Final = b"".join((
    render(b"P", NAME + b"\0" + ASK_TEXT + b"\0\0\0"),
    render(b"B", NAME + b"\0" + NAME + b"\0" + bytes(6)),
    render(b"E", NAME + b"\0" + bytes(4)),
    render(b"C", b"P" + NAME + b"\0"),
    render(b"C", b"S" + NAME + b"\0"),
))
VERSIONS: Final = 4096                # of meanings, plain and altered, kept for a target


class Answer(msgspec.Struct, frozen=True, array_like=True):
    database: str
    role: str
    schemas: tuple[str, ...]
    prepared: dict[str, str] | None
    timeout: str = "0"


def parse_row(body: bytes) -> Answer:
    """From the DataRow's body: one column of JSON."""
    if len(body) < 6 or body[:2] != b"\0\1":
        raise RemoteProtocolError("the server's answer about names is malformed")
    try:
        return msgspec.json.decode(body[6:], type=Answer)
    except msgspec.MsgspecError:
        raise RemoteProtocolError("the server's answer about names is malformed") from None


def intern_meaning(shared: dict[object, object], meaning: Meaning) -> Meaning:
    """Equal meanings have equal versions, for all sessions of a target; a version is never used for another."""
    catalogue = meaning.catalogue.version if meaning.catalogue is not None else 0
    key = (meaning.database, meaning.role, meaning.schemas, catalogue)
    return Meaning(
        meaning.database, meaning.role, meaning.schemas, meaning.catalogue, _version(shared, "meanings", key))


def alter_meaning(shared: dict[object, object], known: Meaning) -> Meaning:
    """The same names while the transaction has DDL that the catalogue does not know; a version of its own."""
    if known.altered:
        return known
    return replace(known, version=_version(shared, "altered", known.version), altered=True)


def _version(shared: dict[object, object], kept: str, key: object) -> int:
    """The version that this key has among the `kept` ones, or the next of all."""
    versions: dict[object, int] = shared.setdefault(kept, {})  # type: ignore[assignment]
    number = versions.get(key)
    if number is None:
        count = shared.get("meaning", 0)
        number = shared["meaning"] = (count if isinstance(count, int) else 0) + 1
        if len(versions) >= VERSIONS:
            versions.clear()
        versions[key] = number
    return number


def parse_answer(body: bytes, catalogue: Catalogue | None) -> Meaning:
    answer = parse_row(body)
    return Meaning(answer.database, answer.role, answer.schemas, catalogue, 0, timeout=parse_time(answer.timeout))
