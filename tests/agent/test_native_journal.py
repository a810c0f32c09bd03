"""Entries of systemd's journal: by a journald that runs, and by a socket that says what came."""
from __future__ import annotations

import json
import logging
import os
import pwd
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from privatejournal import PrivateJournal, missing, private_journal
from standin.host import CONFIG, Host

from agent.contract import logs
from agent.contract.logs import Entries, about
from agent.contract.native_journal import VALUE, Sender, is_journal, render_entry, to_stream

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
SAYS = """
import logging, sys
from agent.contract.logs import about, event, log_to_stderr
log_to_stderr()
logging.getLogger("weir.agent").warning("degraded: a\\x1b[2J rule", extra=about(state="degraded"))
event("session.killed", "crew", {"session": "s1", "target": "orders", "by": "local:root", "reason": "a secret"})
try:
    raise ValueError("what a peer sent")
except ValueError:
    logging.getLogger("weir.session").exception("two\\nlines", extra=about(session="s2", target="orders"))
"""

# As systemd sets it where it gives the stream (systemd.exec(5)); systemd-cat gives the stream alone.
GIVEN = """
import os
found = os.fstat(2)
os.environ["JOURNAL_STREAM"] = f"{found.st_dev}:{found.st_ino}"
""" + SAYS

STREAM = 'JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec "$@"'


def test_fields_as_the_protocol_has_them() -> None:
    assert render_entry({"MESSAGE": "a", "WEIR_X": "", "bad name": "x", "B=": "x"}) == b"MESSAGE=a\n"
    assert render_entry({"MESSAGE": "a\nPRIORITY=0"}) == b"MESSAGE\n\x0c\0\0\0\0\0\0\0a\nPRIORITY=0\n"
    assert len(render_entry({"MESSAGE": "x" * 10 * VALUE})) == VALUE + len("MESSAGE=\n")


