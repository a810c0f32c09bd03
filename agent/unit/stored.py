"""What the service manager keeps for the agent while none runs: its descriptor store, sd_notify(3), sd_listen_fds(3).

systemd hands it to the next agent at a restart, and after a crash; where the unit stops it is closed.  Without systemd
nothing is kept.
"""
from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from agent.unit.units import tell_systemd

LOG = logging.getLogger("weir.stored")

FIRST: Final = 3                      # SD_LISTEN_FDS_START
MOST: Final = 4096                    # descriptors; FileDescriptorStoreMax= of the unit is below
NAMELESS: Final = "unknown"           # as sd_listen_fds_with_names(3) calls them


def take_stored() -> list[tuple[str, int]]:
    """Names and descriptors, once, before anything is started: no child has them, nor reads of them."""
    pid, number, names = (os.environ.pop(one, "") for one in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"))
    if pid != str(os.getpid()) or not number.isdecimal() or len(number) > 9:
        return []                     # another process': inherited by mistake
    count, found = int(number), []
    called = names.split(":") if names else []
    for place, fd in enumerate(range(FIRST, FIRST + min(count, MOST))):
        with suppress(OSError):
            os.set_inheritable(fd, False)
            found.append((called[place] if len(called) == count else NAMELESS, fd))
    os.closerange(FIRST + MOST, FIRST + count)
    if len(found) != count:
        LOG.warning("the service manager has handed over %d descriptors, and said %d", len(found), count)
    return found


def store(name: str, descriptors: Sequence[int]) -> None:
    """The manager keeps copies of them by that name; one that it has already stays as it is."""
    tell_systemd("FDSTORE=1", f"FDNAME={name}", "FDPOLL=0", descriptors=descriptors)


def forget(name: str) -> None:
    """It closes what it has by that name."""
    tell_systemd("FDSTOREREMOVE=1", f"FDNAME={name}")
