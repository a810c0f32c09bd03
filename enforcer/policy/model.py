"""Principals, actions and resources as Cedar entities.  Pure.

A resource's id is its path, joined by "/": `Table::"orders/shop/public/customers"`; its parents are the shorter paths.
A slash inside of a name is written %2F, a percent sign %25.
"""
from __future__ import annotations

from typing import Any, Final

from enforcer.words.operations import Principal, Request
from enforcer.words.reported import Call, Calls

Entity = dict[str, Any]

# Kinds of resources from the widest to the narrowest; a path of n parts has n - 1 parents of these kinds.
_CHAIN: Final = {
    "Target": ("Target",),
    "Database": ("Target", "Database"),
    "Schema": ("Target", "Database", "Schema"),
    "Table": ("Target", "Database", "Schema", "Table"),
    "Function": ("Target", "Database", "Schema", "Function"),
    "Setting": ("Target", "Database", "Setting"),
    "Role": ("Target", "Role"),
}
# Groups of actions, as weir.cedarschema has them (a test compares).
_READS: Final = ("sql:select", "sql:listen")
_WRITES: Final = ("sql:insert", "sql:update", "sql:delete", "sql:lock", "sql:notify", "sql:large-object")
_OTHERS: Final = (
    "sql:ddl", "sql:truncate", "sql:admin", "sql:do", "sql:copy-file", "sql:copy-label", "sql:filter",
    "sql:transaction", "sql:call", "sql:set", "sql:set-role", "sql:read", "sql:write",
)
PARENTS: Final = (
    dict.fromkeys(("connect", "elevate", "unmask", "sql"), "") | dict.fromkeys(_OTHERS, "sql")
    | dict.fromkeys(_READS, "sql:read") | dict.fromkeys(_WRITES, "sql:write")
)
KINDS: Final = frozenset(_CHAIN)
DEPTHS: Final = {kind: len(chain) for kind, chain in _CHAIN.items()}      # parts of a path


def uid(kind: str, path: tuple[str, ...]) -> Entity:
    return {"type": kind, "id": "/".join(part.replace("%", "%25").replace("/", "%2F") for part in path)}


def principal_uid(principal: Principal) -> Entity:
    return {"type": "User", "id": principal.subject}


def principal_entities(principal: Principal) -> list[Entity]:
    """The user, in its groups and its workload."""
    parents = [{"type": "Group", "id": group} for group in principal.groups]
    if principal.workload:
        parents.append({"type": "Workload", "id": principal.workload})
    return [{"uid": principal_uid(principal), "attrs": {}, "parents": parents},
            *({"uid": parent, "attrs": {}, "parents": []} for parent in parents)]


def action_entities(action: str) -> list[Entity]:
    """The action and the groups that it is in."""
    found = []
    while action:
        parent = PARENTS.get(action, "")
        found.append({"uid": {"type": "Action", "id": action}, "attrs": {},
                      "parents": [{"type": "Action", "id": parent}] if parent else []})
        action = parent
    return found


def resource_uid(request: Request) -> Entity:
    return uid(request.kind, request.path)


def resource_entities(request: Request) -> list[Entity]:
    """The resource and what it lies in; of a path that does not fit its kind nothing is known."""
    chain = _CHAIN.get(request.kind, ())
    if len(chain) != len(request.path):
        return [{"uid": resource_uid(request), "attrs": _attributes(request.kind, request.path), "parents": []}]
    found = []
    for depth in range(len(chain), 0, -1):
        path = request.path[:depth]
        parents = [uid(chain[depth - 2], path[:-1])] if depth > 1 else []
        found.append({"uid": uid(chain[depth - 1], path), "attrs": _attributes(chain[depth - 1], path),
                      "parents": parents})
    return found


def _attributes(kind: str, path: tuple[str, ...]) -> dict[str, str]:
    if kind in ("Table", "Function"):
        return {"schema": path[-2] if len(path) > 1 else "", "name": path[-1]}
    return {} if kind == "Target" else {"name": path[-1]}


def label_entities(label: str) -> list[Entity]:
    """`pii.email` lies in `pii`."""
    parts = label.split(".")
    names = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
    return [{"uid": {"type": "Label", "id": name}, "attrs": {},
             "parents": [{"type": "Label", "id": names[i + 1]}] if i + 1 < len(names) else []}
            for i, name in enumerate(names)]


def asked(principal: Principal, approved: bool, elevated: bool, reported: Calls = ()) -> dict[str, Any]:
    """The context of a request."""
    process = principal.owner.process
    return {"approved": approved, "elevated": elevated, "workload": principal.workload,
            "exe": process.exe if process else "", "reported": _reported(reported)}


def _reported(calls: Calls) -> dict[str, Any]:
    """One call is named; of several each may be meant, and none is."""
    one = calls[0] if len(calls) == 1 else _NO_CALL
    return {"certain": len(calls) == 1, "crew": one.crew, "agent": one.agent, "task": one.task, "tool": one.tool,
            "crews": sorted({call.crew for call in calls}), "agents": sorted({call.agent for call in calls}),
            "tasks": sorted({call.task for call in calls}), "tools": sorted({call.tool for call in calls})}


_NO_CALL: Final = Call("", "", "", "")
