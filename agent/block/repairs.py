"""Pure: how often the block is repaired, and what is said of it.

Rules are put back at once each time: that costs milliseconds.  Probes cost a second of a processor, so that whoever
takes them away again and again would have the agent do nothing else: after some repairs in a row it waits,
longer each time.  The block is not whole meanwhile, and the state says so.
"""
from __future__ import annotations

from collections import deque
from typing import Final

MINUTE: Final = 60.0
OFTEN: Final = 5                      # in a row: somebody does it on purpose, or another program by mistake
FIRST, LONGEST = 2.0, 30.0            # seconds between attempts, once it is often; doubled each time
QUIET: Final = 10.0                   # seconds in which the same finding is recorded once,
MOST: Final = 5                       # and so many at all: a table flushed while it is read lacks now this, now that


class Repairs:
    """Times are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._streak = 0              # repairs with less than a minute between one and the next
        self._tried = self._last = -MINUTE
        self._wait, self._next = FIRST, 0.0
        self._told: tuple[str, ...] = ()
        self._times: deque[float] = deque((-MINUTE,), MOST)      # of what was recorded last
        self._untold = 0

    def may(self, found: tuple[str, ...], now: float) -> bool:
        """Whether to repair this now."""
        return now >= self._next or not any(one.startswith(("hook", "map", "the probes")) for one in found)

    def done(self, now: float, whole: bool = True) -> None:
        """`whole`: nothing is left to repair."""
        if now - self._tried > MINUTE:
            self._streak, self._wait = 0, FIRST
        self._tried = now
        if whole:
            self._streak, self._last = self._streak + 1, now
        if self._streak > OFTEN or not whole:
            self._next, self._wait = now + self._wait, min(self._wait * 2, LONGEST)

    def again(self, now: float) -> str:
        """Empty, or that it is taken away again and again: the same words each time, for each change of a state is an
        event."""
        if self._streak <= OFTEN or now - self._last > MINUTE:
            return ""
        return f"the block is taken away again and again, with less than a minute in between ({OFTEN} times and more)"

    def tell(self, found: tuple[str, ...], now: float) -> int:
        """How often this was found since it was recorded last; 0: it is not recorded again yet."""
        full = len(self._times) == MOST and now - self._times[0] < QUIET
        if full or (found == self._told and now - self._times[-1] < QUIET):
            self._untold += 1
            return 0
        self._told, times, self._untold = found, self._untold + 1, 0
        self._times.append(now)
        return times
