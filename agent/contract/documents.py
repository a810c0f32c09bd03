"""JSON that programs read and a person may look at: nothing in it writes to the terminal by itself.

JSON itself escapes only what is below U+0020 (RFC 8259, 7); U+009B alone is CSI to a terminal (ECMA-48, 5.4), and
U+202E turns the rest of a line round.
"""
from __future__ import annotations

from typing import Any

import msgspec


def render_json(value: Any, indent: int = 0) -> str:
    """One document, without a newline at its end; `indent` 0: on one line."""
    raw = msgspec.json.encode(value)
    text = (msgspec.json.format(raw, indent=indent) if indent else raw).decode()
    return text if text.isprintable() else "".join(
        one if one.isprintable() or one == "\n" else _escape(one) for one in text)


def _escape(one: str) -> str:
    units = one.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
