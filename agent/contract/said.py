"""Words of crews and servers as people may be shown them, in a terminal or a browser alike.  Pure."""
from __future__ import annotations

import re
import unicodedata
from typing import Final

from agent.contract.messages import HoldView

FOREIGN: Final = 6                    # letters that are named one by one
# What takes no room or looks like a blank, and is "printable" all the same (Unicode, Default_Ignorable_Code_Point).
_UNSEEN: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
# Letters of Latin-1 and Latin Extended-A, but for those that look like others.
_LATIN: Final = re.compile("[\u00c0-\u017f]")
_ALIKE: Final = re.compile("[\u00d7\u00f7\u0131\u0138\u017f]")


def safe(text: str, lines: bool = False) -> str:
    """Without anything that moves a cursor or turns letters round: control characters and the like are shown as
    escapes."""
    return "".join(
        one if (one.isprintable() and not _UNSEEN.match(one)) or (lines and one == "\n")
        else one.encode("unicode_escape").decode()
        for one in text.encode(errors="backslashreplace").decode())


def foreign(*texts: str) -> str:
    """Letters that may look like others, by their names, a line each."""
    found = sorted({one for text in texts for one in text if not one.isascii() and one.isprintable()
                    and (not _LATIN.match(one) or _ALIKE.match(one))})
    named = [f"{safe(one)} is U+{ord(one):04X} {unicodedata.name(one, '')}".rstrip() for one in found[:FOREIGN]]
    more = [f"and {len(found) - FOREIGN} more that are not Latin"] if len(found) > FOREIGN else []
    return "\n".join([*named, *more])


def span(nanoseconds: int) -> str:
    """A time, in words."""
    seconds = max(0, nanoseconds // 1_000_000_000)
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def called(hold: HoldView) -> str:
    """What its text is."""
    return "Statement" if hold.action.startswith("sql:") else "Operation"


def lets_through(hold: HoldView) -> str:
    """What an approval lets through."""
    if hold.form == "elevation":
        return "context.elevated"
    if hold.form == "ticket":
        return "once, when it is asked again (its connection does not wait)"
    if hold.reuse == "command":
        return _of_command(hold)
    return {"session": "the same things in this session", "shape": "operations of this shape"}.get(hold.reuse, "once")


def _of_command(hold: HoldView) -> str:
    what = f": {safe(hold.covers)}" if hold.covers else " of the same shape"
    ends = f", for {span(hold.reuse_for * 1_000_000_000)} at most" if hold.reuse_for and hold.state == "pending" else ""
    return f"this and further requests of this command (pid {hold.pid}, {safe(hold.exe)}){what}, until it ends{ends}"
