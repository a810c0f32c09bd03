"""Reports of crews as bytes: pure.

The listener in a crew's process (packaging/weir-crewai) writes frames to a Unix socket of Weir's: 4 bytes little-endian
length, then JSON, `{"calls": [[CREW, AGENT, TASK, TOOL], ...]}`: every tool call that is active there now.  A frame
stands for the whole, so of several that have come only the last counts, and one that is lost harms nothing.
"""
from __future__ import annotations

import struct
from typing import Annotated, Final

import msgspec

from enforcer.words.reported import Call, Calls

LIMIT: Final = 64 << 10               # bytes of a frame's body; what a listener sends at most is half of it
CALLS: Final = 16                     # active at once in a process; a listener that knows of more leaves some out
TEXT: Final = 128                     # characters of one text
_LENGTH: Final = struct.Struct("<I")


class _Report(msgspec.Struct, frozen=True):
    calls: Annotated[Calls, msgspec.Meta(max_length=CALLS)]


_decode = msgspec.json.Decoder(_Report).decode


def parse_report(body: bytes) -> Calls:
    """ValueError where it is none."""
    try:
        return tuple(Call(*map(_plain, msgspec.structs.astuple(one))) for one in _decode(body).calls)
    except (msgspec.MsgspecError, RecursionError) as reason:
        raise ValueError(f"a report that is none: {reason}") from None


def _plain(text: str) -> str:
    """What policies, people and terminals are shown."""
    text = text[:TEXT]
    return text if text.isprintable() else "".join(one if one.isprintable() else "?" for one in text)


class Frames:
    """Bytes of one connection, cut anywhere."""

    def __init__(self) -> None:
        self._kept = b""

    def feed(self, data: bytes) -> tuple[int, bytes | None]:
        """How many frames are whole with it, and the body of the last.  ValueError for one that is too long."""
        data = self._kept + data
        at = count = 0
        body = None
        while at + 4 <= len(data):
            size: int = _LENGTH.unpack_from(data, at)[0]
            if size > LIMIT:
                raise ValueError(f"a report of {size} bytes, limit {LIMIT}")
            if at + 4 + size > len(data):
                break
            body = data[at + 4:at + 4 + size]
            at, count = at + 4 + size, count + 1
        self._kept = data[at:]
        return count, body
