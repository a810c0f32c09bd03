"""What policy is asked about a request.  Pure.

Theory: a resource with a name is an Object, without one a Resource; what lies in no namespace, or is asked for in all,
lies in CLUSTER.  Names that would make two resources one in a policy are refused.  Each identity that the request would
act as, and each service account that its pods would run as, is a request of its own: all must be permitted.
"""
from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Final

import msgspec

from enforcer.http.messages import Headers, value
from enforcer.policy.model import CLUSTER
from enforcer.protocols.kubernetes.creating import creates
from enforcer.protocols.kubernetes.facts import APPLY, JSON, MERGE, STRATEGIC, UNREAD, Facts, read_facts
from enforcer.protocols.kubernetes.impersonation import identities
from enforcer.protocols.kubernetes.info import Info, Query, Unclear
from enforcer.protocols.kubernetes.rehearsal import rehearsed
from enforcer.words.operations import Attribute, Request

CONNECTS: Final = {"exec": "exec", "attach": "attach", "portforward": "port-forward", "proxy": "proxy"}
_WRITES: Final = ("create", "update", "patch", "delete", "deletecollection")
_VERBS: Final = ("get", "list", "watch", *_WRITES)
_OPENS: Final = ("GET", "POST")       # exec, attach and portforward
_PROXIED: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_READS: Final = ("GET", "HEAD")
_CHANGES: Final = ("POST", "PUT", "PATCH", "DELETE")
_REVIEWS: Final = ("authorization.k8s.io", "authentication.k8s.io")      # are created, and nothing is there afterwards
_PATCHES: Final = {
    b"application/json-patch+json": JSON, b"application/merge-patch+json": MERGE,
    b"application/strategic-merge-patch+json": STRATEGIC, b"application/apply-patch+yaml": APPLY,
    b"application/apply-patch+cbor": APPLY,
}
_TYPES: Final = ", ".join(one.decode() for one in _PATCHES)
_NAMESPACE: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_GROUP: Final = re.compile(r"[a-z0-9][-.a-z0-9]{0,252}")
_RESOURCE: Final = re.compile(r"[a-z0-9][-_a-z0-9]{0,252}")
_SUBRESOURCE: Final = re.compile(r"[A-Za-z0-9][-_.:A-Za-z0-9]{0,252}")
_PORT: Final = re.compile(r"[1-9][0-9]{0,4}")
_PROXY_NAME: Final = re.compile(r"(?:https?:)?(?P<name>[^:]+)(?::(?P<port>[^:]*))?")


@dataclass(frozen=True, slots=True)
class Wants:
    verb: str                         # of the recording: a verb of the API, exec, attach, port-forward, proxy, call
    requests: tuple[Request, ...]     # never empty; all must be permitted
    writes: bool                      # something is changed, or runs
    shape: bytes = b""                # digest of what requests have in common that differ in names only; b"": none has


def read_wants(
    target: str, info: Info, query: Query, headers: Headers, body: object = None, *, method: str,
) -> Wants:
    """`headers` of the request, names in lower case; `body` as decoded, None where there is none or it is not read;
    `method` as it was sent.  Unclear(405) where nothing does this, Unclear(400) where it says what cannot be told."""
    verb, action = _verb(info, method)
    tried, facts = rehearsed(info, query, body), _facts(info, headers, body)
    said = (*_said(info, query), ("method", method), ("dry_run", tried), *facts.attributes())
    asked = tuple(_requests(target, info, f"k8s:{action}", said, facts.service_accounts))
    if creates(info, body, _PATCHES.get(_media(headers)) == APPLY):
        asked += tuple(_requests(target, replace(info, name=""), "k8s:create", said, facts.service_accounts))
    acts_as = identities(headers)
    return Wants(
        verb, (*asked, *(Request("k8s:impersonate", "Identity", (target, one)) for one in acts_as)),
        _changes(info, method, verb), _shape(verb, asked, acts_as, _typed(info, query)))


def ask_port(target: str, info: Info, port: int) -> Request:
    """One connection of a port-forward."""
    said = _said(info, (("ports", str(port)),))
    return Request("k8s:portforward", *_place(target, info), said)


def _verb(info: Info, method: str) -> tuple[str, str]:
    """Of the recording, of policy."""
    if not info.is_resource:
        if method in _READS:
            return "get", "get"
        if method in (*_CHANGES, "OPTIONS"):
            return "call", "call"
    elif info.subresource in CONNECTS:
        if method in (_PROXIED if info.subresource == "proxy" else _OPENS) and info.verb not in ("watch", "proxy"):
            return CONNECTS[info.subresource], info.subresource
    elif info.verb in _VERBS and (method in _READS or info.verb in _WRITES):
        return info.verb, info.verb
    right = _OPENS if info.subresource in CONNECTS and info.subresource != "proxy" else (*_READS, *_CHANGES)
    raise Unclear(f"nothing there is done by {method}; {', '.join(right)} would be right", 405)


