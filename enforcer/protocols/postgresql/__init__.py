"""PostgreSQL frontend/backend protocol 3.0 and 3.2."""
from __future__ import annotations

import struct
from typing import Final

from agent.contract.credential import Credential
from agent.contract.target import ColumnLabel
from enforcer.core.context import Context
from enforcer.core.layer import Layer
from enforcer.protocols import Protocol
from enforcer.words.commands import Explain

SSL_REQUEST: Final = struct.pack("!II", 8, 80877103)
_STARTUPS: Final = frozenset((80877102, 80877103, 80877104))       # cancel, TLS, GSSAPI: documentation 55.7


def _layer(context: Context) -> Layer:
    # The codec's tests import this folder without a grammar and a policy engine behind it.
    from enforcer.protocols.postgresql.layer import PostgresqlLayer

    return PostgresqlLayer(context)


def _read_catalogue(
    *, host: str, port: int, credential: Credential, database: str, ssl_context: object,
    labels: tuple[ColumnLabel, ...], version: int, link: object,
) -> object:
    from enforcer.protocols.postgresql.catalogue import load_catalogue

    return load_catalogue(
        host=host, port=port, credential=credential, database=database, ssl_context=ssl_context, labels=labels,
        version=version, link=link,
    )


def _catalogue_statements() -> tuple[str, ...]:
    from enforcer.protocols.postgresql.catalogue import statements

    return statements()


def _read_plan(
    *, host: str, port: int, credential: Credential, database: str, ssl_context: object, explain: Explain,
    link: object,
) -> tuple[str, int]:
    from enforcer.protocols.postgresql.plan import read_plan

    return read_plan(
        host=host, port=port, credential=credential, database=database, ssl_context=ssl_context, explain=explain,
        link=link)


def _plan_statements(explain: Explain) -> tuple[str, ...]:
    from enforcer.protocols.postgresql.plan import plan_statements

    return plan_statements(explain)


def _speaks(first: bytes) -> bool:
    if len(first) < 8:
        return False
    length, code = struct.unpack_from("!II", first)
    return 8 <= length <= 10_000 and (code in _STARTUPS or code >> 16 == 3)


def _render_cancel(process: int, secret: bytes) -> bytes:
    """CancelRequest; the key is longer than 4 bytes in protocol 3.2."""
    return struct.pack("!III", 12 + len(secret), 80877102, process & 0xFFFFFFFF) + secret


protocol: Final = Protocol(
    "postgresql", _layer, _speaks, SSL_REQUEST, _render_cancel, _read_catalogue, _catalogue_statements,
    _read_plan, _plan_statements)
