"""What approvers are shown of a request, and what one yes is for.  Pure."""
from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from enforcer.http.shown import RequestManner
from enforcer.policy.model import CLUSTER
from enforcer.words.operations import Request

# What the request's line does not say.  Of those that it does, commands may hold passwords, which are stars in it.
SEEN: Final = ("dry_run", "kinds", "owners", "service_account", "images", "privileged", "host_namespaces", "host_path",
               "ephemeral", "capabilities", "opaque")


class KubernetesManner(RequestManner):
    def __init__(self) -> None:
        super().__init__(SEEN)


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
