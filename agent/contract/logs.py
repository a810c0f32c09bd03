"""One form for what agent, launcher, enforcer and recorder say on stderr, which they share.

On a terminal a line for people, `weir: TEXT`, with the part that speaks where it is not the agent itself.  Elsewhere (a
file, the journal) one JSON object a line: at (UTC), level, part, message, and of an error its type and place, never its
text, which may hold what peers sent.
"""
from __future__ import annotations

import json
import logging
import sys
import time
from types import TracebackType
from typing import Final

AGENT: Final = "weir.agent"


class Lines(logging.Formatter):
    """JSON."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(), "part": record.name, "message": record.getMessage(), **_error(record),
        }
        return json.dumps(line, ensure_ascii=False)


class Text(logging.Formatter):
    """For people: nothing in it moves a cursor."""

    def format(self, record: logging.LogRecord) -> str:
        part = "" if record.name == AGENT else f"{record.name.removeprefix('weir.')}: "
        error = "".join(f" ({name} {value})" for name, value in _error(record).items())
        text = record.getMessage() + error
        return "\n".join(f"weir: {part}{_visible(line)}" for line in text.splitlines() or [""])


def _error(record: logging.LogRecord) -> dict[str, str]:
    if not record.exc_info or record.exc_info[0] is None:
        return {}
    return {"error": record.exc_info[0].__name__, "where": _place(record.exc_info[2])}


def _place(traceback: TracebackType | None) -> str:
    """Where it was raised."""
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    return f"{traceback.tb_frame.f_code.co_filename}:{traceback.tb_lineno}" if traceback is not None else ""


def _visible(text: str) -> str:
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode()
                   for one in text.encode(errors="backslashreplace").decode())


def log_to_stderr() -> None:
    """Instead of whatever was set before."""
    lines = logging.StreamHandler(sys.stderr)
    lines.setFormatter(Text() if sys.stderr.isatty() else Lines())
    logging.basicConfig(level=logging.INFO, handlers=[lines], force=True)
