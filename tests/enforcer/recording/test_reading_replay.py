"""What a person is shown of a session, what a spreadsheet gets, and that both count the same."""
from __future__ import annotations

import csv
import io
import json
import re
import time
from pathlib import Path

import pytest
import tapes
from click.testing import CliRunner

from agent.contract.ledger import LINES, AskRecording
from enforcer.recording import export
from enforcer.recording.cli import group
from enforcer.recording.paging import make_page
from enforcer.words import events
from enforcer.words.reported import Call

DOCS = Path(__file__).resolve().parents[3] / "docs"


def run(*arguments: object) -> str:
    result = CliRunner().invoke(group, [str(one) for one in arguments])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


@pytest.fixture
def denied(scene):
    """Weir's login, a read, a denial with what makes the server fail, and a read."""
    writer = scene.writer()
    writer.append(scene.opened("S1"))
    writer.append(*scene.intent(1, text=b"svc at shop", actor="weir", verb="login"))
    writer.append(*scene.result(1))
    writer.append(*scene.intent(2, text=b"SELECT 'first'"))
    writer.append(*scene.result(2))
    writer.append(*scene.intent(3, text=b"DROP TABLE t", decision=2, reason="not yours"))
    writer.append(*scene.result(3, error=b"not yours"))
    writer.append(*scene.intent(4, text=b"Execute of a portal that cannot exist", actor="weir", verb="denial"))
    writer.append(*scene.result(4, error=b"portal does not exist"))
    writer.append(*scene.intent(5, text=b"SELECT 'last'"))
    writer.append(*scene.result(5))
    writer.append(scene.closed("S1", operations=5))
    writer.flush()
    scene.start()
    scene.turn(2)
    return scene


def test_what_weir_sends_to_make_the_server_fail_is_left_out(denied) -> None:
    shown = run("replay", "S1", "--recording", denied.recording)
    assert "portal" not in shown
    assert "not yours" in shown
    assert "weir login svc at shop" in shown
    everything = run("replay", "S1", "--all", "--recording", denied.recording)
    assert "weir denial Execute of a portal that cannot exist" in everything
    assert "portal does not exist" in everything
    assert len(json.loads(run("replay", "S1", "--json", "--recording", denied.recording))) == 12


def test_sessions_and_replay_count_the_same(denied) -> None:
    [one] = json.loads(run("sessions", "--json", "--recording", denied.recording))
    assert (one["operations"], one["denied"], one["held"]) == (3, 1, 0)
    [closed] = re.findall("closed .*", run("replay", "S1", "--recording", denied.recording))
    assert "; 3 operations, 1 denied, 0 held, 10 B in, 20 B out" in closed
    [closed] = re.findall("closed .*", run("replay", "S1", "--all", "--recording", denied.recording))
    assert "; 3 operations and 2 of Weir's own, 1 denied, 0 held, " in closed


def read_csv(scene, *more: object) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(
        run("export", "--format", "csv", "-o", "-", *more, "--recording", scene.recording), newline="")))


def test_what_a_process_says_of_itself(scene) -> None:
    """One call, or each that it may have been; control characters of a crew's steer no terminal."""
    writer = scene.writer()
    writer.append(scene.opened("S1"))
    one, other = Call("shop", "Analyst", "t1", "sql"), Call("shop", "\x1b[2J", "t1", "clean")
    for number, calls in enumerate(((one,), (one, other), ()), 1):
        writer.append(*scene.intent(number, reported=calls))
        writer.append(*scene.result(number))
    writer.append(scene.closed("S1"))
    writer.flush()
    scene.start()
    scene.turn(2)
    shown = run("replay", "S1", "--recording", scene.recording)
    assert re.findall("reported (.*)", shown) == [
        "tool sql of agent Analyst in task t1 of crew shop",
        f"one of 2 calls at once: {one}; tool clean of agent \\x1b[2J in task t1 of crew shop"]
    assert [row["reported"] for row in read_csv(scene)] == [str(one), f"one of 2 calls at once: {one}; {other}", ""]
    told = [json.loads(line) for line in run(
        "export", "--format", "ndjson", "-o", "-", "--recording", scene.recording).splitlines()]
    assert [row["reported"] for row in told if row["type"] == "intent"] == [
        [["shop", "Analyst", "t1", "sql"]], [["shop", "Analyst", "t1", "sql"], ["shop", "\x1b[2J", "t1", "clean"]], []]
    assert scene.rows("SELECT json_extract(reported, '$[0][3]') FROM operations") == [("sql",), ("sql",), (None,)]


def test_csv_is_in_the_order_of_the_chain(scene) -> None:
    """Whatever order results came in, over files, and of several sessions."""
    writer = scene.writer()
    for name in ("S1", "S2"):
        writer.append(scene.opened(name))
    writer.append(*scene.intent(1, "S1", b"SELECT 'slow'"))
    writer.append(*scene.intent(1, "S2", b"SELECT 'never answered'"))
    writer.append(*scene.intent(2, "S1", b"SELECT 1; SELECT 2"))
    writer.append(*scene.result(2, "S1", tag="SELECT 1"))
    writer.append(*scene.result(2, "S1", tag="SELECT 2"))
    writer.flush()
    scene.start()
    scene.turn(2)
    scene.recorder._rotate()
    writer.append(*scene.result(1, "S1", tag="SELECT 9"))
    writer.append(*scene.intent(2, "S2", b"SELECT 'later'"))
    writer.append(*scene.result(2, "S2", tag="SELECT 3"))
    writer.append(scene.closed("S1"))
    writer.flush()
    scene.turn(2)
    wanted = [("S1", "1", "SELECT 9"), ("S2", "1", ""), ("S1", "2", "SELECT 1"), ("S1", "2", "SELECT 2"),
              ("S2", "2", "SELECT 3")]
    for more in ((), ("--session", "S2", "--session", "S1", "--session", "S2")):
        rows = read_csv(scene, *more)
        assert [(row["session"], row["operation"], row["tag"]) for row in rows] == wanted
        numbers = [int(row["seq"]) for row in rows]
        assert numbers == sorted(numbers)
    lines = run("export", "--format", "ndjson", "-o", "-", "--session", "S2", "--session", "S1", "--recording",
                scene.recording).splitlines()
    numbers = [json.loads(line)["seq"] for line in lines]
    assert numbers == sorted(set(numbers))
    assert [row["session"] for row in read_csv(scene, "--session", "S2")] == ["S2", "S2"]


