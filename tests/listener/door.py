"""The other end of a listener's socket, for tests: what was said last, by the enforcer's own parser."""
from __future__ import annotations

import socket
from pathlib import Path
from typing import Self

from enforcer.core.reports import Frames, parse_report
from enforcer.words.reported import Calls


class Door:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(str(path))
        self._listening.listen()
        self._listening.setblocking(False)
        self._links: list[tuple[socket.socket, Frames]] = []
        self.frames = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.hang_up()
        self._listening.close()

    def hang_up(self) -> None:
        for link, _ in self._links:
            link.close()
        self._links.clear()

    @property
    def connections(self) -> int:
        self._accept()
        return len(self._links)

    def _accept(self) -> None:
        try:
            while True:
                link, _ = self._listening.accept()
                link.setblocking(False)
                self._links.append((link, Frames()))
        except BlockingIOError:
            pass

    def last(self) -> Calls | None:
        """Of the newest connection; None: nothing new."""
        self._accept()
        said = None
        for link, frames in self._links:
            try:
                while data := link.recv(65536):
                    count, body = frames.feed(data)
                    self.frames += count
                    said = said if body is None else parse_report(body)
            except BlockingIOError:
                pass
        return said
