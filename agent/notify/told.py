"""STATE/notify.json: what was told where, so that a restart of the agent brings up to date what stands in a chat, and
tells nothing twice.  Statement, parameters and plan are not in it.  Where it cannot be read it is begun anew: at worst
something is told once more."""
from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final

import msgspec

from agent.contract.messages import HoldView
from agent.contract.notify import MOST, Notice
from agent.layout import write_whole

LOG = logging.getLogger("weir.notify")

NAME: Final = "notify.json"
LIMIT: Final = 16 << 20               # bytes
KEPT: Final = MOST + 400              # of what is over some more
_Notices = Annotated[tuple[Notice, ...], msgspec.Meta(max_length=KEPT)]


def read_told(path: Path) -> tuple[Notice, ...]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ()
    with open(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            LOG.warning("%s is not a file that only root may write: it is not read", path)
            return ()
        try:
            return msgspec.json.decode(file.read(LIMIT), type=_Notices)
        except (OSError, ValueError):
            LOG.warning("%s cannot be read: it is begun anew", path)
            return ()


def write_told(path: Path, notices: Iterable[Notice]) -> None:
    """Blocks.  Raises OSError."""
    write_whole(path, msgspec.json.encode([without_texts(one) for one in notices if one.places]), 0o600)


def without_texts(notice: Notice) -> Notice:
    return msgspec.structs.replace(notice, links={}, view=bare(notice.view))


def bare(view: HoldView) -> HoldView:
    """Without what may hold data."""
    return msgspec.structs.replace(view, text="", parameters=(), plan="")
