"""Each reading command on a terminal, with NO_COLOR (no-color.org), in a pipe, and with --json."""
from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from enforcer.recording import replay
from enforcer.recording.read import Session

ROOT = Path(__file__).resolve().parents[3]
COLOUR = re.compile(r"\x1b\[(?:[0-9;]*;)?(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;[0-9;]*)?m")
ESCAPE = "\x1b"
TERMINAL = {"FORCE_COLOR": "1", "TERM": "xterm-256color"}      # as rich understands it
EXPLAIN = ("policy", "explain", "--subject", "local:a", "--target", "t", "--database", "d", "SELECT 1")

# Command, and whether it has colours at all.
READING = {
    "sessions": (("sessions",), False), "replay": (("replay", "S1"), True),
    "replay --all": (("replay", "S1", "--all"), True), "search": (("search", "delete"), True),
    "verify": (("verify",), False), "check": (("check",), False), "doctor": (("doctor",), True),
    "status": (("status",), False), "status --sessions": (("status", "--sessions"), False),
    "approvals": (("approvals",), False), "approvals list": (("approvals", "list"), False),
    "policy explain": (EXPLAIN, False),
}


@pytest.fixture(scope="module")
def file(make_scene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weir.toml whose recording holds a session; no agent runs."""
    state = tmp_path_factory.mktemp("state")
    scene = make_scene(state)
    scene.all_kinds(scene.writer(), "S1")
    scene.start()
    scene.turn(2)
    scene.stop()
    scene.close()
    (state / "policies").mkdir()
    made = state / "weir.toml"
    made.write_text(f'[runtime]\nrun = "{state}/run/w"\nstate = "{state}"\nuser = "nobody"\naudit_user = "mail"\n'
                    'approvers = "nogroup"\n')
    made.chmod(0o644)
    return made


def run(file: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "agent.cli", "--config", str(file), *arguments], capture_output=True, text=True,
        cwd=ROOT, stdin=subprocess.DEVNULL,
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", **environment})
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.parametrize("name", READING)
def test_colour_only_where_it_is_wanted(file: Path, name: str) -> None:
    command, coloured = READING[name]
    assert bool(COLOUR.search(run(file, *command, **TERMINAL).stdout)) == coloured
    assert not COLOUR.search(run(file, *command, NO_COLOR="1", **TERMINAL).stdout)
    piped = run(file, *command)
    assert ESCAPE not in piped.stdout + piped.stderr


@pytest.mark.parametrize("name", READING)
def test_json_is_one_document_whatever_the_terminal(file: Path, name: str) -> None:
    command, _ = READING[name]
    done = run(file, *command, "--json", **TERMINAL)
    assert ESCAPE not in done.stdout
    assert isinstance(json.loads(done.stdout), dict | list)
    assert done.returncode == run(file, *command).returncode
    assert done.stderr == ""


# Columns of `weir sessions`

def session(name: str, who: str, workload: str, where: str, operations: int, reason: str) -> Session:
    opened = 1_795_962_000 * replay.SECOND
    target, _, database = where.partition("/")
    return Session(name, opened, opened + 3 * replay.SECOND, who, workload, 7, "/usr/bin/python3", "postgresql", target,
                   database, "crew", operations, 2, 1, 10, 2_400_000, reason, 0)


LISTED = (
    session("01KB7Q4M8ZP3T9V0X5A2C6D1EF", "local:crewai", "research", "orders/shop", 128, "client closed"),
    session("01KB7Q5RZ0W8N6J4H2F1D3B5A7", "oidc:https://id.example.com#ann", "nightly-report-crew",
            "analytics-warehouse/reporting", 40_112, "server lost: it asks, and does not read what it is answered"),
)


def listed(sessions: tuple[Session, ...], room: int | None) -> list[str]:
    return [line.plain for line in replay.render_sessions(sessions, room)]


@pytest.mark.parametrize("room", [80, 100, 120, 200])
def test_sessions_fit_their_terminal(room: int) -> None:
    head, first, second = listed(LISTED, room)
    assert max(map(len, (head, first, second))) <= room
    assert {"WHO", "WHERE", "OPS", "DENIED"} <= set(head.split())
    assert first.startswith(LISTED[0].session)         # to be given to `weir replay`
    assert second.startswith(LISTED[1].session)
    assert "orders/shop" in first


def test_sessions_of_short_names_lose_columns_before_letters() -> None:
    assert "…" not in "".join(listed(LISTED[:1], 80))
    assert "…" not in "".join(listed(LISTED[:1], 100))
    assert listed(LISTED[:1], 100)[0].split()[-1] == "END"


def test_sessions_are_whole_where_there_is_room_or_no_terminal() -> None:
    assert listed(LISTED, 400) == listed(LISTED, None)
    assert LISTED[1].reason in listed(LISTED, None)[2]


@pytest.mark.parametrize("columns", [80, 200])
def test_sessions_know_their_terminal(file: Path, columns: int) -> None:
    leader, follower = pty.openpty()
    try:
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        done = subprocess.run(
            [sys.executable, "-m", "agent.cli", "--config", str(file), "sessions"], cwd=ROOT, stdin=follower,
            stdout=follower, stderr=subprocess.PIPE, env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "NO_COLOR": "1",
                                                          "TERM": "xterm", "PYTHONDONTWRITEBYTECODE": "1"})
        assert done.returncode == 0, done.stderr
        said = re.sub("\x1b[^m]*m", "", os.read(leader, 1 << 16).decode()).split("\r\n")
    finally:
        os.close(leader)
        os.close(follower)
    assert max(map(len, said)) <= columns
    assert ("WORKLOAD" in said[0]) == (columns == 200)