@pytest.mark.parametrize("value", ["", "1:2", "x", "8:"])
def test_a_variable_that_is_of_another_stream_is_none(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", value)
    assert not is_journal()
    with open(os.devnull) as opened:
        found = os.fstat(opened.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        assert is_journal(opened.fileno())
    assert not is_journal(-1)


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        one.bind(str(tmp_path / "socket"))
        one.settimeout(5)
        yield one


def record(message: str, *values: object, level: int = logging.INFO, **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("weir.session", level, "x.py", 1, message, values, None)
    made.__dict__.update(extra)
    return made


def test_one_line_is_one_datagram(heard: socket.socket, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with closing(Entries(Sender(str(tmp_path / "socket")))) as entries:
        entries.emit(
            record("said: %s", "a\nb\x1b", level=logging.ERROR, **about(session="s\n1", pid=7, password="hunter2")))
    assert heard.recv(65536).decode().splitlines() == [
        "MESSAGE=said: a\\nb\\x1b", "PRIORITY=3", "SYSLOG_IDENTIFIER=weir", "WEIR_PART=weir.session",
        "WEIR_SESSION=s\\n1", "WEIR_PID=7"]
    assert capfd.readouterr().err == ""


def test_what_journald_does_not_take_goes_to_stderr(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with closing(Entries(Sender(str(tmp_path / "nobody")))) as entries:
        entries.emit(record("said", **about(session="s1")))
    line = json.loads(capfd.readouterr().err)
    assert (line["message"], line["session"], line["part"]) == ("said", "s1", "weir.session")


def test_nobody_waits_for_a_journald_that_hangs(heard: socket.socket, tmp_path: Path) -> None:
    """Neither its socket nor its stream is read: what is lost is counted, and said by the next that is heard."""
    near, far = socket.socketpair()
    with near, far, closing(Entries(
            Sender(str(tmp_path / "socket")), lambda line: to_stream(line, near.fileno()))) as entries:
        for number in range(2000):
            entries.emit(record("x" * 1000 + str(number)))
        assert near.getblocking(), "others have this stream, too"
        heard.setblocking(False)
        taken = list(iter_datagrams(heard))
        streamed = far.recv(1 << 24)
        entries.emit(record("again"))
        lost, again = list(iter_datagrams(heard))
    assert again.startswith(b"MESSAGE=again\n")
    number = 2000 - len(taken) - streamed.count(b"\n")
    assert lost.startswith(b"MESSAGE=%d lines of the log were lost: " % number)


def iter_datagrams(heard: socket.socket) -> Iterator[bytes]:
    while True:
        try:
            yield heard.recv(1 << 16)
        except BlockingIOError:
            return


def test_host_events_are_for_the_journal_alone() -> None:
    done = subprocess.run([sys.executable, "-c", SAYS], capture_output=True, text=True,
                          env=ENVIRONMENT | {"JOURNAL_STREAM": "1:2"})
    first, second = map(json.loads, done.stderr.splitlines())
    assert (first["state"], second["session"]) == ("degraded", "s2")
    assert logs.EVENTS not in done.stderr


@pytest.fixture(scope="module")
def journal() -> Iterator[PrivateJournal]:
    if wrong := missing():
        pytest.skip(wrong)
    with private_journal() as made:
        yield made


@pytest.mark.kernel
@pytest.mark.parametrize("user", [0, 65534])
def test_entries_with_fields(journal: PrivateJournal, user: int) -> None:
    done = journal.run("systemd-cat", sys.executable, "-c", GIVEN, user=user, environment=ENVIRONMENT)
    assert (done.returncode, done.stderr) == (0, "")
    said, event, error = journal.entries(f"_UID={user}", "SYSLOG_IDENTIFIER=weir")
    assert (said["MESSAGE"], said["PRIORITY"], said["WEIR_STATE"]) == ("degraded: a\\x1b[2J rule", "4", "degraded")
    assert event["MESSAGE"] == "session.killed session=s1 target=orders"
    assert {key: value for key, value in event.items() if key.startswith("WEIR_")} == {
        "WEIR_PART": "weir.events", "WEIR_EVENT": "session.killed", "WEIR_WORKLOAD": "crew",
        "WEIR_SESSION": "s1", "WEIR_TARGET": "orders"}
    assert (error["MESSAGE"], error["WEIR_ERROR"], error["PRIORITY"]) == ("two\\nlines", "ValueError", "3")
    assert "what a peer sent" not in str({key: value for key, value in error.items() if key != "_CMDLINE"})
    assert [one["WEIR_SESSION"] for one in journal.entries(f"_UID={user}", "WEIR_TARGET=orders")] == ["s1", "s2"]
    assert all(one["_TRANSPORT"] == "journal" for one in (said, event, error))


@pytest.mark.kernel
def test_it_is_gone(journal: PrivateJournal) -> None:
    """Before it is there again, and at a boot: the stream takes the line."""
    script = "import os; os.unlink('/run/systemd/journal/socket')\n" + GIVEN
    done = journal.run("systemd-cat", "--identifier=stream", sys.executable, "-c", script, environment=ENVIRONMENT)
    assert done.returncode == 0
    found = [json.loads(one["MESSAGE"])["message"] for one in journal.entries("SYSLOG_IDENTIFIER=stream")]
    assert found == ["degraded: a\x1b[2J rule", "session.killed session=s1 target=orders", "two\nlines"]


@pytest.mark.kernel
def test_each_process_of_weirs_writes_its_own() -> None:
    """Also those that are nobody: what they said is theirs by journald's word."""
    if wrong := missing():
        pytest.skip(wrong)
    host = Host(f"wj-{os.getpid() % 10000}")
    try:
        host.write(CONFIG + '[metrics]\nlisten = "unix"\n')
        with private_journal(host.inside()) as journal:
            host.start(through=("systemd-cat", "--identifier=stream", "sh", "-c", STREAM, "sh"))
            host.until(lambda: (host.status().get("metrics") or {}).get("error") == "", "the metrics")
            crews = host.slice / "test"
            crews.mkdir()
            connect = f"import socket; socket.socket(socket.AF_UNIX).connect('{host.base}/run/metrics.sock')"
            subprocess.run(host.inside(sys.executable, "-c", connect), check=True,
                           preexec_fn=lambda: (crews / "cgroup.procs").write_text("0") and None)
            web = f"_UID={pwd.getpwnam('weir-web').pw_uid}"
            host.until(lambda: journal.entries(web, "WEIR_PART=weir.web"), "the metrics process' entry")
            [refused] = journal.entries("_UID=0", "WEIR_EVENT=metrics.refused")
            assert refused["_TRANSPORT"] == "journal"
            [state] = journal.entries("WEIR_PART=weir.agent", "WEIR_STATE=enforcing")
            assert state["MESSAGE"] == "enforcing"
            assert host.weir("stop").returncode == 0
            host.wait()
            assert journal.entries("WEIR_EVENT=agent.stopped")
            assert journal.entries("SYSLOG_IDENTIFIER=stream") == [], "nothing went by the stream"
    finally:
        host.close()
