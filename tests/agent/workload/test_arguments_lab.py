"""Passwords in the command lines of a real crew: in no file of Weir's, and in nothing that it shows."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
from clients.test_clients import PYTHON, environment
from lab.weir import AUDITOR, Installed

pytestmark = pytest.mark.lab

SECRET = "zq7hunter2qz"
CONNECT = f"""
import psycopg2
with psycopg2.connect("", password = '{SECRET}') as connection:
    connection.cursor().execute("SELECT 1")
"""


def test_a_password_on_a_command_line_is_nowhere(installed: Installed) -> None:
    chosen = environment(installed.lab, "wrong")
    for command in (
        ("psql", "-X", "-w", f"password={SECRET} application_name=one", "-c", "SELECT 1"),
        ("psql", "-X", "-w", f"postgresql://:{SECRET}@/", "-c", "SELECT 1"),
        ("sh", "-c", f"PGPASSWORD={SECRET} psql -X -w -c 'SELECT 1'; true"),
        (PYTHON, "-c", CONNECT, "--token", SECRET),
    ):
        done = installed.crew(*command, environment=chosen)
        assert done.returncode == 0, done.stderr
    installed.settle()
    shown = [installed.weir(*command, user=user).stdout for command, user in (
        (("sessions", "--json"), AUDITOR), (("status", "--sessions"), ""), (("status", "--json"), ""))]
    crews = [one["session"] for one in json.loads(shown[0]) if one["workload"] != "weir"]   # its reads of the catalogue
    sessions = crews[-4:]
    replays = [installed.weir("replay", one, user=AUDITOR).stdout for one in sessions]
    assert sum("***" in one for one in replays) >= 3, replays
    assert not [one for one in (*shown, *replays) if SECRET in one]
    state = installed.recording.parent
    files = [path for folder in (state / "recording", state / "journal", installed.config.parent)
             for path in folder.rglob("*") if path.is_file()] + [Path(installed.log)]
    assert len(files) > 5
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


def test_what_weir_says_in_a_file_is_json(installed: Installed) -> None:
    lines = installed.log.read_text().splitlines()
    assert "enforcing" in [json.loads(line)["message"].partition(":")[0] for line in lines]
