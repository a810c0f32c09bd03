"""What a recorded server sent to a terminal, for a terminal that has done nothing wrong.  Pure: text in, text out.

Only what draws goes through: printable text, cursor, colours, erasing, scrolling, the other screen (ECMA-48; XTerm
Control Sequences).  What asks a terminal for an answer (device status, attributes, DECRQSS, titles, colours), reaches
outside of it (clipboard by OSC 52, files, printing, windows, links) or changes how its keyboard speaks is swallowed,
whatever it is: the list says what is known to be harmless, and nothing else passes.

Theory.  A table of states: TEXT; ESCAPE after ESC; SEQUENCE after CSI, up to its final byte; STRING after OSC, DCS,
SOS, PM and APC, up to ST (or BEL); CHARSET after ESC ( and the like.  CAN and SUB end any of them, ESC begins anew.
The 8-bit forms (U+0080 to U+009F) are read as what they stand for.
"""
from __future__ import annotations

import re
from typing import Final

LONGEST: Final = 64                   # characters of a sequence between CSI and its end
LARGEST: Final = 9999                 # of a parameter
TEXT, ESCAPE, SEQUENCE, STRING, CHARSET, SKIPPED = range(6)

CONTROLS: Final = frozenset("\b\t\n\x0b\x0c\r\x0e\x0f")
SHORT: Final = frozenset("78DEHM")    # save, restore, index, next line, tab stop, reverse index
EIGHT_BIT: Final = {chr(0x40 + one + 0x40): chr(0x40 + one) for one in range(0x20)}    # U+0084 is ESC D
FINALS: Final = frozenset("@ABCDEFGHIJKLMPSTXZ`abdefgmrsu")
MODES: Final = frozenset(("4",))      # ANSI: insert
PRIVATE: Final = frozenset(("6", "7", "25", "47", "1047", "1048", "1049"))     # origin, wrap, cursor, the other screen
OTHER_SCREEN: Final = frozenset(("47", "1047", "1049"))
PLACING: Final = frozenset("HfdrJLMSTAEF")             # finals after which the cursor may be anywhere
PLAIN_LOOK: Final = "\x1b[0m\x1b(B\x0f\x1b[4l\x1b[?7h\x1b[?25h"    # what may be left behind,
CLEARED: Final = f"{PLAIN_LOOK}\x1b[r\x1b[?6l"         # and margins, which move the cursor
# Nor what turns words round (Unicode, UAX 9).
_PLAIN: Final = re.compile(r"[^\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]+")
_PARAMETERS: Final = re.compile(r"(\??)([0-9;:]*)")
_STRINGS: Final = frozenset("]PX^_")  # OSC, DCS, SOS, PM, APC
_CHARSETS: Final = frozenset("()*+")


class Escapes:
    """Stays in its state between calls: a sequence may be cut anywhere."""

    def __init__(self) -> None:
        self._state, self._held = TEXT, ""
        self._other_screen = self._placed = False

    def feed(self, text: str) -> str:
        out: list[str] = []
        at = 0
        while at < len(text):
            if self._state == TEXT and (found := _PLAIN.match(text, at)):
                out.append(found[0])
                at = found.end()
                continue
            out.append(self._take(text[at]))
            at += 1
        return "".join(out)

    def finish(self) -> str:
        """Leaves a terminal as one is: colours, cursor, margins; below what was drawn."""
        left = "\x1b[?1049l" if self._other_screen else ""
        end = f"{CLEARED}\x1b[{LARGEST};1H\r\n" if self._placed else f"{PLAIN_LOOK}\r\n"
        self.__init__()  # type: ignore[misc]
        return left + end

    def _take(self, one: str) -> str:
        if self._state != STRING or one != "\x07":
            if one in "\x18\x1a":     # ECMA-48: CAN, SUB
                self._state = TEXT
                return ""
            if one == "\x1b":
                self._state = ESCAPE
                return ""
        if one in EIGHT_BIT and (self._state != STRING or one == "\x9c"):
            self._state = ESCAPE
            one = EIGHT_BIT[one]
        return _TABLE[self._state](self, one)

    def _text(self, one: str) -> str:
        return one if one in CONTROLS or one.isprintable() or one == "\u3000" else ""

    def _escape(self, one: str) -> str:
        self._state, self._held = TEXT, ""
        if one == "[":
            self._state = SEQUENCE
        elif one in _STRINGS:
            self._state = STRING
        elif one in _CHARSETS:
            self._state, self._held = CHARSET, one
        elif " " <= one <= "/":       # ESC # 8, ESC % G, ESC SP F: two bytes, none of them needed
            self._state = SKIPPED
        elif one in SHORT:
            return f"\x1b{one}"
        elif one == "c":
            self._placed = True       # a full reset would leave the other screen: what it shows is enough
            return f"{CLEARED}\x1b[2J\x1b[H"
        return ""

    def _sequence(self, one: str) -> str:
        if one in CONTROLS:           # ECMA-48 leaves it open; terminals obey at once
            return one
        if "@" <= one <= "~":
            self._state = TEXT
            return "" if len(self._held) > LONGEST else self._render(self._held, one)
        if len(self._held) <= LONGEST:
            self._held += one
        return ""

    def _render(self, held: str, final: str) -> str:
        found = _PARAMETERS.fullmatch(held)
        if found is None:             # intermediates, "<", "=", ">": devices, keyboards, pointers
            return ""
        private, parameters = found[1], [_bounded(one) for one in found[2].split(";")]
        if final in "hl":
            return self._modes(private, parameters, final)
        if private or final not in FINALS or (final == "J" and "3" in parameters):    # the viewer's own scrollback
            return ""
        if final == "T" and len(parameters) > 1:       # XTerm: follow the pointer
            return ""
        self._placed = self._placed or final in PLACING
        return f"\x1b[{';'.join(parameters)}{final}"

    def _modes(self, private: str, parameters: list[str], final: str) -> str:
        known = [one for one in parameters if one in (PRIVATE if private else MODES)]
        self._placed = self._placed or bool(private and known)
        if private and OTHER_SCREEN.intersection(known):
            self._other_screen = final == "h"
        return f"\x1b[{private}{';'.join(known)}{final}" if known else ""

    def _string(self, one: str) -> str:
        if one == "\x07":             # XTerm ends OSC so; of the others it is as good an end as any
            self._state = TEXT
        return ""

    def _charset(self, one: str) -> str:
        self._state = TEXT
        return f"\x1b{self._held}{one}" if self._held in "()" and one in "0B" else ""

    def _skipped(self, one: str) -> str:
        if not " " <= one <= "/":
            self._state = TEXT
        return ""


def _bounded(parameter: str) -> str:
    """Colours may have parts (ITU T.416: 38:2:...); a repetition that long is an attack."""
    return ":".join(one if len(one) < 5 else str(LARGEST) for one in parameter.split(":"))


_TABLE: Final = {TEXT: Escapes._text, ESCAPE: Escapes._escape, SEQUENCE: Escapes._sequence, STRING: Escapes._string,
                 CHARSET: Escapes._charset, SKIPPED: Escapes._skipped}
