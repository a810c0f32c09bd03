"""Parameters of a Bind as they are recorded and shown to approvers."""
from __future__ import annotations

from typing import Final

from enforcer.protocols.postgresql.book import pack_parameters
from enforcer.protocols.postgresql.messages import Bind
from enforcer.protocols.postgresql.studied import Verdict

VALUE_LIMIT: Final = 64 << 10         # bytes of one parameter as recorded
VALUES_LIMIT: Final = 4 << 20         # bytes of all of them; after that a parameter is recorded by its size


def render_parameters(bind: Bind, verdict: Verdict) -> bytes:
    if not bind.values:
        return b""
    if verdict.studied.analysis.hide_parameters:
        return pack_parameters([None if value is None else "***" for value in bind.values])
    formats, room = bind.formats, VALUES_LIMIT
    shown: list[str | None] = []
    for i, value in enumerate(bind.values):
        form = formats[i] if i < len(formats) and len(formats) > 1 else formats[0] if formats else 0
        shown.append(_value(value, form) if room > 0 or value is None else f"... ({len(value)} bytes)")
        room -= len(shown[-1] or "")
    return pack_parameters(shown)


def _value(value: bytes | None, form: int) -> str | None:
    if value is None:
        return None
    shown = value[:VALUE_LIMIT]
    text = "\\x" + shown.hex() if form else shown.decode("utf-8", "replace")
    return text if len(value) <= VALUE_LIMIT else f"{text}... ({len(value)} bytes)"
