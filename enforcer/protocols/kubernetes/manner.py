"""What approvers are shown of a request, and what one yes is for.  Pure."""
from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from enforcer.http.shown import RequestManner
from enforcer.policy.model import CLUSTER
from enforcer.words.operations import Request

# Told by the request's line; a command with its passwords as stars.
SAID: Final = ("path", "version", "labels", "fields", "command", "container", "ports")


class KubernetesManner(RequestManner):
    def __init__(self) -> None:
        super().__init__(SAID)


def tell_covered(requests: Iterable[Request]) -> str:
    """What requests of the same shape (wants.py) are, in words: their names may differ, and all in their bodies that no
    policy sees."""
    kinds = "; ".join(dict.fromkeys(map(_kind, requests)))
    return f"{kinds}: of any name, with any content in which policy sees the same"


def _kind(request: Request) -> str:
    if request.kind not in ("Object", "Resource"):
        return f"{request.action} of {request.path[-1]}"
    namespace, resource = request.path[1:3]
    place = "of the cluster" if namespace == CLUSTER else f"in namespace {namespace}"
    return f"{request.action} of {resource} {place}"
