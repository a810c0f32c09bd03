"""Whether a process still runs: proc_pid_stat(5)."""
from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_TICK: Final = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_OVER: Final = (b"Z", b"X", b"x")     # it has ended, and its parent has not asked yet


def is_there(pid: int, started: int, proc: Path = Path("/proc")) -> bool:
    """`started`: CLOCK_BOOTTIME nanoseconds, as in agent.contract.owner.Process.  False where it cannot be seen."""
    try:
        with open(proc / str(pid) / "stat", "rb") as file:
            fields = file.read(4096).rpartition(b")")[2].split()
    except OSError:
        return False
    if len(fields) < 20 or not fields[19].isdigit() or fields[0] in _OVER:
        return False
    return started > 0 and int(fields[19]) * _TICK == started
