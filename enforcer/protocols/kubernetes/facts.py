"""What the body of a write says that policies ask about.  Pure.

Theory: what runs as what is told by the same few fields wherever a pod is described: in a Pod, in the template of what
makes Pods, in objects that Weir does not know.  So these fields are looked for everywhere in a body, by name and by the
form that they have there; that one is found which means something else is possible, that one is missed is not.  Names
are compared without regard to case, as some servers decode.

A patch says only what it adds, which is found the same way: a JSON patch is laid out as what it puts where.  What a
patch may change without saying it is a reason in `opaque`.

Source: k8s.io/api core/v1 PodSpec, Container, SecurityContext; RFC 6902, RFC 7396; strategic merge patch's directives.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from enforcer.protocols.kubernetes.info import Unclear
from enforcer.words.operations import Attribute

JSON, MERGE, STRATEGIC, APPLY = "json", "merge", "strategic", "apply"
LIMIT: Final = 250_000                # values in a body: looked through in a quarter of a second
NAMES: Final = 1_000                  # of kinds, owners, images, capabilities
ACCOUNTS: Final = 16                  # each is asked for
COPIED: Final = "a JSON patch copies or moves"
TAKEN: Final = "a patch takes away"
DIRECTED: Final = "a strategic patch has a directive"
UNREAD: Final = "there is no body that could be read"
# Fields whose absence means something else than they said.
_TELLING: Final = frozenset((
    "serviceaccountname", "serviceaccount", "securitycontext", "spec", "template", "containers", "initcontainers",
    "ephemeralcontainers", "image", "capabilities", "ownerreferences", "metadata", "volumes", "jobtemplate"))
_INDEX: Final = re.compile(r"[+-]?\d*+")       # "-" is behind the last; some servers count from the end too
_HOST: Final = frozenset(("hostnetwork", "hostpid", "hostipc"))
_STATES: Final = frozenset(("containerstatuses", "initcontainerstatuses", "ephemeralcontainerstatuses"))


@dataclass(frozen=True, slots=True)
class Facts:
    """Sorted, each once."""

    kinds: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()      # "ReplicaSet/web-5d9"
    service_accounts: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    privileged: bool = False          # a container is, or a Windows host process
    host_namespaces: bool = False     # network, PIDs or IPC of the host
    host_path: bool = False
    ephemeral: bool = False
    capabilities: tuple[str, ...] = ()             # that are added
    opaque: tuple[str, ...] = ()      # why not all that changes is told here

    def attributes(self) -> tuple[tuple[str, Attribute], ...]:
        """All but the service account."""
        return (
            ("kinds", self.kinds), ("owners", self.owners), ("images", self.images), ("privileged", self.privileged),
            ("host_namespaces", self.host_namespaces), ("host_path", self.host_path), ("ephemeral", self.ephemeral),
            ("capabilities", self.capabilities), ("opaque", self.opaque))


@dataclass(slots=True)
class _Found:
    kinds: set[str] = field(default_factory=set)
    owners: set[str] = field(default_factory=set)
    accounts: set[str] = field(default_factory=set)
    images: set[str] = field(default_factory=set)
    capabilities: set[str] = field(default_factory=set)
    opaque: set[str] = field(default_factory=set)
    marks: set[str] = field(default_factory=set)


def read_facts(body: object, patch: str = "") -> Facts:
    """Of a decoded body: dictionaries, lists, strings, numbers, booleans, None.  `patch`: JSON | MERGE | STRATEGIC |
    APPLY, or "" for a whole object.  Unclear where a JSON patch is none, or a body holds too much to be decided on."""
    found = _Found()
    for value in _laid_out(body, found) if patch == JSON else (body,):
        _look(value, found, patch)
    _check(found)
    return Facts(
        _sorted(found.kinds), _sorted(found.owners), _sorted(found.accounts), _sorted(found.images),
        "privileged" in found.marks, "host" in found.marks, "path" in found.marks, "ephemeral" in found.marks,
        _sorted(found.capabilities), _sorted(found.opaque))


def _sorted(names: set[str]) -> tuple[str, ...]:
    return tuple(sorted(names))


def _check(found: _Found) -> None:
    if len(found.accounts) > ACCOUNTS:
        raise Unclear(f"the body names more than {ACCOUNTS} service accounts", 413)
    if max(map(len, (found.kinds, found.owners, found.images, found.capabilities))) > NAMES:
        raise Unclear(f"the body names more than {NAMES} kinds, owners, images or capabilities", 413)


def _look(body: object, found: _Found, patch: str) -> None:
    waiting, seen = [body], 0
    while waiting:
        seen += 1
        if seen > LIMIT:
            raise Unclear(f"the body holds more than {LIMIT} values", 413)
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += _in_object(value, found, patch, seen == 1)
        elif isinstance(value, list):
            waiting += value


def _in_object(value: dict[object, object], found: _Found, patch: str, outermost: bool) -> Iterator[object]:
    """What is in it that is to be looked through."""
    if isinstance(kind := value.get("kind"), str) and (outermost or "metadata" in value):      # else it refers to one
        found.kinds.add(kind)
    for key, one in value.items():
        name = str(key).casefold()
        if patch in (MERGE, STRATEGIC) and one is None and name in _TELLING:
            found.opaque.add(TAKEN)
        if patch == STRATEGIC and name.startswith(("$patch", "$retainkeys", "$deletefromprimitivelist")):
            found.opaque.add(DIRECTED)
        if reader := _READERS.get(name):
            reader(one, found)
        if name not in _STATES:
            yield one


def _image(value: object, found: _Found) -> None:
    """Of a container, or of a volume."""
    said = value.get("reference") if isinstance(value, dict) else value
    if isinstance(said, str) and said:
        found.images.add(said)


def _account(value: object, found: _Found) -> None:
    said = value.get("name") if isinstance(value, dict) else value
    if isinstance(said, str) and said:
        found.accounts.add(said)


def _owners(value: object, found: _Found) -> None:
    for one in value if isinstance(value, list) else (value,):
        if isinstance(one, dict) and ("kind" in one or "name" in one):
            found.owners.add(f"{one.get('kind', '')}/{one.get('name', '')}")


def _capabilities(value: object, found: _Found) -> None:
    added = value.get("add") if isinstance(value, dict) else None
    if isinstance(added, list):
        found.capabilities.update(one for one in added if isinstance(one, str))


def _ephemeral(value: object, found: _Found) -> None:
    if value:
        found.marks.add("ephemeral")


def _host_path(value: object, found: _Found) -> None:
    """Not the schema of one, which a CustomResourceDefinition may hold."""
    if isinstance(value, dict) and (isinstance(value.get("path"), str) or "properties" not in value):
        found.marks.add("path")


def _local(value: object, found: _Found) -> None:
    if isinstance(value, dict) and isinstance(value.get("path"), str):
        found.marks.add("path")


def _when_true(mark: str) -> Callable[[object, _Found], None]:
    def read(value: object, found: _Found) -> None:
        if value is True:
            found.marks.add(mark)

    return read


_READERS: Final[dict[str, Callable[[object, _Found], None]]] = {
    "image": _image,
    "serviceaccountname": _account,
    "serviceaccount": _account,
    "ownerreferences": _owners,
    "capabilities": _capabilities,
    "ephemeralcontainers": _ephemeral,
    "hostpath": _host_path,
    "local": _local,                  # of a PersistentVolume
    "privileged": _when_true("privileged"),
    "hostprocess": _when_true("privileged"),
    **{name: _when_true("host") for name in _HOST},
}


def _laid_out(body: object, found: _Found) -> Iterator[object]:
    """What each operation of a JSON patch puts, in the place where it puts it."""
    if not isinstance(body, list):
        raise Unclear("a JSON patch is no list")
    for one in body:
        if not isinstance(one, dict) or not isinstance(path := one.get("path"), str):
            raise Unclear("an operation of a JSON patch has no path")
        steps, what = _steps(path), one.get("op")
        if what in ("add", "replace"):
            yield _placed(steps, one.get("value"))
        elif what in ("copy", "move"):
            found.opaque.add(COPIED)
        elif what == "remove":
            if any(step.casefold() in _TELLING for step in steps):
                found.opaque.add(TAKEN)
        elif what != "test":
            raise Unclear("a JSON patch has an operation that is none")


def _steps(path: str) -> list[str]:
    """RFC 6901."""
    if path and not path.startswith("/"):
        raise Unclear("a path of a JSON patch does not begin with a slash")
    return [step.replace("~1", "/").replace("~0", "~") for step in path.split("/")[1:]]


def _placed(steps: list[str], value: object) -> object:
    for step in reversed(steps):
        value = [value] if _INDEX.fullmatch(step) else {step: value}
    return value
