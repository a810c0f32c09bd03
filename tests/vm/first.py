"""Run inside the machine, as root: from a crew that is there, as a unit of systemd's, to its first recorded session, by
what `weir init` says.

Not collected by an ordinary run, like checks.py.  Nobody tells it what the crew is and whom it talks to.
"""
from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab.hosts import wait_until
from lab.weir import prefix

from vm import adopted
from vm.adopted import DATABASE, ETC, REPOSITORY, UNITS, right, rows, run, wait_for_state

HERE, UNIT = Path("/opt/crewfirst"), "crewfirst.service"
SECONDS = 600.0                       # for what takes two on a real processor
PROGRAM = """
import os, subprocess, time
try:
    import crewai
except ImportError:                     # it need not be installed for this
    crewai = None
while True:
    subprocess.run(["psql", "-XAtc", "select 6 * 7", os.environ["DATABASE_URL"]])
    time.sleep(15)                      # on an emulated processor each takes seconds
"""
SERVICE = f"""
[Service]
User=crew
WorkingDirectory={HERE}
Environment=DATABASE_URL=postgresql://svc:real-password@127.0.0.1:{DATABASE}/postgres?sslmode=disable
ExecStart=/usr/bin/python3 main.py
"""

database = adopted.database


@pytest.fixture(scope="module", autouse=True)
def crew(database: None) -> Iterator[None]:
    """It works, and Weir is as installed."""
    assert os.geteuid() == 0, "run it as root, inside the machine"
    shutil.rmtree(ETC, ignore_errors=True)
    shutil.copytree(REPOSITORY / "packaging/default", ETC)
    if run("getent", "passwd", "crew").returncode:
        right("useradd", "-m", "crew")
    if not (link := Path("/usr/local/bin/weir")).exists():     # a quick machine's installation has none
        link.symlink_to(prefix() / "bin/weir")
    HERE.mkdir(mode=0o755, exist_ok=True)
    (HERE / "main.py").write_text(PROGRAM)
    (UNITS / UNIT).write_text(SERVICE)
    right("systemctl", "daemon-reload")
    right("systemctl", "start", UNIT)
    wait_until("it works", lambda: "42" in said(), 120)
    yield
    run("weir", "adopt", "--undo", UNIT)
    run("systemctl", "stop", UNIT)
    run("weir", "release", "--kill", seconds=300)
    run("systemctl", "stop", "weir-agent")
    (UNITS / UNIT).unlink()
    shutil.rmtree(ETC)                # adopted.py, boot.py and the others bring their own
    right("systemctl", "daemon-reload")


def said(*more: str) -> str:
    return run("journalctl", "--no-pager", "-o", "cat", "-u", UNIT, *more).stdout


def test_what_would_be_done() -> None:
    done = right("weir", "init", "--dry-run", "--take-credentials", seconds=SECONDS)
    assert "+[[workload]]" in done
    assert "real-password" not in done
    assert "will refuse" not in done
    assert sorted(path.name for path in ETC.iterdir()) == ["groups.toml", "policies", "weir.toml"]


def test_the_first_recorded_session() -> None:
    """Four commands: what `weir init` prints at its end."""
    made = json.loads(right("weir", "init", "--yes", "--take-credentials", "--json", seconds=SECONDS))
    assert [(one["name"], one["place"]) for one in made["workloads"]] == [("crewfirst", UNIT)]
    [target] = made["targets"]
    assert (target["name"], target["what"], target["place"]) == (
        "postgres", "postgresql", f"127.0.0.1 port {DATABASE}")
    assert made["missing"] == []
    assert made["next"] == ["sudo weir check", "sudo systemctl start weir-agent",
                            f"sudo weir adopt --running restart {UNIT}", "sudo weir sessions"]
    assert (ETC / "credentials/postgres").read_text() == "real-password"
    right("weir", "check", seconds=SECONDS)
    right("systemctl", "start", "weir-agent", seconds=SECONDS)
    wait_for_state("enforcing", seconds=240)
    right("weir", "adopt", "--running", "restart", UNIT, seconds=SECONDS)
    wait_until("the first session", lambda: bool(rows(
        "SELECT 1 FROM sessions WHERE workload = 'crewfirst' AND target = 'postgres'")), 120)
    began = right("systemctl", "show", "-P", "ActiveEnterTimestamp", UNIT).strip()
    wait_until("its answer", lambda: "42" in said("--since", began), 120)
    assert "crewfirst" in right("weir", "sessions", seconds=SECONDS)
