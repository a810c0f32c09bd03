"""What is added to a session's recording, as it comes.

Files are opened for each look and closed again: whoever kept one open would keep the recorder from closing it.
"""
from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from enforcer.recording.read import Entry, Reader
from enforcer.recording.store import list_files
from enforcer.words import events
from enforcer.words.errors import RecordingError

PAUSE: Final = 0.5                    # seconds between looks
PATIENCE: Final = 120.0               # seconds in which a recording that cannot be opened may be there again


def follow(directory: Path, session: str, after: int, pause: float = PAUSE) -> Iterator[Entry]:
    """Events of it that come after this one, to the end of the session.  Raises RecordingError."""
    newest: Path | None = None
    since = time.monotonic()
    closed = False
    while True:
        last = closed                 # what an end leaves behind comes with it, or just after
        try:
            files = list_files(directory)
            with Reader(files[files.index(newest):] if newest in files else files) as reader:
                found = list(reader.entries(session, after=after))
        except (RecordingError, sqlite3.Error, OSError) as reason:
            if time.monotonic() - since > PATIENCE:
                raise RecordingError(f"{directory}: {reason}") from reason
            time.sleep(pause)
            continue
        newest, since = files[-1] if files else None, time.monotonic()
        for entry in found:
            after, closed = entry.seq, closed or entry.kind == events.SESSION_CLOSED
            yield entry
        if last:
            return
        time.sleep(pause)
