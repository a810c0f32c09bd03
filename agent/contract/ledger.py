"""What the agent asks the recorder: which connects that the kernel saw does nobody account for yet?

Each message is one frame over an inherited Unix stream socket pair: 4 bytes little-endian length, then msgpack.  The
answer is made from what is committed to the recording, and from nothing else.  Host events that belong to it
(docs/recording.md): "connect", "connects.ended", "connect.unaccounted", "socket.foreign", "ledger.acknowledged".
"""
from __future__ import annotations

import msgspec

from agent.contract import frames

LIMIT = 16 << 20                      # bytes of a frame
MOST = 10_000                         # connects in one answer, the oldest; the others are in the next ones
HEADER = frames.HEADER

REDIRECTED, ELSEWHERE = "redirected", "elsewhere"      # verdicts that somebody has to account for
CONNECT, ENDED, UNACCOUNTED = "connect", "connects.ended", "connect.unaccounted"
FOREIGN, ACKNOWLEDGED = "socket.foreign", "ledger.acknowledged"
GLASS = "approval.break-glass"        # an operation that one person let through alone: of the hold's own event


class AskLedger(msgspec.Struct, frozen=True):
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


class LedgerAnswer(msgspec.Struct, frozen=True):
    number: int
    open: tuple[Connect, ...]         # nobody accounts for them yet
    waiting: int                      # how many there are in all
    counts: dict[str, int]            # how connects ended, since the recorder's start
    taken: dict[str, int]             # journal file -> bytes that are in the recording
    alarms: tuple[Alarm, ...]         # that nobody has acknowledged, the newest


_encoder = msgspec.msgpack.Encoder()
_question = msgspec.msgpack.Decoder(AskLedger)
_answer = msgspec.msgpack.Decoder(LedgerAnswer)


def render_frame(message: AskLedger | LedgerAnswer) -> bytes:
    return frames.render_frame(_encoder.encode(message), LIMIT)


def parse_question(body: bytes) -> AskLedger:
    return _question.decode(body)


def parse_answer(body: bytes) -> LedgerAnswer:
    return _answer.decode(body)
