"""What of SSH's operations is written down: no passwords that are in lines."""
from __future__ import annotations

from typing import Final

from enforcer.core.book import Manner
from enforcer.core.desk import Ask
from enforcer.core.hiding import hide, hide_bytes
from enforcer.words.operations import Request

LINES: Final = ("exec", "env")        # what passwords are hidden in


class SshManner(Manner):
    def text(self, ask: Ask) -> bytes:
        return hide_bytes(ask.text) if ask.verb in LINES else ask.text

    def parameters(self, ask: Ask) -> tuple[str, ...]:
        return tuple(map(hide, ask.parameters))

    def reason(self, ask: Ask, reason: str) -> str:
        return hide(reason) if ask.verb in LINES else reason

    def named(self, request: Request) -> str:
        return hide(request.resource) if request.kind == "Command" else request.resource

    def alike(self, ask: Ask) -> tuple[object, ...]:
        """What is asked of what, and with which variables.  Lines that cannot be told may ask for the same and do
        anything."""
        variables = tuple(one for one in ask.parameters if not one.startswith("terminal "))
        opaque = any(one.action == "ssh:exec-opaque" for one in ask.requests)
        return (ask.requests, variables, ask.exact) if opaque else (ask.requests, variables)
