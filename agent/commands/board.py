"""Pure: the live list of what waits for people: what is chosen, what a key does, what is drawn.

An answer is for what its giver has seen.  It counts for the one that is chosen, where that has been drawn to its last
line, and for half a second: nothing typed ahead answers it.  Where the chosen one goes by itself, none is chosen.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.text import Text

from agent.commands.keyboard import BACK, DOWN, ENTER, ESCAPE, PAGE, PAGE_UP, UP
from agent.commands.screen import render_hold, safe
from agent.contract import control
from agent.contract.messages import REASON_REQUIRED, HoldView

SETTLED: Final = 0.5                  # seconds
REASON_LIMIT: Final = 200             # characters
_MOVES: Final = {UP: -1, "k": -1, DOWN: 1, "j": 1}
_VERBS: Final = {"a": "approve", "d": "deny", "r": "revoke"}
_KEYS: Final = "up, down: choose   space, b: page   a: approve   d: deny   r: revoke   q: leave"
_TYPING: Final = "enter: send   escape: not after all"


class Board:
    """`take` what there is, `press` a key, `draw`; times are seconds of one clock that only goes forward."""

    def __init__(self) -> None:
        self.over = False
        self.note = ""                # what became of the last key
        self._holds: tuple[HoldView, ...] = ()
        self._chosen = ""             # ticket; empty: none
        self._lost = False            # the chosen one went by itself: another is chosen by hand
        self._verb, self._reason = "", ""      # an answer whose reason is being typed
        self._width = 0
        self._look()

    def _look(self) -> None:
        """At another: nothing of it has been drawn."""
        self._top, self._height, self._seen, self._total, self._since = 0, 1, 0, 0, -1.0

    def take(self, holds: Sequence[HoldView]) -> None:
        """What waits first, the oldest first; then what is in force."""
        self._holds = tuple(sorted(holds, key=lambda one: (one.state != "pending", one.since, one.ticket)))
        if self._chosen and self._current() is None:
            self.note, self._lost = f"{self._chosen} is over", True
            self._chosen = self._verb = ""
        if not self._chosen and not self._lost and self._holds:
            self._choose(self._holds[0])

    def _current(self) -> HoldView | None:
        return next((one for one in self._holds if one.ticket == self._chosen), None)

    def _choose(self, hold: HoldView) -> None:
        self._chosen = hold.ticket
        self._look()

    # keys

    def press(self, key: str, now: float) -> control.Message | None:
        """What the agent is to be told."""
        if self._verb:
            return self._type(key)
        if key == "q":
            self.over = True
        elif key in _MOVES:
            self._move(_MOVES[key])
        elif key in (" ", PAGE):
            self._top = max(0, min(self._top + self._height, self._total - self._height))
        elif key in ("b", PAGE_UP):
            self._top = max(0, self._top - self._height)
        elif key in _VERBS:
            return self._answer(_VERBS[key], now)
        return None

    def _move(self, step: int) -> None:
        self.note, self._lost = "", False
        tickets = [one.ticket for one in self._holds]
        if tickets:
            place = tickets.index(self._chosen) + step if self._chosen else 0
            self._choose(self._holds[max(0, min(place, len(tickets) - 1))])

    def _answer(self, verb: str, now: float) -> control.Message | None:
        hold = self._current()
        self.note = "nothing is chosen" if hold is None else self._not_yet(hold, verb, now)
        if hold is None or self.note:
            return None
        if verb == "deny" or (verb == "approve" and hold.reason_required):
            self._verb, self._reason = verb, ""
            return None
        return self._said(verb, "")

    def _not_yet(self, hold: HoldView, verb: str, now: float) -> str:
        if (hold.state == "pending") == (verb == "revoke"):
            return f"{hold.ticket} " + ("waits: a or d answers it" if verb == "revoke" else "is in force: r ends it")
        if verb == "approve" and self._seen < self._total:
            return "there is more of it: space shows it, then a approves"
        if self._since < 0 or now - self._since < SETTLED:
            return "it has only just been shown: look, then press it again"
        return ""

    def _type(self, key: str) -> control.Message | None:
        if key == ESCAPE:
            self._verb = ""
        elif key == BACK:
            self._reason = self._reason[:-1]
        elif key == ENTER and self._reason.strip():
            return self._said(self._verb, self._reason.strip())
        elif key == ENTER:
            self.note = REASON_REQUIRED
        elif len(key) == 1 and key.isprintable() and len(self._reason) < REASON_LIMIT:
            self._reason += key
        return None

    def _said(self, verb: str, reason: str) -> control.Message:
        ticket, self._chosen, self._verb = self._chosen, "", ""
        self.note = f"{ticket}: {verb}"
        if verb == "revoke":
            return control.Revoke(ticket, reason)
        return control.Decide(ticket, verb == "approve", reason)

    # the picture

    def draw(self, console: Console, width: int, height: int, now: float) -> Text:
        """`height` lines of at most `width` cells."""
        hold = self._current()
        waiting = sum(one.state == "pending" for one in self._holds)
        counts = "1 waits" if waiting == 1 else f"{waiting} wait" if waiting else "nothing waits"
        counts += f" for an answer, {len(self._holds) - waiting} in force"
        listed = self._list(max(1, min(max(3, height // 4), height - 6)))
        head = [Text(counts, style="bold"), *listed, Text("-" * width, style="dim")]
        self._height = max(1, height - len(head) - 2)
        lines = render_hold(hold, width).wrap(console, width, overflow="fold") if hold else [Text()]
        if width != self._width:      # its lines are others
            self._width, self._seen = width, 0
        self._total = len(lines)
        self._top = max(0, min(self._top, self._total - self._height))
        shown = list(lines[self._top:self._top + self._height])
        if hold and height >= len(head) + 3:       # else it is cut off below
            self._seen = max(self._seen, self._top + len(shown))
            self._since = now if self._since < 0 else self._since
        blank = [Text()] * (self._height - len(shown))
        whole = [*head, *shown, *blank, self._status(), Text(_TYPING if self._verb else _KEYS, style="dim")]
        for line in whole:
            line.truncate(width, overflow="ellipsis")
        return Text("\n").join(whole[:height])

    def _list(self, most: int) -> list[Text]:
        place = next((number for number, one in enumerate(self._holds) if one.ticket == self._chosen), 0)
        first = max(0, min(place - most // 2, len(self._holds) - most))
        return [self._line(one) for one in self._holds[first:first + most]]

    def _line(self, hold: HoldView) -> Text:
        chosen = hold.ticket == self._chosen
        what = hold.action if hold.state == "pending" else f"{hold.action} (in force)"
        return Text(f"{'>' if chosen else ' '} {hold.ticket}  {safe(hold.subject)}  {safe(hold.target)}  {safe(what)}",
                    style="reverse" if chosen else "")

    def _status(self) -> Text:
        if self._verb:
            return Text(f"reason to {self._verb} {self._chosen}: {safe(self._reason)}_ {self.note}", style="bold")
        more = self._total - self._seen
        return Text(self.note or (f"{more} more lines of it" if more > 0 else ""), style="yellow")
