"""What is written: shown, checked and written whole, or not at all."""
from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from agent.init import writing
from agent.init.findings import Secret
from agent.init.rendering import File
from agent.init.writing import (
    BACKUP,
    Change,
    WritingError,
    check,
    configures_nothing,
    credentials_of_others,
    plan,
    policies_of_others,
    render_changes,
    write,
)
from agent.settings.reference import EXAMPLE

ROOT = Path(__file__).resolve().parents[3]
SECRET = Secret("password", "hunter2", "DATABASE_URL of crew.service")
WHOLE = """
[[workload]]
name = "crew"
users = ["nobody"]
[[target]]
name = "orders"
protocol = "postgresql"
hosts = ["db.lab"]
port = 5432
tls_ca = "{directory}/orders-ca.pem"
[[target.credential]]
user = "svc"
password_file = "{directory}/credentials/orders"
"""
CA = "-----BEGIN CERTIFICATE-----\nAAAABBBBCCCCDDDDEEEE\n-----END CERTIFICATE-----\n"


def files(directory: Path, weir: str = WHOLE, policies: str = '@id("a")\npermit (principal, action, resource);\n',
          groups: str = '[groups]\ndata = ["workload:crew"]\n') -> list[File]:
    return [File(f"{directory}/orders-ca.pem", CA, 0o644), File(f"{directory}/credentials/orders", "", 0o600, SECRET),
            File(f"{directory}/policies/first.cedar", policies, 0o644), File(f"{directory}/groups.toml", groups, 0o644),
            File(f"{directory}/weir.toml", weir.format(directory=directory), 0o644)]


def states(changes: tuple[Change, ...]) -> list[str]:
    return [one.state for one in changes]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "weir"


def tree(directory: Path) -> dict[str, str]:
    return {str(path.relative_to(directory)): path.read_text() for path in directory.rglob("*") if path.is_file()}


def test_where_nothing_is(directory: Path) -> None:
    changes = plan(files(directory), force=False)
    assert states(changes) == ["new"] * 5
    assert write(changes) == {}
    assert tree(directory)["credentials/orders"] == "hunter2"
    modes = {str(path.relative_to(directory)): f"{stat.S_IMODE(path.stat().st_mode):o}"
             for path in directory.rglob("*")}
    assert modes == {"credentials": "700", "credentials/orders": "600", "policies": "755", "orders-ca.pem": "644",
                     "policies/first.cedar": "644", "groups.toml": "644", "weir.toml": "644"}
    again = plan(files(directory), force=False)
    assert states(again) == ["unchanged", "kept", "unchanged", "unchanged", "unchanged"]


def test_the_installed_files_configure_nothing(directory: Path) -> None:
    directory.mkdir()
    for name in ("weir.toml", "groups.toml"):
        (directory / name).write_text((ROOT / EXAMPLE).with_name(name).read_text())
    changes = plan(files(directory), force=False)
    assert states(changes) == ["new", "new", "new", "replaced", "replaced"]
    backups = write(changes)
    assert {Path(path).name: Path(kept).name for path, kept in backups.items()} == {
        "groups.toml": f"groups.toml.{BACKUP}", "weir.toml": f"weir.toml.{BACKUP}"}
    assert Path(backups[f"{directory}/weir.toml"]).read_text() == (ROOT / EXAMPLE).read_text()


@pytest.mark.parametrize(("name", "text", "nothing"), [
    ("weir.toml", "", True), ("weir.toml", "[runtime]\n[enforcer]\n", True),
    ("weir.toml", "[dns]\nlisten = 'x'", False),
    ("weir.toml", "[[target]]", False), ("weir.toml", "not TOML", False), ("first.cedar", "", False)])
def test_what_configures_nothing(name: str, text: str, nothing: bool) -> None:
    assert configures_nothing(name, text) == nothing


