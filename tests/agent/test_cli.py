"""The command line without an agent: exit codes, JSON, what a person sees, and what the host has."""
from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest
from rich.cells import cell_len
from rich.console import Console
from sources import copy_sources, open_way

from agent import cli
from agent.commands import doctor, screen
from agent.contract import control
from agent.contract.control import ServiceView, Status, TargetView, WorkloadView
from agent.contract.messages import HoldView, SessionView
from agent.layout import LayoutError, forwarded_key, take_lock

ROOT = Path(__file__).resolve().parents[2]


def weir(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent.cli", *arguments], capture_output=True, text=True, timeout=60, cwd=ROOT,
        stdin=subprocess.DEVNULL, env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1",
                                       **environment})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weir.toml"
    path.write_text(f'[runtime]\nrun = "{tmp_path}/run/w"\nstate = "{tmp_path}/state/w"\nuser = "nobody"\n'
                    'audit_user = "mail"\napprovers = "nogroup"\n')
    path.chmod(0o644)
    return path


@pytest.mark.parametrize("arguments", [("status",), ("stop",), ("reload",), ("approvals",), ("approvals", "list"),
                                       ("approvals", "approve", "x"), ("status", "--sessions"), ("lock",),
                                       ("lock", "workload", "x"), ("unlock", "workload", "x"),
                                       ("sessions", "kill", "x")])
def test_no_agent(file: Path, arguments: tuple[str, ...]) -> None:
    done = weir("--config", str(file), *arguments)
    assert (done.returncode, done.stdout) == (3, "")
    assert re.fullmatch(
        r"weir: the agent is not running \(no answer at .*/run/w/control.sock\); start it with: sudo "
        r"weir --config .*/weir.toml agent\n",
        done.stderr)
    done = weir("--config", str(file), *arguments, "--json")
    assert done.returncode == 3
    assert "not running" in json.loads(done.stdout)["error"]


def test_run_without_an_agent(file: Path) -> None:
    done = weir("--config", str(file), "run", "--workload", "x", "--", "id", "--json")
    assert done.returncode == 125
    assert "the agent is not running" in done.stderr


@pytest.mark.parametrize("arguments", [
    ("nonsense",), ("status", "--nonsense"), ("lock", "group", "x"), ("lock", "subject"), ("lock", "--reason", "x"),
    ("lock", "subject", "local:x", "--for", "1y"), ("unlock", "subject"), ("sessions", "kill"),
    ("run", "id"), ("run", "--workload", "x"), ("approvals", "deny", "x"),
    ("approvals", "approve")])
def test_usage(arguments: tuple[str, ...]) -> None:
    assert weir(*arguments).returncode == 2


def test_help_names_every_command_and_the_exit_codes() -> None:
    said = weir("--help").stdout
    for name in ("agent", "run", "status", "check", "doctor", "stop", "release", "reload", "approvals", "sessions",
                 "replay", "verify", "export", "policy"):
        assert re.search(rf"(?m)^  {name} ", said), name
    assert "Exit codes" in said
    assert "125" in weir("run", "--help").stdout
    assert "3 not running" in " ".join(weir("status", "--help").stdout.split())


