"""Answers in the order in which they were asked for (RFC 4254 4 and 5.4: they carry no number): pure."""
from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from enforcer.words.errors import RemoteProtocolError

MOST: Final = 256                     # that one side may have asked and not got yet

Then = Callable[[bool, bytes], None]  # (success, what comes with it)


class Slot:
    """One answer that somebody waits for."""

    __slots__ = ("answer",)

    def __init__(self) -> None:
        self.answer: bytes | None = None


class Owed:
    """What one peer waits for: each answer goes when all before it have gone."""

    def __init__(self, send: Callable[[bytes], None]) -> None:
        self._send = send
        self._slots: deque[Slot] = deque()

    def slot(self) -> Slot:
        if len(self._slots) >= MOST:
            raise RemoteProtocolError("too many requests wait for their answer")
        self._slots.append(found := Slot())
        return found

    def answer(self, slot: Slot, message: bytes) -> None:
        slot.answer = message
        while self._slots and (ready := self._slots[0].answer) is not None:
            self._slots.popleft()
            self._send(ready)


class Awaited:
    """What Weir has asked one peer for."""

    def __init__(self) -> None:
        self._then: deque[Then] = deque()

    def ask(self, then: Then) -> None:
        if len(self._then) >= 2 * MOST:
            raise RemoteProtocolError("too many requests wait for their answer")
        self._then.append(then)

    def answered(self, success: bool, rest: bytes = b"") -> None:
        if not self._then:
            raise RemoteProtocolError("an answer to nothing that was asked")
        self._then.popleft()(success, rest)
