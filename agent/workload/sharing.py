"""What makes a workload weaker than its configuration looks: a uid that others use too, directories that others write.

No layer sees what another process of the same user does for a crew (docs/containment.md), so it is said: by `weir run`,
`weir status`, `weir doctor` and in the recording.  It is a property of the workload, not of the block: the agent goes
on "enforcing".  `weir run` itself, which stands for the command, is not counted among the others.
"""
from __future__ import annotations

import grp
import os
import pwd
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.config import Config
from agent.layout import find_account
from agent.settings.host_table import Workload
from agent.workload.owners import Owners, Start
from agent.workload.workloads import expand

NAMED: Final = 3                      # processes that are named
_HEAD: Final = 1024                  # bytes of /proc/PID/status that hold the name and the uids
_ACL: Final = "system.posix_acl_access"

Tell = Callable[[str, Mapping[str, object], str], None]


@dataclass(frozen=True)
class Weakness:
    key: str                          # what it is about: the same as before is not said again
    text: str
    mend: str

    def __str__(self) -> str:
        return f"{self.text}: {self.mend}"


def processes_of(uid: int, left_out: Callable[[int], bool], proc: Path = Path("/proc")) -> list[str]:
    """Names of processes that have this uid in any place, without those that are `left_out` by their pid."""
    found, wanted = [], str(uid).encode()
    for name in os.listdir(proc):
        if name.isdigit():
            with suppress(OSError):   # it has ended
                with open(f"{proc}/{name}/status", "rb", buffering=0) as file:
                    head = file.read(_HEAD)
                uids = head.partition(b"\nUid:")[2].partition(b"\n")[0].split()
                if wanted in uids and b"\nState:\tZ" not in head and not left_out(int(name)):
                    found.append(head.partition(b"\n")[0].removeprefix(b"Name:\t").decode(errors="backslashreplace"))
    return found


def uid_shared(user: str, names: Iterable[str]) -> Iterator[Weakness]:
    """By processes that run now, outside of the slice."""
    found = sorted("".join(one if one.isprintable() else "?" for one in name) for name in names)
    if found:
        named = list(dict.fromkeys(found))
        shown = ", ".join(named[:NAMED]) + (", ..." if len(named) > NAMED else "")
        count = f"{len(found)} process" + ("es" if len(found) > 1 else "")
        yield Weakness("uid", f"user {user} has {count} outside of any workload ({shown}), which may act for the crew",
                       "give the workload a user of its own")


def configured(config: Config, workload: Workload, user: str) -> Iterator[Weakness]:
    """What other workloads share with this one, when it runs as `user`."""
    own = _directories(workload, user)
    for other in config.workloads:
        if other.name == workload.name:
            continue
        if user in other.users:
            yield Weakness(f"workload {other.name}", f"user {user} also runs workload {other.name}",
                           "give each a user of its own")
        elif shared := next((one for one in own for name in other.users for theirs in _directories(other, name)
                             if _overlap(one, theirs)), ""):
            yield Weakness(f"workload {other.name}", f"workload {other.name} may write in {shared}, too",
                           "give each directories of its own")


def writable(workload: Workload, user: str) -> Iterator[Weakness]:
    """Directories of the workload that somebody else may write, as they are now."""
    account = find_account(user)
    for path in _directories(workload, user) if account else ():
        if account and (why := _open(Path(os.path.realpath(path)), account)):
            yield Weakness(f"directory {path}", f"{path}: {why}",
                           f"let it belong to {user}, and nobody else write there")


def _open(path: Path, account: pwd.struct_passwd) -> str:
    """Why others may write there, or put another in its place."""
    for place in (path, *path.parents):
        try:
            status = place.stat()
        except OSError:
            continue
        above = place != path
        why = _others(status, place, account)
        if why and not (above and status.st_mode & stat.S_ISVTX and status.st_uid in (0, account.pw_uid)):
            return f"lies in {place}, which {why}" if above else why
    return ""


