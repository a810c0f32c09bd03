"""Pure: texts that others wrote, as they may stand in files that are read again."""
from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Final

from agent.contract.said import safe

WIDTH: Final = 116


def quoted(text: str) -> str:
    """A TOML basic string of printable ASCII."""
    return '"' + "".join(
        f"\\{one}" if one in '"\\' else one if " " <= one <= "~" else
        f"\\u{ord(one):04X}" if ord(one) < 1 << 16 else f"\\U{ord(one):08X}" for one in text) + '"'


def several(texts: Iterable[str]) -> str:
    return f"[{', '.join(map(quoted, texts))}]"


def comment(text: str, mark: str = "#") -> str:
    """Wrapped; in ASCII, and one line however it was written."""
    shown = safe(text).encode("ascii", "backslashreplace").decode()
    return "".join(f"{mark} {line}\n" for line in textwrap.wrap(shown, WIDTH - 1 - len(mark), break_on_hyphens=False))
