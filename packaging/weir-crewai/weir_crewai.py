"""Tells Weir, where it contains this process, which tool calls of which crews are active in it.

`import weir_crewai` is all; `python -m weir_crewai PROGRAM ...` does it for a program that does not.

Theory.  A call must be known to Weir before the tool can send a statement.  Handlers of CrewAI's event bus run in its
pool, later and in any order; its *stream sinks* are told in the thread that emits.  They belong to a context, which
CrewAI copies into the threads that it starts: so one is set at import, and again where a crew begins in a context that
has none, as a thread of somebody's own.  Whatever begins without either (an agent alone in such a thread) is told by
the bus' pool, a little later.  An event that came by both counts once.

Each frame is the whole: every call that is active.  It is written without waiting; where it cannot be, the connection
is closed (Weir then takes nothing for known) and made again at a later event.  Nothing here raises or blocks.
"""
from __future__ import annotations

import atexit
import contextvars
import json
import os
import socket
import struct
import threading
import time
from collections import OrderedDict
from typing import Any

__all__ = ["Reporter", "attach"]
PATH = "/run/weir-reports"
CALLS = 16                            # that are told; with more than one Weir takes none for certain
KNOWN = 256                           # active calls that are remembered
TEXT = 128                            # characters of a name
SEEN = 4096                           # events that are remembered
AGAIN = 1.0                           # seconds between attempts to connect
_STARTED = "tool_usage_started"
_ENDED = ("tool_usage_finished", "tool_usage_error")
_TASK_ENDED = ("task_completed", "task_failed")


class Reporter:
    """What is active in this process, and the connection by which it is told."""

    def __init__(self, path: str = PATH) -> None:
        self._path = path
        self._begin()

    def _begin(self) -> None:
        """Also in the child of a fork: what was active is its parent's, and so is the connection."""
        self._lock = threading.RLock()
        self._calls: OrderedDict[str, tuple[str, str, list[str]]] = OrderedDict()     # id -> tool, task id, names
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._link: socket.socket | None = None
        self._next = 0.0              # when it may be tried again

    def forked(self) -> None:
        link = self._link
        self._begin()
        if link is not None:
            link.close()

    def close(self) -> None:
        """Hang up."""
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def sink(self, source: Any, event: Any) -> None:
        """In the thread that emits it, in order."""
        self._event(source, event, True)

    def handler(self, source: Any, event: Any) -> None:
        """Out of the bus' pool: later, in any order."""
        self._event(source, event, False)

    def _event(self, source: Any, event: Any, in_order: bool) -> None:
        """Whatever comes, nothing goes wrong for the crew."""
        try:
            kind = event.type
            if kind == _STARTED or kind in _ENDED or kind in _TASK_ENDED:
                with self._lock:
                    self._take(kind, source, event, in_order)
        except Exception:  # noqa: S110
            pass

    def _take(self, kind: str, source: Any, event: Any, in_order: bool) -> None:
        if event.event_id in self._seen:
            return
        self._remember(event.event_id)
        if kind == _STARTED:
            names = [_crew(source, event), event.agent_role or event.agent_key, event.task_name, event.tool_name]
            self._calls[event.event_id] = (event.tool_name, str(event.task_id), [_text(one) for one in names])
            while len(self._calls) > KNOWN:
                self._calls.popitem(last=False)
        elif kind in _ENDED:
            self._end(event, in_order)
        elif not self._end_task(str(event.task_id)):
            return
        self.tell()

    def _end(self, event: Any, in_order: bool) -> None:
        """By the event that began it, which may still be in the bus' pool; or, where it names another (CrewAI's scopes
        were mixed up), the last call that looks like it."""
        began = event.started_event_id or ""
        if self._calls.pop(began, None) is not None:
            return
        self._remember(began)
        alike = [one for one, (tool, task, _) in self._calls.items()
                 if (tool, task) == (event.tool_name, str(event.task_id))]
        if alike and in_order:
            del self._calls[alike[-1]]

    def _end_task(self, task: str) -> bool:
        """No call outlives its task: one whose end was never said."""
        left = [one for one, (_, of, _) in self._calls.items() if of == task]
        for one in left:
            del self._calls[one]
        return bool(left)

    def _remember(self, event: str) -> None:
        self._seen[event] = None
        while len(self._seen) > SEEN:
            self._seen.popitem(last=False)

    # Telling

    def tell(self) -> None:
        """All that is active, to Weir, if it is there."""
        link = self._link
        frame = self._frame()
        if link is not None and _send(link, frame):
            return
        self.close()
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + AGAIN
        self._link = link = self._connect()
        if link is not None and not _send(link, frame):
            self.close()

    def _frame(self) -> bytes:
        last = list(self._calls.values())[-CALLS:]
        body = json.dumps({"calls": [names for _, _, names in last]}, ensure_ascii=False, separators=(",", ":"))
        data = body.encode("utf-8", "replace")
        return struct.pack("<I", len(data)) + data

    def _connect(self) -> socket.socket | None:
        if not os.path.exists(self._path):
            return None
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            link.setblocking(False)
            link.connect(self._path)
        except OSError:
            link.close()
            return None
        return link


