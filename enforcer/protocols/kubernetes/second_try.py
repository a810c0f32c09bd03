"""What people said no to, for a client's second try.

kubectl and client-go ask for exec, attach and port-forward again over SPDY where WebSocket is refused, whatever the
reason (client-go, tools/remotecommand/fallback.go).  Somebody who has said no is not asked again for that.
"""
from __future__ import annotations

from typing import Final

from enforcer.core.context import Context

SOON: Final = 10 * 10**9              # nanoseconds in which a second try comes
MOST: Final = 64                      # that are kept of a target
_NAME: Final = "kubernetes: refused"
_Kept = dict[tuple[object, ...], tuple[int, str]]


def keep_no(context: Context, asked: bytes, reason: str) -> None:
    """To the same process, for the same path and query."""
    kept, key = _kept(context), _key(context, asked)
    if kept is None or key is None:
        return
    kept.pop(key, None)
    while len(kept) >= MOST:
        del kept[next(iter(kept))]
    kept[key] = context.monotonic() + SOON, reason


def take_no(context: Context, asked: bytes) -> str:
    """Once; "" where nobody has said anything."""
    kept, key = _kept(context), _key(context, asked)
    if kept is None or key is None:
        return ""
    until, reason = kept.pop(key, (0, ""))
    return reason if context.monotonic() < until else ""


def _kept(context: Context) -> _Kept | None:
    found = None if context.shared is None else context.shared.setdefault(_NAME, {})
    return found if isinstance(found, dict) else None


def _key(context: Context, asked: bytes) -> tuple[object, ...] | None:
    owner = context.principal.owner
    process = owner.process
    if process is None or not process.started:
        return None
    return process.pid, process.started, owner.workload, context.principal.subject, asked
