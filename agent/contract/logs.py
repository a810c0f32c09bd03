"""One form for what agent, launcher, enforcer and recorder say on stderr, which they share.

On a terminal a line for people, `weir: TEXT`, with the part that speaks where it is not the agent itself.  Elsewhere (a
file, a pipe) one JSON object a line: at (UTC), level, part, message, what it is about, and of an error its type and
place, never its text, which may hold what peers sent.  Where systemd has given its journal as stderr, the same as an
entry of that with fields (agent/contract/native_journal.py), and besides an entry for each host event.
"""
from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final

from agent.contract.native_journal import Sender, entry_of, is_journal, to_stream

AGENT: Final = "weir.agent"
EVENTS: Final = "weir.events"         # logger of host events: they are in the recording, and in the journal for people
ABOUT: Final = ("event", "session", "target", "workload", "subject", "ticket", "pid", "state", "what")
_EXTRA: Final = "weir"
_LOST: Final = "%d lines of the log were lost: journald did not take them"


def about(**values: object) -> dict[str, Any]:
    """`extra` of a line: what it is about, by names of ABOUT; never a secret, and nothing that a peer has sent."""
    return {_EXTRA: {name: str(value) for name, value in values.items() if name in ABOUT and value not in ("", None)}}


def event(name: str, workload: str, detail: Mapping[str, object]) -> None:
    """A host event, where there is a journal of systemd's: of its details what ABOUT names.  What people have written
    (reasons) is the recording's alone."""
    known = {key: value for key, value in detail.items() if key in ABOUT and key != "event"}
    said = "".join(f" {key}={value}" for key, value in known.items())
    logging.getLogger(EVENTS).info("%s%s", name, said, extra=about(
        **(known | {"event": name} | ({"workload": workload} if workload else {}))))


class Lines(logging.Formatter):
    """JSON."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(), "part": record.name, "message": record.getMessage(), **_about(record),
            **_error(record),
        }
        return json.dumps(line, ensure_ascii=False)


class Text(logging.Formatter):
    """For people: nothing in it moves a cursor."""

    def format(self, record: logging.LogRecord) -> str:
        part = "" if record.name == AGENT else f"{record.name.removeprefix('weir.')}: "
        error = "".join(f" ({name} {value})" for name, value in _error(record).items())
        text = record.getMessage() + error
        return "\n".join(f"weir: {part}{_visible(line)}" for line in text.splitlines() or [""])


class Entries(logging.Handler):
    """To journald; what it does not take goes to stderr.  Nobody waits for a journald that hangs: what neither takes is
    lost, and how much that was is said once it listens again."""

    def __init__(self, sender: Sender, stream: Callable[[bytes], bool] = to_stream) -> None:
        super().__init__()
        self.setFormatter(Lines())
        self._sender, self._stream = sender, stream
        self._lost = 0                # lines

    def emit(self, record: logging.LogRecord) -> None:
        try:
            entry = entry_of(record, _visible(record.getMessage()), {
                name: _visible(value) for name, value in (_about(record) | _error(record)).items()})
        except Exception:             # a line that cannot be made must not end what wanted to say it
            self.handleError(record)
            return
        if self._lost and self._sender.send(_say_lost(self._lost)):
            self._lost = 0
        if not self._sender.send(entry):
            self._lost += not self._stream(self.format(record).encode(errors="backslashreplace") + b"\n")

    def close(self) -> None:
        self._sender.close()
        super().close()


def _say_lost(lines: int) -> dict[str, str]:
    record = logging.LogRecord(AGENT, logging.ERROR, __file__, 0, _LOST, (lines,), None)
    return entry_of(record, record.getMessage(), {})


def _about(record: logging.LogRecord) -> dict[str, str]:
    found: dict[str, str] = getattr(record, _EXTRA, {})
    return found


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
    journal = is_journal()
    lines: logging.Handler = Entries(Sender()) if journal else logging.StreamHandler(sys.stderr)
    if not journal:
        lines.setFormatter(Text() if sys.stderr.isatty() else Lines())
    logging.basicConfig(level=logging.INFO, handlers=[lines], force=True)
    logging.getLogger(EVENTS).disabled = not journal
