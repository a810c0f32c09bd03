"""Pure: kubeconfigs as workloads see them: for registered clusters with Weir's authority, and nothing worth stealing.

A crew writes its kubeconfig as it likes, so it is parsed after the launcher has become the workload's user
(agent/workload/view.py), and what is shown is rendered anew: a client reads what was read here, and nothing else.  What
cannot be read is shown as an empty one, with the reason in it.

Source: k8s.io/client-go, tools/clientcmd/api/v1, types.go.
"""
from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import yaml

PLACEHOLDER: Final = "weir-has-the-credential"      # the token of every crew: it opens nothing
MOST: Final = 4 << 20                 # bytes and values of one, written out
_PEM: Final = re.compile(rb"^-----BEGIN (?:TRUSTED )?CERTIFICATE-----", re.MULTILINE)
# Of a cluster: what says how it is reached and known.  Weir is known by its authority, and spoken to directly.
_OF_CLUSTER: Final = ("certificate-authority", "certificate-authority-data", "insecure-skip-tls-verify",
                      "tls-server-name", "proxy-url")
_OF_USER: Final = ("as", "as-uid", "as-groups", "as-user-extra")    # no secrets, and policy decides on them


class Cluster(msgspec.Struct, frozen=True):
    """A registered one, as its clients may name it."""

    name: str
    hosts: tuple[str, ...]            # names and addresses
    port: int
    authorities: str                  # PEM: Weir's for it

    def has(self, host: str, port: int) -> bool:
        return port == self.port and plain(host) in map(plain, self.hosts)


class Unread(Exception):
    """Why it is no kubeconfig that can be read."""


def parse_clusters(content: bytes) -> tuple[Cluster, ...]:
    """Raises ValueError."""
    return msgspec.json.decode(content, type=tuple[Cluster, ...])


def render_clusters(clusters: Iterable[Cluster]) -> bytes:
    return msgspec.json.encode(tuple(clusters))


def plain(host: str) -> str:
    """A name in lower case without a last dot; an address as it is written shortest."""
    host = host.strip("[]").partition("%")[0].rstrip(".").lower()
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host


def cover(content: bytes | None, clusters: tuple[Cluster, ...]) -> bytes | None:
    """A kubeconfig or a file of roots as a workload sees it.  `content` None: it cannot be read here.  None: as it is,
    for no registered cluster has to do with it."""
    try:
        if content is None:
            raise Unread("it is too long, or cannot be read")
        return _rewrite(_parse(content), clusters)
    except Unread as wrong:
        if content is not None and _PEM.search(content):
            return content + b"".join(b"\n" + one.authorities.encode() for one in clusters)
        return f"# Weir does not show this file: {wrong}\napiVersion: v1\nkind: Config\n".encode()


