"""A unit's connections are its workload's, by its cgroup: here a test makes that, in systemd's place (tests/vm)."""
from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from clients.test_clients import environment
from lab.hosts import CREW, DB, RUNTIME, USER, wait_until
from lab.weir import UNIT, UNIT_USER, Installed

from agent.block import cgroups
from agent.layout import cgroup_root

pytestmark = pytest.mark.lab

INTO = 'echo 0 >"$0/cgroup.procs" && exec setpriv --reuid "$1" --regid 65534 --clear-groups -- "${@:2}"'
# Its name is no text: what is read of it must not need it to be.
WAITS = "import ctypes, sys, subprocess\nctypes.CDLL(None).prctl(15, bytes([255, 254]), 0, 0, 0)\n" \
        "print('up', flush=True)\nfor line in sys.stdin: print(subprocess.run(line, " \
        "shell=True, capture_output=True, text=True).stdout.strip(), flush=True)"
ASK = f"psql -X -A -t -w 'host=db.lab.example hostaddr={DB.ipv4} dbname=shop user=whoever sslmode=disable' " \
      "-c 'SELECT 6 * 7' 2>&1"


@contextmanager
def unit(installed: Installed, user: str = UNIT_USER) -> Iterator[subprocess.Popen[str]]:
    path = cgroup_root() / f"{RUNTIME}.slice" / UNIT
    path.mkdir()
    process = subprocess.Popen(
        CREW.argv(["bash", "-c", INTO, str(path), user, "/usr/bin/python3", "-I", "-c", WAITS]), text=True, cwd="/",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(installed.lab, "wrong"))
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield process
    finally:
        process.kill()
        process.communicate()
        wait_until("it is empty", lambda: not cgroups.populated(path), 10)
        path.rmdir()


def asked(process: subprocess.Popen[str]) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(ASK + "\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def events(installed: Installed) -> list[dict[str, object]]:
    file = sorted(installed.recording.glob("*.sqlite"))[-1]
    query = "SELECT name, detail FROM host_events WHERE workload = 'unit' AND name LIKE 'unit.%' ORDER BY seq"
    said = subprocess.run(["sqlite3", "-readonly", "-json", str(file), query], capture_output=True, text=True,
                          check=True).stdout
    return list(json.loads(said or "[]"))


def test_a_unit_is_its_workload(installed: Installed) -> None:
    with unit(installed) as process:
        assert asked(process) == "42"
        installed.settle()
        said = subprocess.run(
            ["sqlite3", "-readonly", str(sorted(installed.recording.glob("*.sqlite"))[-1]),
             "SELECT subject, exe, target FROM sessions WHERE workload = 'unit' ORDER BY seq DESC LIMIT 1"],
            capture_output=True, text=True, check=True).stdout
        assert said.startswith(f"local:{UNIT_USER}|")
        assert "psql" in said or "postgresql" in said
        assert said.endswith("|shop\n")
        [shown] = [one for one in installed.status()["workloads"] if one["workload"] == "unit"]  # type: ignore[attr-defined]
        assert (shown["command"], shown["user"]) == (UNIT, UNIT_USER)
        first = shown["owner"]
    with unit(installed) as process:
        assert asked(process) == "42"
        [shown] = [one for one in installed.status()["workloads"] if one["workload"] == "unit"]  # type: ignore[attr-defined]
        assert shown["owner"] != first, "another start"
    wait_until("its end is on record", lambda: [one["name"] for one in events(installed)] == [
        "unit.started", "unit.ended"] * 2, 20)


def test_a_unit_in_the_slice_that_is_not_confined_is_said(installed: Installed) -> None:
    with unit(installed):
        wait_until("it is said", lambda: "without Weir's drop-in" in json.dumps(installed.status()), 20)
        assert installed.status()["state"] == "degraded"
    wait_until("it is whole", lambda: installed.status()["state"] == "enforcing", 20)


def test_a_unit_of_somebody_else_is_nobodys(installed: Installed) -> None:
    """The workload's users are who it may be: another's connections are refused."""
    with unit(installed, user=USER) as process:
        assert "42" not in asked(process)
        wait_until("it is said", lambda: "not one of its users" in json.dumps(installed.status()), 20)
    wait_until("it is gone", lambda: installed.status()["state"] == "enforcing", 20)
    assert Path(f"/etc/systemd/system/{UNIT}.d").exists() is False
