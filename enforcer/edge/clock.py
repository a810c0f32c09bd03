"""Clocks, and names that sort by time."""
from __future__ import annotations

import os
import time
from typing import Final

from agent.contract import clock

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"     # Crockford's base 32, as ULID


def now() -> int:
    """Nanoseconds UTC."""
    return time.time_ns()


def monotonic() -> int:
    """CLOCK_BOOTTIME nanoseconds: never steps back, counts while the host sleeps."""
    return clock.uptime()


def boot() -> str:
    """Which boot of the host this is (random(4)); "" where that cannot be read."""
    try:
        return clock.boot()
    except OSError:
        return ""


def session_name() -> str:
    """26 characters, a ULID: 48 bits of milliseconds, then 80 unpredictable bits."""
    number = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))
