"""The gate: every operation of every protocol is decided here."""
from __future__ import annotations

from typing import Protocol

from enforcer.words.decisions import Decision
from enforcer.words.operations import Principal, Request


class Gate(Protocol):
    @property
    def version(self) -> int:
        """Changes whenever policies, entities or labels change: part of every cache key."""
        ...

    def decide(
        self,
        principal: Principal,
        requests: tuple[Request, ...],
        labels: tuple[str, ...] = (),
        approved: bool = False,
    ) -> Decision:
        """Pure.  Any deny denies, any hold holds; `labels` are those that the operation would show, each is answered in
        `unmasked` or `masked`.  No request at all is denied."""
        ...