def _others(status: os.stat_result, place: Path, account: pwd.struct_passwd) -> str:
    if status.st_uid not in (0, account.pw_uid):
        return f"belongs to {_name(status.st_uid)}"
    if status.st_mode & stat.S_IWOTH:
        return "everybody may write"
    if status.st_mode & stat.S_IWGRP:
        if _has_acl(place):
            return "an access control list lets others write"
        if members := _members(status.st_gid, account):
            return f"group {_group(status.st_gid)} may write ({', '.join(members[:NAMED])})"
    return ""


def _has_acl(place: Path) -> bool:
    try:
        return _ACL in os.listxattr(place)
    except OSError:
        return False


def _members(gid: int, account: pwd.struct_passwd) -> list[str]:
    """Others than the workload's user and root."""
    with suppress(KeyError):
        named = {*grp.getgrgid(gid).gr_mem, *(one.pw_name for one in pwd.getpwall() if one.pw_gid == gid)}
        return sorted(named - {account.pw_name, "root"})
    return []


def _group(gid: int) -> str:
    with suppress(KeyError):
        return grp.getgrgid(gid).gr_name
    return str(gid)


def _name(uid: int) -> str:
    with suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return f"uid {uid}"


def _directories(workload: Workload, user: str) -> tuple[str, ...]:
    account = find_account(user)
    return expand(workload.directories, account.pw_dir) if account else ()


def _overlap(one: str, other: str) -> bool:
    return one == other or one.startswith(other.rstrip("/") + "/") or other.startswith(one.rstrip("/") + "/")


class Sharing:
    """What is known of the workloads that run.  `is_crew` tells of a pid; `tell` records."""

    def __init__(
        self, config: Callable[[], Config], is_crew: Callable[[int], bool], owners: Owners, tell: Tell,
    ) -> None:
        self._config, self._is_crew, self._owners, self._tell = config, is_crew, owners, tell
        self._known: dict[int, tuple[Weakness, ...]] = {}
        self._asking: Counter[int] = Counter()         # pids of `weir run` whose command is not started yet

    @contextmanager
    def asking(self, caller: int) -> Iterator[None]:
        """While this process asks for a start."""
        self._asking[caller] += 1
        try:
            yield
        finally:
            self._asking[caller] -= 1
            self._asking += Counter()         # without those of none

    def of(self, owner: int) -> tuple[str, ...]:
        return tuple(map(str, self._known.get(owner, ())))

    def find(self, start: Start) -> tuple[Weakness, ...]:
        """As it is now.  Blocks."""
        config = self._config()
        workload = config.workload(start.workload)
        if workload is None:
            return ()
        callers = {one.caller for one in self._owners} | {start.caller, *self._asking}
        others = processes_of(start.uid, lambda pid: pid in callers or self._is_crew(pid))
        return (*uid_shared(start.user, others), *configured(config, workload, start.user),
                *writable(workload, start.user))

    def take(self, start: Start, found: tuple[Weakness, ...]) -> None:
        """What is new is recorded, and what is no more."""
        before = {one.key: one for one in self._known.get(start.owner, ())}
        now = {one.key: one for one in found}
        self._known[start.owner] = found
        if new := [str(one) for key, one in now.items() if key not in before]:
            self._tell("workload.degraded", {"owner": start.owner, "what": "; ".join(new)}, start.workload)
        if gone := [one.text for key, one in before.items() if key not in now]:
            self._tell("workload.mended", {"owner": start.owner, "what": "; ".join(gone)}, start.workload)

    def look(self) -> list[tuple[Start, tuple[Weakness, ...]]]:
        """At everything that runs.  Blocks; for `take`."""
        return [(start, self.find(start)) for start in self._owners if start.pid]

    def forget(self) -> None:
        running = {start.owner for start in self._owners}
        self._known = {owner: found for owner, found in self._known.items() if owner in running}
