"""Who else has a workload's uid and directories, and that it is said once."""
from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.workload import sharing
from agent.workload.owners import Owners, Start
from agent.workload.sharing import Sharing, Weakness

USER, OTHER = "games", "news"         # every Debian has them
UID = pwd.getpwnam(USER).pw_uid


def workload(name: str, *directories: str, users: tuple[str, ...] = (USER,)) -> Any:
    return SimpleNamespace(name=name, users=users, directories=directories)


def config(*workloads: Any) -> Any:
    return SimpleNamespace(workloads=workloads, workload={one.name: one for one in workloads}.get)


def test_processes_of_a_uid(tmp_path: Path) -> None:
    for pid, name, uids in ((7, "bash", "5 5 5 5"), (8, "crew", "5 5 5 5"), (9, "sudo", "1 5 0 0"),
                            (10, "x", "6 6 6 6"), (11, "gone", ""), (12, "dead", "5 5 5 5")):
        (tmp_path / str(pid)).mkdir()
        if uids:
            text = f"Name:\t{name}\nState:\t{'Z' if name == 'dead' else 'S'}\nUid:\t{chr(9).join(uids.split())}\n"
            (tmp_path / str(pid) / "status").write_text(text)
    assert sorted(sharing.processes_of(5, lambda pid: pid == 8, tmp_path)) == ["bash", "sudo"]


def test_what_is_said_is_short() -> None:
    [one] = sharing.uid_shared("ada", ["bash", "sshd", "bash", "vim", "top"])
    assert str(one) == ("user ada has 5 processes outside of any workload (bash, sshd, top, ...), which may act for "
                        "the crew: give the workload a user of its own")
    assert not list(sharing.uid_shared("ada", []))
    [one] = sharing.uid_shared("ada", ["x\x1b[2J"])
    assert "(x?[2J)" in str(one), "its name is the process' own to choose, and goes to a terminal"


def test_a_login_shell_is_the_case(tmp_path: Path) -> None:
    """Of the kernel's own /proc."""
    with subprocess.Popen(["sleep", "60"], user=UID, group=UID, extra_groups=[]) as process:
        assert "sleep" in sharing.processes_of(UID, lambda pid: pid != process.pid)
        process.kill()


@pytest.mark.parametrize(("others", "keys"), [
    ([workload("b", "/srv/b", users=(OTHER,))], []),
    ([workload("b", "/srv/b")], ["workload b"]),                             # the same user
    ([workload("b", "/srv/a/deep", users=(OTHER,))], ["workload b"]),        # one lies in the other
    ([workload("b", "/srv", users=(OTHER,)), workload("c", users=(OTHER,))], ["workload b"]),
    ([workload("b", "/srv/ab", users=(OTHER,))], []),
    ([workload("b", "/srv/a", users=("nobody-of-this-name",))], []),
])
def test_between_workloads(others: list[Any], keys: list[str]) -> None:
    mine = workload("a", "/srv/a")
    assert [one.key for one in sharing.configured(config(mine, *others), mine, USER)] == keys


@pytest.fixture
def place(tmp_path: Path) -> Path:
    made = tmp_path / "work"
    made.mkdir(mode=0o755)
    os.chown(made, UID, UID)
    return made


@pytest.mark.parametrize(("owner", "group", "mode", "said"), [
    (UID, UID, 0o755, ""), (UID, UID, 0o2775, ""),    # a group of nobody else
    (0, 0, 0o755, ""), (0, 0, 0o775, ""),
    (UID, UID, 0o757, "everybody may write"), (UID, UID, 0o1777, "everybody may write"),
    (1, UID, 0o755, "belongs to daemon"),
    (UID, pwd.getpwnam(OTHER).pw_gid, 0o775, f"group {OTHER} may write ({OTHER})"),
])
def test_directories(place: Path, owner: int, group: int, mode: int, said: str) -> None:
    os.chown(place, owner, group)
    place.chmod(mode)
    assert [one.text.partition(": ")[2] for one in sharing.writable(workload("a", str(place)), USER)] == (
        [said] if said else [])


def test_an_access_control_list(place: Path) -> None:
    """A group's bits are its mask then."""
    place.chmod(0o775)
    # linux/posix_acl_xattr.h: version 2, then tag, permissions, id: user::rwx, user:news:rwx, group::r-x, mask::rwx
    entries = ((1, 7, 2**32 - 1), (2, 7, pwd.getpwnam(OTHER).pw_uid), (4, 5, 2**32 - 1), (16, 7, 2**32 - 1),
               (32, 5, 2**32 - 1))
    value = (2).to_bytes(4, "little") + b"".join(
        tag.to_bytes(2, "little") + may.to_bytes(2, "little") + who.to_bytes(4, "little") for tag, may, who in entries)
    try:
        os.setxattr(place, "system.posix_acl_access", value)
    except OSError:
        pytest.skip("this file system keeps no access control lists: let TMPDIR lie on ext4, xfs, btrfs or tmpfs")
    assert "an access control list" in str(*sharing.writable(workload("a", str(place)), USER))


def test_what_it_lies_in(place: Path) -> None:
    """Whoever may write above can put another directory in its place; but not where the sticky bit is."""
    above = place.parent
    above.chmod(0o1777)
    assert not list(sharing.writable(workload("a", str(place)), USER))
    above.chmod(0o777)
    [one] = sharing.writable(workload("a", str(place)), USER)
    assert f"lies in {above}, which everybody may write" in one.text
    above.chmod(0o755)


def test_who_asks_for_a_start_is_not_among_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two `weir run` of one user at the same moment made each other degraded."""
    monkeypatch.setattr(sharing, "processes_of", lambda uid, left_out: [] if left_out(77) else ["weir"])
    start = Start(7, "a", UID, USER, (), "/nowhere", 1, pid=9)
    made = Sharing(lambda: config(workload("a")), lambda pid: False, Owners(tmp_path / "owners.json"),
                   lambda name, detail, of: None)

    def shared() -> bool:
        return any(one.key == "uid" for one in made.find(start))

    assert shared()
    with made.asking(77):
        with made.asking(77):
            assert not shared()
        assert not shared()
    assert shared()


def test_it_is_recorded_when_it_changes(tmp_path: Path) -> None:
    told: list[tuple[str, str]] = []
    owners = Owners(tmp_path / "owners.json")
    start = Start(7, "a", UID, USER, (), "/nowhere", 1, pid=9)
    owners.put(start)
    made = Sharing(lambda: config(workload("a")), lambda pid: True, owners,
                   lambda name, detail, of: told.append((name, str(detail["what"]))))
    assert made.find(start) == (), "everything is a crew's"
    one, more = Weakness("uid", "3 processes", "mend"), Weakness("uid", "4 processes", "mend")
    made.take(start, (one,))
    made.take(start, (more,))
    assert (made.of(7), told) == (("4 processes: mend",), [("workload.degraded", "3 processes: mend")])
    made.take(start, ())
    assert told[1:] == [("workload.mended", "4 processes")]
    assert [found for found, _ in made.look()] == [start]
    owners.end(7)
    made.forget()
    assert made.of(7) == ()
