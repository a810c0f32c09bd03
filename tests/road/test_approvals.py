"""Approvals end to end on a real PostgreSQL, whose own log counts what was executed: terms, tickets over restarts and
kills, elevation, races.  At each race exactly one outcome, and what it says is what the server did."""
from __future__ import annotations

import fcntl
import json
import os
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from clients.test_clients import PYTHON, environment
from lab.hosts import CREW, USER, wait_until
from lab.lab import Lab
from lab.weir import APPROVER, AUDITOR, GROUPS, POLICY, Installed, configure, weir

pytestmark = pytest.mark.lab

RACES = 10 if "WEIR_RACES" in os.environ else 1         # of each kind; more in test-all
SECOND = "labdba2"                    # another member of `dba`
ONCALL = "labaudit"                   # no approver, in `oncall`
MORE = """
@id("held") @hold("approvers=dba, within=2m, escalate=1m:data")
forbid (principal, action == Action::"sql:delete", resource == Table::"shop/shop/public/scratch")
unless { context.approved };
@id("two") @hold("approvers=dba, within=2m, count=2, break-glass=oncall")
forbid (principal, action == Action::"sql:delete", resource == Table::"shop/shop/public/customers")
unless { context.approved };
@id("tickets") @hold("approvers=dba, within=10m, mode=ticket, reason=required")
forbid (principal, action == Action::"sql:update", resource == Table::"shop/shop/public/orders")
unless { context.approved };
@id("short") @hold("approvers=dba, within=10s")
forbid (principal, action == Action::"sql:update", resource == Table::"shop/shop/public/products")
unless { context.approved };
@id("may-ask") permit (principal in Group::"data", action == Action::"elevate", resource == Target::"shop");
@id("ask-a-dba") @hold("approvers=dba, reason=required")
forbid (principal, action == Action::"elevate", resource) unless { context.approved };
@id("elevated-truncates")
permit (principal in Group::"data", action == Action::"sql:truncate", resource in Target::"shop")
when { context.elevated };
"""


@pytest.fixture(scope="module")
def installed(the_lab: Lab) -> Iterator[Installed]:
    """Weir with rules of this file's own, and a second approver."""
    if subprocess.run(["getent", "passwd", SECOND], capture_output=True).returncode != 0:
        subprocess.run(["useradd", "--no-create-home", "--shell", "/bin/bash", SECOND], check=True)
    subprocess.run(["usermod", "-a", "-G", "weir-approvers", SECOND], check=True)
    config = configure(the_lab, policy=POLICY + MORE)
    (config.parent / "groups.toml").write_text(
        GROUPS.replace("]\ndba = [", f']\noncall = ["user:{ONCALL}"]\ndba = ["user:{SECOND}", '))
    with weir(the_lab, config) as made:
        yield made


@pytest.fixture(autouse=True)
def _overseen(installed: Installed) -> Iterator[None]:
    """What the recording says and what the server did agree after every test."""
    with installed.overseen():
        yield


def psql(installed: Installed, *sql: str) -> subprocess.CompletedProcess[str]:
    words = [word for text in sql for word in ("-c", text)]
    return installed.crew("psql", "-X", "-A", "-t", "-w", *words, environment=environment(installed.lab, "wrong"))


def views(installed: Installed) -> list[dict[str, object]]:
    said = json.loads(installed.weir("approvals", "list", "--json", user=APPROVER).stdout)
    return list(said) if isinstance(said, list) else []


def pending(installed: Installed, count: int = 1) -> list[str]:
    """Tickets, once so many wait."""
    def found() -> list[str]:
        return [str(one["ticket"]) for one in views(installed) if one["state"] == "pending"]

    wait_until(f"{count} that wait", lambda: len(found()) >= count, 30)
    return found()


def answer(installed: Installed, verb: str, ticket: str, user: str = APPROVER) -> subprocess.CompletedProcess[str]:
    return installed.weir("approvals", verb, ticket, "--reason", "a reason", user=user)


def executed(installed: Installed, text: str) -> int:
    """How often the server says that it ran this, without those that failed, and plans."""
    return sum(text in one.message and "EXPLAIN" not in one.message and not one.error
               for one in installed.lab.database.statements())


