"""Locks over whatever is killed, stopped or broken: each with a Weir of its own."""
from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from clients.test_clients import environment
from lab.lab import Lab
from lab.weir import POLICY, Installed, configure, weir
from road.test_live import MORE, SLOW, asked, locks, one, psql, unlock_all

pytestmark = [pytest.mark.lab, pytest.mark.slow]


@pytest.fixture
def installed(the_lab: Lab) -> Iterator[Installed]:
    with weir(the_lab, configure(the_lab, policy=POLICY + MORE)) as made, made.overseen():
        yield made
        unlock_all(made)


@pytest.mark.parametrize("victim", ["enforcer", "agent"])
def test_a_lock_holds_over_a_kill(installed: Installed, victim: str) -> None:
    """What is killed while something runs, and whoever comes after it."""
    now = installed
    with installed.inside() as crew:
        assert installed.weir("lock", "target", "shop", "--reason", "leaked").returncode == 0
        installed.kill(victim)
        if victim == "agent":
            now = installed.again()
        now.wait()
        words = ["env", *(f"{key}={value}" for key, value in environment(installed.lab, "wrong").items()),
                 "psql", "-X", "-A", "-t", "-w", "-c", "SELECT 1"]
        code, out, err = crew.run_inside(words)
        assert (code, out) == (2, ""), err
        assert "target shop is locked: leaked" in err
        assert [(one["kind"], one["name"]) for one in locks(now)] == [("target", "shop")]
        assert now.weir("unlock", "target", "shop").returncode == 0
        assert crew.run_inside(words)[1] == "1\n"
    if victim == "agent":
        assert now.weir("stop").returncode == 0


def test_killed_between_the_file_and_the_enforcer(installed: Installed) -> None:
    """The agent dies when the file is there and the enforcer has not been told: that ends with it, and the next one
    begins with the lock.  Stood for by a file that an agent has left."""
    with asked(installed, SLOW.format("between")) as answers:
        one(installed)
        assert installed.weir("lock", "workload", "unit").returncode == 0
        file = installed.recording.parent / "locks.json"
        found = json.loads(file.read_text())
        file.write_text(json.dumps([found[0] | {"kind": "target", "name": "shop"}]))
        installed.kill("agent")
        now = installed.again()
        now.wait()
    assert answers[0].returncode != 0
    assert "target shop is locked" in psql(now, "SELECT 1").stderr
    assert now.weir("unlock", "target", "shop").returncode == 0
    assert now.weir("stop").returncode == 0


def test_a_broken_file_lets_nobody_in(installed: Installed) -> None:
    assert installed.weir("lock", "target", "shop").returncode == 0
    assert installed.weir("stop").returncode == 0
    installed.process.wait(60)
    file = installed.recording.parent / "locks.json"
    whole = file.read_text()
    file.write_text(whole[:-10])
    broken = installed.again()
    assert broken.process.wait(120) == 1
    assert "locks.json cannot be read" in installed.tail()
    file.write_text(whole)
    now = installed.again()
    now.wait()
    assert "target shop is locked" in psql(now, "SELECT 1").stderr
    assert now.weir("unlock", "target", "shop").returncode == 0
    assert now.weir("stop").returncode == 0
