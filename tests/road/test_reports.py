"""A real crew with weir-crewai: its tool is attached to what it asks, two at once are both named, policy tells them
apart; whoever lies is believed as far as policy believes reports, and it stands in the recording as reported."""
from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from clients.test_clients import environment
from lab.lab import Lab
from lab.postgresql import NAME
from lab.weir import AUDITOR, POLICY, Installed, configure, weir

pytestmark = pytest.mark.lab

ROOT = Path(__file__).resolve().parents[2]
MORE = """
@id("only-clean-up-deletes")
forbid (principal, action == Action::"sql:delete", resource == Table::"shop/shop/public/scratch")
unless { context.reported.certain && context.reported.tool == "clean_up" };
"""
LIAR = """
import json, os, socket, struct, subprocess, sys
body = json.dumps({"calls": [["shop", "Liar", "t", tool] for tool in sys.argv[1].split(",")]}).encode()
one = socket.socket(socket.AF_UNIX)
one.connect("/run/weir-reports")
one.sendall(struct.pack("<I", len(body)) + body)
sys.path.append(sys.argv[2])
import time
time.sleep(1)                         # attributed
sql = "DELETE FROM scratch WHERE false AND '%s' = 'x'" % sys.argv[1]
if sys.argv[3] == "child":            # another process of the crew's: it has said nothing
    sys.exit(subprocess.run(["psql", "-X", "-w", "-c", sql]).returncode)
import psycopg2
try:
    with psycopg2.connect("") as connection, connection.cursor() as cursor:
        cursor.execute(sql)
except psycopg2.Error as error:
    print(error)
    sys.exit(1)
"""
STEADY = """
import sys, time
from types import SimpleNamespace as Event
import psycopg2, weir_crewai
reporter = weir_crewai.attach()
for number, line in enumerate(sys.stdin):
    began = f"s{number}"
    about = dict(task_id="T", task_name="t", agent_role="Steady", agent_key="", tool_name="steady")
    reporter.sink(None, Event(type="tool_usage_started", event_id=began, **about))
    time.sleep(1.5)                       # where it has just connected, until it is attributed
    with psycopg2.connect("") as connection, connection.cursor() as cursor:
        cursor.execute("SELECT 'steady %d'" % number)
    reporter.sink(None, Event(type="tool_usage_finished", event_id=f"e{number}", started_event_id=began, **about))
    print("done", flush=True)
"""


@pytest.fixture(scope="module")
def installed(the_lab: Lab) -> Iterator[Installed]:
    with weir(the_lab, configure(the_lab, policy=POLICY + MORE)) as made, made.overseen():
        yield made


def python(installed: Installed) -> str:
    return str(installed.prefix.parent / "crew" / "bin" / "python")


def recorded(installed: Installed, word: str) -> list[tuple[str, list[list[str]]]]:
    """(decision, reported) of operations of crews whose text has this word."""
    installed.settle()
    with closing(sqlite3.connect(f"file:{next(installed.recording.glob('*.sqlite'))}?mode=ro", uri=True)) as db:
        return [(decision, json.loads(reported)) for decision, reported in db.execute(
            "SELECT decision, reported FROM operations WHERE actor = 'crew' AND instr(text, ?) ORDER BY seq", (word,))]


def call(tool: str) -> list[str]:
    return ["shop", "Shop analyst", "orders", tool]


def test_one_is_attached_and_of_two_both_are_named(installed: Installed) -> None:
    made = installed.lab
    made.give(ROOT / "packaging" / "weir-crewai" / "weir_crewai.py")
    script = made.give(ROOT / "tests" / "road" / "crew" / "reporting_crew.py")
    uri = (f"postgresql://crew_svc:not-the-password@{NAME}/shop?sslmode=verify-full"
           f"&sslrootcert={made.home}/db-ca.pem")
    done = installed.crew(python(installed), str(script), uri, environment={"PYTHONWARNINGS": "ignore"}, timeout=900)
    [line] = [line for line in done.stdout.splitlines() if line.startswith("SAID ")] or [done.stdout + done.stderr]
    said = json.loads(line.removeprefix("SAID "))
    assert (said["read_orders"], said["first"], said["clean_up"]) == ("ok", "ok", "ok")
    assert "only-clean-up-deletes" in said["second"] + said["tidy"]
    assert recorded(installed, "'read_orders'") == [("permit", [call("read_orders")])]
    for tool, decision in (("first", "permit"), ("second", "deny")):
        [(found, calls)] = recorded(installed, f"'{tool}'")
        assert (found, sorted(calls)) == (decision, [call("first"), call("second")])
    assert recorded(installed, "'clean_up'") == [("permit", [call("clean_up")])]
    assert recorded(installed, "'tidy'") == [("deny", [call("tidy")])]
    shown = installed.weir("search", "read_orders", "--recording", str(installed.recording), user=AUDITOR).stdout
    assert "reported tool read_orders of agent Shop analyst in task orders of crew shop" in shown


def run_liar(installed: Installed, tools: str, who: str = "itself") -> subprocess.CompletedProcess[str]:
    crews = next((installed.prefix.parent / "crew" / "lib").glob("python3*/site-packages"))
    return installed.crew(python(installed), "-c", LIAR, tools, str(crews), who,
                          environment=environment(installed.lab, "wrong"))


@pytest.mark.slow
def test_who_lies_is_believed_and_it_is_on_record_as_reported(installed: Installed) -> None:
    done = run_liar(installed, "clean_up")
    assert done.returncode == 0, done.stdout + done.stderr
    assert recorded(installed, "'clean_up' = 'x'") == [("permit", [["shop", "Liar", "t", "clean_up"]])]


@pytest.mark.slow
def test_of_two_none_is_believed(installed: Installed) -> None:
    done = run_liar(installed, "clean_up,other")
    assert "only-clean-up-deletes" in done.stdout
    [(decision, calls)] = recorded(installed, "'clean_up,other'")
    assert (decision, len(calls)) == ("deny", 2)


@pytest.mark.slow
def test_nobody_speaks_for_another_process(installed: Installed) -> None:
    done = run_liar(installed, "clean_up", "child")
    assert done.returncode != 0
    assert "only-clean-up-deletes" in done.stderr
    assert recorded(installed, "'clean_up' = 'x'")[-1] == ("deny", [])


@pytest.mark.slow
def test_an_enforcer_that_starts_anew_is_told_again(installed: Installed) -> None:
    made = installed.lab
    made.give(ROOT / "packaging" / "weir-crewai" / "weir_crewai.py")
    with subprocess.Popen(
            installed.crew_argv(python(installed), "-c", STEADY), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, cwd=made.home,
            env=made.client_environment(environment(made, "wrong", CREWAI_DISABLE_TELEMETRY="true"))) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(2):
            process.stdin.write("go\n")
            process.stdin.flush()
            assert process.stdout.readline() == "done\n"
            if not number:
                installed.kill("enforcer")
                installed.wait()
        process.stdin.close()
    assert [recorded(installed, f"'steady {number}'") for number in range(2)] == [
        [("permit", [["", "Steady", "t", "steady"]])]] * 2


@pytest.mark.slow
def test_a_crew_without_it_works_as_before(installed: Installed) -> None:
    done = installed.crew("psql", "-X", "-A", "-t", "-w", "-c", "SELECT 'without', 1",
                          environment=environment(installed.lab, "wrong"))
    assert done.stdout == "without|1\n", done.stderr
    assert recorded(installed, "'without'") == [("permit", [])]
