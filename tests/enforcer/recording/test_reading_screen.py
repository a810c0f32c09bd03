"""Each reading command on a terminal, with NO_COLOR (no-color.org), in a pipe, and with --json."""
from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

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
