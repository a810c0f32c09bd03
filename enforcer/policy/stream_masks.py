"""Masks in a stream that may be cut anywhere: what detectors find, or all of its text, as stars.  Pure.

Theory.  The stream is read into the text that a terminal shows (visible.py).  A letter is *decided* once nothing that
may come can make it part of a match; what is decided is passed on in the stream's own bytes, each letter of a match as
one star a byte, and what stands before a letter that is not decided is not held by it.  Only a body that stands behind
its whole head is undecided (detectors.py), so a prompt, single keys and ordinary text pass at once.  Blanks and line
ends are never stars.

`flush` passes on what is held: what may be a secret's beginning by its head alone is masked then, a number that is not
whole is not; a match that is whole later is masked from there on.  Without it the result does not depend on the cuts,
as long as no match that is not decided takes more than HELD bytes of the stream.
"""
from __future__ import annotations

from typing import Final

from enforcer.policy.detectors import KEY, LONGEST, RUN, Detectors, Found, Shape, make_detectors
from enforcer.policy.visible import CONTROL, SEQUENCE, Screen, has_controls, text_of, whole

HELD: Final = 8 << 10                 # bytes that are held at most
CONTEXT: Final = 256                  # letters before what is not decided: a head, and what backspaces take back
PIECE: Final = 4 << 10                # bytes that are looked into at a time where something is
BINARY: Final = 8                     # NULs at the beginning of what is no text
END: Final = 96                       # letters of the line that ends a key
STARS: Final = bytes(one if one <= 32 or one == 127 else 42 for one in range(256))
ESCAPE: Final = 27
# Each backspace behind a letter, and each small piece, has the text looked through.  What that may take: a unit is a
# twentieth of a microsecond or so, and grows with the square of long texts.
PATIENCE: Final = 2_000_000           # units that are kept for later,
BLIND: Final = "unreadable"           # the label of what was masked without being looked at
EACH_BYTE: Final = 60                 # that every byte gives,
EACH_PIECE: Final = 4000              # and every piece of a stream
SQUARE: Final = 256                   # letters
SMALL: Final = 1024                   # bytes of a piece


