"""What stood on a terminal's screen, line by line, as it was drawn.  Pure; pyte is the terminal.

A line is read when the cursor leaves it, and before anything takes it away (erasing, scrolling, another screen): so
what was corrected while it was typed, was coloured or drawn piece by piece is a word like any other, and what scrolled
off or was cleared is there too.  What a terminal wraps is one line.
"""
from __future__ import annotations

import unicodedata
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

import pyte

from enforcer.recording.escapes import Escapes
from enforcer.recording.tapes import HEIGHT, WIDTH

JOINED: Final = 16 << 10              # characters of one line that was wrapped
FED: Final = 512                      # characters between looks at the clock
OTHER_SCREEN: Final = (47, 1047, 1049)
_LEAVING: Final = (
    "carriage_return", "reverse_index", "cursor_up", "cursor_down", "cursor_up1", "cursor_down1", "cursor_position",
    "cursor_to_line", "erase_in_line", "delete_characters", "insert_characters", "erase_characters", "restore_cursor")
_TAKING: Final = ("erase_in_display", "insert_lines", "delete_lines", "reset", "resize")


class Screen(pyte.Screen):
    """`tell` is given each line that was drawn."""

    def __init__(self, columns: int, lines: int, tell: Callable[[str], None]) -> None:
        self._tell, self._touched, self._joined, self._drawing = tell, set[int](), "", False
        self._aside: tuple[Any, Any] | None = None
        super().__init__(columns, lines)

    def draw(self, data: str) -> None:
        self._touched.add(self.cursor.y)
        self._drawing = True
        try:
            super().draw(data)
        finally:
            self._drawing = False
        self._touched.add(self.cursor.y)

    def linefeed(self) -> None:
        if self._drawing and len(self._joined) < JOINED:       # the terminal wraps: the line goes on below
            self._joined += self.text(self.cursor.y)
            self._touched.discard(self.cursor.y)
        else:
            self.read()
        super().linefeed()

    def index(self) -> None:
        top = self.margins.top if self.margins else 0
        bottom = self.margins.bottom if self.margins else self.lines - 1
        if self.cursor.y == bottom:   # everything moves up by one
            self._read_line(top)
            self._touched = {one - 1 if top < one <= bottom else one for one in self._touched}
        super().index()

    def set_mode(self, *modes: int, **kwargs: Any) -> None:
        if kwargs.get("private") and any(one in OTHER_SCREEN for one in modes):
            self._exchange(True)
        super().set_mode(*modes, **kwargs)

    def reset_mode(self, *modes: int, **kwargs: Any) -> None:
        if kwargs.get("private") and any(one in OTHER_SCREEN for one in modes):
            self._exchange(False)
        super().reset_mode(*modes, **kwargs)

    def _exchange(self, other: bool) -> None:
        """The other screen; what stood on this one stays."""
        self.read_all()
        if other and self._aside is None:
            self._aside = dict(self.buffer), (self.cursor.x, self.cursor.y)
            self.buffer.clear()
        elif not other and self._aside is not None:
            (lines, (x, y)), self._aside = self._aside, None
            self.buffer.clear()
            self.buffer.update(lines)
            self.cursor.x, self.cursor.y = min(x, self.columns - 1), min(y, self.lines - 1)

    def read(self) -> None:
        """The line that the cursor is on."""
        self._read_line(self.cursor.y)

    def read_all(self) -> None:
        for number in sorted(self._touched):
            self._read_line(number)

    def _read_line(self, number: int) -> None:
        if number not in self._touched:
            if number == self.cursor.y and self._joined:
                self._give("")
            return
        self._touched.discard(number)
        self._give(self.text(number) if number < self.lines else "")

    def _give(self, text: str) -> None:
        text, self._joined = (self._joined + text).rstrip(), ""
        if text:
            self._tell(text)

    def text(self, number: int) -> str:
        line = self.buffer[number]
        return "".join(line[x].data for x in range(self.columns))

    def write_process_input(self, data: str) -> None:
        """Nobody is asked."""


def _before(name: str, everything: bool) -> Callable[..., None]:
    below = getattr(pyte.Screen, name)

    def act(self: Screen, *values: Any, **more: Any) -> None:
        if hasattr(self, "cursor") and not self._drawing:
            self.read_all() if everything else self.read()
        below(self, *values, **more)

    return act


for _name in _LEAVING:
    setattr(Screen, _name, _before(_name, False))
for _name in _TAKING:
    setattr(Screen, _name, _before(_name, True))


class Drawn:
    """Text in, lines out.  Nothing that a server sends makes it slow out of proportion: sequences are filtered first,
    combining marks are put together with their letters or left out."""

    def __init__(self, columns: int = WIDTH, rows: int = HEIGHT) -> None:
        self._lines: deque[str] = deque()
        self._screen = Screen(columns, rows, self._lines.append)
        self._stream, self._escapes = pyte.Stream(self._screen), Escapes()

    def feed(self, text: str) -> Iterator[str]:
        """Lines that became whole, between two of which the caller may look at the clock and stop; "" where there is
        none yet."""
        for at in range(0, len(text), FED):
            safe = _without_marks(self._escapes.feed(text[at:at + FED]))
            try:
                self._stream.feed(safe)
            except (ValueError, TypeError, LookupError, AssertionError):       # pyte's, at what it does not know
                pass
            yield from self._take()
            yield ""

    def resize(self, columns: int, rows: int) -> Iterator[str]:
        self._screen.resize(rows, columns)
        return self._take()

    def finish(self) -> Iterator[str]:
        """What still stands there."""
        self._screen.read()
        self._screen.read_all()
        return self._take()

    def shown(self) -> list[str]:
        """The screen as it is."""
        return [self._screen.text(number).rstrip() for number in range(self._screen.lines)]

    def _take(self) -> Iterator[str]:
        while self._lines:
            yield self._lines.popleft()


def _without_marks(text: str) -> str:
    if text.isascii():
        return text
    return "".join(one for at, one in enumerate(unicodedata.normalize("NFC", text))
                   if not at or not unicodedata.combining(one))       # the first may belong to the piece before
