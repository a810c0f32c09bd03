"""Whether a write is only tried: dryRun, in the query and in bodies.  Pure.

Source: k8s.io/apiserver, pkg/endpoints/handlers (delete.go: a body's options stand for all of the query's);
k8s.io/kubernetes, pkg/registry/core/pod/storage/eviction.go.
"""
from __future__ import annotations

from typing import Final

from enforcer.protocols.kubernetes.info import Info, Query, Unclear

_ALL: Final = "All"
_TRIED: Final = ("create", "update", "patch", "delete", "deletecollection")
# A token is made whatever dryRun says (pkg/registry/core/serviceaccount/storage/token.go).
_NOT_TRIED: Final = ("exec", "attach", "portforward", "proxy", "token")


def rehearsed(info: Info, query: Query, body: object) -> bool:
    """Unclear where it is asked for in a way that the server would not follow."""
    if not info.is_resource or info.verb not in _TRIED or info.subresource in _NOT_TRIED:
        return False
    asked = _all([value for name, value in query if name == "dryRun"])
    if info.verb in ("delete", "deletecollection") and body is not None:
        return _of_body(body, asked)
    if info.subresource == "eviction" and isinstance(body, dict):
        return _of_eviction(body.get("deleteOptions"), asked)
    return asked


def _of_body(options: object, asked: bool) -> bool:
    if not isinstance(options, dict):
        raise Unclear("the options of a delete are no object")
    said = _all(options.get("dryRun"))
    if asked and not said:
        raise Unclear("dryRun stands in the query, which a server does not read beside a body: say it in the body")
    return said


def _of_eviction(options: object, asked: bool) -> bool:
    """Either may say so."""
    return asked or (isinstance(options, dict) and _all(options.get("dryRun")))


def _all(values: object) -> bool:
    if values is None or values == []:
        return False
    if not isinstance(values, list) or any(one != _ALL for one in values):
        raise Unclear("dryRun is something else than All, which is all there is")
    return True
