"""Which groups of groups.toml somebody is in.  Pure."""
from __future__ import annotations

from collections.abc import Collection, Mapping


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
