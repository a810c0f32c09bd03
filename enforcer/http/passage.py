"""What flows on a connection that is no HTTP any more: after 101 (RFC 9110 7.8)."""
from __future__ import annotations

from typing import Protocol

from enforcer.core.desk import Desk
from enforcer.words.commands import Command
from enforcer.words.inputs import Input


class Outlet(Protocol):
    """What a passage is given."""

    @property
    def desk(self) -> Desk: ...

    def send(self, peer: int, data: bytes) -> None:
        """To CLIENT or SERVER, in order with everything else that is said: what is recorded before it is written before
        it."""
        ...

    def close(self, reason: str) -> None:
        """Both sides, after what was sent; the session is over.  The operation's result is the passage's to record,
        before."""
        ...

    def say(self, command: Command) -> None:
        """StartTimer, OpenThrough and its kin, PauseReading, ResumeReading."""
        ...

    def now(self) -> float:
        """Monotonic seconds."""
        ...


class Passage(Protocol):
    """Both directions, terminated: what comes is decoded, judged, recorded, and rendered anew for the other side.
    ProtocolError (LocalProtocolError, RemoteProtocolError) where a peer says what cannot be told: both sides are closed
    then."""

    def receive(self, peer: int, data: bytes) -> None:
        """Bytes from CLIENT or SERVER, cut anywhere, never empty."""
        ...

    def ended(self, peer: int) -> None:
        """That side is gone.  The passage says what is left to say and calls `outlet.close`."""
        ...

    def handle(self, event: Input) -> None:
        """TimerFired, Through..."""
        ...

    def stop(self, reason: str) -> None:
        """It ends now (killed, recording failed, a bug): streams and results are recorded, the client is told in the
        protocol's own words where that is possible; not `close`d by the passage."""
        ...
