"""Which typed bytes of a terminal were meant to be seen: those that come back.  Pure.

A terminal does not say that it asks for a password: its echo is off (POSIX termios, ECHO), which the wire does not
show.  So what is typed goes to the server at once and waits here, for a short time, to be seen in the output.  What
comes back is recorded as it is; what does not, and all that is typed into the line of a prompt for a password, is
recorded as stars.  In doubt it is stars: keys of full-screen programs that show nothing for them are some, too.

The promise to a recording: that so many bytes were typed, and when, is known (and can be recorded) before they go;
their content comes up to `LONGEST_WAIT` later, in order, each byte once, with the offset and the time of its typing.
"""
from __future__ import annotations

import re
from collections import deque
from typing import Final, NamedTuple

from enforcer.policy.visible import text_of, whole

WAIT: Final = 1.0                     # seconds until something has come back,
SHORTEST_WAIT: Final = 0.8            # and what several round trips take from then on
LONGEST_WAIT: Final = 2.0
PENDING: Final = 4096                 # bytes that wait at most; what is before them is stars
LINE: Final = 400                     # bytes of the last line of the output
SURE: Final = 3                       # letters that may come back behind other output
_UNREAD: Final = 4096                 # bytes of a sequence that is not whole
_ENDS: Final = b"\r\n\x03\x04\x1a"    # keys that end a line or what reads it
# A key that is no letter: ECMA-48 5.4, xterm's "Alt and Meta Keys".
_KEY: Final = re.compile(rb"\x1b(?:\[[0-?]{0,16}[ -/]{0,4}[@-~]|O[ -~]|[ -~])?|[\x00-\x1f\x7f]")
_LETTERS: Final = bytes(one for one in range(256) if 32 <= one != 127)
_KEYS_ALONE: Final = bytes.maketrans(_LETTERS, b"*" * len(_LETTERS))
_PROMPT: Final = re.compile(
    r"(?:pass(?:word|phrase|code|wd|wort)|\bpin\b|\bpuk\b|verification code|one-time|\botp\b|authenticator|token|"
    r"secret|\[sudo\]|credential|kennwort|passwort|mot de passe|phrase de passe|contrase(?:ñ|n)a|clave|senha|"
    r"palavra-passe|parola|wachtwoord|lösenord|adgangskode|passord|salasana|hasło|heslo|jelszó|şifre|parolă|"
    r"κωδικός|пароль|密码|密碼|口令|パスワード|暗証番号|암호|비밀번호|סיסמה|كلمة المرور)"
    r"[^\n]*[:：]\s*\Z", re.IGNORECASE)


class Piece(NamedTuple):
    """Typed bytes whose content is known to be what may be recorded."""

    offset: int                       # in all that was typed
    at: float                         # when they were typed
    content: bytes                    # stars in place of what was not seen


class _Waiting(NamedTuple):
    unit: bytes                       # a letter's byte, or a whole key
    offset: int
    at: float
    due: float


