"""What the API server takes a request for, by its own rules.  Pure.

Source: k8s.io/apiserver, pkg/endpoints/request/requestinfo.go, RequestInfoFactory.NewRequestInfo, with the prefixes of
pkg/server (api, apis; api has no groups).  Where that function goes on after options that it could not read, the server
refuses them later; they are refused here.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from enforcer.protocols.kubernetes.info import Info, Query, Unclear
from enforcer.protocols.kubernetes.selectors import named_by, valid_labels

_PREFIXES: Final = ("api", "apis")
_SPECIAL: Final = ("proxy", "watch")                   # verbs in front of the resource
_OF_NAMESPACES: Final = ("status", "finalize")         # subresources; else it is a resource in the namespace
_SELECTING: Final = ("list", "watch", "deletecollection")
_VERBS: Final = {"POST": "create", "GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_NUMBERS: Final = ("limit", "timeoutSeconds")
_LARGEST: Final = 1 << 63
# Options that a server takes the first of, where another may take the last (k8s.io/apimachinery, meta/v1; core/v1).
_ONCE: Final = frozenset((
    "watch", "fieldSelector", "labelSelector", "limit", "continue", "resourceVersion", "resourceVersionMatch",
    "timeoutSeconds", "allowWatchBookmarks", "sendInitialEvents", "includeObject", "fieldManager", "fieldValidation",
    "force", "pretty", "gracePeriodSeconds", "propagationPolicy", "orphanDependents", "uid", "timeout", "export",
    "ignoreStoreReadErrorWithClusterBreakingPotential", "container", "stdin", "stdout", "stderr", "tty", "follow",
    "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes", "stream",
    "insecureSkipTLSVerifyBackend"))


@dataclass(frozen=True, slots=True)
class _Place:
    """Of a resource, before what the query says."""

    api_prefix: str
    group: str
    version: str
    verb: str
    by_prefix: bool                   # the verb stands in the path
    rest: tuple[str, ...]


def read_info(method: str, path: str, query: Query) -> Info:
    """`path` and `query` as parse_target has them.  Unclear where options stand twice, or cannot be read."""
    parts = tuple(path.strip("/").split("/"))
    place = _place(method, parts)
    if place is None:
        _check_once(query)
        return Info(False, path, method.lower(), _prefix(parts))
    namespace, rest = _namespace(place.rest)
    resource, name = rest[0], rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 and place.verb != "proxy" else ""
    if "proxy" not in (subresource, place.verb):       # else the query is another server's
        _check_once(query)
    verb, name = _whole(place.verb, name, query)
    selecting = verb in _SELECTING and not place.by_prefix
    return Info(
        True, path, verb, place.api_prefix, place.group, place.version, namespace, resource, subresource, name, rest,
        _first(query, "fieldSelector") if selecting else "", _first(query, "labelSelector") if selecting else "")


def _prefix(parts: tuple[str, ...]) -> str:
    """`/apis/apps/v1` is no resource, but has its prefix told."""
    return parts[0] if len(parts) > 2 and parts[0] in _PREFIXES else ""


def _place(method: str, parts: tuple[str, ...]) -> _Place | None:
    """None: no resource."""
    if len(parts) < 3 or parts[0] not in _PREFIXES:
        return None
    prefix, rest, group = parts[0], parts[1:], ""
    if prefix != "api":
        if len(rest) < 3:
            return None
        group, rest = rest[0], rest[1:]
    version, rest = rest[0], rest[1:]
    if rest[0] not in _SPECIAL:
        return _Place(prefix, group, version, _VERBS.get(method, ""), False, rest)
    if len(rest) < 2:
        raise Unclear("the path names a verb and no resource")
    return _Place(prefix, group, version, rest[0], True, rest[1:])


def _namespace(rest: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """The namespace, and the parts from the resource on."""
    if rest[0] != "namespaces" or len(rest) < 2:
        return "", rest
    inside = len(rest) > 2 and rest[2] not in _OF_NAMESPACES
    return rest[1], rest[2:] if inside else rest


def _whole(verb: str, name: str, query: Query) -> tuple[str, str]:
    """Verb and name, with what the query says where the path has no name."""
    if name or verb not in ("get", "delete"):
        return verb, name
    if verb == "delete":
        return "deletecollection", ""
    _check_list(query)
    watch = _values(query, "watch")
    chosen = named_by(_first(query, "fieldSelector"))
    if chosen and not valid_labels(_first(query, "labelSelector")):
        raise Unclear("the label selector cannot be read")
    return "watch" if watch and _true(watch[0]) else "list", chosen


def _check_list(query: Query) -> None:
    for name in _NUMBERS:
        for value in _values(query, name):
            if not _number(value):
                raise Unclear(f"{name} is not a number")


def _number(text: str) -> bool:
    """As strconv.ParseInt(text, 10, 64)."""
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not (digits.isascii() and digits.isdecimal()) or len(digits) > 100:
        return False
    return -_LARGEST <= int(text) < _LARGEST


def _true(text: str) -> bool:
    """As runtime.Convert_Slice_string_To_bool: all but "0" and "false" is true."""
    if not text.isascii():            # Go folds more letters than are seen
        raise Unclear("watch is neither true nor false")
    return text != "0" and text.lower() != "false"


def _check_once(query: Query) -> None:
    seen = set()
    for name, _ in query:
        if name in seen and name in _ONCE:
            raise Unclear(f"{name} stands twice in the query")
        seen.add(name)


def _values(query: Query, name: str) -> list[str]:
    return [value for found, value in query if found == name]


def _first(query: Query, name: str) -> str:
    return next((value for found, value in query if found == name), "")
