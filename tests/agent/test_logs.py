"""What agent, launcher, enforcer and recorder say: one form, by where it goes."""
from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SAYS = """
import logging
from agent.contract.logs import log_to_stderr
log_to_stderr()
logging.getLogger("weir.agent").info("enforcing: %s", "a\\x1b[2J")
logging.getLogger("weir.recorder").error("two\\nlines")
try:
    raise ValueError("what a peer sent")
except ValueError:
    logging.getLogger("weir.session").exception("unexpected")
"""
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


def on_a_terminal(*command: str) -> tuple[int, str]:
    """Exit code, and what a terminal as stderr got."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=ENVIRONMENT, cwd=ROOT)
    os.close(theirs)
    said = b""
    try:
        while piece := os.read(ours, 65536):
            said += piece
    except OSError:                   # EIO: nobody has it open any more
        pass
    os.close(ours)
    return process.wait(), said.decode().replace("\r\n", "\n")


def test_json_where_no_terminal_is() -> None:
    done = subprocess.run([sys.executable, "-c", SAYS], capture_output=True, text=True, env=ENVIRONMENT)
    first, second, third = map(json.loads, done.stderr.splitlines())
    assert list(first) == ["at", "level", "part", "message"]
    assert (first["level"], first["part"], first["message"]) == ("info", "weir.agent", "enforcing: a\x1b[2J")
    assert second["message"] == "two\nlines"
    assert (third["error"], third["where"]) == ("ValueError", "<string>:8")
    assert "what a peer sent" not in done.stderr
    assert "\x1b" not in done.stderr


def test_lines_for_people_on_a_terminal() -> None:
    _, said = on_a_terminal(sys.executable, "-c", SAYS)
    assert said == ("weir: enforcing: a\\x1b[2J\nweir: recorder: two\nweir: recorder: lines\n"
                    "weir: session: unexpected (error ValueError) (where <string>:8)\n")


COMMANDS = {
    "processes": ("-m", "agent.processes", "--user", "root", "--", "/bin/true"),
    "agent": ("-m", "agent.cli", "--config", "/nonexistent/weir.toml", "agent"),
    "recorder": ("-m", "enforcer.recording.recorder", "--journal", "/nonexistent", "--recording", "/nonexistent"),
    "enforcer": ("-m", "enforcer.app", "--channel", "0", "--listeners", ""),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_each_of_them_speaks_so(name: str) -> None:
    """Each ends at once here: there is no configuration, no directory, or (for the enforcer) there are privileges."""
    if name == "enforcer" and os.geteuid() != 0:
        pytest.skip("needs root, which the enforcer refuses to be")
    command = (sys.executable, *COMMANDS[name])
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, cwd=ROOT, stdin=subprocess.DEVNULL)
    assert done.returncode == (125 if name == "processes" else 1)
    assert done.stdout == ""
    assert done.stderr
    for line in done.stderr.splitlines():
        assert json.loads(line)["part"].startswith("weir.")
    code, said = on_a_terminal(*command)
    assert code == done.returncode
    assert said
    assert all(line.startswith("weir: ") for line in said.splitlines())
