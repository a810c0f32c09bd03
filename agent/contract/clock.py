"""Edge: the clock that nobody sets, and which boot of the host it counts since."""
from __future__ import annotations

import time
from pathlib import Path


def uptime() -> int:
    """CLOCK_BOOTTIME nanoseconds: never steps back, counts while the host sleeps."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def boot() -> str:
    """Which boot of the host this is (random(4)), other than any other one.  Raises OSError."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