def test_help_shows_every_command_once_below_what_it_is_for() -> None:
    shown = [name for _, names in cli.SECTIONS for name in names]
    assert sorted(shown) == sorted(cli.weir.list_commands(click.Context(cli.weir)))
    said = weir("--help").stdout
    assert [line for line in said.splitlines() if line.endswith(":")] == ["Options:"] + [
        f"{title}:" for title, _ in cli.SECTIONS]
    assert said.index("  init ") < said.index("  agent ") < said.index("  run ") < said.index("  replay ")


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Group]]:
    """Every command, and the group that lists it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        yield (*path, name), group
        one = group.get_command(context, name)
        if isinstance(one, click.Group):
            yield from commands(one, (*path, name))


COMMANDS = pytest.mark.parametrize(
    ("path", "group"), [pytest.param(*one, id=" ".join(one[0])) for one in commands(cli.weir)])


@COMMANDS
def test_a_summary_is_whole_at_80_columns(path: tuple[str, ...], group: click.Group) -> None:
    listed = click.Context(group, terminal_width=78).get_help()            # as click does on 80
    [line] = re.findall(rf"(?m)^  {path[-1]} +.*$", listed)
    assert not line.endswith("..."), line


@COMMANDS
def test_a_command_says_its_exit_codes(path: tuple[str, ...], group: click.Group) -> None:
    command = group.get_command(click.Context(group), path[-1])
    assert command is not None
    assert "Exit codes: " in command.get_help(click.Context(command))


def test_check(file: Path) -> None:
    done = weir("--config", str(file), "check")
    assert (done.returncode, done.stderr) == (0, "")
    assert "right, not complete (0 targets" in done.stdout
    assert "note: no [[target]]: name your database" in done.stdout
    answer = json.loads(weir("--config", str(file), "check", "--json").stdout)
    assert (answer["right"], answer["problems"], len(answer["notes"])) == (True, [], 5)
    file.write_text(file.read_text() + "[enforcer]\nport = 1\n")
    done = weir("--config", str(file), "check")
    assert done.returncode == 1
    assert f"{file}:8: enforcer.port: 1 is out of bounds" in done.stdout
    [problem] = json.loads(weir("--config", str(file), "check", "--json").stdout)["problems"]
    assert (problem["line"], problem["field"]) == (8, "enforcer.port")


def test_container_args_says_where_the_workload_is_missing(file: Path) -> None:
    done = weir("--config", str(file), "container-args", "mine")
    assert (done.returncode, done.stderr) == (1, f"weir: {file}: there is no [[workload]] 'mine'; there is: none\n")


def test_a_broken_file_leads_to_the_same_agent(file: Path) -> None:
    file.write_text(file.read_text() + "[enforcer]\nport = [\n")
    done = weir("--config", str(file), "reload")
    assert done.returncode == 3
    assert "/run/w/control.sock" in done.stderr


def test_policies_lie_beside_the_configuration(file: Path) -> None:
    done = weir("--config", str(file), "policy", "check")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"{file.parent}/policies: No such file or directory" in done.stderr
    (file.parent / "policies").mkdir()
    assert "nothing is permitted" in weir("--config", str(file), "policy", "check").stdout
    (file.parent / "policies/a.cedar").write_text('@id("a") permit (principal, action, resource);')
    assert weir("--config", str(file), "policy", "check").stdout == "1 file is right\n"
    explain = ("policy", "explain", "--subject", "local:a", "--target", "t", "--database", "d", "DELETE FROM x")
    assert weir("--config", str(file), *explain).returncode == 0
    assert weir("--config", str(file.parent / "none/weir.toml"), *explain).returncode == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be refused as somebody else")
def test_only_root_runs_the_agent_and_releases(file: Path) -> None:
    open_way(file.parent)
    code = copy_sources(file.parent / "code")
    for arguments, wanted in ((("agent",), "must run as root"), (("release",), "only root may release")):
        done = subprocess.run(
            [sys.executable, "-m", "agent.cli", "--config", str(file), *arguments], capture_output=True, text=True,
            cwd=code, user=65534, group=65534, extra_groups=[], env={"PATH": "/usr/bin"})
        assert done.returncode == 1
        assert wanted in done.stderr


def test_the_agent_says_what_is_wrong(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "agent.cli", "--config", str(tmp_path / "none.toml"), "agent"], capture_output=True,
        text=True, cwd=ROOT, env={"PATH": "/usr/bin"})
    assert done.returncode == 1
    assert "none.toml: there is no such file" in done.stderr or "must run as root" in done.stderr


def test_doctor() -> None:
    found = {one.name: one for one in doctor.examine(None)}
    assert {"kernel", "cgroups", "bcc", "headers", "libbpf", "nftables", "bubblewrap", "clock", "disk"} <= set(found)
    assert all(one.advice for one in found.values() if one.state == doctor.FAIL)
    done = weir("doctor", "--json")
    assert [one["name"] for one in json.loads(done.stdout)] == list(found)
    assert done.returncode == int(any(one.state == doctor.FAIL for one in found.values()))


def test_a_check_that_breaks_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks() -> doctor.Finding:
        raise ValueError("what")

    monkeypatch.setattr(doctor, "kernel", breaks)
    assert doctor.examine(None)[0] == doctor.Finding("kernel", "warn", "could not be looked at: what")


# what a person sees


def test_open_sessions_are_lines_and_obey_nobody() -> None:
    one = SessionView("01M85G0N8VN1E5GK7T2YHTAZ88", 1, "local:ada\x1b", "crew", 7, "shop", "shop", 3, "idle")
    head, line = shown(screen.render_sessions([one])).splitlines()
    assert head.split()[0] == "SESSION"
    assert "01M85G0N8VN1E5GK7T2YHTAZ88  local:ada\\x1b  crew      7    shop/shop" in line


def shown(what: object, colour: bool = False) -> str:
    console = Console(highlight=False, soft_wrap=True, force_terminal=colour, width=80, no_color=not colour)
    with console.capture() as capture:
        console.print(what)
    return capture.get()


EVIL = "\x1b[2J\x07[bold]\u202e"


def test_nothing_that_a_crew_typed_writes_to_the_terminal() -> None:
    hold = HoldView("t", 0, time.time_ns() + 10**12, EVIL, EVIL, 1, EVIL, EVIL, EVIL, EVIL, f"a{EVIL}\nb\r", (EVIL,),
                    (EVIL,), (EVIL,), True, EVIL, reported=EVIL)
    session = SessionView("s", 1, EVIL, EVIL, 1, EVIL, EVIL, 1, EVIL, EVIL)
    for text in (shown(screen.render_holds([hold])), shown(screen.render_sessions([session]))):
        assert "\x1b" not in text
        assert "\x07" not in text
        assert "\u202e" not in text
        assert "[bold]" in text
    assert "a\\x1b[2J" in shown(screen.render_holds([hold]))
    assert re.search(r"(?m)^ +b\\r$", shown(screen.render_holds([hold])))


def asked(text: str, *parameters: str, action: str = "sql:delete public.orders") -> HoldView:
    return HoldView("abcdefgh", 0, time.time_ns() + 10**12, "local:crew", "crew", 1, "/bin/x", "shop", "shop", action,
                    text, parameters, ("r",), ("dba",), False, "s")


def rows(hold: HoldView, width: int = 80) -> list[str]:
    return shown(screen.render_holds([hold], width)).splitlines()


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_what_a_crew_typed_never_begins_a_line_of_ours(width: int) -> None:
    """The terminal broke long lines, and went on at its left edge: blanks led to a row of the crew's own."""
    fake = " " * 5000 + "zzzzzzzz  sql:select public.news\n  rule         none"
    for hold in (asked(f"DELETE FROM orders{fake}"), asked("x", fake, "語" * 400), asked("x", action=f"a{fake}")):
        lines = rows(hold, width)
        assert all(cell_len(line) <= max(width, 40) for line in lines)
        assert not [line for line in lines if line.startswith(("zzz", "  rule         none"))]
        assert [line[:8] for line in lines if not line.startswith(" ")] == ["abcdefgh"]


