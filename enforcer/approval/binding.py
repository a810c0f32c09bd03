"""What an approval is bound to: HMAC over the parts, each with its length, so that none runs into the next.  Pure."""
from __future__ import annotations

import hmac
from hashlib import blake2b

import msgspec

from enforcer.approval.running import tell_running
from enforcer.core.context import Context
from enforcer.words.commands import Hold
from enforcer.words.decisions import COMMAND, SESSION, SHAPE

_encode = msgspec.msgpack.Encoder().encode


def bind_hold(key: bytes, context: Context, command: Hold, ticket: str) -> bytes:
    """The very operation of the very session."""
    return _bind(
        key, "hold", command.binding, ticket, context.session, str(command.operation), *_asker(context, command))


def bind_ticket(key: bytes, context: Context, command: Hold) -> bytes:
    """The same operation of whatever session: its exact bytes, parameters and what names meant; b"": cannot be told."""
    return _bind(key, "ticket", command.exact, *_asker(context, command)) if command.exact else b""


def bind_reuse(key: bytes, context: Context, command: Hold, reuse: str) -> bytes:
    """What an approval may be reused for; b"": for nothing else."""
    if reuse == SESSION:
        return _bind(key, "session", b"", context.session, *_asker(context, command))
    shape = command.shape or command.exact
    if reuse == COMMAND:
        return _bind_command(key, context, command, shape)
    return _bind(key, "shape", shape, *_asker(context, command)) if reuse == SHAPE and shape else b""


def _bind_command(key: bytes, context: Context, command: Hold, shape: bytes) -> bytes:
    """Where the protocol says in words what its shape covers, names of single things may differ; else they may not."""
    running = tell_running(context.principal.owner)
    if not running or not shape:
        return b""
    covers = ("all of", command.covers) if command.shape and command.covers else (command.action, command.asked.hex())
    return _bind(
        key, "command", shape, *running, context.target.name, command.database, command.account,
        context.principal.subject, context.principal.workload, *covers, _terms(command), *command.rules)


def bind_elevation(key: bytes, subject: str, target: str, seconds: int) -> bytes:
    return _bind(key, "elevation", b"", subject, target, str(seconds))


def _asker(context: Context, command: Hold) -> tuple[str, ...]:
    """Principal, target, database, what is asked of what, and the rules with all of their terms."""
    return (context.target.name, command.database, context.principal.subject, context.principal.workload,
            command.action, command.asked.hex(), _terms(command), *command.rules)


def _terms(command: Hold) -> str:
    return blake2b(_encode(command.terms), digest_size=16).hexdigest()


def _bind(key: bytes, what: str, content: bytes, *parts: str) -> bytes:
    whole = blake2b()
    for raw in (what.encode(), content, *(part.encode() for part in parts)):
        whole.update(len(raw).to_bytes(8, "big") + raw)
    return hmac.digest(key, whole.digest(), "sha256")
