"""kill -9 of Weir's processes at random moments of a running load: nothing goes round, nothing executed is missing,
work resumes.  WEIR_KILLS says how often (200 in test-all, 12 in test)."""
from __future__ import annotations

import json
import os
import random
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest
from lab.hosts import wait_until
from lab.lab import Lab
from lab.weir import Installed, weir

pytestmark = pytest.mark.lab

KILLS = int(os.environ.get("WEIR_KILLS", "12"))
SEED = int(os.environ.get("WEIR_SEED", "0")) or random.SystemRandom().randrange(1 << 30)

# A crew that goes on whatever happens: connects, works, is cut off, connects again.  Prints one line a statement done.
LOAD = """
import itertools, os, sys, time
import psycopg2
number = 0
while True:
    try:
        with psycopg2.connect("") as connection:
            connection.autocommit = True
            cursor = connection.cursor()
            for _ in itertools.repeat(None, 200):
                number += 1
                note = f"/* {os.getpid()}:{number} */"
                cursor.execute(note + " SELECT count(*) FROM products WHERE id > %s", (number % 4,))
                cursor.fetchall()
                print(number, flush=True)
    except psycopg2.Error:
        time.sleep(0.05)
"""


@pytest.fixture
def lab_weir(the_lab: Lab) -> Iterator[Installed]:
    with weir(the_lab) as installed:
        yield installed


class Load:
    """A crew process and how far it is."""

    def __init__(self, installed: Installed) -> None:
        from clients.test_clients import PYTHON, environment

        self.done = 0
        self.process = subprocess.Popen(
            installed.crew_argv(PYTHON, "-c", LOAD), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=installed.lab.client_environment(environment(installed.lab, "wrong")), cwd=installed.lab.home,
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for _ in self.process.stdout:
            self.done += 1

    def goes_on(self, seconds: float = 60) -> None:
        """Wait until it has done more than now."""
        before, end = self.done, time.monotonic() + seconds
        while self.done <= before:
            assert self.process.poll() is None, self.process.stderr.read() if self.process.stderr else ""
            assert time.monotonic() < end, "work did not resume"
            time.sleep(0.01)

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()
        self._thread.join(10)


@pytest.mark.parametrize("victim", ["enforcer", "recorder"])
def test_killed_under_load(lab_weir: Installed, victim: str) -> None:
    chance = random.Random(SEED)
    print(f"WEIR_SEED={SEED}")
    with lab_weir.overseen():
        load = Load(lab_weir)
        try:
            for _ in range(KILLS // 4):
                load.goes_on()
                time.sleep(chance.uniform(0, 0.3))
                lab_weir.kill(victim)
                if victim == "enforcer":
                    lab_weir.wait()
            load.goes_on()
        finally:
            load.stop()
        everything_is_accounted_for(lab_weir)


def everything_is_accounted_for(installed: Installed) -> None:
    """The ledger has no alarm, and nothing stays open in it."""
    def said() -> dict[str, object]:
        found: dict[str, object] = json.loads(installed.weir("ledger", "--json").stdout)
        return found

    wait_until("nothing is open in the ledger", lambda: said().get("answers", 0) > 1  # type: ignore[operator]
               and said()["waiting"] == 0, 60)
    assert said()["alarms"] == []


# The agent alone takes more than half a minute; tests/agent/test_supervisor.py kills it too.
@pytest.mark.parametrize("victim", [pytest.param("agent", marks=pytest.mark.slow), "all"])
def test_agent_killed_under_load(the_lab: Lab, victim: str) -> None:
    """A new agent takes over what the dead one left: the block, the marks of living crews, the journal."""
    chance = random.Random(SEED)
    print(f"WEIR_SEED={SEED}")
    rows = len(the_lab.database.log())
    with weir(the_lab) as installed:
        load = Load(installed)
        try:
            for _ in range(max(1, KILLS // 20)):
                load.goes_on()
                time.sleep(chance.uniform(0, 0.3))
                installed.kill(victim)
                installed = installed.again()
                installed.wait()
                load.goes_on()
        finally:
            load.stop()
        installed.check()
        everything_is_accounted_for(installed)
    assert nobody_went_round(the_lab, rows)


def nobody_went_round(lab: Lab, since: int) -> bool:
    """The crew's password is not the server's: whoever reached it directly left a failed login in its log."""
    return not any("authentication failed" in row[13] for row in lab.database.log()[since:])


