"""The road, end to end: masks, holds, denials, cancels, streaming, recording, and that the oracle would notice."""
from __future__ import annotations

import json
import os
import subprocess
import threading
from pathlib import Path

import psutil
import pytest
from clients.test_clients import PYTHON, environment
from lab.hosts import wait_until
from lab.weir import APPROVER, AUDITOR, Installed
from sources import open_way

pytestmark = pytest.mark.lab

HUGE = int(os.environ.get("WEIR_HUGE", "200000000"))      # bytes of one value; 1000000000 in test-all


def psql(installed: Installed, *sql: str, **more: str) -> subprocess.CompletedProcess[str]:
    words = [word for text in sql for word in ("-c", text)]
    chosen = environment(installed.lab, "wrong", **more)
    return installed.crew("psql", "-X", "-A", "-t", "-w", *words, environment=chosen)


def test_labelled_columns_are_masked(installed: Installed) -> None:
    done = psql(installed, "SELECT name, email, api_key FROM customers WHERE id = 1")
    assert done.stdout == "Ada Lovelace|a***@***.example|[redacted]\n", done.stderr
    copied = psql(installed, "COPY customers TO STDOUT")
    assert copied.returncode == 1
    assert "public.customers.email is labelled pii.email" in copied.stderr
    assert "ada@" not in copied.stdout


@pytest.mark.parametrize("sql", [
    "SELECT email || '' FROM customers", "SELECT id FROM customers WHERE email LIKE 'ada%'",
    "SELECT c FROM customers c",
    "SELECT count(DISTINCT email) FROM customers", "INSERT INTO scratch (note) SELECT email FROM customers",
])
def test_what_cannot_be_told_is_refused(installed: Installed, sql: str) -> None:
    done = psql(installed, sql)
    assert done.returncode == 1
    assert "is labelled pii.email" in done.stderr


def test_catalogues_work_on_a_labelled_target(installed: Installed) -> None:
    done = psql(installed, r"\d customers", r"\dt", "SELECT count(*) > 0 FROM information_schema.columns")
    assert done.returncode == 0, done.stderr


def test_secrets_of_the_server_are_not_for_crews(installed: Installed) -> None:
    for table in ("pg_authid", "pg_shadow", "pg_stats", "pg_statistic"):
        done = psql(installed, f"SELECT * FROM {table}")
        assert "base:no-secrets-of-the-server" in done.stderr, table


def held(installed: Installed) -> list[dict[str, object]]:
    said = json.loads(installed.weir("approvals", "list", "--json", user=APPROVER).stdout)
    return list(said.get("holds", [])) if isinstance(said, dict) else list(said)


def ask(installed: Installed, sql: str) -> tuple[threading.Thread, list[subprocess.CompletedProcess[str]]]:
    """A statement that will be held, asked in the background."""
    answers: list[subprocess.CompletedProcess[str]] = []
    thread = threading.Thread(target=lambda: answers.append(psql(installed, sql)))
    thread.start()
    wait_until("a hold", lambda: held(installed), 20)
    return thread, answers


@pytest.mark.parametrize(("answer", "code"), [("approve", 0), ("deny", 1)])
def test_holds_are_answered_by_somebody_else(installed: Installed, answer: str, code: int) -> None:
    thread, answers = ask(installed, "DELETE FROM orders WHERE id = -1")
    ticket = str(held(installed)[0]["ticket"])
    program = str(installed.prefix / "bin" / "weir")
    crew = installed.crew(program, "--config", str(installed.config), "approvals", "approve", ticket)
    assert crew.returncode != 0
    done = installed.weir("approvals", answer, ticket, "--reason", "a reason", user=APPROVER)
    assert done.returncode == 0, done.stderr
    thread.join(30)
    assert answers[0].returncode == code, answers[0].stderr
    assert ("DELETE 0" in answers[0].stdout) == (answer == "approve")
    assert ("a reason" in answers[0].stderr) == (answer == "deny")


CANCEL = """
import threading, psycopg2
connection = psycopg2.connect("")
threading.Timer(0.5, connection.cancel).start()
try:
    connection.cursor().execute("SELECT pg_sleep(20)")
except psycopg2.errors.QueryCanceled as error:
    print(error.pgcode)
"""


