"""One connection of a port-forward: decided, then through the target that is registered behind that port, or as it is
unless it begins like what has no business there (core/raw.py)."""
from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, Protocol

from agent.contract.target import Forward
from enforcer.core.desk import Ask, Desk, Verdict
from enforcer.core.raw import Raw
from enforcer.protocols import spoken
from enforcer.protocols.kubernetes.info import Info
from enforcer.protocols.kubernetes.streams.crews import Near
from enforcer.protocols.kubernetes.streams.restraint import Restraint, Waiting
from enforcer.protocols.kubernetes.streams.uplinks import Owner, Uplink
from enforcer.protocols.kubernetes.wants import ask_port
from enforcer.words.commands import (
    CLIENT,
    SERVER,
    CloseThrough,
    Command,
    EndThrough,
    OpenThrough,
    SendThrough,
    StartTimer,
    ThroughConnected,
    ThroughFailed,
)

TIMER: Final = "forward "             # before a pair's number
REASON: Final = 4096                  # bytes of an error stream that are recorded


class Ground(Protocol):
    """The port-forward that it is of."""

    info: Info
    restraint: Restraint

    @property
    def desk(self) -> Desk: ...

    def say(self, command: Command) -> None: ...

    def dial(self, port: int, owner: Owner) -> Uplink: ...

    def forward(self, port: int) -> Forward | None: ...

    def gone(self, pair: Pair) -> None: ...


class Pair:
    """The crew's Far, and the Owner of its Uplink where it goes as it is."""

    def __init__(self, ground: Ground, number: int, near: Near, port: int) -> None:
        self.number, self.port = number, port
        self._ground, self._near = ground, near
        self._operation = 0
        self._then = self._decided    # one and the same, by which it is withdrawn
        self._waiting = Waiting(ground.restraint, CLIENT)
        self._end = self._end_sent = False     # of what the crew says
        self._over = False
        self._raw: Raw | None = None
        self._uplink: Uplink | None = None
        self._through = self._inner = self._full = False
        self._reason, self._timer = b"", 0.0

    # Deciding

    def begin(self) -> None:
        info, ground = self._ground.info, self._ground
        place = f"{info.namespace}/{info.name} {self.port}"
        asked = ask_port(ground.desk.target, info, self.port)
        ground.desk.ask(Ask("port-forward", place.encode(), (asked,), f"{info.path}\0{self.port}".encode(),
                            writes=True), self._then)

    def _decided(self, verdict: Verdict) -> None:
        if self._over:                # the crew has gone meanwhile
            if verdict.permitted:
                self._ground.desk.done(verdict.number, "cancelled")
            return
        if not verdict.permitted:
            self._refuse(verdict.reason)
            return
        self._operation = verdict.number
        forward = self._ground.forward(self.port)
        if forward is None:
            self._raw = Raw(self._ground.info.name, spoken)
            self._uplink = self._ground.dial(self.port, self)
        else:
            self._through = True
            self._ground.say(OpenThrough(self.number, self._ground.info.name, self.port, forward.target))

    def _refuse(self, reason: str) -> None:
        self._near.error(f"weir: {reason}".encode())
        self._finish()

    # crews.Far

    def said(self, data: bytes) -> None:
        if not self._over:
            self._waiting.add(data)
            self._pump()

    def ended(self) -> None:
        self._end = True
        self._pump()

    def dropped(self) -> None:
        """The crew wants nothing more of it."""
        if self._over:
            return
        if not self._operation:
            self._ground.desk.withdraw(self._then)
        if self._through:
            self._ground.say(CloseThrough(self.number, CLIENT))
        self._done("ok")

    def _pump(self) -> None:
        """What waits goes on, where it can."""
        ready = self._uplink.linked if self._uplink is not None else self._inner and not self._full
        if ready and not self._over:
            if data := self._waiting.take():
                self._ground.desk.piece(self._operation, "in", data, keep=False)
                self._pass(data)
            if self._end and not self._end_sent and not self._over:
                self._end_sent = True
                self._pass_end()
        self._waiting.settle()

    def _pass(self, data: bytes) -> None:
        if self._raw is not None:
            self._judged(*self._raw.client(data))
        else:
            self._ground.say(SendThrough(self.number, CLIENT, data))

    def _pass_end(self) -> None:
        if self._raw is None:
            self._ground.say(EndThrough(self.number, CLIENT))
            return
        self._judged(*self._raw.no_more())
        if self._uplink is not None and not self._over:
            self._uplink.end()

    # As it is

    def _judged(self, passed: bytes, reason: str) -> None:
        if reason:
            self._near.error(f"weir: {reason}".encode())
            self._done("denied", reason.encode())
        elif self._uplink is not None:
            self._uplink.send(passed)
            self._wake(self._raw.wait if self._raw is not None else 0)

    def _wake(self, seconds: float) -> None:
        if seconds != self._timer:
            self._timer = seconds
            self._ground.say(StartTimer(f"{TIMER}{self.number}", seconds))

    def fired(self) -> None:
        self._timer = 0.0
        if self._raw is not None and not self._over:
            self._judged(*self._raw.due())

    def linked(self) -> None:
        self._pump()

    def heard(self, data: bytes) -> None:
        assert self._raw is not None
        if self._over:
            return
        passed, reason = self._raw.server(data)
        self._ground.desk.piece(self._operation, "out", data, keep=False)
        if reason:
            self._judged(b"", reason)
        else:
            self._near.data(passed)

    def failed(self, text: bytes) -> None:
        self._reason = (self._reason + text)[:REASON]
        self._near.error(text)

    def no_more(self) -> None:
        self._near.end()

    def unlinked(self) -> None:
        self._done("error" if self._reason else "ok", self._reason)

    # Through a registered target

    def through_opened(self, target: str, session: str) -> None:
        self._inner = True
        self._ground.desk.tell("tunnel", f"operation {self._operation}: target {target}, session {session}")
        self._pump()

    def through_refused(self, reason: str) -> None:
        """What is said to be a target's is never passed as it is."""
        reason = reason or "no target is registered there"
        self._near.error(f"weir: {reason}".encode())
        self._done("error", reason.encode())

    def through_data(self, data: bytes) -> None:
        self._ground.desk.piece(self._operation, "out", data, keep=False)
        self._near.data(data)

    def through_full(self, on: bool) -> None:
        self._full = on
        self._pump()

    def through_ended(self) -> None:
        self._near.finish()

    def through_closed(self) -> None:
        self._done("ok")

    # The end

    def end(self, status: str, reason: str, told: str = "") -> None:
        """With all of the port-forward."""
        if self._over:
            return
        if told:
            self._near.error(f"weir: {told}".encode())
        if not self._operation:
            self._ground.desk.withdraw(self._then)
        if self._through:
            self._ground.say(CloseThrough(self.number, CLIENT, reason))
        self._done(status, told.encode())

    def _done(self, status: str, error: bytes = b"") -> None:
        if not self._over and self._operation:
            self._ground.desk.done(self._operation, status, "", error)
        self._finish()

    def _finish(self) -> None:
        if self._over:
            return
        self._over = True
        self._waiting.take()
        self._waiting.settle()
        if self._uplink is not None:
            self._uplink.drop()
        self._wake(0.0)
        self._near.finish()
        self._ground.gone(self)


