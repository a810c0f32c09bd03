"""What the edge tells a layer of the tunnels that it carries (words.inputs), handed to the end that it is for."""
from __future__ import annotations

from typing import Protocol

from enforcer.words import inputs

Carried = inputs.ThroughData | inputs.ThroughFull | inputs.ThroughEnded
Answered = inputs.ThroughOpened | inputs.ThroughRefused | inputs.ThroughClosed


class End(Protocol):
    """Either end of a line, tunnel or uplink."""

    def through_data(self, data: bytes) -> None: ...

    def through_full(self, on: bool) -> None: ...

    def through_ended(self) -> None: ...


class Asking(Protocol):
    """Who asked for a tunnel."""

    def through_opened(self, target: str, session: str) -> None: ...

    def through_refused(self, reason: str) -> None: ...

    def through_closed(self) -> None: ...


def carry(end: End, event: Carried) -> None:
    if isinstance(event, inputs.ThroughData):
        end.through_data(event.data)
    elif isinstance(event, inputs.ThroughFull):
        end.through_full(event.on)
    else:
        end.through_ended()


def answer(asking: Asking, event: Answered) -> None:
    if isinstance(event, inputs.ThroughOpened):
        asking.through_opened(event.target, event.session)
    elif isinstance(event, inputs.ThroughRefused):
        asking.through_refused(event.reason)
    else:
        asking.through_closed()
