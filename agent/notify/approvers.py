"""Who answers from elsewhere: a subject of the configuration, in the groups that this host's files give it now."""
from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Mapping
from contextlib import suppress

from agent.contract.groups import groups_of
from agent.people.identity import LOCAL


class Unknown(Exception):
    """Why nobody answers by this subject."""


def find_groups(subject: str, groups: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Blocks.  Raises Unknown.  What a provider says of a subject counts only in a login."""
    provider, _, name = subject.partition(":")
    if provider != LOCAL:
        return groups_of(groups, subject=subject)
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise Unknown(f"this host has no user {name}") from None
    unix = []
    for gid in os.getgrouplist(entry.pw_name, entry.pw_gid):
        with suppress(KeyError):
            unix.append(grp.getgrgid(gid).gr_name)
    return groups_of(groups, user=entry.pw_name, unix=unix)