def test_parameters_are_told_from_each_other() -> None:
    one, two = rows(asked("x", "a, b")), rows(asked("x", "a", "b"))
    assert one != two
    assert [line[line.index("$"):] for line in two if "$" in line] == ["$1: a", "$2: b"]


def test_letters_that_look_like_others_are_named() -> None:
    said = "\n".join(rows(asked("DELETE FROM orders WHERE state <> 'оpen' AND name = 'Müller'")))
    assert "о is U+043E CYRILLIC SMALL LETTER O" in said
    assert "U+00FC" not in said
    assert "letters" not in "\n".join(rows(asked("DELETE FROM orders WHERE name = 'Müller'")))
    assert "and 14 more that are not Latin" in "\n".join(rows(asked("".join(map(chr, range(0x430, 0x444))))))
    assert "paypa\\u3164l" in "\n".join(rows(asked("paypa\u3164l")))


@pytest.mark.parametrize(("pid", "exe", "who"), [
    (1, "/bin/x", "local:crew through crew (pid 1, /bin/x)"), (1, "", "local:crew through crew (pid 1)"),
    (0, "", "local:crew through crew")])
def test_of_a_process_that_is_not_known_nothing_is_shown(pid: int, exe: str, who: str) -> None:
    [line] = [one for one in rows(msgspec.structs.replace(asked("x"), pid=pid, exe=exe)) if one.startswith("  who ")]
    assert line.split(maxsplit=1)[1] == who


