"""JSON in pieces: lists item by item, events of a watch line by line; what leaves is written anew.

A name that stands twice in an object has its last value, as for Go, and is written once.
"""
from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable
from typing import Any, Final

import msgspec

from enforcer.protocols.kubernetes.bodies.json_text import VALUES, has_many
from enforcer.protocols.kubernetes.info import Unclear
from enforcer.protocols.kubernetes.masking.objects import ObjectMask

LARGEST: Final = 16 << 20             # characters of one object
TOO_LARGE: Final = f"an object of more than {LARGEST >> 20} MiB in an answer that is masked"
TOO_MANY: Final = f"an object of more than {VALUES} values in an answer that is masked"
SMALL: Final = 1 << 20                # characters of a value that is read before anybody looks how much is in it
_BLANK: Final = re.compile(r"[ \t\n\r]*+")
_HEADS: Final = ("kind", "apiVersion", "metadata", "columnDefinitions")
_STREAMED: Final = ("items", "rows")
_scan: Final = json.JSONDecoder(parse_constant=lambda text: _refuse(text)).raw_decode


def _refuse(text: str) -> Any:
    raise Unclear("an answer that is not JSON")


def render(value: Any) -> bytes:
    try:
        return msgspec.json.encode(value)
    except (UnicodeError, OverflowError, ValueError, RecursionError, msgspec.MsgspecError):
        raise Unclear("an answer that cannot be written anew") from None


def render_masked(mask: Callable[[Any], Any], value: Any) -> bytes:
    try:
        return render(mask(value))
    except RecursionError:
        raise Unclear("an answer that is too deep to be masked") from None


def load(data: bytes | bytearray) -> Any:
    """One value and nothing after it."""
    if has_many(data):
        raise Unclear(TOO_MANY)
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise Unclear("an answer that is not JSON") from None


def _text(data: bytes, decode: Callable[[bytes, bool], str], last: bool) -> str:
    try:
        return decode(data, last)
    except UnicodeDecodeError:
        raise Unclear("an answer that is not UTF-8") from None


