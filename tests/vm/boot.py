"""Run inside the machine, as root, before and after it boots: is the first connect of a unit in the crews' slice
contained?  The verdict is the server's; the same unit outside the slice is the control, and has to reach it.

    python tests/vm/boot.py STATE          before: units, configuration
    pytest tests/vm/boot.py                after: STATE is read from what was left

Not collected by an ordinary run (its name).
"""
from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

PLACE, UNITS, ETC = Path("/var/lib/vm-boot"), Path("/etc/systemd/system"), Path("/etc/weir")
SERVER = ("192.0.2.1", 7777)
BROKEN = {
    "boot": "",
    "boot, configuration broken": "this is no TOML\n",
    "boot, guard refuses": '[runtime]\nname = "other"\n',
}
# systemd's own name for the network having to wait is not waited for: a connect within the host needs none.
SERVE = f"""import os, socket, subprocess
subprocess.run(["ip", "address", "replace", "{SERVER[0]}/32", "dev", "lo"], check=True)
listener = socket.create_server({SERVER})
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
    one.connect(os.environ["NOTIFY_SOCKET"]); one.send(b"READY=1")
with open("{PLACE}/reached", "w", buffering=1) as log:
    while True:
        one = listener.accept()[0]
        one.settimeout(5)
        print(one.recv(100).decode().strip(), file=log)
        one.sendall(b"hello"); one.close()
"""
DIAL = f"""import json, socket, sys, time
said = {{"at": time.monotonic(), "cgroup": open("/proc/self/cgroup").read().strip()}}
try:
    with socket.create_connection({SERVER}, 10) as one:
        one.sendall(sys.argv[1].encode() + b"\\n")
        said["answer"] = one.recv(100).decode()
except OSError as reason:
    said["answer"] = str(reason)
print(json.dumps(said), flush=True)
"""
EARLY = "DefaultDependencies=no\nConflicts=shutdown.target\nBefore=shutdown.target\n"
# As early as systemd permits: nothing is waited for but the server and what the slice itself needs.
DIALLER = """[Unit]
Description={0}
{1}After=vm-server.service
[Service]
Type=oneshot
RemainAfterExit=yes
User=crew
{2}ExecStart=/usr/bin/python3 {3}/dial.py {0}
StandardOutput=truncate:{3}/{0}.json
[Install]
WantedBy=sysinit.target
"""
SERVICE = """[Unit]
Description=server of the boot checks
{0}After=local-fs.target
[Service]
Type=notify
ExecStart=/usr/bin/python3 {1}/serve.py
[Install]
WantedBy=sysinit.target
"""


def prepare(state: str) -> None:
    PLACE.mkdir(exist_ok=True)
    for name, text in (("serve.py", SERVE), ("dial.py", DIAL), ("state", state)):
        (PLACE / name).write_text(text)
    for left in PLACE.glob("*.json"):
        left.unlink()
    (PLACE / "reached").unlink(missing_ok=True)
    (UNITS / "vm-server.service").write_text(SERVICE.format(EARLY, PLACE))
    (UNITS / "vm-crew.service").write_text(DIALLER.format("crew", EARLY, "Slice=weir.slice\n", PLACE))
    (UNITS / "vm-control.service").write_text(DIALLER.format("control", EARLY, "", PLACE))
    if run("getent", "passwd", "crew").returncode:
        assert run("useradd", "-m", "crew").returncode == 0
    shutil.copytree("packaging/default", ETC, dirs_exist_ok=True)
    (ETC / "weir.toml").write_text(BROKEN[state])
    assert run("systemctl", "daemon-reload").returncode == 0
    enabled = run("systemctl", "enable", "vm-server", "vm-crew", "vm-control", "weir-guard", "weir-agent")
    assert enabled.returncode == 0, enabled.stderr


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd="/")


def show(unit: str, what: str) -> str:
    return run("systemctl", "show", "-P", what, unit).stdout.strip()


def said(name: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((PLACE / f"{name}.json").read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found


@pytest.fixture(scope="module")
def state() -> str:
    assert os.geteuid() == 0
    return (PLACE / "state").read_text()


@pytest.fixture(scope="module")
def reached() -> list[str]:
    end = time.monotonic() + 120
    while show("vm-crew", "ActiveState") == "activating" or not (reached := (PLACE / "reached").read_text().split()):
        assert time.monotonic() < end
        time.sleep(1)
    return reached


def test_the_first_connect_of_a_crew_did_not_reach_the_server(state: str, reached: list[str]) -> None:
    assert "control" in reached, said("control")
    assert "crew" not in reached
    if state == "boot, guard refuses":
        assert said("crew") == {}
        assert show("vm-crew", "ActiveState") == "inactive"
        return
    crew = said("crew")
    assert crew["cgroup"] == "0::/weir.slice/vm-crew.service"
    assert crew["answer"] != "hello"
    if state == "boot":
        assert float(show("weir-guard", "ExecMainExitTimestampMonotonic")) < float(crew["at"]) * 1e6


def test_guard_and_agent_are_as_they_must_be(state: str) -> None:
    guard = "exit-code" if state == "boot, guard refuses" else "success"
    assert show("weir-guard", "Result") == guard, run("journalctl", "-u", "weir-guard").stdout
    assert show("weir.slice", "ActiveState") == ("active" if guard == "success" else "inactive")
    end = time.monotonic() + 240
    wanted = {"boot": "active", "boot, guard refuses": "inactive"}.get(state, "")
    while wanted and show("weir-agent", "ActiveState") != wanted:
        assert time.monotonic() < end, run("journalctl", "-u", "weir-agent").stdout
        time.sleep(1)
    status = run("weir", "status")
    assert (status.returncode == 0) == (state == "boot"), status.stdout


def test_a_unit_that_starts_later_is_contained_too(state: str, reached: list[str]) -> None:
    """After the agent is up, or without one; where there is no guard it does not start."""
    before = (PLACE / "reached").read_text().count("crew")
    assert (run("systemctl", "restart", "vm-crew").returncode == 0) == (state != "boot, guard refuses")
    assert (PLACE / "reached").read_text().count("crew") == before == 0
    assert run("systemctl", "restart", "vm-control").returncode == 0
    assert (PLACE / "reached").read_text().count("control") == 2


if __name__ == "__main__":
    prepare(sys.argv[1])