def test_columns_of_the_csv_are_documented(denied) -> None:
    section = (DOCS / "recording.md").read_text().partition("## Exports")[2]
    [block] = re.findall(r"\n\n((?: {4}.*\n)+)", section.partition("\n## ")[0])
    assert tuple(block.split()) == export.COLUMNS
    assert tuple(read_csv(denied)[0]) == export.COLUMNS


def test_operations_that_were_interrupted_have_a_line(scene) -> None:
    writer = scene.writer()
    writer.append(scene.opened("S1"))
    writer.append(*scene.intent(1, text=b"SELECT 'cut off'"))
    writer.append(events.Gap(6, scene.at, 1, "S1", (1,), "gone"))
    writer.flush()
    scene.start()
    scene.turn(2)
    [row] = read_csv(scene)
    assert (row["text"], row["status"], row["decision"]) == ("SELECT 'cut off'", "", "permit")


def test_an_ssh_session_is_told_in_its_own_words(scene) -> None:
    writer = scene.writer()
    writer.append(scene.opened("S1", protocol="ssh", target="web", database="", role="deploy"))
    writer.append(*scene.intent(1, text=b"", verb="shell", requests=(), masks=()))
    writer.append(*scene.result(1, tag="exit 0", rows=0))
    writer.append(*scene.intent(2, text=b"open /etc/hostname for reading", verb="open", requests=(), masks=()))
    writer.append(*tapes.ended("out", b"secret", at=scene.at, operation=2, kept=0))
    writer.append(*scene.result(2, tag="read 6 bytes", rows=0))
    writer.append(*scene.intent(3, text=b"realpath /etc/hostname", actor="weir", verb="resolve"))
    writer.append(*scene.result(3, tag="", rows=0))
    writer.append(scene.closed("S1"))
    writer.flush()
    scene.start()
    scene.turn(2)
    shown = run("replay", "S1", "--recording", scene.recording)
    assert "-> web as deploy (ssh)\n" in shown
    assert "1 permit shell\n" in shown
    assert "2 permit open /etc/hostname for reading\n" in shown
    assert "2 out ends: 6 B, none kept, SHA-256 " in shown
    assert " deploy@web " in run("sessions", "--recording", scene.recording)
    assert "realpath" not in shown
    assert "weir resolve realpath /etc/hostname" in run("replay", "S1", "--all", "--recording", scene.recording)


def test_a_protocol_without_databases_and_accounts(scene) -> None:
    """Requests by line and status, an exec with a terminal, and where they went."""
    writer = scene.writer()
    writer.append(scene.opened("K1", protocol="kubernetes", target="cluster", database="", role=""))
    for number, (text, status, tag) in enumerate((
            (b"GET /api/v1/namespaces/shop/pods", "ok", "200"), (b"GET /api/v1/nodes", "error", "403 Forbidden"),
            (b'POST /api/v1/namespaces/shop/pods\n\n{"kind": "Pod"}', "ok", "201 Created")), 1):
        verb = "create" if text.startswith(b"POST") else "list"
        writer.append(*scene.intent(number, "K1", text, verb=verb, masks=(), requests=((f"k8s:{verb}", "shop/pods"),)))
        writer.append(*scene.result(number, "K1", status=status, tag=tag, rows=0))
    writer.append(*scene.intent(4, "K1", b"exec web-1 -- sh", verb="exec", requests=(("k8s:exec", "shop/pods/web-1"),)))
    for one in tapes.flow(*tapes.TERMINAL, at=scene.at, session="K1", operation=4):
        writer.append(*one)
    writer.append(*scene.result(4, "K1", tag="exit 0", rows=0))
    writer.append(scene.closed("K1", operations=4))
    writer.flush()
    scene.start()
    scene.turn(2)
    sessions = run("sessions", "--recording", scene.recording)
    assert " cluster " in sessions
    assert "cluster/" not in sessions
    shown = run("replay", "K1", "--recording", scene.recording)
    assert " in crew -> cluster (kubernetes)\n" in shown
    for line in ("list GET /api/v1/namespaces/shop/pods", "ok 200", "error 403 Forbidden", "ok 201 Created",
                 "create POST /api/v1/namespaces/shop/pods", '{"kind": "Pod"}', "exit 0"):
        assert line in shown
    assert "exec web-1 -- sh" in run("search", "web-1", "--recording", scene.recording)
    assert "K1    4 screen" in run("search", "notes", "--recording", scene.recording)
    cast = run("export", "--format", "asciicast", "--session", "K1", "-o", "-", "--recording", scene.recording)
    assert '"height":24' in cast.splitlines()[0]
    page = make_page(scene.recording, AskRecording(1, LINES, "local:eve", "K1", 0), time.monotonic() + 30)
    assert page.lines[0].text == "(kubernetes)"
    assert [one.tape for one in page.lines if one.tape] == ["terminal"]
    assert [one.text.partition("  ")[0] for one in page.lines if one.kind == "answered"] == [
        "200", "403 Forbidden", "201 Created", "exit 0"]
