"""What the host says of accounts and paths.  Root: what root alone decides is told by owners."""
from __future__ import annotations

import grp
import os
import pwd
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.config import Config, parse_config
from agent.unit import standing, systemd
from agent.unit.adoptable import Unit
from agent.unit.objections import Place
from agent.unit.standing import look, objections, place

CONFIG = """
[[workload]]
name = "crew"
users = ["{user}"]
unit = "crew.service"
"""
ROOT = "/var/lib/weir/units/crew/root"
STREAMS = {"Id": "crew.service", "LoadState": "loaded", "StandardInput": "null", "StandardOutput": "journal",
           "StandardError": "inherit"}
SOMEBODY = pwd.getpwnam("nobody")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: what root alone decides is told by owners")


@pytest.fixture
def rooted() -> Iterator[Path]:
    base = Path("/var/lib") / f"weir-test-standing-{os.getpid()}"
    base.mkdir(mode=0o755)
    yield base
    shutil.rmtree(base)


def config(user: str = "nobody") -> Config:
    found, report = parse_config(CONFIG.format(user=user), "/etc/weir/weir.toml")
    assert found is not None, report.problems
    return found


def of(path: Path) -> Place:
    return place(str(path))


def test_places(rooted: Path) -> None:
    (rooted / "file").write_text("x")
    (rooted / "theirs").mkdir()
    os.chown(rooted / "theirs", SOMEBODY.pw_uid, SOMEBODY.pw_gid)
    assert of(rooted / "file") == Place(True, "file", f"{rooted}/file", 0, "root")
    assert of(rooted / "theirs") == Place(True, "directory", f"{rooted}/theirs", SOMEBODY.pw_uid, "nobody")
    assert of(rooted / "none" / "below") == Place(True, "", f"{rooted}/none/below")
    assert of(rooted / "." / "none" / ".." / "file").rooted
    assert not of(rooted / "theirs" / "none").rooted
    assert not of(rooted / "file" / "below").rooted
    os.mkfifo(rooted / "fifo")
    assert of(rooted / "fifo").kind == "other"


def test_places_by_links(rooted: Path) -> None:
    (rooted / "theirs").mkdir()
    (rooted / "theirs" / "file").write_text("x")
    (rooted / "file").write_text("x")
    for name, to in (("good", "file"), ("there", f"{rooted}/theirs/file"), ("loop", "loop"),
                     ("tree", "."),
                     ("dangling", "none/x"), ("root", "/")):
        (rooted / name).symlink_to(to)
    os.chown(rooted / "theirs", SOMEBODY.pw_uid, SOMEBODY.pw_gid)
    assert of(rooted / "good") == Place(True, "file", f"{rooted}/file", 0, "root")
    assert of(rooted / "tree" / "tree" / "file").real == f"{rooted}/file"
    assert of(rooted / "dangling") == Place(True, "", f"{rooted}/none/x")
    assert of(rooted / "root").kind == "directory"
    for name in ("there", "loop"):
        assert not of(rooted / name).rooted, name
    (rooted / "theirs" / "out").symlink_to(rooted / "file")
    assert not of(rooted / "theirs" / "out").rooted


def test_a_directory_that_others_write(rooted: Path) -> None:
    (rooted / "all").mkdir()
    (rooted / "all").chmod(0o1777)
    assert not of(rooted / "all" / "x").rooted
    assert of(rooted / "all").kind == "directory"
    assert not place("/tmp/x").rooted


def test_groups_are_those_that_it_would_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getgrouplist", lambda name, gid: [gid, 0, 4])
    one = Unit({**STREAMS, "User": "nobody", "SupplementaryGroups": ("daemon", "981", "not-there")}, ())
    found = look(config(), one, ())
    assert found.uid == SOMEBODY.pw_uid
    assert found.gids == {SOMEBODY.pw_gid, 0, 4, 981, grp.getgrnam("daemon").gr_gid}
    assert found.unknown == ("not-there",)
    told = objections(config(), config().workloads[0], one, (), ROOT)
    assert [said.split(",")[0] for said in told] == ["it has the group root", "it names the group not-there"]
    assert look(config(), Unit({**one.properties, "Group": "daemon"}, ()), ()).gids == {
        0, 4, 981, grp.getgrnam("daemon").gr_gid}


def test_weirs_own_groups_by_number() -> None:
    one = Unit({**STREAMS, "User": "nobody", "SupplementaryGroups": (str(grp.getgrnam("daemon").gr_gid),)}, ())
    assert "Weir's own group daemon" in objections(config(), config().workloads[0], one, ("daemon",), ROOT)[0]


def test_uid_0_by_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    real = pwd.getpwnam("root")
    monkeypatch.setattr(pwd, "getpwnam", lambda name: pwd.struct_passwd((name, *real[1:])))
    one = Unit({**STREAMS, "User": "toor"}, ())
    assert "runs as root" in objections(config("toor"), config("toor").workloads[0], one, (), ROOT)[0]


def test_a_user_by_number_is_the_account() -> None:
    assert look(config(), Unit({"User": "0"}, ()), ()).uid == 0
    assert look(config(), Unit({"User": "4000000000"}, ()), ()).uid == -1
    assert look(config(), Unit({"User": "99999999999999999999"}, ()), ()).uid == -1


def test_a_user_of_systemds_has_a_group_of_its_own() -> None:
    one = Unit({**STREAMS, "Id": "crewdyn.service", "User": "crewdyn", "Group": "crewdyn", "DynamicUser": True}, ())
    found = look(config(), one, ())
    assert (found.uid, found.gids, found.unknown) == (-1, frozenset(), ())
    other = Unit({**one.properties, "Group": "elsewhere"}, ())
    assert look(config(), other, ()).unknown == ("elsewhere",)


def test_what_is_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "show_socket", lambda name: (("Special", "/dev/null"),))
    one = Unit({**STREAMS, "User": "nobody", "StateDirectory": ("crew",), "TriggeredBy": ("crew.socket", "crew.timer"),
                "EnvironmentFiles": (("/etc/passwd", True),), "LoadCredential": (("a", "/tmp/x"), ("b", "c"))}, ())
    found = standing.look(config(), one, ())
    assert set(found.places) == {"/var/lib/crew", "/etc/passwd", "/tmp/x"}
    assert found.sockets == {"crew.socket": (("Special", "/dev/null"),)}
    assert {"/etc/weir"} <= set(found.hidden)