class StreamMask:
    """`labels`: of detectors, that are masked.  `everything`: the label of all of it, "" where only those are.
    `columns`: of the terminal that it is shown on, 0 where it is shown on none."""

    def __init__(self, labels: frozenset[str], everything: str = "", columns: int = 0) -> None:
        self.found: set[str] = set()  # labels that something was masked for
        self._everything = everything
        self._detectors: Detectors | None = make_detectors(labels) if labels and not everything else None
        self._screen = Screen(columns)
        self._kept = b""              # of the stream, from _base on: what is not read or not passed on
        self._base = self._sent = self._read = 0       # offsets
        self._stars: list[tuple[int, int]] = []        # offsets of what is masked and not passed on
        self._first = self._seen = 0  # letters: the first that is not decided, and those that were searched
        self._running: set[Shape] = set()              # what goes on at the end of the text
        self._key, self._key_from = 0, 0               # letters that a private key may still have, and its first
        self._patience, self._blind = PATIENCE, False  # blind: all is masked, up to an end of a line

    @property
    def pending(self) -> bool:
        """Something is held."""
        return self._sent < self._base + len(self._kept)

    @property
    def passed(self) -> int:
        """Bytes that were passed on: what is held is held anew when more were."""
        return self._sent

    def resize(self, columns: int) -> None:
        self._screen.columns = columns

    def feed(self, data: bytes) -> bytes:
        """What may be passed on of all that was fed."""
        if self._detectors is None and not self._everything:
            return data
        self._kept = self._kept + data if self._kept else data
        self._patience = min(PATIENCE, self._patience + EACH_PIECE + EACH_BYTE * len(data))
        unread = self._kept[self._read - self._base:]
        size = whole(unread)
        (self._mask_all if self._everything else self._search)(unread[:size])
        end = self._base + len(self._kept)
        hold = min(self._read if size < len(unread) and unread[size] == ESCAPE else end, self._hold())
        return self.flush() if end - hold > HELD else self._pass(hold)

    def flush(self) -> bytes:
        """All that is held."""
        if not self.pending:
            return b""
        if self._detectors is not None:
            self._decide(True)
        return self._pass(self._base + len(self._kept))

    # reading

    def _mask_all(self, piece: bytes, label: str = "") -> None:
        last = 0
        for start, end in [*(match.span() for match in SEQUENCE.finditer(piece)), (len(piece), len(piece))]:
            if b"*" in piece[last:start].translate(STARS):
                self._stars.append((self._read + last, self._read + start))
                self.found.add(label or self._everything)
            last = end
        self._read += len(piece)

    def _search(self, piece: bytes) -> None:
        """In pieces where something in it is, or could be, masked."""
        piece = piece[self._skim(piece):]
        if len(piece) <= PIECE:
            self._look(piece)
            return
        for at in range(0, len(piece), PIECE):
            part = piece[at:at + PIECE]
            self._look(part[self._skim(part):])

    def _skim(self, piece: bytes) -> int:
        """Bytes at its beginning that are read and decided because nothing in all of it is a match."""
        detectors, screen = self._detectors, self._screen
        busy = self._sent < self._read or self._running or self._key or self._blind
        if detectors is None or busy or not piece or (screen.columns and b"\b" in piece):
            return 0
        # No terminal shows what is full of NULs: nobody takes out of it what a terminal would not show.
        binary, before = not screen.columns and piece.count(0, 0, PIECE) > BINARY, len(screen.text)
        text = piece if binary else text_of(piece)
        every = bytes(screen.text) + text
        if detectors.suspects(every):
            return 0
        tail = detectors.tail(every, screen.cut)
        size = len(piece) if not tail else min(one.head for one in tail) - before if text is piece else 0
        if size <= 0 or not screen.plain(text if not tail else piece[:size]):
            return 0
        self._read += size
        self._first = self._seen = len(screen.text)
        self._forget(self._first)
        return size

    def _look(self, piece: bytes) -> None:
        """Letter by letter."""
        if self._blind and not (piece := self._see(piece)):
            return
        screen, last = self._screen, 0
        for match in CONTROL.finditer(piece) if has_controls(piece) else ():
            if last < match.start():
                screen.push(piece[last:match.start()], self._read + last)
            if screen.columns and match[0] == b"\b":
                if self._seen < len(screen.text):
                    self._decide()
                    self._spend()
                if self._patience < 0:
                    self._read += match.start()
                    self._close_eyes(piece[match.start():])
                    return
                screen.take_back()
                self._first, self._seen = min(self._first, len(screen.text)), min(self._seen, len(screen.text))
            last = match.end()
        if last < len(piece):
            screen.push(piece[last:], self._read + last)
        self._read += len(piece)
        if piece:
            self._decide()
            if len(piece) < SMALL:
                self._spend()
                self._blind = self._patience < 0

    def _spend(self) -> None:
        letters = len(self._screen.text)
        self._patience -= letters * max(1, letters // SQUARE)

    def _close_eyes(self, rest: bytes) -> None:
        """To look on would take the time of everybody else."""
        self._decide()
        self._blind = True
        self._look(rest)

    def _see(self, piece: bytes) -> bytes:
        """Masks all up to the end of a line from which on there is patience again; gives the rest."""
        end = piece.find(b"\n") + 1 if self._patience > PATIENCE // 2 else 0
        self._blind = not end
        self._mask_all(piece[:end or len(piece)], BLIND)
        self._screen.push(b"\n", self._read - 1)
        self._decide()
        return piece[end:] if end else b""

    # deciding

    def _decide(self, last: bool = False) -> None:
        """Masks what is found; `last`: nothing is waited for."""
        detectors, text = self._detectors, bytes(self._screen.text)
        assert detectors is not None
        spans = self._going_on(text)
        known = detectors.search(text + b"\n" if last else text, self._screen.cut, self._seen)
        for found in known:
            spans += self._begin(text, found)
        blank = last and self._kept[self._read - self._base:][:1] == b" "
        tail = [] if blank else detectors.tail(text, self._screen.cut)
        if last:
            spans += [(one.start, one.start + one.shape.known(text[one.start:]), one.shape.label) for one in tail]
        for start, end, label in spans:
            if max(start, self._first) < end:
                self._stars += self._screen.ranges(max(start, self._first), end)
                self.found.add(label)
        hold = len(text) if last else max(self._first, min((one.start for one in tail), default=len(text)))
        self._first, self._seen = _beyond(hold, spans), len(text)
        self._screen.passed(self._first)
        self._forget(min((one.head for one in tail), default=len(text)))

    def _begin(self, text: bytes, found: Found) -> list[tuple[int, int, str]]:
        shape, label = found.shape, found.shape.label
        if shape.until is not None:
            return self._key_span(text, found.end, KEY, found.end) if found.end > self._seen else []
        spans = [(found.start, found.end, label)]
        if shape.more is not None:
            spans.append(self._more(text, shape, found.end))
        return spans

    def _going_on(self, text: bytes) -> list[tuple[int, int, str]]:
        """What was found before and had not ended."""
        running, self._running = self._running, set()
        spans = [self._more(text, shape, self._seen) for shape in running]
        if self._key:
            left, self._key = self._key, 0
            spans += self._key_span(text, self._seen, left, max(self._key_from, self._seen - END))
        return spans

    def _more(self, text: bytes, shape: Shape, start: int) -> tuple[int, int, str]:
        match = shape.more.match(text, start) if shape.more is not None else None
        end = match.end() if match is not None else start
        if end == len(text):
            self._running.add(shape)
        return start, end, shape.label

    def _key_span(self, text: bytes, start: int, left: int, since: int) -> list[tuple[int, int, str]]:
        """Of a private key: to the end of its END, which begins at `since` or later."""
        shape = self._key_shape()
        assert shape.until is not None
        match = shape.until.search(text, since)
        end = min(start + left, match.end() if match is not None else len(text))
        if match is None and end - start < left:
            self._key, self._key_from = max(self._key, left - (end - start)), max(self._key_from, since)
        return [(start, end, shape.label)]

    def _key_shape(self) -> Shape:
        assert self._detectors is not None
        return next(shape for shape in self._detectors.shapes if shape.until is not None)

    # passing on

    def _hold(self) -> int:
        """Offset of the first byte that is not decided."""
        if self._everything:
            return self._base + len(self._kept)
        return self._screen.first_offset(self._first, self._base + len(self._kept))

    def _forget(self, head: int) -> None:
        text = self._screen.text
        run = max(len(text.rstrip(RUN)), len(text) - LONGEST)
        before = max(0, min(len(text) - CONTEXT, head - 1, run - 1))
        self._screen.trim(before)
        self._first, self._seen = self._first - before, self._seen - before
        self._key_from = max(0, self._key_from - before)

    def _pass(self, end: int) -> bytes:
        if end <= self._sent:
            return b""
        start = self._sent - self._base
        out = self._kept[start:end - self._base]
        if self._stars:
            out = self._mask(bytearray(out), self._sent)
        self._sent = end
        self._stars = [(max(first, end), last) for first, last in self._stars if last > end]
        base = min(end, self._read)
        self._kept, self._base = self._kept[base - self._base:], base
        return out

    def _mask(self, out: bytearray, offset: int) -> bytes:
        for start, end in self._stars:
            first, last = max(start - offset, 0), min(end - offset, len(out))
            if first < last:
                out[first:last] = out[first:last].translate(STARS)
        return bytes(out)


def _beyond(hold: int, spans: list[tuple[int, int, str]]) -> int:
    """What is masked anyhow is decided."""
    for start, end, _ in sorted(spans):
        if start <= hold < end:
            hold = end
    return hold
