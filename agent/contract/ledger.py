"""What the agent asks the recorder: which connects that the kernel saw does nobody account for yet?  And for who may
read it: a page of the recording.

Each message is one frame over an inherited Unix stream socket pair: 4 bytes little-endian length, then msgpack of one
tagged struct.  The answers are made from what is committed to the recording, and from nothing else.  Host events that
belong to the ledger (docs/recording.md): "connect", "connects.ended", "connect.unaccounted", "socket.foreign",
"ledger.acknowledged".
"""
from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from agent.contract import frames

LIMIT = 16 << 20                      # bytes of a frame
MOST = 10_000                         # connects in one answer, the oldest; the others are in the next ones
HEADER = frames.HEADER
PAGE = 512 << 10                      # bytes of a page of the recording
PAGES = 4                             # that may be asked for at a time
SESSIONS, LINES, HISTORY, TAPE = "sessions", "lines", "history", "tape"

REDIRECTED, ELSEWHERE = "redirected", "elsewhere"      # verdicts that somebody has to account for
CONNECT, ENDED, UNACCOUNTED = "connect", "connects.ended", "connect.unaccounted"
FOREIGN, ACKNOWLEDGED = "socket.foreign", "ledger.acknowledged"
GLASS = "approval.break-glass"        # an operation that one person let through alone: of the hold's own event


class AskLedger(msgspec.Struct, frozen=True, tag=True):
    number: int
    before: int                       # CLOCK_BOOTTIME nanoseconds: connects that were recorded until then


class Connect(msgspec.Struct, frozen=True, array_like=True):
    """A connect that the kernel saw, as recorded."""

    seq: int                          # of its event; in an alarm of a foreign socket, the alarm's
    at: int                           # nanoseconds UTC
    monotonic: int                    # CLOCK_BOOTTIME nanoseconds: when it was recorded
    cookie: int                       # of the socket
    workload: str
    pid: int
    destination: str                  # "ADDRESS PORT"
    verdict: str                      # REDIRECTED: to the listener; ELSEWHERE: connected past the rewrite


class Alarm(msgspec.Struct, frozen=True, array_like=True):
    """One that nobody accounts for, or a socket that was handed in."""

    seq: int
    at: int
    name: str                         # UNACCOUNTED | FOREIGN | GLASS
    workload: str
    detail: dict[str, str]


def said_of_glass(one: Alarm) -> str:
    detail = one.detail
    return (f"{detail.get('by')} let {detail.get('what')} of {detail.get('subject')} at {detail.get('target')} through "
            f"alone, ticket {detail.get('ticket')}: {detail.get('reason')}")


class AskRecording(msgspec.Struct, frozen=True, tag=True):
    """A page (enforcer.recording.paged).  Reading is recorded: `by` has read this.  Answered by RecordingAnswer, in any
    order."""

    number: int
    what: Literal["sessions", "lines", "history", "tape"]
    by: Annotated[str, msgspec.Meta(max_length=300)]          # subject
    name: Annotated[str, msgspec.Meta(max_length=300)] = ""   # session; "history": subject, "": everybody's
    # "lines", "tape": what came after; else before, 0: all
    at: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)] = 0
    operation: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)] = 0       # "tape": whose streams


class RecordingAnswer(msgspec.Struct, frozen=True, tag=True):
    """`content` is msgpack of the page, and read only by who shows it: it holds what crews and servers wrote."""

    number: int
    content: Annotated[bytes, msgspec.Meta(max_length=PAGE)] = b""
    wrong: Annotated[str, msgspec.Meta(max_length=300)] = ""  # why there is none


class LedgerAnswer(msgspec.Struct, frozen=True, tag=True):
    number: int
    open: tuple[Connect, ...]         # nobody accounts for them yet
    waiting: int                      # how many there are in all
    counts: dict[str, int]            # how connects ended, since the recorder's start
    taken: dict[str, int]             # journal file -> bytes that are in the recording
    alarms: tuple[Alarm, ...]         # that nobody has acknowledged, the newest
    gaps: int = 0                     # gap events since the recorder's start


_encoder = msgspec.msgpack.Encoder()
Question = AskLedger | AskRecording
Answer = LedgerAnswer | RecordingAnswer
_question: msgspec.msgpack.Decoder[Question] = msgspec.msgpack.Decoder(Question)
_answer: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)


def render_frame(message: Question | Answer) -> bytes:
    return frames.render_frame(_encoder.encode(message), LIMIT)


def parse_question(body: bytes) -> Question:
    return _question.decode(body)


def parse_answer(body: bytes) -> Answer:
    return _answer.decode(body)
