"""Operations: one thing asked in a session, as a set of requests."""
from __future__ import annotations

import msgspec

from agent.contract.owner import Owner

Attribute = str | bool | tuple[str, ...]


class Request(msgspec.Struct, frozen=True):
    """One (action, resource) pair as policy sees it.

    action: "connect", "sql:select", "sql:insert", "sql:update", "sql:delete", "sql:ddl", "sql:call", "sql:set", ...
    kind and path name the resource: ("Table", ("orders", "shop", "public", "customers")) is target, database, schema,
    table; ("Database", (target, database)); ("Function", (target, database, schema, name)); ("Target", (target,));
    ("Command", (target, account, program, line)); enforcer.policy.model has them all.
    `attributes`: what policies see of the resource besides what its path says; tuples are sets.
    """

    action: str
    kind: str
    path: tuple[str, ...]
    attributes: tuple[tuple[str, Attribute], ...] = ()

    @property
    def resource(self) -> str:
        """As the recording shows it."""
        if self.kind == "Command":
            return self.path[-1]      # the line, which begins with its program
        if self.kind in ("Resource", "Object", "Url", "Identity"):
            return "/".join(self.path[1:])
        if self.kind == "Account":
            return "@".join(reversed(self.path))
        return ".".join(self.path[2:]) or ".".join(self.path)


class Principal(msgspec.Struct, frozen=True):
    """subject acting through actor (RFC 8693 sub/act)."""

    subject: str
    groups: tuple[str, ...]
    owner: Owner

    @property
    def workload(self) -> str:
        return self.owner.workload