def test_cancel_reaches_the_right_backend(installed: Installed) -> None:
    done = installed.crew(PYTHON, "-c", CANCEL, environment=environment(installed.lab, "wrong"), timeout=15)
    assert done.stdout == "57014\n", done.stderr


def test_a_huge_value_streams_through_bounded_memory(installed: Installed) -> None:
    enforcer = psutil.Process(installed.pids()["enforcer"])
    before = enforcer.memory_info().rss
    most = [before]
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            most.append(enforcer.memory_info().rss)

    thread = threading.Thread(target=watch)
    thread.start()
    done = installed.crew("sh", "-c", f'psql -X -A -t -w -c "SELECT repeat(\'x\', {HUGE})" | wc -c',
                          environment=environment(installed.lab, "wrong"), timeout=300)
    over.set()
    thread.join()
    assert done.stdout.strip() == str(HUGE + 1), done.stderr
    assert max(most) - before < 64 << 20


def test_an_auditor_reads_without_root(installed: Installed, tmp_path: Path) -> None:
    psql(installed, "SELECT 42 AS answer")
    installed.settle()
    directory = ["--recording", str(installed.recording)]
    sessions = json.loads(installed.weir("sessions", "--json", *directory, user=AUDITOR).stdout)
    session = next(s["session"] for s in reversed(sessions) if s["workload"] == "crew")
    replay = installed.weir("replay", session, *directory, user=AUDITOR)
    assert "SELECT 42 AS answer" in replay.stdout, replay.stderr
    assert "local:labcrew" in replay.stdout
    verified = installed.weir("verify", *directory, user=AUDITOR)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert installed.weir("sessions", *directory, user="labcrew").returncode != 0
    open_way(tmp_path)
    tmp_path.chmod(0o777)
    taken = tmp_path / "taken.sqlite"

    def signed() -> bool:
        taken.unlink(missing_ok=True)
        done = installed.weir(
            "export", "--session", session, "--format", "sqlite", "-o", str(taken), *directory, user=AUDITOR)
        assert done.returncode == 0, done.stderr
        return "not signed yet" not in done.stderr

    wait_until("a checkpoint over the session", signed, 30)
    alone = installed.prefix / "lib/python3.11/site-packages/enforcer/recording/weir_verify.py"
    verified = subprocess.run(["/usr/bin/python3", "-I", str(alone), str(taken)], capture_output=True, text=True)
    assert verified.returncode == 0, verified.stdout + verified.stderr


NAME = os.fsdecode(b"psql-\xff\x1b[2J")


def test_names_that_are_no_text_stop_nothing(installed: Installed) -> None:
    """An executable, a directory and an argument of any bytes; so is what the process is called then."""
    [psql_itself, *_] = Path("/usr/lib/postgresql").glob("*/bin/psql")
    # The protocol's own texts are UTF-8: one that is not is refused.  psql takes its name where this one is not set.
    odd = environment(installed.lab, "wrong", PGAPPNAME="psql-\x1b[2J")
    run = 'mkdir -p "$1" && cp "$0" "$1/$1" && cd "$1" && exec "./$1" "$2" -X -A -t -w -c "$3"'
    done = installed.crew("sh", "-c", run, str(psql_itself), NAME, f"--set=odd={NAME}", "SELECT 42 AS odd",
                          environment=odd)
    assert done.stdout == "42\n", done.stderr
    assert psql(installed, "SELECT 1").stdout == "1\n"
    installed.settle()
    directory = ["--recording", str(installed.recording)]
    sessions = json.loads(installed.weir("sessions", "--json", *directory, user=AUDITOR).stdout)
    session = next(s for s in reversed(sessions) if "psql-" in json.dumps(s))
    for said in (["sessions"], ["replay", session["session"]], ["ledger"], ["search", "odd"]):
        shown = installed.weir(*said, *directory, user=AUDITOR)
        assert (shown.returncode, "\x1b" in shown.stdout) == (0, False), shown.stderr
    assert installed.weir("verify", *directory, user=AUDITOR).returncode == 0
    assert installed.status()["state"] == "enforcing"


def test_the_command_imports_nothing_that_its_caller_names(installed: Installed, tmp_path: Path) -> None:
    (tmp_path / "agent").mkdir()
    (tmp_path / "agent" / "__init__.py").write_text("raise SystemExit('from elsewhere')")
    done = subprocess.run([installed.prefix / "bin" / "weir", "--version"], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(tmp_path)}, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
