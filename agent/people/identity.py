"""Pure: who is behind a workload, and in which groups: the kernel-attested local user, or a provider's subject."""
from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

import msgspec

from agent.contract.groups import groups_of

LOCAL: Final = "local"


class Principal(msgspec.Struct, frozen=True):
    """Who an operation is by; `login` is the session that says so, "" for a local user."""

    subject: str
    groups: tuple[str, ...]
    login: str = ""


def subject_of(user: str) -> str:
    return f"{LOCAL}:{user}"


def local_principal(
    groups: Mapping[str, tuple[str, ...]], user: str, unix: Collection[str], workload: str = "",
) -> Principal:
    """The kernel-attested user, where neither a person nor a service identity stands behind a workload."""
    return Principal(subject_of(user), groups_of(groups, user=user, unix=unix, workload=workload))
