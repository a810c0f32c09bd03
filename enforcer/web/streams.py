"""Edge: what browsers are told as it happens (HTML, server-sent events).

Whoever has a page open is told of changes that the agent told of; nothing is asked in between but whether the session
still holds, with each beat.
"""
from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from enforcer.web.shown import BEAT

MOST: Final = 128                     # streams, and
EACH: Final = 6                       # of one session: so many connections a browser opens to one place
PAUSE: Final = 0.3                    # seconds between two lists on one stream
Fresh = Callable[[], Awaitable[str | None]]        # what is shown now; None: the session is over


@dataclass(eq=False)
class Stream:
    session: str
    kind: str                         # "holds" | "sessions" | "lines"
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    over: bool = False


class Streams:
    """`watch(on)` is called when the first one opens and the last one ends."""

    def __init__(self, watch: Callable[[bool], None]) -> None:
        self._watch = watch
        self._all: set[Stream] = set()

    def __len__(self) -> int:
        return len(self._all)

    def open(self, session: str, kind: str) -> Stream | None:
        """None: there are too many."""
        count = Counter(one.session for one in self._all)
        if len(self._all) >= MOST or count[session] >= EACH:
            return None
        stream = Stream(session, kind)
        self._all.add(stream)
        if len(self._all) == 1:
            self._watch(True)
        return stream

    def close(self, stream: Stream) -> None:
        if stream in self._all:
            self._all.remove(stream)
            if not self._all:
                self._watch(False)

    def changed(self, holds: bool, sessions: bool) -> None:
        for one in self._all:
            if (holds and one.kind == "holds") or ((sessions or holds) and one.kind == "sessions"):
                one.wake.set()

    def over(self, session: str) -> None:
        for one in self._all:
            if one.session == session:
                one.over = True
                one.wake.set()


async def events(
    stream: Stream, fresh: Fresh, holds: Callable[[], Awaitable[bool]], now: Callable[[], int],
    last: Callable[[], int] | None = None, poll: float = 0,
) -> AsyncIterator[bytes]:
    """Until the session is over.  `fresh` gives HTML, "" where there is nothing to say; `holds`: whether the session
    still does.  With `last` each is an addition, has that number, and is looked for every `poll` seconds."""
    said, silent = None, 0.0
    while not stream.over:
        stream.wake.clear()
        html = await fresh()
        if html is None:
            return
        if html and (last is not None or html != said):
            said, silent = html, 0.0
            yield render_event(stream.kind, html, last() if last is not None else None)
        await asyncio.sleep(PAUSE)
        while not stream.wake.is_set():
            wait = poll if last is not None else BEAT - 1
            try:
                async with asyncio.timeout(wait):
                    await stream.wake.wait()
            except TimeoutError:
                silent += wait
                if silent >= BEAT - 1 - wait / 2:
                    if not await holds():
                        return
                    silent = 0.0
                    yield render_event("beat", str(now()))
                if last is not None:
                    break


def render_event(name: str, data: str, number: int | None = None) -> bytes:
    """HTML, 9.2.6."""
    lines = data.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    head = f"event: {name}\n" + (f"id: {number}\n" if number is not None else "")
    return (head + "".join(f"data: {line}\n" for line in lines) + "\n").encode()