def _send(link: socket.socket, frame: bytes) -> bool:
    """Whether all of it went: half a frame is worth nothing."""
    try:
        return link.send(frame, socket.MSG_NOSIGNAL) == len(frame)
    except OSError:
        return False


def _crew(source: Any, event: Any) -> Any:
    """The name of the crew, as far as the event or who emitted it leads to one."""
    for one in (source, getattr(source, "agent", None), getattr(event, "agent", None)):
        name = getattr(getattr(one, "crew", None), "name", None)
        if name:
            return name
    return ""


def _text(value: Any) -> str:
    text = "" if value is None else str(value)[:TEXT]
    return text if text.isprintable() else "".join(one if one.isprintable() else " " for one in text)


_attached: list[Reporter] = []
_sinks: contextvars.ContextVar[bool] = contextvars.ContextVar("weir_crewai_sinks", default=False)


def attach(path: str = "") -> Reporter:
    """Begin to report.  A second time it does nothing more.  Imports crewai."""
    if _attached:
        return _attached[0]
    reporter = Reporter(path or os.environ.get("WEIR_REPORTS") or PATH)
    _listen(reporter)
    _attached.append(reporter)
    atexit.register(reporter.close)
    os.register_at_fork(after_in_child=reporter.forked)
    reporter.tell()                   # so that Weir knows whose it is before anything happens
    return reporter


def _listen(reporter: Reporter) -> None:
    from crewai.events import (
        TaskCompletedEvent,
        TaskFailedEvent,
        ToolUsageErrorEvent,
        ToolUsageFinishedEvent,
        ToolUsageStartedEvent,
        crewai_event_bus,
    )

    for kind in (ToolUsageStartedEvent, ToolUsageFinishedEvent, ToolUsageErrorEvent, TaskCompletedEvent,
                 TaskFailedEvent):
        crewai_event_bus.on(kind)(reporter.handler)
    from crewai.events.stream_context import add_stream_sink
    from crewai.hooks import InterceptionPoint, register_hook

    def here(context: Any = None) -> None:
        if not _sinks.get():
            _sinks.set(True)
            add_stream_sink(reporter.sink)

    here()
    register_hook(InterceptionPoint.EXECUTION_START, here)


def main(arguments: list[str]) -> None:
    """`python -m weir_crewai [-m] PROGRAM ...`: run it as Python would."""
    import runpy
    import sys

    if not arguments or (arguments[0] == "-m" and len(arguments) < 2):
        sys.exit("usage: python -m weir_crewai PROGRAM.py|-m MODULE [ARGUMENT ...]")
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path[0] = os.path.dirname(os.path.abspath(arguments[0]))
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    import sys

    import weir_crewai  # noqa: F401  the one module, under its own name

    main(sys.argv[1:])
else:
    try:
        attach()
    except Exception:  # noqa: S110
        pass                          # a crewai that is too different: the crew runs all the same