class _Loader(yaml.CSafeLoader):
    """Numbers and times are texts, as client-go wants them."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag.endswith((":null", ":bool"))]
    for first, known in yaml.CSafeLoader.yaml_implicit_resolvers.items()}


class _Dumper(yaml.CSafeDumper):
    """Texts stand in quotes: Go's YAML takes some for numbers that Python's does not (1e3)."""


_Dumper.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


def _parse(content: bytes) -> dict[str, Any]:
    """Its first document.  Raises Unread."""
    try:
        text = content.decode()       # UTF-16 would be YAML too, and nobody's kubeconfig
        if (found := _json(text)) is not None:
            return found
        if "<<" in text:        # merged keys may be as many as are written, to the power of themselves
            raise Unread("it merges keys with <<")
        found = next(yaml.load_all(text, Loader=_Loader), None)
        _measure(found, [MOST])
    except (yaml.YAMLError, ValueError, TypeError, RecursionError):
        raise Unread("it is not YAML") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise Unread("it is no kubeconfig")
    return found


def _measure(value: Any, left: list[int]) -> None:
    """What a name of YAML's stands for counts each time: a few bytes may be gigabytes where they are written out.
    Raises Unread, RecursionError."""
    left[0] -= len(value) if isinstance(value, str | bytes) else 1
    if left[0] < 0:
        raise Unread("it is too long, as it is to be understood")
    if isinstance(value, dict):
        for one in value.items():
            _measure(one[0], left)
            _measure(one[1], left)
    elif isinstance(value, list | tuple | set):
        for one in value:
            _measure(one, left)


def _json(text: str) -> dict[str, Any] | None:
    """In which a tab may stand where YAML wants blanks.  None: it is none."""
    try:
        found = msgspec.json.decode(text) if text.lstrip().startswith("{") else None
    except msgspec.MsgspecError:
        return None
    return found if isinstance(found, dict) else None


def _rewrite(config: dict[str, Any], clusters: tuple[Cluster, ...]) -> bytes | None:
    registered = {name: one for name, settings in _entries(config, "cluster")
                  if (one := _registered(settings, clusters)) is not None}
    others = {name for name, _ in _entries(config, "cluster")} - registered.keys()
    kept, replaced = _users(config, others)
    if not registered and not replaced:
        return None
    made = dict(config)
    made["clusters"] = [{"name": name, "cluster": _cluster(settings, registered.get(name))}
                        for name, settings in _entries(config, "cluster")]
    made["users"] = [{"name": name, "user": settings if name in kept else _user(settings)}
                     for name, settings in _entries(config, "user")]
    return _dump(made)


def _entries(config: dict[str, Any], kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and settings of `clusters`, `users`, `contexts`.  Raises Unread."""
    listed = config.get(f"{kind}s") or []
    if not isinstance(listed, list):
        raise Unread(f"its {kind}s are no list")
    for one in listed:
        name, settings = (one.get("name"), one.get(kind)) if isinstance(one, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(settings, dict | None):
            raise Unread(f"one of its {kind}s has no name, or nothing that it is")
        yield name, settings or {}


def _registered(settings: dict[str, Any], clusters: tuple[Cluster, ...]) -> Cluster | None:
    server = settings.get("server")
    if not isinstance(server, str):
        return None
    try:
        parts = urlsplit(server if "://" in server else f"https://{server}")
        host, port = parts.hostname or "", parts.port or (80 if parts.scheme == "http" else 443)
    except ValueError:
        return None
    return next((one for one in clusters if one.has(host, port)), None)


def _users(config: dict[str, Any], others: set[str]) -> tuple[set[str], set[str]]:
    """Those that are for other clusters of this very file alone, and the rest: what names no cluster here may be for a
    registered one in another file."""
    uses: dict[str, set[str]] = {name: set() for name, _ in _entries(config, "user")}
    for _, settings in _entries(config, "context"):
        user, cluster = settings.get("user"), settings.get("cluster")
        if isinstance(user, str) and user in uses:
            uses[user].add(cluster if isinstance(cluster, str) else "")
    kept = {name for name, used in uses.items() if used and used <= others}
    return kept, uses.keys() - kept


def _cluster(settings: dict[str, Any], registered: Cluster | None) -> dict[str, Any]:
    if registered is None:
        return settings
    left = {name: value for name, value in settings.items() if name not in _OF_CLUSTER}
    return left | {"certificate-authority-data": _base64(registered.authorities)}


def _user(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: settings[name] for name in _OF_USER if name in settings} | {"token": PLACEHOLDER}


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _dump(config: dict[str, Any]) -> bytes:
    """Raises Unread: it holds what YAML has no safe word for."""
    try:
        text = yaml.dump(config, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1 << 20)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise Unread("it is no kubeconfig") from None
    return text.encode()


def render_kubeconfig(cluster: Cluster, name: str = "", namespace: str = "") -> str:
    """One that works in a workload, and that anybody may see.  `name`: of its context; empty: the target's."""
    host = plain(cluster.hosts[0])
    server = f"https://[{host}]:{cluster.port}" if ":" in host else f"https://{host}:{cluster.port}"
    name = name or cluster.name
    context = {"cluster": name, "user": "weir", **({"namespace": namespace} if namespace else {})}
    return _dump({
        "apiVersion": "v1", "kind": "Config",
        "clusters": [{"name": name, "cluster": {
            "server": server, "certificate-authority-data": _base64(cluster.authorities)}}],
        "users": [{"name": "weir", "user": {"token": PLACEHOLDER}}],
        "contexts": [{"name": name, "context": context}], "current-context": name}).decode()


class Server(msgspec.Struct, frozen=True):
    """Where a kubeconfig leads to, and what logs in there.  For `weir init`."""

    host: str
    port: int
    namespace: str
    authorities: str                  # PEM, empty where it names a file or none
    authorities_file: str
    token: str
    certificate: str                  # PEM, with its key
    key: str


def servers(content: bytes) -> tuple[Server, ...]:
    """Of each context, the current one first; without proxies and what is not https.  Raises Unread."""
    config = _parse(content)
    clusters, users = dict(_entries(config, "cluster")), dict(_entries(config, "user"))
    contexts = dict(_entries(config, "context"))
    current = config.get("current-context")
    first = [current] if isinstance(current, str) and current in contexts else []
    found = (_server(contexts[name], clusters, users) for name in dict.fromkeys([*first, *contexts]))
    return tuple(dict.fromkeys(one for one in found if one is not None))


def _server(
    context: dict[str, Any], clusters: dict[str, dict[str, Any]], users: dict[str, dict[str, Any]],
) -> Server | None:
    cluster = clusters.get(_text_of(context, "cluster"), {})
    user = users.get(_text_of(context, "user"), {})
    try:
        parts = urlsplit(_text_of(cluster, "server"))
        port = parts.port or 443
    except ValueError:
        return None
    if parts.scheme != "https" or not parts.hostname or _text_of(cluster, "proxy-url"):
        return None
    return Server(
        plain(parts.hostname), port, _text_of(context, "namespace"),
        _decoded(cluster, "certificate-authority-data"), _text_of(cluster, "certificate-authority"),
        _text_of(user, "token"), _decoded(user, "client-certificate-data"), _decoded(user, "client-key-data"))


def _text_of(settings: dict[str, Any], name: str) -> str:
    value = settings.get(name)
    return value if isinstance(value, str) else ""


def _decoded(settings: dict[str, Any], name: str) -> str:
    """Of base64; empty where it is none."""
    try:
        return base64.b64decode(_text_of(settings, name), validate=True).decode("ascii")
    except (ValueError, UnicodeDecodeError):
        return ""