def _changes(info: Info, method: str, verb: str) -> bool:
    if verb == "proxy":
        return method not in _READS
    return verb not in ("get", "list", "watch") and info.group not in _REVIEWS


def _facts(info: Info, headers: Headers, body: object) -> Facts:
    if info.verb not in _WRITES or info.subresource in CONNECTS or not info.is_resource:
        return Facts()
    deletes = info.verb in ("delete", "deletecollection")
    if body is None:
        return Facts() if deletes else Facts(opaque=(UNREAD,))
    facts = read_facts(body, _patch(headers) if info.verb == "patch" else "")
    if info.subresource == "ephemeralcontainers":
        facts = replace(facts, ephemeral=True)
    return facts


def _patch(headers: Headers) -> str:
    try:
        return _PATCHES[_media(headers)]
    except KeyError:
        raise Unclear(f"a patch of a type that is not known; {_TYPES} would be right", 415) from None


def _media(headers: Headers) -> bytes:
    return value(headers, b"content-type").partition(b";")[0].strip().lower()


def _said(info: Info, query: Query) -> tuple[tuple[str, Attribute], ...]:
    """What path and query say, besides the resource's id."""
    said: list[tuple[str, Attribute]] = [
        ("path", info.path), ("version", info.version), ("labels", info.label_selector),
        ("fields", info.field_selector)]
    if info.subresource == "proxy":
        found = _proxied(info.name)[1]
        said.append(("ports", (found,) if found else ()))
    elif info.is_resource:
        command = tuple(text for name, text in query if name == "command")
        said += [("command", command), ("line", shlex.join(command)),
                 ("container", next((text for name, text in query if name == "container"), "")),
                 ("ports", tuple(_ports(query)) if info.subresource == "portforward" else ())]
    return tuple(said)


def _ports(query: Query) -> Iterator[str]:
    """Of a port-forward over WebSocket; each may be a list."""
    for name, text in query:
        for port in text.split(",") if name == "ports" else ():
            if not _PORT.fullmatch(port) or int(port) >= 1 << 16:
                raise Unclear("ports holds what is none; a number from 1 to 65535 would be right")
            yield port


def _requests(
    target: str, info: Info, action: str, said: tuple[tuple[str, Attribute], ...], accounts: tuple[str, ...],
) -> Iterator[Request]:
    kind, path = _place(target, info)
    if kind == "Resource" and info.subresource in CONNECTS:
        raise Unclear(f"{info.subresource} without a name")
    for account in accounts or ("",):
        yield Request(action, kind, path, (*said, ("service_account", account)))


def _place(target: str, info: Info) -> tuple[str, tuple[str, ...]]:
    if not info.is_resource:
        return "Url", (target, info.path)
    namespace = info.namespace or CLUSTER
    if info.namespace and not _NAMESPACE.fullmatch(info.namespace):
        raise Unclear(f"{info.namespace[:80]!r} can be no namespace")
    name = _proxied(info.name)[0] if info.subresource == "proxy" else info.name
    return ("Object", (target, namespace, _resource(info), name)) if name else (
        "Resource", (target, namespace, _resource(info)))


def _resource(info: Info) -> str:
    """ "deployments.apps/scale"."""
    if not _RESOURCE.fullmatch(info.resource) or (info.group and not _GROUP.fullmatch(info.group)) or (
            info.subresource and not _SUBRESOURCE.fullmatch(info.subresource)):
        raise Unclear("a group, resource or subresource that cannot be one")
    place = f"{info.resource}.{info.group}" if info.group else info.resource
    return f"{place}/{info.subresource}" if info.subresource else place


def _proxied(name: str) -> tuple[str, str]:
    """Of "https:web:8443" the object's name and the port (k8s.io/apimachinery, net.SplitSchemeNamePort)."""
    found = _PROXY_NAME.fullmatch(name)
    if found is None:
        raise Unclear(f"{name[:80]!r} is no name for proxy; NAME, NAME:PORT or https:NAME:PORT would be right")
    return found["name"], found["port"] or ""


def _typed(info: Info, query: Query) -> Query:
    """Whether a command takes an input, which no policy sees."""
    return tuple(one for one in query if info.subresource in CONNECTS and one[0] in ("stdin", "tty"))


def _shape(verb: str, asked: tuple[Request, ...], acts_as: tuple[str, ...], typed: Query) -> bytes:
    """Names and paths aside.  b"" for what a proxy passes on: what that does, its path, query and body say."""
    if verb == CONNECTS["proxy"]:
        return b""
    alike = [(one.action, one.path[:3] if one.kind != "Url" else one.path,
              [said for said in one.attributes if said[0] != "path"]) for one in asked]
    return sha256(msgspec.json.encode((verb, alike, acts_as, typed))).digest()
