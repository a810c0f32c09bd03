"""What `weir policy explain` asks about a request to a cluster.  Pure."""
from __future__ import annotations

from typing import Final

from enforcer.http.shown import told
from enforcer.protocols.kubernetes.bodies.yaml_text import parse_yaml
from enforcer.protocols.kubernetes.info import Unclear
from enforcer.protocols.kubernetes.manner import SEEN
from enforcer.protocols.kubernetes.request_info import read_info
from enforcer.protocols.kubernetes.target_path import parse_target
from enforcer.protocols.kubernetes.wants import read_wants
from enforcer.words.operations import Request

_PATCH: Final = ((b"content-type", b"application/merge-patch+json"),)


def requests_of(target: str, method: str, path: str, body: str | None) -> tuple[tuple[Request, ...], str]:
    """What is asked, and why the request is refused before policy, or "".  `path` with query; `body` is JSON or YAML of
    an operator's own, read as a crew's would be; of a patch it is a merge patch."""
    try:
        decoded, query, _ = parse_target(path.encode())
        value = None if body is None else parse_yaml(body.encode())
        wants = read_wants(target, read_info(method, decoded, query), query, _PATCH, value, method=method)
    except Unclear as unclear:
        return (), unclear.reason
    return tuple(dict.fromkeys(wants.requests)), ""


def seen(requests: tuple[Request, ...]) -> tuple[str, ...]:
    """What policy sees of the body, a line each."""
    return told(requests, SEEN)