@contextmanager
def asked(installed: Installed, *sql: str) -> Iterator[list[subprocess.CompletedProcess[str]]]:
    """In the background; the list has the answer at the block's end."""
    answers: list[subprocess.CompletedProcess[str]] = []
    thread = threading.Thread(target=lambda: answers.append(psql(installed, *sql)))
    thread.start()
    try:
        yield answers
    finally:
        thread.join(60)


def at_once(*work: Callable[[], object]) -> None:
    ready = threading.Barrier(len(work))

    def go(one: Callable[[], object]) -> None:
        ready.wait(30)
        one()

    threads = [threading.Thread(target=go, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)


def history(installed: Installed, ticket: str) -> dict[str, object]:
    """As an auditor reads it, once the recorder has it."""
    def told() -> list[dict[str, object]]:
        done = installed.weir("approvals", "history", ticket, "--json", "--recording", str(installed.recording),
                              user=AUDITOR)
        return list(json.loads(done.stdout)) if done.returncode == 0 else []

    wait_until("the recorder", lambda: bool(told()), 30)
    return told()[-1]


def states(installed: Installed, ticket: str) -> list[str]:
    installed.settle()
    return [str(step["state"]) for step in history(installed, ticket)["steps"]]  # type: ignore[index,attr-defined]


# ---- terms


def test_two_approvers_and_who_is_not_one(installed: Installed) -> None:
    mark = "DELETE FROM customers WHERE id = -21"
    with asked(installed, mark) as answers:
        (ticket,) = pending(installed)
        assert answer(installed, "approve", ticket).returncode == 0
        assert "another approver" in answer(installed, "approve", ticket).stderr
        shown = views(installed)[0]
        assert (shown["assents"], shown["wanted"]) == ([f"local:{APPROVER}"], 2)
        wait_until("the plan", lambda: views(installed)[0]["plan"] != "being asked for", 20)
        assert "ModifyTable on customers" in str(views(installed)[0]["plan"])
        assert executed(installed, mark) == 0
        assert answer(installed, "approve", ticket, SECOND).returncode == 0
    assert answers[0].stdout == "DELETE 0\n", answers[0].stderr
    assert f"ticket {ticket}" in answers[0].stderr
    assert executed(installed, mark) == 1
    assert states(installed, ticket) == ["pending", "pending", "approved", "used"]


@contextmanager
def live_list(installed: Installed, user: str) -> Iterator[tuple[Callable[[bytes], None], Callable[[str], bool]]]:
    """`weir approvals` on a terminal: what presses a key, and whether a text has been drawn."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    as_user = ["setpriv", "--reuid", user, "--regid", user, "--init-groups", "--"]
    process = subprocess.Popen(CREW.argv([*as_user, *installed.argv("approvals")]), stdin=theirs, stdout=theirs,
                               stderr=theirs, cwd="/", env=installed.lab.client_environment({"TERM": "xterm"}))
    os.close(theirs)
    os.set_blocking(ours, False)
    drawn = bytearray()

    def shows(text: str) -> bool:
        with suppress(BlockingIOError, OSError):          # EIO: it has ended
            while chunk := os.read(ours, 1 << 16):
                drawn.extend(chunk)
        return text.encode() in drawn

    try:
        yield lambda key: os.write(ours, key) and None, shows
        wait_until("the end of weir approvals", lambda: shows("") and process.poll() is not None)
        assert process.returncode == 0, bytes(drawn)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_one_key_in_the_live_list(installed: Installed) -> None:
    mark = "DELETE FROM scratch WHERE id = -31"
    with live_list(installed, APPROVER) as (press, shows):
        wait_until("the screen", lambda: shows("nothing waits for an answer"))
        with asked(installed, mark) as answers:
            (ticket,) = pending(installed)
            wait_until("the statement", lambda: shows(mark))
            assert executed(installed, mark) == 0
            wait_until("the answer", lambda: press(b"a") or shows(f"{ticket}: approve: done"))
        assert answers[0].stdout == "DELETE 0\n", answers[0].stderr
        assert executed(installed, mark) == 1
        press(b"q")
    assert shows("\x1b[?1049l"), "the terminal has its own screen again"
    assert history(installed, ticket)["steps"][-1]["state"] == "used"  # type: ignore[index]


def test_the_glass_is_broken_alone_and_seen_until_it_is_acknowledged(installed: Installed) -> None:
    mark = "DELETE FROM customers WHERE id = -22"
    with asked(installed, mark) as answers:
        (ticket,) = pending(installed)
        assert answer(installed, "break-glass", ticket, SECOND).returncode != 0
        crew = installed.crew(str(installed.prefix / "bin" / "weir"), "--config", str(installed.config), "approvals",
                              "break-glass", ticket, "--reason", "I am the crew")
        assert crew.returncode != 0
        assert installed.weir("approvals", "approve", ticket, user=ONCALL).returncode != 0
        assert answer(installed, "break-glass", ticket, ONCALL).returncode == 0
    assert answers[0].stdout == "DELETE 0\n", answers[0].stderr

    def shown() -> list[str]:
        return [one for one in installed.status()["hints"] if ticket in one]  # type: ignore[attr-defined]

    wait_until("the alarm", lambda: bool(shown()), 30)
    assert f"local:{ONCALL}" in shown()[0]
    assert installed.status()["state"] == "enforcing"
    assert installed.weir("ledger", "--acknowledge", user=ONCALL).returncode != 0
    assert installed.weir("ledger", "--acknowledge").returncode == 0
    wait_until("nothing is shown", lambda: not shown(), 30)
    assert "break-glass" in json.dumps(history(installed, ticket))


# ---- tickets


def ticket_of(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1, done.stdout
    assert "permission denied until it is approved: ticket " in done.stderr
    return done.stderr.partition("approved: ticket ")[2].split()[0]


def test_a_ticket_over_restarts_of_enforcer_and_agent(installed: Installed) -> None:
    mark = "UPDATE orders SET status = 'open' WHERE id = -31"
    ticket = ticket_of(psql(installed, mark))
    assert ticket_of(psql(installed, mark)) == ticket
    assert executed(installed, mark) == 0
    installed.kill("enforcer")
    installed.wait()
    assert pending(installed) == [ticket]
    assert answer(installed, "approve", ticket).returncode == 0
    installed.kill("enforcer")
    installed.wait()
    assert ticket_of(psql(installed, mark.replace("31", "32"))) != ticket
    assert psql(installed, mark).stdout == "UPDATE 0\n"
    assert executed(installed, mark) == 1
    installed.kill("enforcer")
    installed.wait()
    assert ticket_of(psql(installed, mark)) != ticket
    assert executed(installed, mark) == 1
    assert states(installed, ticket) == ["pending", "approved", "used"]
    assert history(installed, ticket)["text"] == mark
    for one in views(installed):
        assert installed.weir("approvals", "revoke", str(one["ticket"]), user=APPROVER).returncode == 0


@pytest.mark.parametrize("number", range(RACES))
def test_two_clients_with_one_ticket(installed: Installed, number: int) -> None:
    mark = f"UPDATE orders SET status = 'open' WHERE id = -4{number}"
    ticket = ticket_of(psql(installed, mark))
    assert answer(installed, "approve", ticket).returncode == 0
    done: list[subprocess.CompletedProcess[str]] = []
    at_once(*(lambda: done.append(psql(installed, mark)),) * 3)
    assert sorted(one.returncode for one in done) == [0, 1, 1]
    assert executed(installed, mark) == 1
    for one in views(installed):
        installed.weir("approvals", "revoke", str(one["ticket"]), user=APPROVER)


# ---- elevation


def test_elevation_from_the_request_to_the_revocation(installed: Installed) -> None:
    denied = psql(installed, "TRUNCATE scratch")
    assert "42501" in denied.stderr or "denied" in denied.stderr
    program = str(installed.prefix / "bin" / "weir")
    inside = installed.crew(program, "--config", str(installed.config), "request", "shop", "--for", "1h")
    assert inside.returncode != 0
    assert installed.weir("request", "shop", "--for", "1h", user=APPROVER).returncode != 0
    asked_for = installed.weir("request", "shop", "--for", "1h", "--reason", "quarter end", "--json", user=USER)
    ticket = json.loads(asked_for.stdout)["ticket"]
    view = next(one for one in views(installed) if one["ticket"] == ticket)
    assert (view["form"], view["reason"], view["subject"]) == ("elevation", "quarter end", f"local:{USER}")
    assert answer(installed, "approve", ticket).returncode == 0
    assert psql(installed, "TRUNCATE scratch").stdout == "TRUNCATE TABLE\n"
    installed.kill("enforcer")
    installed.wait()
    assert psql(installed, "TRUNCATE scratch").stdout == "TRUNCATE TABLE\n"
    assert installed.weir("approvals", "revoke", ticket, "--reason", "done", user=USER).returncode == 0
    assert psql(installed, "TRUNCATE scratch").returncode == 1
    assert states(installed, ticket) == ["pending", "approved", "cancelled"]


@pytest.mark.slow
def test_it_ends_by_time_in_an_open_session(installed: Installed) -> None:
    ticket = json.loads(installed.weir(
        "request", "shop", "--for", "4s", "--reason", "short", "--json", user=USER).stdout)["ticket"]
    assert answer(installed, "approve", ticket).returncode == 0
    done = psql(installed, "TRUNCATE scratch", r"\! sleep 6", "TRUNCATE scratch")
    assert done.stdout == "TRUNCATE TABLE\n"
    assert done.returncode == 1
    assert states(installed, ticket) == ["pending", "approved", "expired"]


# ---- races

CANCELS = """
import sys, threading, psycopg2
connection = psycopg2.connect("")
threading.Thread(target=lambda: (sys.stdin.readline(), connection.cancel())).start()
try:
    cursor = connection.cursor()
    cursor.execute(sys.argv[1])
    print(cursor.rowcount, flush=True)
    connection.commit()
except psycopg2.Error as error:
    print(error.pgcode, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", range(RACES))
def test_approve_and_cancel_at_once(installed: Installed, number: int) -> None:
    mark = f"DELETE FROM scratch WHERE id = -5{number}"
    process = subprocess.Popen(
        installed.crew_argv(PYTHON, "-c", CANCELS, mark), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=installed.lab.home, env=installed.lab.client_environment(environment(installed.lab, "wrong")))
    try:
        (ticket,) = pending(installed)

        def cancel() -> None:
            assert process.stdin is not None
            process.stdin.write("now\n")
            process.stdin.flush()

        at_once(cancel, lambda: answer(installed, "approve", ticket))
        said = process.communicate(timeout=60)[0].strip()
    finally:
        process.kill()
        process.communicate()
    told = states(installed, ticket)
    if told[1:] == ["cancelled"]:
        assert (said, executed(installed, mark)) == ("57014", 0)
    else:
        assert told == ["pending", "approved", "used"]
        assert said in ("0", "57014")             # the cancel may still have reached the running statement
        assert executed(installed, mark) == (said == "0")


@pytest.mark.slow
@pytest.mark.parametrize("number", range(RACES))
def test_an_approval_and_a_denial_at_once(installed: Installed, number: int) -> None:
    mark = f"DELETE FROM scratch WHERE id = -6{number}"
    with asked(installed, mark) as answers:
        (ticket,) = pending(installed)
        done: dict[str, int] = {}
        at_once(lambda: done.update(yes=answer(installed, "approve", ticket).returncode),
                lambda: done.update(no=answer(installed, "deny", ticket, SECOND).returncode))
    assert sorted(done.values()) == [0, 1]
    assert executed(installed, mark) == (done["yes"] == 0)
    assert answers[0].returncode == done["yes"]
    assert states(installed, ticket)[1:] == (["approved", "used"] if done["yes"] == 0 else ["denied"])


@pytest.mark.slow
@pytest.mark.parametrize("number", range(RACES))
def test_two_approvals_at_once(installed: Installed, number: int) -> None:
    mark = f"DELETE FROM scratch WHERE id = -11{number}"
    with asked(installed, mark) as answers:
        (ticket,) = pending(installed)
        done: list[int] = []
        at_once(*(lambda user=user: done.append(answer(installed, "approve", ticket, user).returncode)
                  for user in (APPROVER, SECOND)))
    assert sorted(done) == [0, 1]
    assert (executed(installed, mark), answers[0].stdout) == (1, "DELETE 0\n")
    assert states(installed, ticket) == ["pending", "approved", "used"]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(RACES))
def test_expiry_and_approval_at_once(installed: Installed, number: int) -> None:
    mark = f"UPDATE products SET price = 1 WHERE id = -7{number}"
    with asked(installed, mark) as answers:
        (ticket,) = pending(installed)
        known = [one["until"] for one in views(installed) if one["ticket"] == ticket]
        until = int(str(known[0])) / 1e9 if known else 0.0
        time.sleep(max(0.0, until - time.time() - 0.5 + 0.1 * number))     # around its end, not after something
        code = answer(installed, "approve", ticket).returncode
    assert executed(installed, mark) == (code == 0)
    assert answers[0].returncode == code
    assert states(installed, ticket)[1:] == (["approved", "used"] if code == 0 else ["expired"])


# ---- kill -9 at every state


def test_killed_while_it_waits_the_hold_is_cancelled(installed: Installed) -> None:
    mark = "DELETE FROM scratch WHERE id = -81"
    with asked(installed, mark) as answers:
        (ticket,) = pending(installed)
        installed.kill("enforcer")
    assert answers[0].returncode != 0
    installed.wait()
    assert views(installed) == []
    assert answer(installed, "approve", ticket).returncode != 0
    assert executed(installed, mark) == 0

    def ended() -> bool:
        return history(installed, ticket)["state"] == "cancelled"

    wait_until("the recorder ends it", ended, 60)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(max(RACES, 3)))
