"""Pure: who is behind a workload, and in which groups: the kernel-attested local user, or a provider's subject."""
from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

import msgspec

LOCAL: Final = "local"


class Principal(msgspec.Struct, frozen=True):
    """Who an operation is by; `login` is the session that says so, "" for a local user."""

    subject: str
    groups: tuple[str, ...]
    login: str = ""


def subject_of(user: str) -> str:
    return f"{LOCAL}:{user}"


def groups_of(
    groups: Mapping[str, tuple[str, ...]], *, user: str = "", unix: Collection[str] = (), workload: str = "",
    subject: str = "", given: Collection[str] = (),
) -> tuple[str, ...]:
    """Groups that this user, a member of these Unix groups, acting through this workload, is in; sorted.  `subject` is
    a provider's, which has put it into the groups `given`."""
    mine = {f"group:{name}" for name in unix} | {f"weir:{name}" for name in given}
    mine |= {f"{kind}:{name}" for kind, name in (("user", user), ("workload", workload), ("subject", subject)) if name}
    found = set(given)
    while more := {name for name, members in groups.items() if name not in found and not mine.isdisjoint(members)}:
        found |= more
        mine |= {f"weir:{name}" for name in more}
    return tuple(sorted(found))


def local_principal(
    groups: Mapping[str, tuple[str, ...]], user: str, unix: Collection[str], workload: str = "",
) -> Principal:
    """The kernel-attested user, where neither a person nor a service identity stands behind a workload."""
    return Principal(subject_of(user), groups_of(groups, user=user, unix=unix, workload=workload))
