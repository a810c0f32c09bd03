"""The order of requests that name paths: none overtakes another about the same place, where one of them changes it.

The draft asks for the order of requests on the same file (section 3); what is judged waits for answers, so what is
behind it would overtake.  Places are compared as the client wrote them.
"""
from __future__ import annotations

from collections import deque
from collections.abc import Callable

from enforcer.protocols.ssh.sftp.paths import within


class Step:
    __slots__ = ("_start", "behind", "mutates", "owed", "places")

    def __init__(self, places: tuple[bytes, ...], mutates: bool, start: Callable[[], None]) -> None:
        self.places, self.mutates, self._start = places, mutates, start
        self.owed = 0                          # steps before it that are not past
        self.behind: list[Step] = []

    def start(self) -> None:
        self._start()

    def waits_for(self, other: Step) -> bool:
        if not (self.mutates or other.mutates):
            return False
        return any(within(one, two) or within(two, one) for one in self.places for two in other.places)


class Order:
    __slots__ = ("_ready", "_running", "_steps")

    def __init__(self) -> None:
        self._steps: dict[Step, None] = {}     # not past, in the order in which they came
        self._ready: deque[Step] = deque()
        self._running = False

    def __len__(self) -> int:
        return len(self._steps)

    def enter(self, step: Step) -> None:
        for other in self._steps:
            if step.waits_for(other):
                other.behind.append(step)
                step.owed += 1
        self._steps[step] = None
        if not step.owed:
            self._run(step)

    def leave(self, step: Step) -> None:
        """It was sent to the server, or never will be."""
        del self._steps[step]
        for other in step.behind:
            other.owed -= 1
            if not other.owed:
                self._ready.append(other)
        self._run()

    def _run(self, *steps: Step) -> None:
        self._ready.extend(steps)
        if self._running:                      # a loop, not a recursion: a step may leave as it starts
            return
        self._running = True
        try:
            while self._ready:
                self._ready.popleft().start()
        finally:
            self._running = False