def test_what_is_there_is_in_the_way_and_with_force_kept_beside(directory: Path) -> None:
    (directory / "policies").mkdir(parents=True)
    (directory / "policies/first.cedar").write_text("// mine\n")
    (directory / "weir.toml").write_text("[[egress]]\n")
    before = tree(directory)
    changes = plan(files(directory), force=False)
    with pytest.raises(WritingError, match=r"first.cedar, .*weir.toml are there already.*--force"):
        writing.refuse_what_is_in_the_way(changes)
    write(changes)                    # and even so
    assert before.items() <= tree(directory).items()
    for number in ("", "-2"):
        (directory / "weir.toml").write_text(f"[[egress]]\n# {number}\n")
        (directory / "credentials/orders").write_text("mine")
        write(plan(files(directory), force=True))
        assert (directory / f"weir.toml.{BACKUP}{number}").read_text() == f"[[egress]]\n# {number}\n"
        assert (directory / "credentials/orders").read_text() == "mine", "a credential stays, always"
    assert [path.name for path in (directory / "policies").glob("*.cedar")] == ["first.cedar"], "no backup counts"


def test_where_one_cannot_be_written_nothing_is(directory: Path) -> None:
    directory.mkdir()
    (directory / "weir.toml").write_text("[runtime]\n")
    changes = plan(files(directory), force=False)
    (directory / "policies").write_text("in the way")
    before = tree(directory)
    with pytest.raises(WritingError, match="nothing was written"):
        write(changes)
    assert tree(directory) == before


def test_what_has_come_to_be_there_meanwhile_stays(directory: Path) -> None:
    changes = plan(files(directory), force=True)
    directory.mkdir()
    (directory / "groups.toml").write_text("somebody's")
    with pytest.raises(WritingError, match="exists"):
        write(changes)
    assert tree(directory) == {"groups.toml": "somebody's"}


@pytest.mark.parametrize("force", [False, True])
def test_who_interrupts_it_leaves_nothing_half_written(
    directory: Path, monkeypatch: pytest.MonkeyPatch, force: bool,
) -> None:
    if force:
        write(plan(files(directory), force=False))
    before = tree(directory)
    changes = plan(files(directory, weir="[runtime]\n", policies="// x\n", groups="[groups]\n"), force=True)
    synced = []

    def interrupted(fd: int) -> None:
        synced.append(fd)
        if len(synced) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(changes)
    assert tree(directory) == before


def test_a_credential_that_is_there_is_not_sent_to_where_a_crew_says_that_its_target_is(directory: Path) -> None:
    (directory / "credentials").mkdir(parents=True)
    (directory / "credentials/orders").write_text("the operator's")
    file = f"{directory}/weir.toml"
    without = [one for one in files(directory) if one.secret is None]
    for changes in (plan(files(directory), force=False), plan(without, force=False)):
        [said] = credentials_of_others(changes, file)
        assert said.startswith(f"{directory}/credentials/orders is there already, and nothing says that it is for "
                               "db.lab port 5432: ")
    (directory / "credentials/orders").write_text("hunter2")
    assert not credentials_of_others(plan(files(directory), force=False), file), "the very one"


def test_a_credential_that_is_there_goes_on_to_be_sent_to_where_it_was_sent_before(directory: Path) -> None:
    file = f"{directory}/weir.toml"
    write(plan(files(directory), force=False))
    (directory / "credentials/orders").write_text("the operator's")
    again = plan(files(directory), force=False)
    assert not credentials_of_others(again, file)
    more = plan(files(directory, weir=WHOLE + '[[egress]]\nname = "x"\naddresses = ["x.lab"]\n'), force=True)
    assert not credentials_of_others(more, file)
    moved = plan(files(directory, weir=WHOLE.replace("db.lab", "evil.lab")), force=True)
    assert len(credentials_of_others(moved, file)) == 1


