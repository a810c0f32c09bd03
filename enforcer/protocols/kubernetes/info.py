"""What a request to an API server is for, as the server itself tells it.

Source: k8s.io/apiserver, pkg/endpoints/request, RequestInfo.
"""
from __future__ import annotations

from dataclasses import dataclass

Query = tuple[tuple[str, str], ...]   # decoded, in order


@dataclass(frozen=True, slots=True)
class Info:
    is_resource: bool
    path: str                         # decoded
    verb: str                         # get list watch create update patch delete deletecollection proxy; else: method
    api_prefix: str = ""              # "api" | "apis"
    group: str = ""
    version: str = ""
    namespace: str = ""
    resource: str = ""
    subresource: str = ""
    name: str = ""
    parts: tuple[str, ...] = ()
    field_selector: str = ""
    label_selector: str = ""


class Unclear(Exception):
    """A request that different servers may read differently, or that cannot be read whole: `status` and why."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason
