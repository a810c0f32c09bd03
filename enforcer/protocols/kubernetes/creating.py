"""Whether a write of an object by its name makes it where it is not there yet.  Pure.

Theory: for the server that is create as well, which its own authorizer is asked for.  Weir does not know what is there,
and asks for both.

Source: k8s.io/apiserver, pkg/endpoints/handlers/patch.go (applyPatcher: forceAllowCreate); AllowCreateOnUpdate of
k8s.io/kubernetes, pkg/registry/*/strategy.go.  An update that names a UID is of what is there.
"""
from __future__ import annotations

from typing import Final

from enforcer.protocols.kubernetes.info import Info

_GROUPS: Final = ("rbac.authorization.k8s.io", "coordination.k8s.io", "events.k8s.io", "node.k8s.io")
_CORE: Final = ("endpoints", "events", "limitranges", "services")


def creates(info: Info, body: object, applies: bool) -> bool:
    """`applies`: it is a server-side apply."""
    if not info.is_resource or info.subresource or not info.name:
        return False
    return (applies and info.verb == "patch") or (info.verb == "update" and _by_update(info) and not _has_uid(body))


def _by_update(info: Info) -> bool:
    if info.group in _GROUPS or (not info.group and info.resource in _CORE):
        return True
    return "." in info.group and not info.group.endswith(".k8s.io")         # a server of its own may


def _has_uid(body: object) -> bool:
    metadata = body.get("metadata") if isinstance(body, dict) else None
    uid = metadata.get("uid") if isinstance(metadata, dict) else None
    return isinstance(uid, str) and bool(uid)
