"""Sizes of a terminal, as clients say them: JSON texts behind each other, of bytes that may be cut anywhere.

Source: k8s.io/client-go tools/remotecommand, TerminalSize.
"""
from __future__ import annotations

import json
from typing import Any, Final, NamedTuple

from enforcer.words.errors import RemoteProtocolError

LONGEST: Final = 256                  # bytes of one
LARGEST: Final = 0xFFFF
_BLANKS: Final = b" \t\r\n"


class Size(NamedTuple):
    columns: int
    rows: int

    @property
    def text(self) -> bytes:
        """As the recording has it."""
        return b"%dx%d" % self

    def render(self) -> bytes:
        return b'{"Width":%d,"Height":%d}\n' % self


UNSAID: Final = Size(0, 0)


class Sizes:
    def __init__(self) -> None:
        self._kept = b""

    def feed(self, data: bytes) -> list[Size]:
        """RemoteProtocolError for what is none."""
        *texts, rest = (self._kept + data).split(b"}")
        self._kept = rest.lstrip(_BLANKS)
        if len(self._kept) > LONGEST:
            raise RemoteProtocolError("a size of a terminal that does not end")
        return [_read(text + b"}") for text in texts]


def _read(text: bytes) -> Size:
    if len(text) > LONGEST:
        raise RemoteProtocolError("a size of a terminal that is too long")
    try:
        said: Any = json.loads(text)
        found = {str(name).lower(): number for name, number in said.items()}
    except (ValueError, AttributeError, RecursionError):
        raise RemoteProtocolError("a size of a terminal that cannot be read") from None
    return Size(_number(found.get("width", 0)), _number(found.get("height", 0)))


def _number(said: Any) -> int:
    if type(said) is not int or not 0 <= said <= LARGEST:
        raise RemoteProtocolError("a size of a terminal that is no number, or too large")
    return said
