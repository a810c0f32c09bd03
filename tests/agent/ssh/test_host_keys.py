"""Weir's own host keys: made once, root's alone; and the files by which crews know them."""
from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from agent.credential.trust import (
    NO_TRUST,
    SYSTEM_HOSTS,
    TrustTarget,
    binds_for,
    prepare_trust,
    publish_trust,
    write_into,
)
from agent.ssh.host_keys import host_keys, prepare_hosts, replace_host_keys
from agent.workload.view import Bind

WEB = TrustTarget("web", ("web.lab.example", "10.0.0.9"), ("10.0.0.9", "2001:db8::9"), ("~/hosts",))


def test_one_of_each_type_made_once_and_roots(tmp_path: Path) -> None:
    made = host_keys(tmp_path, "web")
    assert [one.split()[0] for one in made.public] == ["ssh-ed25519", "ecdsa-sha2-nistp256", "ssh-rsa"]
    assert host_keys(tmp_path, "web") == made
    assert host_keys(tmp_path, "other").public != made.public
    assert "PRIVATE" not in repr(made)
    place = tmp_path / "ca" / "web"
    for name in ("ed25519", "ecdsa", "rsa"):
        assert (place / f"ssh_host_{name}_key").stat().st_mode & 0o777 == 0o600
    shown = subprocess.run(["ssh-keygen", "-lf", place / "ssh_host_rsa_key"], capture_output=True, check=True)
    assert shown.stdout.startswith(b"3072 ")
    with pytest.raises(ValueError, match="target name"):
        host_keys(tmp_path, "../etc")


@pytest.mark.parametrize("spoil", ["open", "gone", "broken"])
def test_one_that_is_not_roots_alone_is_made_anew(tmp_path: Path, spoil: str) -> None:
    before = host_keys(tmp_path, "web").public
    file = tmp_path / "ca" / "web" / "ssh_host_ed25519_key"
    if spoil == "open":
        file.chmod(0o640)
    elif spoil == "gone":
        file.unlink()
    else:
        file.write_text("x")
    after = host_keys(tmp_path, "web").public
    assert (after[0] != before[0], after[1:]) == (True, before[1:])
    assert file.stat().st_mode & 0o777 == 0o600


def test_others_at_once(tmp_path: Path) -> None:
    before = host_keys(tmp_path, "web").public
    after = replace_host_keys(tmp_path, "web").public
    assert not set(before) & set(after)
    assert host_keys(tmp_path, "web").public == after


@pytest.fixture
def places(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("state", "run"):
        (tmp_path / name).mkdir()
    return tmp_path / "state", tmp_path / "run"


def test_files_and_binds(places: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state, run = places
    own = tmp_path / "ssh_known_hosts"
    monkeypatch.setattr("agent.credential.trust.SYSTEM_HOSTS", str(own))
    public = host_keys(state, "web").public
    own.write_text(f"else.lab {public[0]}\nWEB.lab.example,friend {public[2]}\n")
    hosts = prepare_hosts([(WEB, 22)], state, run)
    trust = prepare_trust([], state, run, hosts=hosts)
    assert "PRIVATE" not in repr(trust)
    names = ("web.lab.example", "10.0.0.9", "2001:db8::9")
    lines = "".join(f"{name} {one}\n" for name in names for one in public)
    assert (run / "trust" / "known_hosts").read_text() == lines
    assert (run / "trust" / "ssh_known_hosts").read_text() == (
        f"else.lab {public[0]}\nfriend {public[2]}\n" + lines)
    assert (run / "trust" / "known_hosts").stat().st_mode & 0o777 == 0o644
    known = str(run / "trust" / "known_hosts")
    assert binds_for("crew", "/home/ann/", trust) == (
        Bind(str(run / "trust" / "ssh_known_hosts"), str(own), absent="make"),
        Bind(known, "/home/ann/.ssh/known_hosts", append=True, absent="make", known_hosts=True),
        Bind(known, "/home/ann/hosts", append=True, absent="make", known_hosts=True))
    assert binds_for("crew", "/home/ann", NO_TRUST) == ()
    assert SYSTEM_HOSTS == "/etc/ssh/ssh_known_hosts"


def test_a_closed_file_of_the_systems_is_not_shown(
    places: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:
    own = tmp_path / "ssh_known_hosts"
    own.touch(0o600)
    own.write_text("secret x y\n")
    monkeypatch.setattr("agent.credential.trust.SYSTEM_HOSTS", str(own))
    prepare_trust([], *places, hosts=prepare_hosts([(WEB, 22)], *places))
    assert "secret" not in (places[1] / "trust" / "ssh_known_hosts").read_text()


def test_what_is_bound_is_written_in_place(places: tuple[Path, Path]) -> None:
    """A new target, and one that goes: the very files stay."""
    state, run = places
    file = run / "trust" / "known_hosts"
    first = prepare_trust([], state, run, hosts=prepare_hosts([(WEB, 22)], state, run))
    inode, text = file.stat().st_ino, file.read_text()
    more = prepare_hosts([(WEB, 22), (TrustTarget("two", ("two.lab",)), 2222)], state, run)
    second = prepare_trust([], state, run, running=True, also=first, hosts=more)
    assert file.read_text().startswith(text)
    assert "\n[two.lab]:2222 ssh-ed25519 " in file.read_text()
    publish_trust(run, first, running=True, also=second)
    assert "two.lab" in file.read_text(), "until it is in force, both are known"
    publish_trust(run, first, running=True)
    assert (file.read_text(), file.stat().st_ino) == (text, inode)


def test_a_file_shrinks_and_grows_in_place(tmp_path: Path) -> None:
    file = tmp_path / "x"
    for content in (b"one\n", b"one\ntwo\n", b"three\n", b"", b"four\n"):
        write_into(file, content)
        assert file.read_bytes() == content
