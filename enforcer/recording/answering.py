"""The recorder's end of the agent's questions (agent/contract/ledger.py).  It never waits: a turn takes what is there,
and sends what the socket takes.  A question also says that the recorder still turns: the agent ends one that hangs."""
from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress

import msgspec

from agent.contract.ledger import HEADER, AskLedger, LedgerAnswer, parse_question, render_frame

QUESTION = 256                        # bytes that a question may have


class Door:
    """`answer` is asked for each question.  Raises OSError where something is wrong; an agent that is gone is not."""

    def __init__(self, descriptor: int, answer: Callable[[AskLedger], LedgerAnswer]) -> None:
        self._sock, self._answer = socket.socket(fileno=descriptor), answer
        self._sock.setblocking(False)
        self._in, self._out, self._open = bytearray(), b"", True

    def turn(self) -> None:
        if self._out:
            self._send()
            return                    # one at a time: a slow reader does not pile up answers
        with suppress(BlockingIOError):
            data = self._sock.recv(QUESTION) if self._open else b""
            self._open = bool(data)
            self._in += data
        if len(self._in) >= HEADER.size and len(self._in) >= HEADER.size + self._size():
            end = HEADER.size + self._size()
            body, self._in = bytes(self._in[HEADER.size:end]), self._in[end:]
            try:
                self._out = render_frame(self._answer(parse_question(body)))
            except msgspec.MsgspecError as reason:
                raise OSError(f"the agent asks what is no question: {reason}") from reason
            self._send()

    def close(self) -> None:
        self._sock.close()

    def _size(self) -> int:
        size: int = HEADER.unpack_from(self._in)[0]
        if size > QUESTION:
            raise OSError(f"a question of {size} bytes")
        return size

    def _send(self) -> None:
        with suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            self._out = self._out[self._sock.send(self._out, socket.MSG_NOSIGNAL):]
