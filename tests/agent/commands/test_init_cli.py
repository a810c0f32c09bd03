"""`weir init` as it is run: by flags, and by answers on a terminal."""
from __future__ import annotations

import grp
import json
import os
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from personsend import PersonsEnd
from sources import ROOT, open_way

from agent import cli
from agent.commands import init_cli
from agent.init.findings import Findings

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
TARGET = ("--target", "orders=postgresql://svc@10.255.255.1/shop")
KNOWN = ("--user", "nobody", *TARGET)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as the command does")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "etc" / "weir.toml"


def command(file: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "agent.cli", "--config", str(file), *words]


def weir(file: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(file, *words), capture_output=True, text=True, timeout=120, cwd=ROOT,
                          stdin=subprocess.DEVNULL, env={**ENVIRONMENT, **environment})


@contextmanager
def crew(directory: Path, name: str = "main.py", port: int = 0, **environment: str) -> Iterator[None]:
    """A process of nobody's that looks like one, and has a connection to this port."""
    open_way(directory)
    open_way(directory.parent)
    script = directory / name
    script.write_text(
        "import socket, sys\nif False:\n    import crewai\n"
        "held = [socket.create_connection(('127.0.0.1', int(port))) for port in sys.argv[1:]]\n"
        "print(flush=True)\nsys.stdin.read()\n")
    with subprocess.Popen(
        ["/usr/bin/python3", str(script), *([str(port)] if port else [])], user="nobody", group="nogroup",
        extra_groups=[], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield
        process.communicate()


def test_by_flags(file: Path) -> None:
    done = weir(file, "init", "--yes", *KNOWN)
    assert (done.returncode, done.stderr) == (0, "")
    assert "+[[workload]]" in done.stdout
    assert "\x1b" not in done.stdout
    assert f"{file.parent}/credentials/orders: the password for orders" in done.stdout
    assert done.stdout.splitlines()[-6:] == [
        "next:", f"  sudo install -m 600 -D /dev/null {file.parent}/credentials/orders && sudoedit "
        f"{file.parent}/credentials/orders", f"  sudo weir --config {file} check",
        f'  sudo weir --config {file} agent   # in a terminal of its own; it says "enforcing"',
        f"  sudo weir --config {file} run --workload nobody --user nobody -- COMMAND",
        f"  sudo weir --config {file} sessions"]
    wanted = weir(file, "check")
    assert (wanted.returncode, "credentials/orders: there is no such file" in wanted.stdout) == (1, True)
    secret = file.parent / "credentials" / "orders"
    secret.parent.mkdir(mode=0o700)
    secret.write_text("x")
    secret.chmod(0o600)
    checked = weir(file, "check")
    assert (checked.returncode, checked.stdout.splitlines()[0]) == (
        0, f"{file}: right, not complete (1 target, 1 workload, 1 policy file)")
    again = weir(file, "init", "--yes", *KNOWN)
    assert (again.returncode, "unchanged: 1 workload, 1 target, 0 egress places" in again.stdout) == (0, True)


def test_a_recording_that_has_not_begun_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard and `weir release` leave its directory."""
    asked: list[Path | None] = []
    monkeypatch.setattr(init_cli, "RECORDING", str(tmp_path))
    monkeypatch.setattr(init_cli, "find", lambda units, users, place: asked.append(place) or Findings((), (), ()))
    init_cli._found((), (), False, None)
    init_cli._found((), (), False, tmp_path / "named")
    (tmp_path / "recording-20261129T112949Z-1.sqlite").touch()
    init_cli._found((), (), False, None)
    assert asked == [None, tmp_path / "named", tmp_path]


def test_as_json(file: Path) -> None:
    done = weir(file, "init", "--dry-run", "--json", *KNOWN)
    said = json.loads(done.stdout)
    assert (done.returncode, said["state"], file.parent.exists()) == (0, "would be written", False)
    said = json.loads(weir(file, "init", "--yes", "--json", *KNOWN).stdout)
    assert said["state"] == "written"
    assert [(Path(one["path"]).name, one["state"], one["mode"]) for one in said["files"]] == [
        ("first.cedar", "new", "0644"), ("groups.toml", "new", "0644"), ("weir.toml", "new", "0644")]
    assert said["targets"] == [{"name": "orders", "what": "postgresql", "place": "10.255.255.1 port 5432",
                                "why": ["--target"]}]
    assert [one["path"] for one in said["missing"]] == [f"{file.parent}/credentials/orders"]


def test_a_credential_is_taken_and_never_shown(file: Path, tmp_path: Path) -> None:
    where = tmp_path / "app"
    where.mkdir()
    with crew(where, DATABASE_URL="postgresql://svc:hunter2@10.255.255.1/shop"):
        shown = weir(file, "init", "--dry-run", "--take-credentials", *TARGET)
        as_json = weir(file, "init", "--dry-run", "--json", "--take-credentials", *TARGET)
        without = weir(file, "init", "--dry-run", "--json", *TARGET)
        done = weir(file, "init", "--yes", "--take-credentials", *TARGET)
    for one in (shown, as_json, without, done):
        assert one.returncode == 0, one.stderr
        assert "hunter2" not in one.stdout + one.stderr
    secret = file.parent / "credentials" / "orders"
    assert f"# {secret}: DATABASE_URL of nobody, which is not shown (0600, root's)" in done.stdout
    assert (secret.read_text(), secret.stat().st_mode & 0o777, secret.stat().st_uid) == ("hunter2", 0o600, 0)
    assert weir(file, "check").returncode == 0
    assert [one["path"] for one in json.loads(without.stdout)["missing"]] == [str(secret)]


def test_what_a_crew_calls_itself_writes_to_no_terminal(file: Path, tmp_path: Path) -> None:
    where = tmp_path / "app"
    where.mkdir()
    with crew(where, os.fsdecode(b"\x1b[2J\n\xff\"'.py"), PGHOST="10.255.255.1", PGDATABASE="a\x1b[2Jb"):
        shown, as_json = (weir(file, "init", "--dry-run", *more) for more in ((), ("--json",)))
    assert (shown.returncode, as_json.returncode) == (0, 0), shown.stderr + as_json.stderr
    assert all(one == "\n" or one.isprintable() for one in shown.stdout + shown.stderr)
    [workload] = [one for one in json.loads(as_json.stdout)["workloads"] if one["name"] == "nobody"]
    assert "\\x1b[2J\\n\\udcff" in workload["why"][0]


def test_what_nobody_can_read_is_only_taken_where_a_person_says_so(file: Path, tmp_path: Path) -> None:
    where = tmp_path / "app"
    where.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with crew(where, port=port, OPENAI_BASE_URL="http://10.9.9.9:8000"):
            said = json.loads(weir(file, "init", "--dry-run", "--json").stdout)
            with closing(Terminal(*command(file, "init"))) as person:
                person.answer(b"user:NAME", b"user:nobody")
                person.until(b"at 10.9.9.9 port 8000")
                person.answer(b"not read [Y/n]", b"n")
                person.until(f"at 127.0.0.1 port {port}".encode())
                person.answer(b"not read [y/N]", b"\x03")
                assert person.end() == 1
    assert [one["place"] for one in said["egress"]] == ["10.9.9.9 port 8000"]
    assert (f"not taken, for nobody said what it is: 127.0.0.1 port {port} (1 open connection of nobody); a question, "
            "without --yes") in said["notes"]


def test_what_is_there_stays(file: Path) -> None:
    file.parent.mkdir()
    file.write_text("[egress_policy]\nmode = 'shadow'\n")
    refused = weir(file, "init", "--yes", *KNOWN)
    assert (refused.returncode, "--force puts it there" in refused.stderr) == (1, True)
    assert file.read_text() == "[egress_policy]\nmode = 'shadow'\n"
    shown = weir(file, "init", "--dry-run", *KNOWN)
    assert (shown.returncode, "-mode = 'shadow'" in shown.stdout, "without --force it stays" in shown.stdout) == (
        0, True, True)
    forced = weir(file, "init", "--yes", "--force", *KNOWN)
    assert forced.returncode == 0
    assert f"{file} was replaced; what was there is {file}.before-init" in forced.stdout
    assert Path(f"{file}.before-init").read_text() == "[egress_policy]\nmode = 'shadow'\n"


def test_nothing_is_written_where_something_is_wrong(file: Path) -> None:
    done = weir(file, "init", "--yes", *KNOWN, "--target", "orders2=postgresql://svc@10.255.255.1:15432/shop",
                "--target", "again=ssh://127.0.0.1:15432")
    assert done.returncode == 1
    assert "weir: nothing was written, for it would not be right:" in done.stderr
    assert "is the enforcer's own listener" in done.stderr
    assert not file.parent.exists()


@pytest.mark.parametrize(("words", "code", "said"), [
    (("--json",), 2, "--json asks nothing"), ((), 2, "no terminal to ask questions on"),
    (("--yes", "--target", "x"), 2, "NAME=URL would be right"),
    (("--yes", "--target", "a=postgresql://svc:hunter2@h/d"), 2, "everybody on this host sees"),
    (("--yes", "--target", "postgresql://svc:hunter2@h/d"), 2, "NAME=URL would be right"),
    (("--yes", "--user", "no-such-user"), 1, "there is no user 'no-such-user'"),
    (("--yes", "--unit", "ssh.service"), 1, "")])
def test_what_is_refused(file: Path, words: tuple[str, ...], code: int, said: str) -> None:
    done = weir(file, "init", *words)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "hunter2" not in done.stderr
    assert not file.parent.exists()


def test_only_root(file: Path, tmp_path: Path) -> None:
    done = subprocess.run([*command(file, "init", "--yes")], user="nobody", group="nogroup", extra_groups=[], cwd=ROOT,
                          capture_output=True, text=True, env=ENVIRONMENT)
    assert (done.returncode, done.stderr) == (
        1, "weir: only root may look at crews and write the configuration: sudo weir init\n")


def test_it_is_said_that_nobody_could_answer(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = grp.getgrnam
    for members, said in (([], True), (["ada"], False)):
        # Of this host's group others may be members.
        monkeypatch.setattr(init_cli.grp, "getgrnam", lambda name, of=members: SimpleNamespace(
            gr_name=name, gr_gid=there(name).gr_gid, gr_mem=of))
        done = CliRunner().invoke(cli.weir, ["--config", str(file), "init", "--dry-run", *KNOWN])
        assert (done.exit_code, "nobody is in the group weir-approvers" in done.output) == (0, said), done.output


# on a terminal


class Terminal(PersonsEnd):
    def __init__(self, *argv: str, **environment: str) -> None:
        self.master, self.slave = os.openpty()
        self.resize(40, 200)
        self.seen = b""
        attributes = termios.tcgetattr(self.slave)
        attributes[3] &= ~termios.ECHO
        termios.tcsetattr(self.slave, termios.TCSANOW, attributes)
        self.process = subprocess.Popen(["setsid", "--ctty", *argv], stdin=self.slave, stdout=self.slave,
                                        stderr=self.slave, cwd=ROOT,
                                        env={**ENVIRONMENT, "TERM": "xterm", **environment})

    def answer(self, question: bytes, text: bytes) -> bytes:
        """What came up to the question."""
        before = self.until(question)
        self.type(text + b"\n")
        return before


def test_by_questions(file: Path, tmp_path: Path) -> None:
    where = tmp_path / "app"
    where.mkdir()
    with crew(where, DATABASE_URL="postgresql://svc:hunter2@10.255.255.1/shop", OPENAI_BASE_URL="http://10.9.9.9:8000",
              PGHOST="10.255.255.2"), closing(Terminal(*command(file, "init"))) as person:
        person.until(b"Crews that were found:")
        person.answer(b"user:NAME", b"77")
        person.until(b"there is no 77")
        person.answer(b"user:NAME", b"ssh.service")
        person.until(b"host's own")
        person.answer(b"user:NAME", b"user:nobody")
        said = person.answer(b"Its name as a target", b"or ders")
        assert b"PostgreSQL at 10.255.255.1 port 5432, as svc, shop" in said
        person.until(b"letters, digits")
        person.answer(b"Its name as a target", b"orders")
        person.answer(b"Copy the password in DATABASE_URL of nobody to a file of root's", b"y")
        said = person.answer(b"Its name as a target", b"-")
        assert b"PostgreSQL at 10.255.255.2 port 5432" in said
        said = person.answer(b"Let the crew reach it?", b"")
        assert b"at 10.9.9.9 port 8000" in said
        person.answer(b"Which mode", b"shadow")
        said = person.answer(b"Write this?", b"y")
        assert b"\x1b[32m+[[target]]" in said
        assert person.end() == 0
        assert b"next:" in person.seen
        assert b"hunter2" not in said + person.seen
    text = file.read_text()
    assert 'name = "orders"' in text
    assert 'egress = "shadow"' in text
    assert "10.255.255.2" not in text
    assert (file.parent / "credentials/orders").read_text() == "hunter2"
    assert weir(file, "check").returncode == 0


@pytest.mark.parametrize(("last", "code"), [(b"n", 1), (b"\x03", 1)])
def test_who_does_not_want_it_has_nothing_written(file: Path, last: bytes, code: int) -> None:
    with closing(Terminal(*command(file, "init", *KNOWN, "--no-find", "--egress", "enforce"), NO_COLOR="1")) as person:
        person.answer(b"user:NAME", b"")
        person.answer(b"Its name as a target", b"")
        said = person.until(b"Write this?")
        assert b"+[[target]]" in said
        assert b"\x1b[3" not in said
        person.type(last + b"\n")
        assert person.end() == code
        assert (b"nothing was written" if last == b"n" else b"interrupted") in person.seen
    assert not file.parent.exists()
