"""`weir approvals history` tells what was, also of earlier builds' events; what was held by who is gone ends."""
from __future__ import annotations

import fcntl
import json

import msgspec
import pytest
from click.testing import CliRunner

from agent.contract.journal import EVENT, render_record
from agent.contract.ledger import GLASS
from enforcer.recording import schema
from enforcer.recording.history import history, tell
from enforcer.words import events

BOUND = b"\1" * 32


def changed(at: int, state: str, ticket: str = "aaaaaaaa", session: str = "S1", operation: int = 2, by: str = "",
            reason: str = "", form: str = "hold", note: str = "") -> events.HoldChanged:
    return events.HoldChanged(
        events.HOLD, at, 1, session, operation, ticket, state, by, reason, at, BOUND, form, "local:crew", "orders",
        "sql:delete public.t", note)


def test_a_ticket_from_its_question_to_its_use(scene) -> None:
    writer = scene.writer()
    writer.append(scene.opened())
    writer.append(*scene.intent(2, text=b"DELETE FROM t\x1b[2J", parameters=b"\x91\xa15", decision=3))
    for at, state, by, note in ((1, "pending", "", ""), (2, "pending", "local:ann", "assented"),
                                (3, "approved", "local:bob", ""), (4, "used", "", "")):
        writer.append(changed(scene.at + at, state, by=by, note=note, reason="because" if by else ""))
    writer.append(changed(scene.at + 9, "pending", "bbbbbbbb", "", 0, form="elevation"))
    writer.append(scene.closed())
    writer.flush()
    scene.start()
    scene.turn()
    with scene.reader() as reader:
        first, second = tell(reader)
        assert [one.ticket for one in tell(reader, "bbbbbbbb")] == ["bbbbbbbb"]
    assert (first.ticket, first.subject, first.target, first.state) == ("aaaaaaaa", "local:crew", "orders", "used")
    assert (first.text, first.parameters) == ("DELETE FROM t\x1b[2J", ("5",))
    assert [(step.state, step.by, step.note) for step in first.steps] == [
        ("pending", "", ""), ("pending", "local:ann", "assented"), ("approved", "local:bob", ""), ("used", "", "")]
    assert (second.form, second.state, second.text) == ("elevation", "pending", None)
    said = CliRunner().invoke(history, ["--recording", str(scene.recording)])
    assert said.exit_code == 0, said.output
    assert "local:bob: because" in said.output
    assert "\x1b[2J" not in said.output
    told = json.loads(CliRunner().invoke(history, ["aaaaaaaa", "--json", "--recording", str(scene.recording)]).output)
    assert [one["ticket"] for one in told] == ["aaaaaaaa"]
    nobody = CliRunner().invoke(history, ["cccccccc", "--recording", str(scene.recording)])
    assert "no ticket cccccccc" in nobody.output
    scene.stop()
    scene.assert_verified()


def test_where_it_was_answered_is_the_agents_word(scene) -> None:
    writer = scene.writer()
    for ticket in ("aaaaaaaa", "bbbbbbbb"):
        for at, state, by in ((1, "pending", ""), (2, "approved", "local:bob"), (3, "used", "")):
            writer.append(changed(scene.at + at, state, ticket, by=by, operation=0))
    writer.flush()
    answered = {"ticket": "aaaaaaaa", "answer": "approve", "by": "local:bob", "reason": "", "error": ""}
    scene.host_event("approval.answered", answered | {"way": "link elsewhere", "error": "it is over"})
    scene.host_event("approval.answered", answered | {"way": "slack U01"})
    scene.host_event("approval.answered", answered | {"ticket": "bbbbbbbb"})
    scene.start()
    scene.turn()
    with scene.reader() as reader:
        first, second = tell(reader)
    assert [one.way for one in first.steps] == ["", "slack U01", ""]
    assert [one.way for one in second.steps] == ["", "", ""]
    said = CliRunner().invoke(history, ["--recording", str(scene.recording)])
    assert "by local:bob, slack U01" in said.output
    scene.stop()


def test_one_name_twice_is_two(scene) -> None:
    writer = scene.writer()
    for state in ("pending", "denied", "pending", "expired"):
        writer.append(changed(scene.at, state, by="local:ann" if state == "denied" else ""))
    writer.flush()
    scene.start()
    scene.turn()
    with scene.reader() as reader:
        assert [one.state for one in tell(reader)] == ["denied", "expired"]