class Text:
    """What is not read yet.  `value` waits with what is not whole until half as much again has come, so that reading
    takes time in proportion to the text."""

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("strict").decode
        self._kept, self._at = "", 0
        self._coming: list[str] = []          # behind what is kept, until it is enough
        self.read = 0                         # characters that were
        self._left = self._again = 0          # characters that are there, and must be before a value is tried again

    def push(self, data: bytes, last: bool = False) -> None:
        more = _text(data, self._decode, last)
        self._coming.append(more)
        self._left += len(more)
        if self._left >= self._again or last:
            self._kept, self._at = self._kept[self._at:] + "".join(self._coming), 0
            self._coming = []

    def peek(self) -> str:
        """The next letter that is not blank, "" where none has come."""
        match = _BLANK.match(self._kept, self._at)
        if match is not None:
            self._move(match.end())
        return self._kept[self._at:self._at + 1]

    def skip(self) -> None:
        self._move(self._at + 1)

    def take(self, letter: str) -> bool:
        """It was the next one; blanks behind it are gone, too."""
        if self._kept[self._at:self._at + 1] != letter:
            return False
        self._move(self._at + 1)
        self.peek()
        return True

    def value(self, last: bool = False) -> tuple[bool, Any]:
        """(whole, value).  `last`: nothing more comes."""
        if self._left < self._again and not last:
            return False, None
        try:
            value, end = _scan(self._kept, self._at)
        except (ValueError, RecursionError):
            if last or self._left > LARGEST:
                raise Unclear("an answer that is not JSON, not whole, or too large to be masked") from None
            if self._left > SMALL and has_many(self._kept[self._at:].encode()):
                raise Unclear(TOO_MANY) from None
            self._again = min(self._left + self._left // 2, LARGEST) + 1
            return False, None
        if end == len(self._kept) and not last and self._kept[end - 1] not in '"}]':
            return False, None        # a number that may go on
        self._move(end)
        self._again = 0
        return True, value

    def _move(self, at: int) -> None:
        self.read += at - self._at
        self._left -= at - self._at
        self._at = at


class JsonLines:
    """A watch: an event a line."""

    def __init__(self, mask: ObjectMask) -> None:
        self._mask = mask
        self._kept: list[bytes] = []
        self._size = 0                # bytes of the line that is not whole

    def feed(self, data: bytes) -> bytes:
        whole, line, rest = data.rpartition(b"\n")
        self._kept.append(whole if line else rest)
        self._size += len(rest)
        if line:
            lines, self._kept, self._size = b"".join(self._kept), [rest], len(rest)
            return b"".join(self._event(one) for one in lines.split(b"\n"))
        if self._size > LARGEST:
            raise Unclear(TOO_LARGE)
        return b""

    def end(self) -> bytes:
        return self._event(b"".join(self._kept))

    def _event(self, line: bytes) -> bytes:
        if not line.strip():
            return b""
        return render_masked(self._mask.mask_event, load(line)) + b"\n"


class JsonWhole:
    """One object."""

    def __init__(self, mask: ObjectMask) -> None:
        self._mask = mask
        self._kept = bytearray()

    def feed(self, data: bytes) -> bytes:
        self._kept += data
        if len(self._kept) > LARGEST:
            raise Unclear(TOO_LARGE)
        return b""

    def end(self) -> bytes:
        return render_masked(self._mask.mask, load(self._kept)) + b"\n" if self._kept else b""


class JsonList:
    """A list or a table, whose items leave as they come; or one object, which leaves at the end."""

    def __init__(self, mask: ObjectMask) -> None:
        self._mask, self._text = mask, Text()
        self._state: Callable[[bool], bool] = self._begin
        self._out: list[bytes] = []
        self._held: dict[str, Any] = {}       # what stands before the items, until they come
        self._name, self._more = "", False    # of the value that comes; something was written in this object or list
        self._streamed = ""                   # the list that was

    def feed(self, data: bytes) -> bytes:
        self._text.push(data)
        return self._run(False)

    def end(self) -> bytes:
        self._text.push(b"", True)
        out = self._run(True)
        if self._state not in (self._over, self._begin):
            raise Unclear("an answer that is not JSON, or not whole")
        return out

    def _run(self, last: bool) -> bytes:
        while self._text.peek() and self._state(last):
            pass
        out, self._out = b"".join(self._out), []
        return out

    def _expect(self, letters: str) -> str:
        found = self._text.peek()
        if found not in letters:
            raise Unclear("an answer that is not JSON")
        self._text.skip()
        return found

    def _begin(self, last: bool) -> bool:
        self._expect("{")
        self._state = self._first_name
        return True

    def _first_name(self, last: bool) -> bool:
        if self._text.peek() == "}":
            return self._close()
        return self._read_name(last)

    def _read_name(self, last: bool) -> bool:
        if self._text.peek() != '"':
            raise Unclear("an answer that is not JSON")
        whole, name = self._text.value(last)
        if whole:
            self._name, self._state = name, self._colon
        return whole

    def _colon(self, last: bool) -> bool:
        self._expect(":")
        self._state = self._read_value
        return True

    def _read_value(self, last: bool) -> bool:
        if self._name in _STREAMED and self._text.peek() == "[":
            return self._open_list()
        whole, value = self._text.value(last)
        if whole:
            self._take(value)
            self._state = self._after_value
        return whole

    def _take(self, value: Any) -> None:
        if not self._streamed:
            self._hold(value)
            return
        if self._name not in _HEADS:
            raise Unclear("a list that has more than items")
        self._out.append(b"," + render(self._name) + b":" + render(value))

    def _hold(self, value: Any) -> None:
        """It is an object so far, which is not larger than any."""
        self._held[self._name] = value
        if self._text.read > LARGEST:
            raise Unclear(TOO_LARGE)

    def _after_value(self, last: bool) -> bool:
        if self._text.peek() == "}":
            return self._close()
        self._expect(",")
        self._state = self._read_name
        return True

    def _close(self) -> bool:
        self._text.skip()
        self._out.append(b"}\n" if self._streamed else render_masked(self._mask.mask, self._held) + b"\n")
        self._state = self._over
        return True

    def _over(self, last: bool) -> bool:
        raise Unclear("an answer with something after it")

    # the list

    def _open_list(self) -> bool:
        if self._streamed or not self._held.keys() <= set(_HEADS):
            raise Unclear("a list that has more than items")
        self._text.skip()
        self._streamed = self._name
        if "columnDefinitions" in self._held:
            self._mask.set_columns(self._held["columnDefinitions"])
        head = render(self._held)[1:-1]
        self._out.append(b"{" + head + (b"," if head else b"") + render(self._name) + b":[")
        self._held, self._more, self._state = {}, False, self._first_item
        return True

    def _first_item(self, last: bool) -> bool:
        if self._text.peek() == "]":
            self._text.skip()
            self._out.append(b"]")
            self._state = self._after_value
            return True
        return self._item(last)

    def _item(self, last: bool) -> bool:
        text, out = self._text, self._out
        mask = self._mask.mask_row if self._streamed == "rows" else self._mask.mask
        while True:
            whole, value = text.value(last)
            if not whole:
                self._state = self._item
                return False
            if self._more:
                out.append(b",")
            out.append(render_masked(mask, value))
            self._more = True
            if not text.take(","):
                self._state = self._after_item
                return True

    def _after_item(self, last: bool) -> bool:
        if self._expect(",]") == "]":
            self._out.append(b"]")
            self._state = self._after_value
        else:
            self._state = self._item
        return True