class Echo:
    """One terminal.  `now`: seconds, of any clock that goes on evenly."""

    def __init__(self) -> None:
        self._waiting: deque[_Waiting] = deque()
        self._typed = self.unseen = 0 # bytes; of these, what has become stars
        self._line = self._unread = b""                # of the output: its last line, and what cannot be read yet
        self._asked = False           # for a password, in this line
        self._wait, self._trip = WAIT, 0.0

    def typed(self, data: bytes, now: float) -> list[Piece]:
        """Bytes of the client, which may go to the server at once."""
        early, data = data[:-PENDING], data[-PENDING:]
        found = self._pass_over(early, now) if early else []
        last = 0
        for match in _KEY.finditer(data):
            self._add_letters(data[last:match.start()], now)
            self._add(match[0], now)
            last = match.end()
        self._add_letters(data[last:], now)
        return [*found, *self._settle(now)]

    def printed(self, data: bytes, now: float) -> list[Piece]:
        """Bytes of the server."""
        raw = self._unread + data
        size = whole(raw)
        if raw[size:size + 1] == b" ":
            size = len(raw)           # of a prompt: it is no part of a letter
        if len(raw) - size > _UNREAD:
            size = len(raw)
        self._unread, text = raw[size:], text_of(raw[:size])
        decided, left = self._seen(text, now)
        self._line = (self._line + text).rpartition(b"\n")[2][-LINE:]
        if left:
            asks = _PROMPT.search(self._line.decode("utf-8", "replace")) is not None
            self._asked = asks or (self._asked and b"\n" not in text)
        elif text:
            self._asked = False       # it shows what is typed
        return _joined(decided) + self._settle(now)

    def due(self, now: float) -> list[Piece]:
        """What has not come back in time."""
        return self._settle(now)

    @property
    def deadline(self) -> float | None:
        """When `due` is to be called next."""
        return self._waiting[0].due if self._waiting else None

    def end(self) -> list[Piece]:
        """The terminal is gone, and nothing will come back."""
        return self._settle(float("inf"))

    # what waits

    def _pass_over(self, data: bytes, now: float) -> list[Piece]:
        """More than can wait: as `_settle` would have it behind all that waits, but letter by letter, so that of a key
        that is several bytes the first is seen alone."""
        found = self._settle(float("inf"))
        end = next((at for at, one in enumerate(data) if one in _ENDS), len(data)) if self._asked else 0
        self._asked = self._asked and end == len(data)
        content = b"*" * end + data[end:].translate(_KEYS_ALONE)
        found.append(Piece(self._typed, now, content))
        self._typed += len(data)
        self.unseen += len(data) - len(data[end:].translate(None, _LETTERS))
        return found

    def _add_letters(self, letters: bytes, now: float) -> None:
        for one in letters:
            self._add(bytes((one,)), now)

    def _add(self, unit: bytes, now: float) -> None:
        self._waiting.append(_Waiting(unit, self._typed, now, now + self._wait))
        self._typed += len(unit)

    def _settle(self, now: float) -> list[Piece]:
        """What need not wait any more, from the first on."""
        found = []
        while self._waiting:
            first = self._waiting[0]
            key = _is_key(first.unit)
            if not (key or self._asked or first.due <= now or len(self._waiting) > PENDING):
                break
            self._waiting.popleft()
            if key and (not self._asked or first.unit in _ENDS):
                found.append(Piece(first.offset, first.at, first.unit))
                self._asked = self._asked and first.unit not in _ENDS
            else:
                found.append(self._star(first))
        return _joined(found)

    def _star(self, one: _Waiting) -> Piece:
        self.unseen += len(one.unit)
        return Piece(one.offset, one.at, b"*" * len(one.unit))

    # what comes back

    def _seen(self, text: bytes, now: float) -> tuple[list[Piece], bytes]:
        """What of it was typed, and what of it was not."""
        decided: list[Piece] = []
        while text and self._waiting and not self._asked:
            start, size, unseen = self._match(text)
            if not size:
                break
            decided += [self._star(self._waiting.popleft()) for _ in range(unseen)]
            self._came_back(now - self._waiting[0].at)
            for one in [self._waiting.popleft() for _ in range(size)]:
                decided.append(Piece(one.offset, one.at, one.unit))
            text = text[:start] + text[start + size:] if start else text[size:]
            decided += self._keys()
            if text.startswith(b"\n") and decided and decided[-1].content in (b"\r", b"\n"):
                text = text[1:]
            if start:
                break
        return decided, text

    def _match(self, text: bytes) -> tuple[int, int, int]:
        """Where the letters that wait stand in it, how many, and after how many that do not come back: at its beginning
        all of them or all of it; the last ones, if it is nothing else; or some that are enough to be no accident."""
        letters = b""
        for one in self._waiting:
            if _is_key(one.unit):
                break
            letters += one.unit
        if letters and (text.startswith(letters) or letters.startswith(text)):
            return 0, min(len(letters), len(text)), 0
        if letters.endswith(text):
            return 0, len(text), len(letters) - len(text)
        start = text.find(letters) if len(letters) >= SURE else -1
        return (start, len(letters), 0) if start >= 0 else (0, 0, 0)

    def _keys(self) -> list[Piece]:
        """Keys behind what has come back."""
        found = []
        while self._waiting and _is_key(self._waiting[0].unit):
            one = self._waiting.popleft()
            found.append(Piece(one.offset, one.at, one.unit))
        return found

    def _came_back(self, trip: float) -> None:
        self._trip = trip if not self._trip else self._trip * 0.875 + trip * 0.125
        self._wait = min(max(8 * self._trip, SHORTEST_WAIT), LONGEST_WAIT)


def _is_key(unit: bytes) -> bool:
    return len(unit) > 1 or unit[0] < 32 or unit[0] == 127


def _joined(pieces: list[Piece]) -> list[Piece]:
    """Those of one time that follow each other, in one."""
    found: list[Piece] = []
    for one in pieces:
        last = found[-1] if found else None
        if last is not None and last.at == one.at and last.offset + len(last.content) == one.offset:
            found[-1] = last._replace(content=last.content + one.content)
        else:
            found.append(one)
    return found