class Line:
    """A connection that a session in a tunnel, or Weir for it, wants to the pod's port."""

    def __init__(self, ground: Ground, number: int, port: int, forget: Callable[[int], None]) -> None:
        self._ground, self._number, self._forget = ground, number, forget
        self._waiting = Waiting(ground.restraint, SERVER)
        self._reason = b""
        self._full = self._end = self._gone = False
        text = f"{ground.info.namespace}/{ground.info.name} {port}".encode()
        self._operation = ground.desk.own("dial", text) if number < 0 else 0
        self._connected = False
        self._uplink = ground.dial(port, self)

    # uplinks.Owner

    def linked(self) -> None:
        self._connected = True
        self._ground.say(ThroughConnected(self._number))

    def heard(self, data: bytes) -> None:
        self._waiting.add(data)
        self._pump()

    def failed(self, text: bytes) -> None:
        self._reason = (self._reason + text)[:REASON]

    def no_more(self) -> None:
        self._end = True
        self._pump()

    def unlinked(self) -> None:
        self._gone = True
        if not self._connected:
            self._ground.say(ThroughFailed(self._number, self._why or "the server did not open it"))
            self._over("error")
        else:
            self._pump()

    def _pump(self) -> None:
        if not self._full:
            if data := self._waiting.take():
                self._ground.say(SendThrough(self._number, SERVER, data))
            self._pass_end()
        self._waiting.settle()

    def _pass_end(self) -> None:
        if self._gone:
            self._ground.say(CloseThrough(self._number, SERVER, self._why))
            self._over("error" if self._reason else "ok")
        elif self._end:
            self._end = False
            self._ground.say(EndThrough(self._number, SERVER))

    # Events

    def through_data(self, data: bytes) -> None:
        self._uplink.send(data)

    def through_full(self, on: bool) -> None:
        self._full = on
        self._pump()

    def through_ended(self) -> None:
        """Nobody wants it any more."""
        self._uplink.drop()
        if self._connected:
            self._ground.say(CloseThrough(self._number, SERVER))
        self._over("ok")

    def end(self, reason: str) -> None:
        """With all of the port-forward."""
        self._uplink.drop()
        self._ground.say(CloseThrough(self._number, SERVER, reason) if self._connected
                         else ThroughFailed(self._number, reason))
        self._over("ok")

    @property
    def _why(self) -> str:
        return self._reason.decode("utf-8", "replace")

    def _over(self, status: str) -> None:
        self._waiting.take()
        self._waiting.settle()
        if self._operation:
            self._ground.desk.done(self._operation, status, "", self._reason)
            self._operation = 0
        self._forget(self._number)


def fits(forward: Forward, info: Info, port: int) -> bool:
    pattern = ".*".join(map(re.escape, re.split(r"\*+", forward.pods)))
    return (forward.port == port and forward.namespace == info.namespace
            and re.fullmatch(pattern, info.name) is not None)
