"""Pure: who is behind a uid, until logins exist: the kernel-attested local user, with groups from groups.toml."""
from __future__ import annotations

from collections.abc import Collection, Mapping


def subject_of(user: str) -> str:
    return f"local:{user}"


def groups_of(
    groups: Mapping[str, tuple[str, ...]], *, user: str = "", unix: Collection[str] = (), workload: str = "",
) -> tuple[str, ...]:
    """Groups that this user, a member of these Unix groups, acting through this workload, is in; sorted."""
    mine = {f"group:{name}" for name in unix}
    if user:
        mine.add(f"user:{user}")
    if workload:
        mine.add(f"workload:{workload}")
    return tuple(sorted(name for name, members in groups.items() if not mine.isdisjoint(members)))