def test_events_of_earlier_builds(scene) -> None:
    """Journals that were not taken yet, and the file that they go to, verify; the asker is the session's."""
    writer = scene.writer()
    writer.append(scene.opened())
    writer.append(*scene.intent(2, text=b"DELETE FROM t", decision=3))
    writer.flush()
    older = msgspec.msgpack.encode(msgspec.structs.astuple(changed(scene.at, "pending"))[:11])
    with open(scene.journal / scene.journal_files()[0], "ab") as file:
        file.write(render_record(EVENT, older))
    scene.start()
    scene.turn()
    assert scene.rows("SELECT ticket, form, subject, note FROM hold") == [("aaaaaaaa", "hold", "", "")]
    with scene.reader() as reader:
        (one,) = tell(reader)
    assert (one.subject, one.target, one.text) == ("local:zoë", "orders", "DELETE FROM t")
    scene.stop()
    scene.assert_verified()


def test_a_file_with_the_earlier_table_is_read_verified_and_not_gone_on_with(scene, monkeypatch) -> None:
    before = [one.replace(", form TEXT, subject TEXT, target TEXT, what TEXT, note TEXT", "").replace(
        ", h.form, h.subject, h.target, h.what, h.note", "") for one in schema.SCHEMA]
    with monkeypatch.context() as earlier:
        earlier.setattr(schema, "SCHEMA", tuple(before))
        earlier.setitem(schema.SPOKEN, events.HOLD, ("hold", 10))
        earlier.setitem(schema.INSERT, events.HOLD, "INSERT INTO hold VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
        derive = schema.derive[events.HOLD]
        earlier.setitem(schema.derive, events.HOLD, lambda seq, event, blob: derive(seq, event, blob)[:10])
        scene.start()
        writer = scene.writer()
        writer.append(scene.opened())
        older = msgspec.msgpack.encode(msgspec.structs.astuple(changed(scene.at, "pending"))[:11])
        writer.flush()
        with open(scene.journal / scene.journal_files()[0], "ab") as file:
            file.write(render_record(EVENT, older))
        scene.turn()
        scene.stop()
    scene.assert_verified()
    scene.start()
    assert len(scene.files()) == 2
    second = scene.writer()
    second.append(changed(scene.at + 1, "approved", by="local:ann"))
    second.flush()
    scene.turn()
    with scene.reader() as reader:
        (one,) = tell(reader)
    assert [step.state for step in one.steps] == ["pending", "approved"]
    scene.stop()
    scene.assert_verified()


@pytest.mark.parametrize("restarted", [False, True])
def test_holds_of_a_dead_enforcer_are_cancelled(scene, quick, restarted: bool) -> None:
    writer = scene.writer()
    writer.append(scene.opened())
    for ticket, state in (("aaaaaaaa", "pending"), ("bbbbbbbb", "pending"), ("bbbbbbbb", "denied"),
                          ("cccccccc", "pending"), ("cccccccc", "approved"), ("dddddddd", "pending")):
        writer.append(changed(scene.at, state, ticket, form="ticket" if ticket[0] == "d" else "hold"))
    writer.flush()
    scene.start()
    scene.turn()
    if restarted:
        scene.stop()
        scene.start()
    fcntl.flock(writer._fd, fcntl.LOCK_UN)
    scene.turn(3)
    found = scene.rows("SELECT ticket, reason, binding FROM hold WHERE state = 'cancelled' ORDER BY ticket")
    assert [row[0] for row in found] == ["aaaaaaaa", "cccccccc"]
    assert all("is gone" in row[1] and row[2] == BOUND for row in found)
    scene.stop()
    scene.assert_verified()


def test_broken_glass_is_an_alarm_until_it_is_acknowledged() -> None:
    from agent.contract.journal import HostEvent
    from agent.contract.ledger import ACKNOWLEDGED, said_of_glass
    from enforcer.recording import ledger

    broken = changed(1, "approved", by="local:eve", reason="fire", note="break-glass")
    book = ledger.reconcile([(1, changed(1, "approved", by="local:ann")), (2, broken)])
    (alarm,) = book.glass
    assert (alarm.name, alarm.seq) == (GLASS, 2)
    assert said_of_glass(alarm) == (
        "local:eve let sql:delete public.t of local:crew at orders through alone, ticket aaaaaaaa: fire")
    assert not book.alarms
    book.see(3, HostEvent(events.HOST, 1, 1, ACKNOWLEDGED, "", {"by": "root"}))
    assert not book.glass
