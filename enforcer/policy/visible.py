"""What a terminal shows of a byte stream, and where in the stream it stands.  Pure.

Sequences that move, colour or configure are no text (ECMA-48 5.4 and 5.6: CSI, OSC, DCS, PM, APC, SOS and two-byte
ones; 7-bit only, in UTF-8 the 8-bit ones are parts of letters), nor are control characters.  A blank and a carriage
return with no line feed after them are how readline goes on at the next line of the screen, a blank and a backspace how
less does, so they are no text either.
Nor is, on a terminal, a line feed where the line fills the screen's (counted in letters since the line feed before).
There a backspace takes back the letter before it, and what is written then stands in the same place.

A sequence without an end is held until it has one, or about 4000 bytes: then its ESC is a control character and the
rest is text.
"""
from __future__ import annotations

import re
from bisect import bisect_right
from typing import Final

from enforcer.policy.scanner import Scanner

LONGEST: Final = 4096                 # bytes of a sequence
BACK: Final = 64                      # letters that backspaces go back to at most
_STRING: Final = rb"[\]P_^X][^\x07\x18\x1a\x1b]{0,4000}+"
_CSI: Final = rb"\[[0-?]{0,256}+[ -/]{0,8}+"
SEQUENCE: Final = re.compile(rb"\x1b(?:%s[@-~]|%s(?:\x07|\x1b\\)|[ -/]{1,8}+[0-~]|[0-OQ-WYZ\\`-~])?" % (_CSI, _STRING))
_WRAP: Final = re.compile(rb" (?:\x08|\r(?!\n))")
CONTROL: Final = re.compile(SEQUENCE.pattern + b"|" + _WRAP.pattern + rb"|[\x00-\x08\x0b-\x1f\x7f]")
_CUT: Final = re.compile(rb"(?:\x1b(?:%s|%s\x1b?|[ -/]{0,8}+)?| \r?)\Z" % (_CSI, _STRING))
_C0: Final = bytes((*range(0, 9), *range(11, 32), 127))
_controls: Final = Scanner([(rb"[\x00-\x08\x0b-\x1f\x7f]", 0)])
_LETTERS: Final = bytes(range(0x80, 0xc0))     # of UTF-8, after the first byte


def whole(raw: bytes) -> int:
    """Bytes of it that can be read without knowing what comes."""
    last = raw[-1:]
    if not (last in (b" ", b"\r") or raw.rfind(b"\x1b", -LONGEST) >= 0):
        return len(raw)
    found = _CUT.search(raw, max(0, len(raw) - LONGEST))
    return found.start() if found is not None else len(raw)


def has_controls(raw: bytes) -> bool:
    return bool(_controls.scan(raw))


def text_of(raw: bytes) -> bytes:
    """Of bytes that are whole, without backspaces; the same object where all of it is text."""
    if not has_controls(raw):
        return raw
    if b"\x1b" in raw:                # each alone: an expression is found fast if its first byte is always the same
        raw = SEQUENCE.sub(b"\0", raw)
    if b" \r" in raw or b" \b" in raw:
        raw = _WRAP.sub(b"", raw)
    return raw.translate(None, _C0)


class Screen:
    """The end of the text, and the stream's offsets of what of it is not passed on yet."""

    def __init__(self, columns: int = 0) -> None:
        self.columns = columns        # 0: no terminal
        self.text = bytearray()
        self.cut = False              # something stood before it
        self._runs: list[tuple[int, int]] = []         # (index in the text, offset): ascending, up to the next one
        self._under: dict[int, list[int]] = {}         # index -> offsets of letters that were taken back there
        self._column, self._back = 0, 0                # letters since the line feed; that were taken back

    def push(self, piece: bytes, at: int) -> None:
        """Text from this offset on."""
        if not self.columns:
            self._push(piece, at)
            return
        for line in piece.splitlines(keepends=True) if b"\n" in piece else (piece,):
            ends = line.endswith(b"\n")
            self._column += _width(line) - ends
            full = ends and self._column > 0 and self._column % self.columns == 0
            self._push(line[:-1] if full else line, at)
            self._column = 0 if ends else self._column
            at += len(line)

    def plain(self, text: bytes) -> bool:
        """Text all of which was passed on.  False: a line in it is full, so that it is another text."""
        if self.columns:
            lines = text.split(b"\n")
            widths = [_width(line) for line in lines]
            widths[0] += self._column
            if any(width > 0 and width % self.columns == 0 for width in widths[:-1]):
                return False
            self._column = widths[-1]
        self._under = {}
        self._add(text)
        return True

    def _push(self, piece: bytes, at: int) -> None:
        if piece:
            self._runs.append((len(self.text), at))
            self._add(piece)

    def _add(self, piece: bytes) -> None:
        self._back = 0 if b"\n" in piece else max(0, self._back - len(piece))
        self.text += piece

    def take_back(self) -> None:
        """A backspace: what comes next stands where the last letter stands."""
        if not self.text or self.text[-1] == 10 or self._back >= BACK:
            return
        place = len(self.text) - 1
        offset = self.offset(place)
        if offset >= 0:
            self._under.setdefault(place, []).append(offset)
        del self.text[place:]
        while self._runs and self._runs[-1][0] >= place:
            self._runs.pop()
        self._back += 1
        self._column -= 1

    def offset(self, index: int) -> int:
        """-1: it was passed on, and nobody remembers."""
        at = bisect_right(self._runs, index, key=_index) - 1
        return self._runs[at][1] + index - self._runs[at][0] if at >= 0 else -1

    def first_offset(self, index: int, end: int) -> int:
        """Of this letter or whatever stood or will stand in its place; `end` where nothing does yet."""
        here = self.offset(index) if index < len(self.text) else end
        return min([here, *(one for place, under in self._under.items() if place >= index for one in under)])

    def ranges(self, start: int, end: int) -> list[tuple[int, int]]:
        """Of the stream: where these letters stand, and those that were taken back from under them."""
        found = []
        at = max(bisect_right(self._runs, start, key=_index) - 1, 0)
        while at < len(self._runs) and self._runs[at][0] < end:
            index, offset = self._runs[at]
            after = self._runs[at + 1][0] if at + 1 < len(self._runs) else len(self.text)
            first, last = max(start, index), min(end, after)
            if first < last:
                found.append((offset + first - index, offset + last - index))
            at += 1
        found += [(one, one + 1) for place, under in self._under.items() if start <= place < end for one in under]
        return found

    def passed(self, index: int) -> None:
        """Nobody asks for the offsets of letters before this one any more."""
        at = bisect_right(self._runs, index, key=_index) - 1
        if at >= 0:
            place, offset = self._runs[at]
            self._runs = [(index, offset + index - place), *self._runs[at + 1:]] if index < len(self.text) else []
        if self._under:
            self._under = {place: under for place, under in self._under.items() if place >= index}

    def trim(self, before: int) -> None:
        """The letters before this one are not needed."""
        if before > 0:
            del self.text[:before]
            self.cut = True
            self._runs = [(index - before, offset) for index, offset in self._runs]
            self._under = {place - before: under for place, under in self._under.items()}


def _width(line: bytes) -> int:
    """Columns, as if every letter took one."""
    return len(line) if line.isascii() else len(line.translate(None, _LETTERS))


def _index(run: tuple[int, int]) -> int:
    return run[0]
