"""Unix sockets of registered targets as crews dial them: listeners of the agent's, where views show them.

Each target that has `sockets` gets one listener, RUN/sockets/TARGET.  A view shows that directory as /run/sockets, with
a symbolic link from each configured path into it (agent/workload/view.py): so the path leads to the listener of now,
also after the agent has made it anew.  Everybody may connect; the enforcer serves only whom the agent knows as a crew's
process.
"""
from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from agent.contract.messages import REPORTS
from agent.settings.target_table import TargetEntry

DIRECTORY: Final = "sockets"          # below RUN
BACKLOG: Final = 1024
REPORTING: Final = ("/run/weir-reports", REPORTS)      # where crews report, in every view; as `links`


def open_local(
    directory: Path, targets: Iterable[TargetEntry], more: Iterable[str] = (),
    one: Callable[[Path, str], socket.socket] | None = None,
) -> dict[str, socket.socket]:
    """By target; `more`: names of others, which no target has.  The directory stays the same one: views that were made
    before show it.  `one`: gives that listener, made by `listen` or before.  Raises OSError."""
    directory.mkdir(mode=0o755, exist_ok=True)
    wanted = [*more, *(one.name for one in targets if one.sockets)]
    for path in directory.iterdir():
        if path.name not in wanted:
            path.unlink()
    return {name: (one or listen)(directory, name) for name in wanted}


def listen(directory: Path, name: str) -> socket.socket:
    """It appears by rename: a client finds the one before, or this one."""
    fresh = directory / f".{name}"
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        one.bind(str(fresh))
        fresh.chmod(0o666)
        one.listen(BACKLOG)
        fresh.rename(directory / name)
    except OSError as reason:
        one.close()
        raise OSError(reason.errno, f"{fresh}: {reason.strerror}") from None
    return one


def not_opened(opened: Mapping[str, socket.socket], targets: Iterable[TargetEntry]) -> list[str]:
    """Targets whose sockets nobody listens on: they came after the start."""
    return [one.name for one in targets if one.sockets and one.name not in opened]


def links(targets: Iterable[TargetEntry]) -> tuple[tuple[str, str], ...]:
    """Where a view has a socket, and its name in the directory."""
    return tuple((path, one.name) for one in targets for path in one.sockets)


def real_sockets(targets: Iterable[TargetEntry]) -> tuple[str, ...]:
    """Paths on the host that are databases' own, or of agents that have keys for SSH: no view shows what is there."""
    return tuple(dict.fromkeys(path for one in targets for path in (
        *one.sockets, one.upstream, *(row.agent for row in one.credentials)) if path))
