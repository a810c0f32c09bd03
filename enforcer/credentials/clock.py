"""Edge: how long something of Vault's lasts, by a clock that is never set and goes on while the machine sleeps."""
from __future__ import annotations

import asyncio
import math
import time
from typing import Final

MARGIN: Final = 60.0                  # seconds before its end, or a tenth of its life where that is less
LEAST: Final = 0.25                   # seconds between two tries to make it longer
RETRY: Final = 5.0                    # and at most, where the first failed


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Life:
    """Counts from when it is made, which is before what it is of was asked for."""

    def __init__(self) -> None:
        self._began, self._seconds, self._end = _now(), 0.0, 0.0
        self._tried = False

    def set(self, seconds: int) -> None:
        """0: it does not end."""
        self._seconds = float(seconds) or math.inf
        self._end = self._began + self._seconds

    def end(self) -> None:
        self._end = 0.0

    def left(self) -> float:
        return self._end - _now()

    def fresh(self) -> bool:
        """Whether something new may begin by it."""
        return self.left() > min(MARGIN, self._seconds / 10)

    def half(self) -> bool:
        """Whether half of it is left."""
        return self.left() > self._seconds / 2 or self._end == math.inf

    def expires(self) -> int:
        """Seconds UTC; 0: never."""
        return 0 if self._end == math.inf else int(time.time() + self.left())

    async def due(self) -> bool:
        """When it should be made longer: after half of what is left; soon where that has failed.  False: it is too
        late."""
        if self.left() <= 0 or self._end == math.inf:
            return False
        wait = min(RETRY, self.left() / 4) if self._tried else self.left() / 2
        self._tried = True
        await asyncio.sleep(max(LEAST, wait))
        return self.left() > 0

    def longer(self, other: Life) -> bool:
        """It lasts as `other` does from now on.  False: that is as long as it gets (Vault's max_ttl)."""
        capped = other._seconds < self._seconds * 0.9
        self._end, self._tried = other._end, False
        return not capped