def test_what_a_process_says_of_itself_is_shown_as_that() -> None:
    hold = HoldView("t", 0, time.time_ns() + 10**12, "ada", "crew", 1, "/x", "shop", "shop", "a", "b", (), (), (),
                    False, "s", reported="tool sql of agent Analyst")
    assert "says the process itself: tool sql of agent Analyst" in shown(screen.render_holds([hold]))
    assert "reported" not in shown(screen.render_holds([msgspec.structs.replace(hold, reported="")]))
    session = SessionView("s", 1, "ada", "crew", 1, "shop", "shop", 1, "idle", "tool sql")
    other = msgspec.structs.replace(session, reported="")
    assert re.search("(?m)REPORTED\n.* tool sql\n", shown(screen.render_sessions([session, other])))
    assert "REPORTED" not in shown(screen.render_sessions([other]))


def status(**more: object) -> Status:
    service = ServiceView(7, time.time_ns(), 0)
    base: dict[str, object] = {
        "state": "enforcing", "reasons": (), "runtime": "weir", "since": time.time_ns() - 3 * 3600 * 10**9, "pid": 1,
        "config": "/etc/weir/weir.toml", "redirect": True, "listeners": ("127.0.0.1:15432",), "enforcer": service,
        "recorder": service, "lag": 5, "targets": (TargetView("orders", "postgresql", ("db",), 5432, ()),),
        "egress": (), "workloads": (WorkloadView("crew", "ada", 9, time.time_ns(), EVIL, 3),), "statistics": {},
        "hints": ("look",)}
    return Status(**(base | more))  # type: ignore[arg-type]


def test_status_says_what_is_the_matter() -> None:
    text = shown(screen.render_status(status()))
    assert text.startswith("enforcing: ")
    for wanted in ("up 3 h", "db port 5432 (no address)", "! look", "the enforcer does not say", "\\x1b[2J"):
        assert wanted in text
    assert "\x1b" not in text
    broken = status(state="blocked", reasons=("enforcer: x",), enforcer=ServiceView(0, 0, 3, "exit code 1"))
    assert "because enforcer: x" in shown(screen.render_status(broken))
    assert "not working: exit code 1, started again 3 times" in shown(screen.render_status(broken))
    assert "\x1b[1;31m" in shown(screen.render_status(status(state="degraded")), colour=True)
    assert "notify" not in text
    assert re.search("notify +not working: x", shown(screen.render_status(status(notify=ServiceView(0, 0, 0, "x")))))


def test_an_agents_answers_obey_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("FORCE_COLOR", "1")
    hold = HoldView("t", 0, time.time_ns() + 10**12, "a", "b", 1, "c", "d", "e", "f", "g", (), (), (), False, "h")
    for what in (screen.render_status(status(state="degraded")), screen.render_holds([hold])):
        for name, coloured in (("NOTHING", True), ("NO_COLOR", False)):
            monkeypatch.setenv(name, "1")
            console = screen.console()
            with console.capture() as capture:
                console.print(what)
            assert ("\x1b[1;31m" in capture.get()) == (coloured and "degraded" in capture.get())
        monkeypatch.delenv("NO_COLOR")


def test_answers_of_any_size_have_a_frame() -> None:
    with pytest.raises(ValueError, match="limit"):
        control.render_frame(control.Refused("x" * control.LIMIT))


# lock and keys


def test_one_agent_a_machine(tmp_path: Path) -> None:
    first = take_lock(tmp_path / "lock")
    with pytest.raises(LayoutError, match=f"pid {os.getpid()}"):
        take_lock(tmp_path / "lock")
    os.close(first)
    os.close(take_lock(tmp_path / "lock"))
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        take_lock(tmp_path / "link")


def test_the_key_of_forwarded_digests_is_made_once(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: the key belongs to root")
    key = forwarded_key(tmp_path, 65534)
    assert len(key) == 32
    assert forwarded_key(tmp_path, 65534) == key
    status = (tmp_path / "forwarded.key").stat()
    assert (status.st_mode & 0o777, status.st_gid) == (0o640, 65534)
    (tmp_path / "forwarded.key").write_bytes(b"short")
    with pytest.raises(LayoutError, match="move it away"):
        forwarded_key(tmp_path, 65534)
