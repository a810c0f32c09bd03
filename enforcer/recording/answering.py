"""The recorder's end of the agent's questions (agent/contract/ledger.py).  It never waits: a turn takes what is there,
and sends what the socket takes.  A question also says that the recorder still turns: the agent ends one that hangs.

Pages of the recording are made elsewhere (asking.py), and sent when they are there: the ledger does not wait for them.
"""
from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import msgspec

from agent.contract.ledger import (
    HEADER,
    AskLedger,
    AskRecording,
    LedgerAnswer,
    RecordingAnswer,
    parse_question,
    render_frame,
)

QUESTION = 4096                       # bytes that a question may have


class Pages(Protocol):
    def ask(self, question: AskRecording) -> None: ...
    def take(self) -> RecordingAnswer | None: ...
    def close(self) -> None: ...


class Door:
    """`answer` is asked for each question.  Raises OSError where something is wrong; an agent that is gone is not."""

    def __init__(
        self, descriptor: int, answer: Callable[[AskLedger], LedgerAnswer], pages: Pages | None = None,
    ) -> None:
        self._sock, self._answer, self._pages = socket.socket(fileno=descriptor), answer, pages
        self._sock.setblocking(False)
        self._in, self._out, self._open = bytearray(), b"", True

    def turn(self) -> None:
        if self._out:
            self._send()
            return                    # one at a time: a slow reader does not pile up answers
        if self._pages is not None and (page := self._pages.take()) is not None:
            self._out = render_frame(page)
            self._send()
            return
        with suppress(BlockingIOError):
            data = self._sock.recv(QUESTION) if self._open else b""
            self._open = bool(data)
            self._in += data
        if len(self._in) >= HEADER.size and len(self._in) >= HEADER.size + self._size():
            end = HEADER.size + self._size()
            body, self._in = bytes(self._in[HEADER.size:end]), self._in[end:]
            try:
                self._take(parse_question(body))
            except msgspec.MsgspecError as reason:
                raise OSError(f"the agent asks what is no question: {reason}") from reason
            self._send()

    def _take(self, question: AskLedger | AskRecording) -> None:
        if isinstance(question, AskLedger):
            self._out = render_frame(self._answer(question))
        elif self._pages is None:
            self._out = render_frame(RecordingAnswer(question.number, wrong="this recorder has no pages"))
        else:
            self._pages.ask(question)

    def close(self) -> None:
        self._sock.close()
        if self._pages is not None:
            self._pages.close()

    def _size(self) -> int:
        size: int = HEADER.unpack_from(self._in)[0]
        if size > QUESTION:
            raise OSError(f"a question of {size} bytes")
        return size

    def _send(self) -> None:
        with suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            self._out = self._out[self._sock.send(self._out, socket.MSG_NOSIGNAL):]