def test_policies_that_stay_are_said(directory: Path) -> None:
    (directory / "policies").mkdir(parents=True)
    (directory / "policies/examples.cedar").write_text("// permit (principal, action, resource);\n\n")
    (directory / "policies/old.cedar").write_text("// x\npermit (principal, action, resource);\n")
    (directory / "policies/first.cedar").write_text("permit (principal, action, resource);\n")
    assert policies_of_others(plan(files(directory), force=True), f"{directory}/weir.toml") == (
        f"{directory}/policies/old.cedar is there and counts too: what it permits is permitted besides",)


@pytest.mark.parametrize("kind", ["link", "directory"])
def test_what_is_no_file_is_not_followed(directory: Path, tmp_path: Path, kind: str) -> None:
    directory.mkdir()
    (tmp_path / "elsewhere").write_text("x")
    if kind == "link":
        (directory / "weir.toml").symlink_to(tmp_path / "elsewhere")
    else:
        (directory / "weir.toml").mkdir()
    with pytest.raises(WritingError, match="is no file"):
        plan(files(directory), force=True)


def test_what_is_shown(directory: Path) -> None:
    directory.mkdir()
    (directory / "groups.toml").write_text("[groups]\n")
    said = "\n".join(render_changes(plan(files(directory), force=False)))
    assert "hunter2" not in said
    assert f"# {directory}/credentials/orders: DATABASE_URL of crew.service, which is not shown (0600, root's)" in said
    assert f"--- /dev/null\n+++ {directory}/weir.toml\n" in said
    assert f'--- {directory}/groups.toml\n+++ {directory}/groups.toml\n@@ -1 +1,2 @@\n [groups]\n+data = [' in said


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: policies are checked as the enforcer's user")
class TestChecked:
    """By what `weir check` uses."""

    def test_right(self, directory: Path) -> None:
        config, problems = check(plan(files(directory), force=False), f"{directory}/weir.toml", [])
        assert not problems
        assert config is not None
        assert (config.file, config.targets[0].tls_ca) == (f"{directory}/weir.toml", f"{directory}/orders-ca.pem")
        assert config.groups == {"data": ("workload:crew",)}
        assert not directory.exists(), "nothing is written"

    def test_what_somebody_is_told_to_put_there_may_be_missing_and_nothing_else(self, directory: Path) -> None:
        some = [one for one in files(directory) if one.secret is None]
        _, problems = check(plan(some, force=False), f"{directory}/weir.toml", [f"{directory}/credentials/orders"])
        assert not problems
        _, problems = check(plan(some, force=False), f"{directory}/weir.toml", [])
        [problem] = problems
        assert str(problem) == (f"{directory}/weir.toml:13: target[1].credential[1].password_file: "
                                f"{directory}/credentials/orders: there is no such file")

    @pytest.mark.parametrize(("change", "said"), [
        ({"weir": WHOLE + "portt = 3\n"}, "is not known"),
        ({"weir": WHOLE.replace("nobody", "no-such-user")}, "no user"),
        ({"weir": "[[target]\n"}, "not TOML"), ({"policies": "permit (principal"}, "first.cedar:1"),
        ({"policies": '@id("a")\npermit (principal, action == Action::"sql:x", resource);'}, "first.cedar:2"),
        ({"groups": "[groups]\ndata = 3\n"}, "groups.toml:2")])
    def test_wrong(self, directory: Path, change: dict[str, str], said: str) -> None:
        config, problems = check(plan(files(directory, **change), force=False), f"{directory}/weir.toml", [])
        assert config is None
        assert any(said in str(one) for one in problems), problems
        assert not [one for one in problems if "weir-init-" in str(one)], "the copy's names are nobody's"

    def test_policies_that_are_there_count(self, directory: Path) -> None:
        (directory / "policies").mkdir(parents=True)
        (directory / "policies/own.cedar").write_text('@id("a")\npermit (principal, action, resource);\n')
        _, problems = check(plan(files(directory), force=False), f"{directory}/weir.toml", [])
        assert any('"a"' in str(one) for one in problems), "two of one name"
