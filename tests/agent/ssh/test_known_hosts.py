"""known_hosts files: whose lines are whose, by OpenSSH's, paramiko's and asyncssh's own reading."""
from __future__ import annotations

import fnmatch
import json
import os
import subprocess
from pathlib import Path

import asyncssh
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.ssh.known_hosts import is_for, matches, merge, name_of, parse_line, render_lines, without

PYTHON = Path(os.environ.get("WEIR_PREFIX", "/opt/weir")) / "clients" / "bin" / "python"
PARAMIKO = """
import json, sys
import paramiko
found = paramiko.HostKeys(sys.argv[1])
print(json.dumps({name: {kind: key.get_base64() for kind, key in (found.lookup(name) or {}).items()}
                  for name in sys.argv[2:]}))
"""


def key(place: Path, name: str, kind: str = "ed25519") -> str:
    """A public key, as ssh-keygen makes it."""
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "it", "-f", place / name], check=True)
    return " ".join((place / f"{name}.pub").read_text().split()[:2])


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    place = tmp_path_factory.mktemp("keys")
    return {name: key(place, name) for name in ("own", "weir", "other")} | {"ecdsa": key(place, "ecdsa", "ecdsa")}


def found(file: Path, name: str) -> set[str]:
    """What ssh-keygen -F finds for a host."""
    done = subprocess.run(["ssh-keygen", "-F", name, "-f", file], capture_output=True, text=True)
    return {" ".join(line.split()[1:3]) for line in done.stdout.splitlines() if not line.startswith(("#", "@"))}


def test_names() -> None:
    assert [name_of(*one) for one in (("db", 22), ("db", 2222), ("::1", 22), ("::1", 2222))] == [
        "db", "[db]:2222", "::1", "[::1]:2222"]


def test_lines_of_every_kind(keys: dict[str, str]) -> None:
    own = keys["own"]
    assert parse_line("") is parse_line("# x y z") is parse_line("one two") is parse_line("@what a b c") is None
    line = parse_line(f"  @cert-authority *.lab,!db.lab {own} a comment\n")
    assert line is not None
    assert (line.marker, line.hosts, line.key) == ("@cert-authority", "*.lab,!db.lab", f"{own} a comment")
    assert is_for(line, "web.lab")
    assert not is_for(line, "db.lab")


def test_what_is_for_weirs_hosts_goes_and_nothing_else(tmp_path: Path, keys: dict[str, str]) -> None:
    own, weir, other = keys["own"], keys["weir"], keys["other"]
    text = (f"# mine\nweb.lab,10.0.0.9,friend.lab {own} by hand\n*.lab {own}\nWEB.lab {other}\n[web.lab]:2222 {other}\n"
            f"@cert-authority web.lab {own}\n@revoked * {other}\nelse.lab {own}\nbroken\n")
    file = tmp_path / "known_hosts"
    file.write_text(text)
    assert found(file, "web.lab") == {own, other}
    made = merge(text.encode(), render_lines(("web.lab", "10.0.0.9"), (weir,)).encode()).decode()
    file.write_text(made)
    assert found(file, "web.lab") == found(file, "10.0.0.9") == {weir}
    assert found(file, "friend.lab") == found(file, "else.lab") == {own}
    assert found(file, "[web.lab]:2222") == {other}
    assert made.startswith(f"# mine\nfriend.lab {own} by hand\n*.lab,!web.lab {own}\n")
    assert f"@revoked *,!10.0.0.9,!web.lab {other}\n" in made
    assert "broken\n" in made
    assert "cert-authority" not in made


def test_hashed_names(tmp_path: Path, keys: dict[str, str]) -> None:
    """As ssh-keygen -H and HashKnownHosts write them."""
    file = tmp_path / "known_hosts"
    file.write_text(f"web.lab {keys['own']}\n[web.lab]:2222 {keys['own']}\nelse.lab {keys['other']}\n")
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", file], check=True, capture_output=True)
    hashed = file.read_text()
    assert "web.lab" not in hashed
    made = without(hashed, {"web.lab"})
    file.write_text(made)
    assert (found(file, "web.lab"), found(file, "else.lab")) == (set(), {keys["other"]})
    assert found(file, "[web.lab]:2222") == {keys["own"]}
    assert without(f"|1|x|y {keys['own']}\n|1| {keys['own']}\n", {"web.lab"}).count("\n") == 2


def test_bytes_of_any_kind_stay(keys: dict[str, str]) -> None:
    own = b"else \xff\xfe \xe9\n" + b"web.lab " + keys["own"].encode() + b" caf\xe9"
    assert merge(own, f"db {keys['weir']}\n".encode()) == own + b"\n" + f"db {keys['weir']}\n".encode()
    assert merge(b"", b"db x y\n") == b"db x y\n"


def test_asyncssh_and_paramiko_read_it(tmp_path: Path, keys: dict[str, str]) -> None:
    names = ("web.lab", "10.0.0.9", "2001:db8::9")
    shown = (keys["weir"], keys["ecdsa"])
    old = f"web.lab {keys['own']}\n*.lab {keys['own']}\n[web.lab]:2222 {keys['own']}\n"
    for port in (22, 2222):
        file = tmp_path / f"known_hosts{port}"
        file.write_bytes(merge(old.encode(), render_lines([name_of(one, port) for one in names], shown).encode()))
        for name in names:
            trusted = asyncssh.read_known_hosts(str(file)).match(name, "192.0.2.1", port)[0]
            assert {one.export_public_key().decode().strip() for one in trusted} == set(shown)
        if not PYTHON.exists():
            pytest.skip(f"no {PYTHON}: `./bootstrap test` installs paramiko there")
        wanted = {one.split()[0]: one.split()[1] for one in shown}
        done = subprocess.run([PYTHON, "-c", PARAMIKO, file, *(name_of(one, port) for one in names)],
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == {name_of(one, port): wanted for one in names}


@given(st.text("ab*?", max_size=12), st.text("abc", max_size=12))
def test_patterns_fit_as_everywhere(pattern: str, name: str) -> None:
    assert matches(pattern, name) == fnmatch.fnmatchcase(name, pattern)


def test_a_pattern_of_a_crews_costs_no_time() -> None:
    assert not matches("*a" * 2000 + "b", "a" * 4000)


@given(st.binary(max_size=200))
def test_nothing_breaks_it(content: bytes) -> None:
    assert merge(content, b"web.lab ssh-ed25519 AAAA\n").endswith(b"web.lab ssh-ed25519 AAAA\n")
