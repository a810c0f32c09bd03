"""Pure: how often something may be.  Times are monotonic seconds."""
from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Bucket:
    """So many a second, and so many at once."""

    rate: float
    burst: float
    left: float = field(init=False)
    since: float = field(default=0.0)

    def __post_init__(self) -> None:
        self.left = self.burst

    def take(self, now: float, amount: float = 1.0) -> bool:
        self.left = min(self.burst, self.left + max(0.0, now - self.since) * self.rate)
        self.since = now
        if self.left < amount:
            return False
        self.left -= amount
        return True