def test_killed_around_the_approval_it_is_executed_once_at_most(installed: Installed, number: int) -> None:
    mark = f"UPDATE orders SET status = 'open' WHERE id = -9{number}"
    ticket = ticket_of(psql(installed, mark))
    assert answer(installed, "approve", ticket).returncode == 0
    pid = installed.pids()["enforcer"]
    with asked(installed, mark):
        time.sleep(0.15 * number)     # before, in, or after the claim, the use and the bytes
        os.kill(pid, signal.SIGKILL)
    installed.wait()
    again = psql(installed, mark)
    assert executed(installed, mark) <= 1
    told = states(installed, ticket)
    if again.returncode == 0:
        assert executed(installed, mark) == 1
        assert told.count("used") == 1
    for one in views(installed):
        installed.weir("approvals", "revoke", str(one["ticket"]), user=APPROVER)


@pytest.mark.slow
def test_tickets_and_elevations_over_the_agent_s_death_at_every_state(installed: Installed) -> None:
    """Everything is killed at once: what was asked waits, what was approved passes once, what was revoked stays so."""
    def die(one: Installed) -> Installed:
        one.kill("all")
        after = one.again()
        after.wait()
        return after

    mark = "UPDATE orders SET status = 'open' WHERE id = -121"
    revoked = "UPDATE orders SET status = 'open' WHERE id = -122"
    ticket, other = ticket_of(psql(installed, mark)), ticket_of(psql(installed, revoked))
    elevation = json.loads(installed.weir(
        "request", "shop", "--for", "1h", "--reason", "x", "--json", user=USER).stdout)["ticket"]
    one = die(installed)
    assert sorted(pending(one, 3)) == sorted((ticket, other, elevation))
    for name in (ticket, other, elevation):
        assert answer(one, "approve", name).returncode == 0
    assert one.weir("approvals", "revoke", other, user=APPROVER).returncode == 0
    one = die(one)
    assert sorted(str(view["ticket"]) for view in views(one)) == sorted((ticket, elevation))
    assert psql(one, "TRUNCATE scratch").stdout == "TRUNCATE TABLE\n"
    assert psql(one, mark).stdout == "UPDATE 0\n"
    assert ticket_of(psql(one, revoked)) != other
    assert one.weir("approvals", "revoke", elevation, user=USER).returncode == 0
    one = die(one)
    assert psql(one, "TRUNCATE scratch").returncode == 1
    assert ticket_of(psql(one, mark)) != ticket
    assert (executed(one, mark), executed(one, revoked)) == (1, 0)
    for view in views(one):
        assert one.weir("approvals", "revoke", str(view["ticket"]), user=APPROVER).returncode == 0


def test_the_recording_verifies(installed: Installed) -> None:
    installed.settle()
    done = installed.weir("verify", "--recording", str(installed.recording), user=AUDITOR)
    assert done.returncode == 0, done.stdout + done.stderr


