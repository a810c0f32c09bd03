"""What the enforcer has the agent keep over restarts: tickets and elevations, one file each (docs/decisions/0024).

The content is the enforcer's own and is not read here.  Files are root's in a directory of root's; their number and
size are bounded.  When `keep` returns, the change is on the disk: a ticket that was forgotten stays forgotten, whatever
is killed.  One that the disk does not let go is given to no enforcer any more, and tried again when it is asked again.
"""
from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from agent.contract.messages import KEPT, TICKETS

DIRECTORY: Final = "tickets"
NAME: Final = re.compile(r"[a-z2-7]{8}")


class Tickets:
    """Raises OSError where the directory cannot be made; `tell` records."""

    def __init__(self, state: Path, tell: Callable[[str, Mapping[str, object]], None]) -> None:
        self._directory, self._tell = state / DIRECTORY, tell
        with suppress(FileExistsError):
            self._directory.mkdir(mode=0o700)
        os.chown(self._directory, 0, 0, follow_symlinks=False)
        self._directory.chmod(0o700)
        for path in tuple(self._directory.iterdir()):
            if path.name[:1] == "." and NAME.fullmatch(path.name[1:]):
                with suppress(OSError):
                    path.unlink()     # of an agent that was killed as it wrote
        self._known = {path.name for path in self._directory.iterdir() if NAME.fullmatch(path.name)}
        self._over: set[str] = set()  # known, and to be forgotten

    def keep(self, ticket: str, content: bytes) -> str:
        """Blocks.  What is wrong, or ""; with b"" it is forgotten."""
        if not NAME.fullmatch(ticket) or len(content) > KEPT:
            return "that is no ticket"
        if content and ticket not in self._known and len(self._known) >= TICKETS:
            return f"{TICKETS} tickets are kept, which is the most"
        if content and ticket in self._over:
            return "it was to be forgotten"
        try:
            if content:
                self._write(ticket, content)
            else:                     # known or not: a name may be there that could not be synced
                if ticket in self._known:
                    self._over.add(ticket)
                (self._directory / ticket).unlink(missing_ok=True)
            self._sync()
        except OSError as reason:
            return f"{self._directory}: {reason.strerror}"
        if content and ticket not in self._known:
            self._known.add(ticket)
            self._tell("ticket.kept", {"ticket": ticket})
        elif not content and ticket in self._known:
            self._known.discard(ticket)
            self._over.discard(ticket)
            self._tell("ticket.forgotten", {"ticket": ticket})
        return ""

    def forget_all(self) -> None:
        """Blocks.  What the disk does not let go is tried again, and given to nobody."""
        for ticket in tuple(self._known):
            self.keep(ticket, b"")

    def kept(self) -> dict[str, bytes]:
        """For an enforcer that starts.  Blocks."""
        for ticket in tuple(self._over):       # the one that was to ask again has ended
            self.keep(ticket, b"")
        found = {}
        for ticket in sorted(self._known - self._over)[:TICKETS]:
            with suppress(OSError), open(self._directory / ticket, "rb") as file:
                content = file.read(KEPT + 1)
                if len(content) <= KEPT:
                    found[ticket] = content
        return found

    def _write(self, ticket: str, content: bytes) -> None:
        fresh = self._directory / f".{ticket}"
        fresh.unlink(missing_ok=True)
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "wb") as file:
                file.write(content)
                file.flush()
                os.fdatasync(fd)
            fresh.rename(self._directory / ticket)
        except OSError:
            fresh.unlink(missing_ok=True)
            raise

    def _sync(self) -> None:
        fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
