"""Places and users on the host, made at start (docs/developer.md has the table), and the machine's lock."""
from __future__ import annotations

import fcntl
import grp
import os
import pwd
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.config import Config

CGROUPS: Final = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))     # unified layout, hybrid layout
LOCK: Final = Path("/run/weir.lock")
FORWARDED_KEY: Final = "forwarded.key"
APPROVAL_KEY: Final = "approval.key"
LINK_KEY: Final = "link.key"
KEY_BYTES: Final = 32
USERS: Final = ("weir", "weir-audit", "weir-identity", "weir-vault", "weir-web", "weir-notify")    # an installation's


class LayoutError(Exception):
    """What stands in the way, and what to do."""


@dataclass(frozen=True)
class Accounts:
    weir: pwd.struct_passwd
    audit: pwd.struct_passwd
    approvers: int                    # gid
    identity: int = -1                # gid; -1: there is no such user, and no [[provider]]
    vault: int = -1                   # the same of [[vault]],
    web: int = -1                     # and of [web] url or [metrics] listen
    notify: int = -1                  # and of [slack] or a [[webhook]]

    @property
    def own_groups(self) -> frozenset[int]:
        """Gids that no workload is given."""
        return frozenset({self.weir.pw_gid, self.audit.pw_gid, self.approvers, self.identity, self.vault,
                          self.web, self.notify} - {-1})

    @property
    def group_names(self) -> frozenset[str]:
        """Of these."""
        return frozenset(grp.getgrgid(gid).gr_name for gid in self.own_groups)


def cgroup_root() -> Path:
    """Where cgroup v2 is mounted.  Raises LayoutError."""
    for path in CGROUPS:
        if (path / "cgroup.controllers").exists():
            return path
    raise LayoutError("no cgroup v2 is mounted: mount -t cgroup2 none /sys/fs/cgroup")


def bound(path: Path) -> Path:
    """The name that a listening socket is bound by, before it is renamed to `path`: the kernel knows it by this one."""
    return path.with_name(f".{path.name}.new")


def find_account(user: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(user)
    except KeyError:
        return None


def find_accounts(config: Config) -> Accounts:
    runtime = config.runtime
    try:
        return Accounts(pwd.getpwnam(runtime.user), pwd.getpwnam(runtime.audit_user),
                        grp.getgrnam(runtime.approvers).gr_gid, _group_of(runtime.identity_user, bool(config.logins)),
                        _group_of(runtime.vault_user, bool(config.vaults)),
                        _group_of(runtime.web_user, config.web.url is not None or config.metrics.listen is not None),
                        _group_of(runtime.notify_user, config.notifies))
    except KeyError as reason:
        raise LayoutError(f"{reason.args[0]}: Weir's package, or `bootstrap install`, makes users and groups") from None


def _group_of(user: str, needed: bool) -> int:
    """Raises KeyError: it is needed, and not there."""
    try:
        return pwd.getpwnam(user).pw_gid
    except KeyError:
        if needed:
            raise
        return -1


def take_lock(path: Path = LOCK) -> int:
    """One Weir a machine: hooks are machine-wide.  A descriptor to keep; LayoutError where another has it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 200, 0).decode(errors="replace").strip()
        os.close(fd)
        raise LayoutError(f"another agent runs on this machine ({holder or path}); one at a time") from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"pid {os.getpid()}\n".encode(), 0)
    return fd


def make_directories(config: Config, accounts: Accounts) -> None:
    """Raises LayoutError where something is in the way, OSError."""
    weir, audit = accounts.weir, accounts.audit
    for path in (config.run.parent, config.state.parent):
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
    _directory(config.run, 0, 0, 0o755)
    _directory(config.state, 0, 0, 0o755)
    _directory(config.journal, audit.pw_uid, weir.pw_gid, 0o1770)
    _directory(config.recordings, audit.pw_uid, audit.pw_gid, 0o2750)


def _directory(path: Path, uid: int, gid: int, mode: int) -> None:
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        if not stat.S_ISDIR(path.lstat().st_mode):
            raise LayoutError(f"{path} is not a directory: move it away") from None
    os.chown(path, uid, gid, follow_symlinks=False)
    path.chmod(mode)


def forwarded_key(state: Path, audit: int) -> bytes:
    """Key of the digests of what was forwarded (docs/decisions/0002): made once, readable by auditors."""
    return _key(state / FORWARDED_KEY, audit, 0o640, "digests of earlier recordings need the old one")


def approval_key(state: Path) -> bytes:
    """Key of the HMAC that approvals are bound by: made once, root's, given to the enforcer."""
    return _key(state / APPROVAL_KEY, 0, 0o600, "tickets that wait are bound by the old one")


def link_key(state: Path) -> bytes:
    """Key of the links by which webhooks' approvers answer: made once, root's, given to nobody."""
    return _key(state / LINK_KEY, 0, 0o600, "links that were sent are signed with the old one")


def _key(path: Path, group: int, mode: int, why: str) -> bytes:
    found = read_key(path, why)
    if not found:
        write_whole(path, found := secrets.token_bytes(KEY_BYTES), mode, group)
    return found


def read_key(path: Path, why: str) -> bytes:
    """b"" where there is none.  Raises LayoutError where the file holds none; `why` it is not made anew."""
    try:
        with open(path, "rb") as file:
            key = file.read(KEY_BYTES + 1)
    except FileNotFoundError:
        return b""
    if len(key) != KEY_BYTES:
        raise LayoutError(f"{path} does not hold {KEY_BYTES} bytes: move it away; {why}")
    return key


def write_whole(path: Path, content: bytes, mode: int, group: int = 0) -> None:
    """Blocks.  By rename, on the disk at return.  Raises OSError: what was there is there, or what is new."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with open(fd, "wb") as file:
        os.fchown(fd, 0, group)
        file.write(content)
        file.flush()
        os.fsync(fd)
    fresh.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
