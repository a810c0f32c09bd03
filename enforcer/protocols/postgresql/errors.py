"""What a client reads when Weir refuses: the protocol's own error, with a reason that a person or a model can act on.

Source: PostgreSQL 15 documentation, 55.8 Error and Notice Message Fields; Appendix A, error codes.
"""
from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from enforcer.protocols.postgresql.messages import parse_error, render, render_error
from enforcer.words.decisions import Decision
from enforcer.words.errors import RemoteProtocolError

INSUFFICIENT_PRIVILEGE: Final = "42501"
SYNTAX_ERROR: Final = "42601"
QUERY_CANCELED: Final = "57014"
ADMIN_SHUTDOWN: Final = "57P01"
FEATURE_NOT_SUPPORTED: Final = "0A000"
PROTOCOL_VIOLATION: Final = "08P01"
CONNECTION_FAILURE: Final = "08006"
CANNOT_CONNECT: Final = "08001"
INVALID_AUTHORIZATION: Final = "28000"
IO_ERROR: Final = "58030"
INTERNAL_ERROR: Final = "XX000"
IN_FAILED_TRANSACTION: Final = "25P02"
NO_STATEMENT: Final = "26000"
NO_PORTAL: Final = "34000"
LIMIT_EXCEEDED: Final = "54000"

# Fields that may quote values of rows: detail, where, internal query, its position.
_TELLING: Final = b"DWqp"
# Fields that a function's RAISE may fill besides the message: hint, names of things.
_SPOKEN: Final = b"Hstcdn"
# Contexts of the server's own; what else has one was said inside of a function, in its words.
_CONTEXT: Final = re.compile(rb"W(COPY |JSON data, line |while )[^\n]*")
_UNSHOWN: Final = b"MWeir does not show what functions say on a target with labelled columns"


@dataclass(frozen=True, slots=True)
class Denial:
    code: str
    message: str
    detail: str = ""
    hint: str = ""
    early: bool = False               # the server finds it before it minds that the transaction is aborted

    def render(self, severity: str = "ERROR") -> bytes:
        return render_error(severity, self.code, self.message, self.detail, self.hint)


ABORTED: Final = Denial(
    IN_FAILED_TRANSACTION, "current transaction is aborted, commands ignored until end of transaction block")


class Fatal(Exception):
    """The session ends with these words."""

    def __init__(self, denial: Denial) -> None:
        super().__init__(denial.message)
        self.denial = denial


def no_statement(name: bytes) -> Denial:
    shown = name.decode("utf-8", "replace")
    return Denial(NO_STATEMENT, f'prepared statement "{shown}" does not exist' if name else
                  "unnamed prepared statement does not exist", early=True)


def no_portal(name: bytes) -> Denial:
    return Denial(NO_PORTAL, f'portal "{name.decode("utf-8", "replace")}" does not exist', early=True)


def denied(decision: Decision, session: str, operation: int) -> Denial:
    """A policy's no."""
    rules = ", ".join(decision.rules) or "none permits it"
    return Denial(
        INSUFFICIENT_PRIVILEGE, decision.reason or "permission denied by policy", f"Weir policy: {rules}.",
        f"The session goes on; asking again in other words will not help. Recorded as operation {operation} of session "
        f"{session}.",
    )


def scrub(body: bytes) -> bytes:
    """ErrorResponse or NoticeResponse without the fields that may quote labelled values, and without the words of
    functions (a trigger's RAISE), which may be anything."""
    pieces = [piece for piece in body.split(b"\0") if piece]
    if any(piece[0] == 0x57 and not _CONTEXT.fullmatch(piece) for piece in pieces):
        pieces = [_UNSHOWN if piece[0] == 0x4D else piece for piece in pieces if piece[0] not in _SPOKEN]
    return b"\0".join(piece for piece in pieces if piece[0] not in _TELLING) + b"\0\0"


def told(body: bytes) -> tuple[str, str, str]:
    """(SQLSTATE, severity, text for the recording) of an ErrorResponse."""
    fields = parse_error(body)
    return fields.get("C", ""), fields.get("V", fields.get("S", "")), fields.get("M", "")


def render_scrubbed(kind: bytes, body: bytes) -> bytes:
    return render(kind, scrub(body))


def render_unsaid(body: bytes) -> bytes:
    """NotificationResponse without its payload (55.7: process, channel, payload)."""
    if len(body) < 6:
        raise RemoteProtocolError("the server sent a malformed NotificationResponse")
    return render(b"A", body[:4] + body[4:].split(b"\0")[0] + b"\0\0")
