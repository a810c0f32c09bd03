"""One timer for all that waits: it is set anew only for what is due before."""
from __future__ import annotations

from collections.abc import Callable


class Alarm:
    def __init__(self, timer: Callable[[float], None]) -> None:
        """`timer`: sets it to so many seconds from now, 0: not."""
        self._timer, self._set = timer, 0.0

    def wake(self, seconds: float) -> None:
        """After that, where it is not set already; 0: not."""
        if bool(seconds) != bool(self._set) or seconds < self._set:
            self._set = seconds
            self._timer(seconds)

    def woken(self) -> None:
        self._set = 0.0
