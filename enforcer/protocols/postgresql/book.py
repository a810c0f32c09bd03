"""The session's book: every intent and result, as events.

An operation is numbered when its intent is written.  Response digests are BLAKE2b-256 keyed with a salt over the bytes
of the DataRow and CopyData messages as they are delivered (for COPY FROM STDIN: as the client sent them).
"""
from __future__ import annotations

from hashlib import blake2b
from typing import Final

import msgspec

from enforcer.core.context import Context
from enforcer.hot.chain import DIGEST, make_digest
from enforcer.words import events
from enforcer.words.commands import Command, Record
from enforcer.words.decisions import PERMIT

SALT: Final = 16
NOTHING: Final = b""
HIDDEN: Final = "(not recorded: it may quote what must not be seen)"
_pack = msgspec.msgpack.Encoder().encode


class Operation:
    """One operation that was forwarded, until its result."""

    __slots__ = ("began", "bytes", "hash", "hides", "kept", "kept_bytes", "number", "rows", "salt")

    def __init__(self, number: int, began: int) -> None:
        self.number, self.began = number, began
        self.hides = False                     # its text or parameters hold what is not recorded
        self.rows = self.bytes = self.kept_bytes = 0
        self.salt = NOTHING
        self.hash: blake2b | None = None
        self.kept: list[bytes] = []


class Book:
    def __init__(self, context: Context) -> None:
        self._context = context
        self._session, self._now, self._monotonic = context.session, context.now, context.monotonic
        self.operations = 0
        self.records: list[Command] = []       # not yet given to the edge
        self.open: dict[int, Operation] = {}   # forwarded, without a result
        self._payload = context.target.payload == "rows"
        self._all_durable = context.durable == "all"
        self._none_durable = context.durable == "none"

    def intent(
        self, verb: str, decision: int, *, actor: str = "crew", forwarded: bytes = NOTHING,
        text: tuple[bytes, bytes, bytes] = (NOTHING, NOTHING, NOTHING), parameters: bytes = NOTHING,
        requests: tuple[tuple[str, str], ...] = (), rules: tuple[str, ...] = (), masks: tuple[str, ...] = (),
        reason: str = "", ticket: str = "", durable: bool = False,
    ) -> Operation:
        """`text` is (digest, salt, content) of the recorded text, `parameters` the packed ones."""
        self.operations += 1
        began = self._monotonic()
        blobs: tuple[events.Blob, ...] = (text,) if text[0] else ()
        named = NOTHING
        if parameters:
            salt = self._context.random(SALT)
            named = make_digest(salt, parameters)
            blobs += ((named, salt, parameters),)
        durable = (durable or self._all_durable) and not self._none_durable
        self.records.append(Record(events.Intent(
            events.INTENT, self._now(), began, self._session, self.operations, actor, verb, decision, forwarded,
            text[0], named, requests, rules, masks, reason, ticket, durable,
            self._context.reported() if actor == "crew" else (),
        ), blobs, True, durable))
        operation = Operation(self.operations, began)
        if decision == PERMIT:
            self.open[operation.number] = operation
        return operation

    def say(self, verb: str, text: bytes, forwarded: bytes = NOTHING) -> Operation:
        """An intent of Weir's own."""
        salt = self._context.random(SALT)
        return self.intent(verb, PERMIT, actor="weir", forwarded=forwarded, text=(make_digest(salt, text), salt, text))

    def deliver(self, operation: Operation, data: bytes, rows: int, hides: bool = False) -> None:
        if operation.hash is None:
            operation.salt = self._context.random(SALT)
            operation.hash = blake2b(digest_size=DIGEST, key=operation.salt)
        operation.hash.update(data)
        operation.rows += rows
        operation.bytes += len(data)
        if self._payload and not hides:
            room = self._context.target.payload_limit - operation.kept_bytes
            if room > 0:
                operation.kept.append(data[:room])
                operation.kept_bytes += min(room, len(data))

    def result(
        self, operation: Operation, status: str, tag: str = "", sqlstate: str = "", error: str = "", *,
        last: bool = True,
    ) -> None:
        """`last` False: more results of the same operation follow (a string of several statements)."""
        now = self._monotonic()
        blobs: list[events.Blob] = []
        response = operation.hash.digest() if operation.hash else NOTHING
        payload: tuple[bytes, ...] = ()
        if operation.kept:
            content = b"".join(operation.kept)
            whole = operation.kept_bytes == operation.bytes      # then it was hashed as it came
            payload = (response if whole else make_digest(operation.salt, content),)
            blobs.append((payload[0], operation.salt, content))
        trouble = NOTHING
        if error:
            if operation.hides and status == "error":          # the server's words may quote it
                error = HIDDEN
            salt, content = self._context.random(SALT), error.encode()
            trouble = make_digest(salt, content)
            blobs.append((trouble, salt, content))
        self.records.append(Record(events.Result(
            events.RESULT, self._now(), now, self._session, operation.number, status, tag, sqlstate, operation.rows,
            operation.bytes, now - operation.began, response, operation.salt, payload, trouble,
        ), tuple(blobs)))
        if last:
            self.open.pop(operation.number, None)
        else:
            operation.rows = operation.bytes = operation.kept_bytes = 0
            operation.hash, operation.salt, operation.kept = None, NOTHING, []

    def gap(self, reason: str) -> None:
        """Results of what is open will never be known."""
        if self.open:
            self.records.append(Record(events.Gap(
                events.GAP, self._now(), self._monotonic(), self._session, tuple(sorted(self.open)), reason,
            )))
            self.open.clear()

    def closed(self, reason: str, bytes_in: int, bytes_out: int) -> None:
        self.gap(reason)
        self.records.append(Record(events.SessionClosed(
            events.SESSION_CLOSED, self._now(), self._monotonic(), self._session, reason, self.operations, bytes_in,
            bytes_out,
        )))

    def take(self) -> list[Command]:
        records, self.records = self.records, []
        return records


def pack_parameters(values: list[str | None]) -> bytes:
    """Recorded parameters: a msgpack array of strings or nil; nothing for none."""
    return _pack(values) if values else NOTHING


def unpack_parameters(packed: bytes) -> list[str | None]:
    return msgspec.msgpack.decode(packed, type=list[str | None]) if packed else []
