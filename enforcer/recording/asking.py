"""Pages of the recording for who asks from afar, beside the recorder's own work: in a thread, one at a time, in bounded
time and size, over connections that only read and are closed again: whoever kept one open would keep the recorder from
closing its file.

That somebody reads is an event.  It is recorded before the page is given away, and once for the same reader and the
same thing within NOTED: a page that is looked at live asks again and again.
"""
from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Final

import msgspec

from agent.contract.ledger import HISTORY, LINES, PAGE, PAGES, SESSIONS, TAPE, AskRecording, RecordingAnswer
from enforcer.recording.paging import make_page

NOTED: Final = 600.0                  # seconds
READERS: Final = 1000                 # readers and things that are remembered
TIME: Final = 1.0                     # seconds that a page may take

_SAID: Final = {SESSIONS: ("sessions", ""), LINES: ("session", "session"), HISTORY: ("approvals", "subject"),
                TAPE: ("streams", "session")}

Tell = Callable[[str, dict[str, str]], object]


class PagesAsked:
    """`tell` records; what it records is committed before `take` gives the page away: by the recorder's turn."""

    def __init__(self, recording: Path, tell: Tell, clock: Callable[[], float] = time.monotonic) -> None:
        self._recording, self._tell, self._clock = recording, tell, clock
        self._noted: dict[tuple[str, str, str], float] = {}
        self._asked: SimpleQueue[AskRecording | None] = SimpleQueue()
        self._made: deque[RecordingAnswer] = deque()
        self._waiting = 0
        self._thread: threading.Thread | None = None

    def ask(self, question: AskRecording) -> None:
        self._waiting += 1            # until it is taken
        if self._waiting > PAGES:
            self._made.append(RecordingAnswer(question.number, wrong="too many ask for the recording: try again"))
            return
        self._note(question)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="pages", daemon=True)
            self._thread.start()
        self._asked.put(question)

    def take(self) -> RecordingAnswer | None:
        if not self._made:
            return None
        self._waiting -= 1
        return self._made.popleft()

    def close(self) -> None:
        if self._thread is not None:
            self._asked.put(None)
            self._thread.join(2 * TIME)

    def _note(self, question: AskRecording) -> None:
        now, key = self._clock(), (question.by, question.what, question.name)
        if now - self._noted.pop(key, now - 2 * NOTED) < NOTED:
            self._noted[key] = now
            return
        self._noted[key] = now
        while len(self._noted) > READERS:
            del self._noted[next(iter(self._noted))]
        what, kind = _SAID[question.what]
        named = {kind: question.name} if question.name else {}
        self._tell("read", {"what": what, "by": question.by, "through": "web", **named})

    def _run(self) -> None:
        while (question := self._asked.get()) is not None:
            self._made.append(self._answer(question))

    def _answer(self, question: AskRecording) -> RecordingAnswer:
        """Whatever is wrong with a file is this page's trouble, and not the recorder's."""
        try:
            content = msgspec.msgpack.encode(make_page(self._recording, question, time.monotonic() + TIME))
        except Exception as reason:
            return RecordingAnswer(question.number, wrong=f"it cannot be read: {reason}"[:300])
        if len(content) > PAGE:
            return RecordingAnswer(question.number, wrong="it is too large for a page: weir replay shows it")
        return RecordingAnswer(question.number, content)
