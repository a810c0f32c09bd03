"""Principals, actions and resources as Cedar entities.  Pure.

A resource's id is its path, joined by "/": `Table::"orders/shop/public/customers"`; its parents are the shorter paths.
A slash inside of a name is written %2F, a percent sign %25.  What else policies see of a resource is in attributes:
some are said by the path, some by the request.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from enforcer.words.operations import Attribute, Principal, Request
from enforcer.words.reported import Call, Calls

Entity = dict[str, Any]

# Kinds of resources from the widest to the narrowest; a path of n parts has n - 1 parents of these kinds.
CHAIN: Final = {
    "Target": ("Target",),
    "Database": ("Target", "Database"),
    "Schema": ("Target", "Database", "Schema"),
    "Table": ("Target", "Database", "Schema", "Table"),
    "Function": ("Target", "Database", "Schema", "Function"),
    "Setting": ("Target", "Database", "Setting"),
    "Role": ("Target", "Role"),
    "Account": ("Target", "Account"),
    "Program": ("Target", "Account", "Program"),
    "Command": ("Target", "Account", "Program", "Command"),
    "File": ("Target", "Account", "File"),
    "Subsystem": ("Target", "Account", "Subsystem"),
    "Repository": ("Target", "Account", "Repository"),
    "Endpoint": ("Target", "Account", "Endpoint"),
    "Socket": ("Target", "Account", "Socket"),
    "Variable": ("Target", "Account", "Variable"),
    "Namespace": ("Target", "Namespace"),
    "Url": ("Target", "Url"),
    "Resource": ("Target", "Namespace", "Resource"),
    "Object": ("Target", "Namespace", "Resource", "Object"),
    "Identity": ("Target", "Identity"),
}
CLUSTER: Final = "*"                  # in place of a namespace: what is asked lies in none, or in all of them
_KUBERNETES: Final[dict[str, Attribute]] = {           # of a request to a cluster, whatever it asks of
    "path": "", "version": "", "labels": "", "fields": "", "dry_run": False, "kinds": (), "owners": (),
    "service_account": "", "images": (), "privileged": False, "host_namespaces": False, "host_path": False,
    "ephemeral": False, "capabilities": (), "command": (), "line": "", "container": "", "ports": (), "method": "",
    "opaque": (),
}
# What Request.attributes may say besides what the path says, and what holds where it does not.
_MORE: Final[dict[str, dict[str, Attribute]]] = {
    "Account": {"opaque": ()},        # of ssh:exec-opaque: why not all of the line can be told
    "Command": {"arguments": (), "literal": False},
    "File": {"recursive": False, "options": ()},
    "Variable": {"value": ""},
    "Url": {**_KUBERNETES, "namespace": "", "group": "", "resource": "", "subresource": "", "name": ""},
    "Resource": _KUBERNETES,
    "Object": _KUBERNETES,
}
# Groups of actions, as weir.cedarschema has them (a test compares).
_GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "sql": (
        "sql:ddl", "sql:truncate", "sql:admin", "sql:do", "sql:copy-file", "sql:copy-label", "sql:filter",
        "sql:transaction", "sql:call", "sql:set", "sql:set-role", "sql:read", "sql:write"),
    "sql:read": ("sql:select", "sql:listen"),
    "sql:write": ("sql:insert", "sql:update", "sql:delete", "sql:lock", "sql:notify", "sql:large-object"),
    "ssh": (
        "ssh:run", "ssh:shell", "ssh:terminal", "ssh:subsystem", "ssh:env", "ssh:forward", "ssh:agent", "ssh:x11",
        "ssh:tun", "sftp", "scp", "rsync", "git"),
    "ssh:run": ("ssh:exec", "ssh:exec-opaque", "ssh:exec-read", "ssh:exec-write"),
    "ssh:forward": ("ssh:forward-local", "ssh:forward-remote", "ssh:forward-stream"),
    "sftp": ("sftp:read", "sftp:list", "sftp:change"),
    "sftp:change": ("sftp:write", "sftp:remove", "sftp:rename", "sftp:setstat", "sftp:symlink", "sftp:mkdir"),
    "scp": ("scp:read", "scp:write"),
    "rsync": ("rsync:read", "rsync:write"),
    "git": ("git:fetch", "git:push"),
    "k8s": ("k8s:read", "k8s:write", "k8s:connect", "k8s:impersonate", "k8s:call"),
    "k8s:read": ("k8s:get", "k8s:list", "k8s:watch"),
    "k8s:write": ("k8s:create", "k8s:update", "k8s:patch", "k8s:delete", "k8s:deletecollection"),
    "k8s:connect": ("k8s:exec", "k8s:attach", "k8s:portforward", "k8s:proxy"),
    "file:read": ("sftp:read", "sftp:list", "scp:read", "rsync:read", "ssh:exec-read"),
    "file:write": ("sftp:change", "scp:write", "rsync:write", "ssh:exec-write"),
}
_ACTIONS: Final = dict.fromkeys(
    ["connect", "elevate", "unmask", *_GROUPS, *(action for members in _GROUPS.values() for action in members)])
PARENTS: Final = {                    # of each action the groups that it is in
    action: tuple(group for group, members in _GROUPS.items() if action in members) for action in _ACTIONS}
KINDS: Final = frozenset(CHAIN)
DEPTHS: Final = {kind: len(chain) for kind, chain in CHAIN.items()}      # parts of a path


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
    found, wanted = {}, [action]
    while wanted:
        name = wanted.pop()
        parents = PARENTS.get(name, ())
        found[name] = {"uid": {"type": "Action", "id": name}, "attrs": {},
                       "parents": [{"type": "Action", "id": parent} for parent in parents]}
        wanted += [parent for parent in parents if parent not in found]
    return list(found.values())


def fits(request: Request) -> bool:
    """Whether path and attributes are those of the kind; what the path says, attributes may only repeat."""
    if len(request.path) != DEPTHS.get(request.kind) or not all(request.path):
        return False
    more, said = _MORE.get(request.kind, {}), _attributes(request.kind, request.path)
    names = [name for name, _ in request.attributes]
    return len(names) == len(set(names)) and all(
        _alike(more[name], value) if name in more else said.get(name) == value for name, value in request.attributes)


def _alike(default: Attribute, value: Attribute) -> bool:
    """Of one type."""
    if isinstance(value, tuple):
        return isinstance(default, tuple) and all(isinstance(one, str) for one in value)
    return type(value) is type(default)


def known(kind: str) -> Mapping[str, Attribute]:
    """Attributes that a request may say of a resource of this kind, with what holds where it does not."""
    return _MORE.get(kind, {})


def resource_uid(request: Request) -> Entity:
    return uid(request.kind, request.path)


def resource_entities(request: Request) -> list[Entity]:
    """The resource and what it lies in; of a path that does not fit its kind nothing is known."""
    chain = CHAIN.get(request.kind, ())
    if len(chain) != len(request.path):
        return [{"uid": resource_uid(request), "attrs": _attributes(request.kind, request.path), "parents": []}]
    found: list[Entity] = []
    for depth in range(len(chain), 0, -1):
        path = request.path[:depth]
        parents = [uid(chain[depth - 2], path[:-1])] if depth > 1 else []
        kind = chain[depth - 1]
        found.append({"uid": uid(kind, path), "attrs": {**_attributes(kind, path), **_more(kind, ())},
                      "parents": parents})
    found[0]["attrs"] = {**found[0]["attrs"], **_more(request.kind, request.attributes)}
    return found


def _more(kind: str, attributes: tuple[tuple[str, Attribute], ...]) -> dict[str, Any]:
    """What a path does not say, as JSON."""
    said: dict[str, Attribute] = {**_MORE.get(kind, {}), **dict(attributes)}
    return {name: sorted(set(value)) if isinstance(value, tuple) else value for name, value in said.items()}


def _attributes(kind: str, path: tuple[str, ...]) -> dict[str, str]:
    read = _SAID.get(kind)
    if read is not None:
        return read(path)
    return {"name": path[-1]}


def _of_schema(path: tuple[str, ...]) -> dict[str, str]:
    return {"schema": path[-2] if len(path) > 1 else "", "name": path[-1]}


def _of_program(path: tuple[str, ...]) -> dict[str, str]:
    program = path[2] if len(path) > 2 else ""
    return {"program": program, "name": _last(program)}


def _of_endpoint(path: tuple[str, ...]) -> dict[str, str]:
    host, _, port = path[-1].rpartition(" ")
    return {"host": host, "port": port}


def _of_identity(path: tuple[str, ...]) -> dict[str, str]:
    kind, _, name = path[-1].partition(" ")
    return {"kind": kind, "name": name}


def _of_resource(path: tuple[str, ...]) -> dict[str, str]:
    """`resource` as RBAC's rules name it: "pods", "pods/log"; its id has the group too: "deployments.apps"."""
    if len(path) < 3:
        return {"name": path[-1]}
    place, _, subresource = path[2].partition("/")
    resource, _, group = place.partition(".")
    return {"namespace": "" if path[1] == CLUSTER else path[1], "group": group,
            "resource": f"{resource}/{subresource}" if subresource else resource, "subresource": subresource,
            "name": path[3] if len(path) > 3 else ""}


def _last(path: str) -> str:
    return path.rpartition("/")[2]


_SAID: Final[dict[str, Callable[[tuple[str, ...]], dict[str, str]]]] = {      # what a path says
    "Table": _of_schema,
    "Function": _of_schema,
    "Program": _of_program,
    "Command": lambda path: _of_program(path) | {"line": path[-1]},
    "File": lambda path: {"path": path[-1], "name": _last(path[-1])},
    "Repository": lambda path: {"path": path[-1], "name": _last(path[-1])},
    "Endpoint": _of_endpoint,
    "Socket": lambda path: {"path": path[-1]},
    "Url": lambda path: {},
    "Resource": _of_resource,
    "Object": _of_resource,
    "Identity": _of_identity,
}


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
